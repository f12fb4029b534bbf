"""How many recordings pretraining needs: LAMAE pretrained on nested subsets of them, then probed with all labels.

    python -m lamae_jax.main --config=configs/scaling.py                                               # simulated ECGs
    python -m lamae_jax.main --config=configs/scaling.py:nano,hz100 --config.pretrain.data.store=DIR --config.labels=ptbxl:super

Variants are those of configs/pretrain.py, as are the fields of `config.pretrain`. Every pretraining takes the same number of
steps; sizes that come to the same recordings are one. Stopped, the same command goes on. Writes results.csv (a further column:
`n_pretrain`), predictions.npz, summary.json, figures/ and report.html.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lamae_jax.command import load_config
from lamae_jax.config import TUNING

HERE = Path(__file__).parent


def get_config(variant: str = "") -> ConfigDict:
    """A variant of configs/pretrain.py; by default nano on simulated ECGs, in minutes."""
    config = ConfigDict()
    config.task = "scaling"
    config.variant = variant
    config.pretrain = load_config(str(HERE / "pretrain.py"), variant).unlock()
    config.sizes = "300,1000,3000,0"  # recordings pretrained on at most, in whole patients; 0: all
    config.seeds = 3  # pretrainings of each size, of consecutive seeds from pretrain.seed on
    config.labels = "icd10:chapter_ix"  # as in configs/probe.py
    config.modes = "linear"  # of linear, attention, knn and finetune
    config.batch_size = 64  # records encoded at once
    config.resamples = 1000  # of each bootstrap
    config.seed = 0  # of the bootstraps, the heads and the order of labelled records
    finetune = load_config(str(HERE / "finetune.py"))
    config.icd10 = finetune.icd10  # rules of icd10: labels: configs/labels.py
    config.tuning = ConfigDict({name: finetune[name] for name in TUNING})  # of mode finetune: configs/finetune.py
    if not variant:
        config.sizes, config.seeds, config.resamples = "100,300,0", 1, 200
        config.pretrain.steps, config.pretrain.data.simulated_patients = 600, 600
        config.icd10.min_count = 20
        config.tuning.steps, config.tuning.eval_every = 200, 50
    return config
