"""How many labels a model needs: probes and fine-tuning on nested subsets of the labelled records (the paper's Figure 2).

    python -m lamae_jax.main --config=configs/label_efficiency.py --config.models=runs/A/model,runs/B/model \\
        --config.data.store=DIR --config.labels=ptbxl:super

Each architecture is measured untrained, too. Stopped, the same command goes on. Writes results.csv (further columns: `model`,
`size`, `n_train`, `draw`), predictions.npz, summary.json, figures/ and report.html.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lamae_jax.command import load_config, no_variant
from lamae_jax.config import TUNING

HERE = Path(__file__).parent


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    no_variant(__file__, variant)
    config = ConfigDict()
    config.task = "label_efficiency"
    config.variant = ""
    config.models = ""  # model folders, comma-separated
    config.labels = ""  # as in configs/probe.py
    config.sizes = "100,300,1000,3000,0"  # labelled training records at most, in whole patients; 0: all
    config.draws = 3  # subsets of each size
    config.modes = "linear,finetune"  # of linear, attention, knn and finetune
    config.batch_size = 64  # records encoded at once
    config.resamples = 1000  # of each bootstrap
    config.seed = 0  # of the untrained models, the bootstraps, the heads and the order of labelled records
    config.cache = "runs/features"  # features stay here; empty: in the run's folder
    config.data = ConfigDict()
    config.data.store = ""  # the prepared store that holds the recordings
    finetune = load_config(str(HERE / "finetune.py"))
    config.icd10 = finetune.icd10  # rules of icd10: labels: configs/labels.py
    config.tuning = ConfigDict({name: finetune[name] for name in TUNING})  # of mode finetune: configs/finetune.py
    return config
