"""Embed every recording of a store, or of a folder of WFDB records: one vector each, with its record id.

    python -m lamae_jax.main --config=configs/embed.py --config.model=runs/NAME/model --config.data.store=DIR
    python -m lamae_jax.main --config=configs/embed.py --config.model=runs/NAME/model --config.source=DIR

Into the run's folder go embeddings.parquet (or .npz), rejected.csv (recordings that could not be used, with the reason) and
summary.json. Safe to kill: the same command goes on. All devices are used.
"""

from ml_collections import ConfigDict

from lamae_jax.command import no_variant
from lamae_jax.machine import cores


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    no_variant(__file__, variant)
    config = ConfigDict()
    config.task = "embed"
    config.variant = ""
    config.model = ""  # a model folder (WORKDIR/model)
    config.source = ""  # a folder of WFDB records, at any depth ...
    config.data = ConfigDict()
    config.data.store = ""  # ... or a prepared store of the model's signal contract
    config.readout = ""  # la_cls, la_mean, encoder_mean or encoder_concat; empty: what `embed` in Python calls cls
    config.format = "parquet"  # or npz
    config.batch_size = 64  # records encoded at once, shared by the devices: speed alone
    config.workers = cores()  # processes that read and filter the records of a source
    return config
