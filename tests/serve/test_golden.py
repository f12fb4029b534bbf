"""Two small models are kept with what they gave for a made recording: every later version, on every machine, must open the
folders and come to the same five digits. golden/ is what the first model folders look like (both positions, no head),
golden_rotary/ has the positions that became the default, and a head; its parameters were drawn, not trained.

If this fails, a change has moved what models see or give: undo it, or give the model folder a new format number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_model import random_params

import lamae_jax
from lamae_jax.artifact.folder import flatten, save_model, unflatten
from lamae_jax.artifact.head import Head
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.presets import preset
from lamae_jax.serve.model import EcgModel, Embedding
from lamae_jax.signal.contract import SignalContract

GOLDEN = Path(__file__).resolve().parent / "golden"
ROTARY = GOLDEN.parent / "golden_rotary"
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


def numbers_of(made: Embedding) -> dict[str, np.ndarray]:
    """What is kept of an embedding: lead by lead and at single tokens, so that no two leads or times can change places."""
    return {"cls": made.cls[0], "leads": made.leads[0], "tokens": made.tokens[0, :, ::7, :4]}


def hold(found: Mapping[str, np.ndarray], kept: Mapping[str, Any]) -> None:
    """Five digits of each array."""
    for name, values in found.items():
        np.testing.assert_allclose(values, kept[name], rtol=0, atol=1e-5, err_msg=name)


def test_the_kept_model_gives_the_kept_embedding() -> None:
    made = lamae_jax.load(GOLDEN).embed(recording(), fs=500, leads=LEADS, units="uV")
    kept = json.loads((GOLDEN / "embedding.json").read_text())
    assert made.warnings == (("gap_filled",),)
    hold({"cls": made.cls[0], "leads": made.leads[0].mean(0), "tokens": made.tokens[0].mean((0, 1))}, kept)
    hold(numbers_of(made), kept["each"])


def test_a_kept_model_with_rotary_positions_and_a_head_gives_what_it_gave() -> None:
    model = lamae_jax.load(ROTARY)
    assert model.config.positions == "rotary" and model.head is not None and model.head.readout == "encoder_concat"
    kept = json.loads((ROTARY / "given.json").read_text())
    hold(given(model), kept)
    assert np.ptp(kept["probabilities"]) > 0.1 and np.ptp(kept["probabilities_without_V4"]) > 0.1


def test_leads_that_change_places_would_be_seen() -> None:
    kept = json.loads((ROTARY / "given.json").read_text())
    for numbers in (kept, json.loads((GOLDEN / "embedding.json").read_text())["each"]):
        for name in ("leads", "tokens"):
            swapped = np.array(numbers[name])[[1, 0, *range(2, 12)]]
            with pytest.raises(AssertionError, match=name):
                hold({name: swapped}, numbers)


def test_the_folders_are_small() -> None:
    assert sum(file.stat().st_size for folder in (GOLDEN, ROTARY) for file in folder.iterdir()) <= 200_000


def given(model: EcgModel) -> dict[str, np.ndarray]:
    """What the rotary model gives for the recording; V4, once left out and once hidden, is a lead that it has to do without."""
    signal = {"ecg": recording(), "fs": 500, "leads": LEADS, "units": "uV"}
    fewer = signal | {
        "ecg": np.delete(recording(), LEADS.index("V4"), axis=0),
        "leads": [x for x in LEADS if x != "V4"],
    }
    return {
        **numbers_of(model.embed(**signal)),
        "probabilities": model.predict(**signal).probabilities[0],
        "probabilities_without_V4": model.predict(**fewer).probabilities[0],
        "reconstruction": model.reconstruct(**signal).signal[0, :, ::47],
        "V4_drawn": model.reconstruct(**signal, hide=["V4"]).signal[0, 9, ::17],
    }


def make(folder: Path) -> None:
    """How golden_rotary was made, once, in the folder tests/ with tests/ in Python's path:

    python -c "from serve.test_golden import *; make(ROTARY)"
    """
    config = preset("nano", width=12, heads=3, encoder_depth=1, latent_depth=2, decoder_width=8, decoder_heads=2,
                    samples=1000, patch=20)  # fmt: skip
    rng = np.random.default_rng(1)
    vectors = {name: rng.normal(0, 0.5, 12 * 12).astype(np.float32) for name in ("mean", "scale", "fill")}
    kernel, bias = (rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((12 * 12, 3), 3))
    head = Head("encoder_concat", ("NORM", "MI", "AFIB"), kernel, bias, **vectors)
    provenance = {"version": lamae_jax.__version__, "config": {"target": "raw", "mask": {"hidden_leads": 1}}}
    # Norms about 1, as trained models have them: with small ones all attention is even and no position matters.
    params = {name: array + name.endswith("scale") for name, array in flatten(random_params(config, seed=1)).items()}
    contract = SignalContract(fs=100)
    save_model(folder, unflatten(params), config, InputConfig(), contract, provenance, None, head)
    numbers = {
        name: np.round(values.astype(float), 7).tolist() for name, values in given(lamae_jax.load(folder)).items()
    }
    (folder / "given.json").write_text(json.dumps(numbers) + "\n")
