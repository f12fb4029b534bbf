"""Simulated recordings: written in MIMIC-IV-ECG's layout, then opened like the real thing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from lamae_jax.data.sources import Source
from lamae_jax.data.sources.mimic_iv_ecg import open_mimic_iv_ecg
from lamae_jax.signal.simulated import write_simulated


def open_simulated(folder: Path, patients: int, seed: int, workers: int) -> Source:
    """Simulate `patients` patients into `folder`, unless just they are there already, and list it.

    Raises UserError when the folder holds anything else.
    """
    write_simulated(folder, patients, seed, workers)
    return dataclasses.replace(open_mimic_iv_ecg(folder), name="simulated")
