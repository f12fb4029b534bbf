"""Fine-tune a model end to end on a label set, and the same model untrained beside it.

    python -m lamae_jax.main --config=configs/finetune.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.labels=ptbxl:super

Labels, splits, guards and what is written are those of configs/probe.py. AdamW with a rate for each layer, warm-up and cosine,
stochastic depth; the parameters that did best on the validation fold are scored on the test fold, once.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lamae_jax.command import load_config, no_variant

HERE = Path(__file__).parent


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    no_variant(__file__, variant)
    config = ConfigDict()
    config.task = "finetune"
    config.variant = ""
    config.model = ""  # a model folder (WORKDIR/model), or random:PRESET for an untrained model
    config.labels = ""  # icd10:chapter_ix, icd10:all, ptbxl:super (also sub, diag, form, rhythm, all), or csv:FILE
    config.readout = (
        ""  # empty: la_cls, of independent leads encoder_mean; or all, la_cls, la_mean, encoder_mean, encoder_concat
    )
    config.steps = 2000
    config.batch_size = 32
    config.learning_rate = 1e-3  # peak, of the head
    config.layer_decay = 0.75  # what a layer's rate is of the next one's
    config.weight_decay = 0.05
    config.warmup = 0.1  # share of the steps
    config.drop_path = 0.1  # chance that a record skips the last block; falls to 0 at the first
    config.eval_every = 200  # steps between two looks at validation
    config.resamples = 1000  # of each bootstrap
    config.seed = 0  # of the untrained model beside it, the bootstraps, the head and the order of records
    config.cache = "runs/features"  # features for the head that it starts under stay here, shared with configs/probe.py
    config.data = ConfigDict()
    config.data.store = ""  # the prepared store that holds the recordings
    config.data.limit = (
        0  # at most so many training records, in whole patients; smaller limits are subsets of larger ones
    )
    config.icd10 = load_config(str(HERE / "labels.py")).icd10  # rules of icd10: labels: configs/labels.py
    return config
