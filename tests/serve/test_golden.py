"""A small model is kept in tests/serve/golden with its embedding of a made recording: every later version, on every machine,
must open the folder and come to the same five digits. If this fails, a change has moved what models see or give: undo it,
or give the model folder a new format number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import lamae_jax

GOLDEN = Path(__file__).resolve().parent / "golden"
LEADS = ("v6", "V5", "V4", "V3", "V2", "V1", "aVF", "AVL", "avr", "iii", "II", "I")


def recording() -> np.ndarray:
    """[12, 5000] in uV at 500 Hz: beats at 72 a minute with P, QRS and T, another size in each lead, a drift and a short gap."""
    t = np.arange(5000) / 500
    phase = (t * 1.2) % 1
    waves = ((0.16, 0.025, 120), (0.28, 0.008, -90), (0.30, 0.010, 1100), (0.325, 0.008, -250), (0.55, 0.05, 300))
    beat = sum(size * np.exp(-(((phase - at) / width) ** 2)) for at, width, size in waves)
    gains = np.cos(np.arange(12) * 0.9)[:, None]
    signal = gains * beat[None] + 80 * np.sin(0.8 * t + np.arange(12)[:, None])
    signal[4, 700:760] = np.nan
    return signal


def test_the_kept_model_gives_the_kept_embedding() -> None:
    made = lamae_jax.load(GOLDEN).embed(recording(), fs=500, leads=LEADS, units="uV")
    kept = json.loads((GOLDEN / "embedding.json").read_text())
    assert made.warnings == (("gap_filled",),)
    for name, values in (
        ("cls", made.cls[0]),
        ("leads", made.leads[0].mean(0)),
        ("tokens", made.tokens[0].mean((0, 1))),
    ):
        np.testing.assert_allclose(values, kept[name], rtol=0, atol=1e-5, err_msg=name)


def test_the_folder_is_small() -> None:
    assert sum(file.stat().st_size for file in GOLDEN.iterdir()) <= 200_000
