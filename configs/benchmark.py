"""How fast this machine trains, loads, prepares and extracts features, and what share of its matrix-product peak that is.

    python -m lamae_jax.main --config=configs/benchmark.py              # two CPU cores: about eight minutes
    python -m lamae_jax.main --config=configs/benchmark.py:accelerator  # one GPU or TPU chip, bfloat16
    python -m lamae_jax.main --config=configs/benchmark.py:growth       # cost against sizes, up to 800,000 records
    python -m lamae_jax.main --config=configs/benchmark.py:evaluation   # the linear probe beside scikit-learn, intervals

Writes benchmark.json (growth: growth.json, evaluation: evaluation.json) and prints tables. Medians of measurements that
alternate with the peak's; shares of the peak compare between machines, ECG/s don't. The file is written after each row, and a
preset that fails, out of memory for one, is a line of its own: the others are measured.
"""

from ml_collections import ConfigDict

from lamae_jax.errors import UserError

VARIANTS = ("", "accelerator", "growth", "evaluation")


def get_config(variant: str = "") -> ConfigDict:
    """`accelerator`: sizes that fill one; `growth`: how cost grows with batch, leads, length, patch and records;
    `evaluation`: what probes and intervals cost."""
    if variant not in VARIANTS:
        raise UserError(
            f"--config=configs/benchmark.py:{variant}: no such variant; there are accelerator, growth and evaluation"
        )
    accelerator = variant == "accelerator"
    c = ConfigDict()
    c.task = "benchmark"
    c.variant = variant
    if variant == "evaluation":
        c.records, c.features, c.labels = 10_000, 96, 71  # to fit: half of PTB-XL, all its statements
        c.test_records, c.test_labels, c.resamples = 20_000, 228, 1000  # of MIMIC-IV-ECG's size
        return c
    c.rounds = 5  # measurements; the median is reported
    c.seconds = 3.0  # each at least
    if variant == "growth":
        c.records = "8000,80000,800000"  # sizes of the stores
        return c
    c.presets = "small,base" if accelerator else "nano,tiny,small"  # of model/presets.py
    c.batch_sizes = "256,128" if accelerator else "16,16,16"  # one for each
    c.dtype = "bfloat16" if accelerator else "float32"
    c.remat = "base,large"  # presets whose blocks are recomputed in the backward pass: those of configs/pretrain.py
    c.matmul = 8192 if accelerator else 1024  # size of the square matrix product that stands for the peak
    c.source = ""  # a folder of WFDB records to measure `prepare` on, beside wfdb.rdrecord; empty: simulated, 500 Hz
    c.profile = accelerator  # write a profile of two steps of each into the workdir, for TensorBoard or Perfetto
    return c
