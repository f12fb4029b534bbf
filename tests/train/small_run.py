"""The command line of a pretraining that takes seconds, for 100 Hz recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lamae_jax.main import main

SMALL = {
    "model.width": 16, "model.heads": 2, "model.encoder_depth": 1, "model.latent_depth": 1, "model.decoder_width": 16,
    "model.decoder_heads": 2, "model.decoder_depth": 1, "batch_size": 8, "steps": 6, "eval_every": 3, "log_every": 1,
    "checkpoint.every": 2, "signal.band": "none",
}  # fmt: skip


def command(store: Path | str, workdir: Path, **changes: object) -> list[str]:
    """A small pretraining on 100 Hz recordings; `changes` by field name, dots written as double underscores."""
    fields = SMALL | {"data.store": store} | {name.replace("__", "."): value for name, value in changes.items()}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config=configs/pretrain.py:nano,hz100", f"--workdir={workdir}", *flags]


def run(store: Path | str, workdir: Path, **changes: object) -> int:
    """Run it in this process; returns the exit code."""
    return main(command(store, workdir, **changes))


def parameters(workdir: Path) -> dict[str, np.ndarray]:
    """The exported parameters of a finished run."""
    from safetensors.numpy import load_file

    return load_file(workdir / "model" / "params.safetensors")
