"""Simulated recordings: written in MIMIC-IV-ECG's layout, then opened like the real thing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from lamae_jax.data.sources import Source
from lamae_jax.data.sources.mimic_iv_ecg import open_mimic_iv_ecg
from lamae_jax.errors import UserError
from lamae_jax.files import write_json
from lamae_jax.signal.simulated import write_simulated

MARK = (
    "simulated.json"  # written first and last, so that an interrupted folder is finished and a foreign one left alone
)


def open_simulated(folder: Path, patients: int, seed: int, workers: int) -> Source:
    """Simulate `patients` patients into `folder`, unless they are there already, and list it.

    Raises UserError when the folder holds other recordings.
    """
    wanted = {"patients": patients, "seed": seed}
    mark = folder / MARK
    if mark.exists():
        found = json.loads(mark.read_text())
        for name, value in wanted.items():
            if found[name] != value:
                there = f"was simulated with {name} {found[name]}, not {value}"
                raise UserError(f"source {str(folder)!r} {there}; give another folder")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"source {str(folder)!r} holds files that were not simulated; give an empty or new folder")
    if not mark.exists() or not found["complete"]:
        write_json(mark, wanted | {"complete": False})
        write_simulated(folder, patients, seed, workers)
        write_json(mark, wanted | {"complete": True})
    return dataclasses.replace(open_mimic_iv_ecg(folder), name="simulated")
