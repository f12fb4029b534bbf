"""How fast this machine trains, and what share of its own matrix-product peak that is.

    python -m lamae_jax.main --config=configs/benchmark.py

Writes benchmark.json and prints a table. Two CPU cores: about four minutes. Medians of measurements that alternate with the
peak's; shares of the peak compare between machines, ECG/s don't.
"""

from ml_collections import ConfigDict

from lamae_jax.errors import UserError


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    if variant:
        raise UserError(f"--config=configs/benchmark.py:{variant}: has no variants; leave {variant!r} out")
    c = ConfigDict()
    c.task = "benchmark"
    c.variant = ""
    c.presets = "nano,small"  # of model/presets.py
    c.batch_sizes = "16,16"  # one for each
    c.dtype = "float32"  # or bfloat16
    c.rounds = 5  # measurements; the median is reported
    c.seconds = 3.0  # each at least
    c.matmul = 1024  # size of the square matrix product that stands for the peak; 8192 on an accelerator
    c.source = ""  # a folder of WFDB records: measure reading and conditioning too, beside wfdb.rdrecord
    return c
