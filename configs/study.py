"""Every system of the paper on one store: pretrained, probed and fine-tuned, in the tables of the paper (1, 3 and 4).

    python -m lamae_jax.main --config=configs/study.py                                                 # simulated ECGs
    python -m lamae_jax.main --config=configs/study.py:ptb_xl --config.pretrain.data.store=DIR
    python -m lamae_jax.main --config=configs/study.py:mimic --config.pretrain.data.store=DIR

LAMAE, LAMAE_E (the same model read at its encoder), LAMAE_E with alpha_LA = 0, MMVM with its beta chosen on validation, leads
that never meet (Ind_P), and the architectures untrained (Scratch, Ind_S). Stopped, the same command goes on. Into the run's
folder go results.csv (a line a system, seed, mode, readout and label), predictions.npz, summary.json, figures/ and report.html;
pretrain/ holds the models. Of several label sets, as in ptb_xl, each has a folder of its own for these; results.csv,
summary.json and report.html above them are those of all.

Fields of `config.pretrain` are those of configs/pretrain.py. More: docs/evaluating.md.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lamae_jax.command import load_config
from lamae_jax.config import TUNING
from lamae_jax.errors import UserError

HERE = Path(__file__).parent
VARIANTS = ("simulated", "ptb_xl", "mimic")


def get_config(variant: str = "") -> ConfigDict:
    """`simulated` (the default), `ptb_xl` or `mimic`."""
    variant = variant or "simulated"
    if variant not in VARIANTS:
        raise UserError(f"--config=configs/study.py:{variant}: no such variant; there are {', '.join(VARIANTS)}")
    recipe = {"simulated": "nano", "ptb_xl": "nano,hz100", "mimic": "small"}[variant]
    config = ConfigDict()
    config.task = "study"
    config.variant = variant
    config.pretrain = load_config(str(HERE / "pretrain.py"), recipe).unlock()
    # Pretrained systems, each with its number of pretrainings (1 where none is said), of consecutive seeds from pretrain.seed on
    config.systems = "lamae:3,lamae_e_b:3,mmvm:3,independent:3"
    config.betas = "0.01,0.1,1"  # of mmvm, of which validation chooses
    config.labels = "icd10:chapter_ix"  # label sets as in configs/probe.py, comma-separated
    config.modes = "linear,finetune"  # of linear, attention, knn and finetune
    config.batch_size = 64  # records encoded at once
    config.resamples = 1000  # of each bootstrap
    config.seed = 0  # of the bootstraps, the heads and the order of labelled records
    finetune = load_config(str(HERE / "finetune.py"))
    config.icd10 = finetune.icd10  # rules of icd10: labels: configs/labels.py
    config.tuning = ConfigDict({name: finetune[name] for name in TUNING})  # of mode finetune: configs/finetune.py
    if variant == "simulated":
        config.systems, config.betas = "lamae,lamae_e_b,mmvm,independent", "0.1"
        config.pretrain.steps, config.pretrain.data.simulated_patients = 600, 1500
        config.icd10.min_count = 50
        # A short training needs a higher rate: at 1e-3 LAMAE's best step of a hundred was the one before the first
        config.tuning.steps, config.tuning.batch_size, config.tuning.eval_every = 200, 16, 100
        config.tuning.learning_rate = 3e-3
    elif variant == "ptb_xl":
        config.systems = "lamae:3,lamae_e_b,mmvm,independent:3"
        config.labels = "ptbxl:super,ptbxl:sub,ptbxl:form,ptbxl:rhythm,ptbxl:all"
        config.pretrain.steps = 3_000  # seven minutes each on two idle CPU cores
    else:
        # Two million records: about five times through the 400,000 or so of the training folds that have a diagnosis, a twelfth
        # of what pretraining sees. The paper gives neither steps nor batch.
        config.tuning.steps, config.tuning.batch_size, config.tuning.eval_every = 16_000, 128, 1_600
    return config
