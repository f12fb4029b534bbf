"""Probabilities of named labels, and ECGs completed from what the model is shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from small_model import CONFIG, save_small
from test_embed import LEADS, ecg

import lamae_jax
from lamae_jax.artifact.head import Head
from lamae_jax.errors import UserError
from lamae_jax.model.inputs import InputConfig
from lamae_jax.serve.model import EcgModel


def head(readout: str, features: int, fill: float = 0) -> Head:
    rng = np.random.default_rng(0)
    mean, scale = (rng.normal(size=features).astype(np.float32) for _ in range(2))
    kernel, bias = rng.normal(size=(features, 3)).astype(np.float32), np.array([-1, 0, 1], np.float32)
    return Head(readout, ("AFIB", "MI", "NORM"), kernel, bias, mean, scale, np.full(features, fill, np.float32))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EcgModel:
    trained = {"config": {"target": "raw", "mask": {"hidden_leads": 2}}}
    return lamae_jax.load(save_small(tmp_path_factory.mktemp("model"), provenance=trained, head=head("la_cls", 16)))


def test_probabilities_are_the_heads_on_the_readout(model: EcgModel) -> None:
    x = np.stack([ecg(1), ecg(2)])
    made, features = model.predict(x, 100, LEADS), model.embed(x, 100, LEADS).cls
    assert made.labels == ("AFIB", "MI", "NORM") and made.warnings == ((), ()) and model.head is not None
    log_odds = (features - model.head.mean) * model.head.scale @ model.head.kernel + model.head.bias
    np.testing.assert_allclose(made.probabilities, 1 / (1 + np.exp(-log_odds)), atol=1e-5)


def test_a_lead_that_is_missing_is_filled_as_the_head_says(model: EcgModel) -> None:
    probabilities = []
    for fill in (0.0, 3.0):
        concat = dataclasses.replace(model, head=head("encoder_concat", 12 * 16, fill))
        probabilities.append([concat.predict(ecg()[:n], 100, LEADS[:n]).probabilities for n in (12, 11)])
    (whole, fewer), (whole_3, fewer_3) = probabilities
    np.testing.assert_array_equal(whole, whole_3)
    assert np.abs(fewer - fewer_3).max() > 1e-3


def test_a_model_without_head_says_so(model: EcgModel) -> None:
    with pytest.raises(UserError, match="has no head"):
        dataclasses.replace(model, head=None).predict(ecg(), 100, LEADS)


def test_a_reconstruction_has_every_lead_in_mv_and_says_what_was_hidden(model: EcgModel) -> None:
    made = model.reconstruct(ecg(), 100, LEADS)
    assert made.signal.shape == made.observed.shape == made.hidden.shape == (1, 12, 1000)
    assert (made.leads, made.fs) == (tuple(LEADS), 100) and np.isfinite(made.signal).all()
    assert (
        made.hidden.reshape(12, 10, 100).all(-1).sum() == 12 * 8 == made.hidden.sum() // 100
    )  # whole patches, .75 of ten
    np.testing.assert_allclose(made.observed.mean(-1), 0, atol=1e-6)
    again = model.reconstruct([ecg(), ecg(2)], 100, LEADS)
    np.testing.assert_array_equal(again.hidden[0], made.hidden[0])
    assert (again.hidden[1] != made.hidden[0]).any()


@pytest.mark.parametrize("normalisation", ["record", "lead"])
def test_nothing_of_a_hidden_lead_gets_through(normalisation: str, model: EcgModel) -> None:
    other = ecg()
    other[9] *= -7
    model = dataclasses.replace(model, inputs=InputConfig(normalisation))
    made, changed = (model.reconstruct(x, 100, LEADS, hide=["v4"]) for x in (ecg(), other))
    np.testing.assert_array_equal(made.signal, changed.signal)
    assert made.hidden[0, 9].all() and not np.delete(made.hidden[0], 9, axis=0).any()


def test_leads_that_were_never_recorded_are_completed_too(model: EcgModel) -> None:
    mixed = model.reconstruct([ecg()[:3], ecg()], 100, [LEADS[:3], LEADS], hide=[])
    assert np.isnan(mixed.observed[0, 3:]).all() and np.isfinite(mixed.signal).all()
    np.testing.assert_array_equal(mixed.hidden.any(-1).sum(-1), [9, 0])
    alone = model.reconstruct(ecg(), 100, LEADS, hide=[])
    np.testing.assert_allclose(mixed.signal[1], alone.signal[0], atol=1e-5)


def test_a_model_that_never_learned_to_complete_whole_leads_is_said_to(model: EcgModel) -> None:
    other = dataclasses.replace(model, provenance={"config": {"mask": {"hidden_leads": 0}}})
    assert "lead_hidden" in other.reconstruct(ecg(), 100, LEADS, hide=["V4"]).warnings[0][0]
    assert (
        other.reconstruct(ecg(), 100, LEADS).warnings
        == model.reconstruct(ecg(), 100, LEADS, hide=["V4"]).warnings
        == ((),)
    )


@pytest.mark.parametrize(
    "hide, message",
    [
        (["V7"], "hide=V7: the model has I II"),
        (LEADS, "leaves no lead of recording 0"),
        (5, "hide=5: must be a list of lead names"),
        ([9], r"hide=\[9\]: must be a list of lead names"),
    ],
)
def test_what_cannot_be_hidden(hide: Any, message: str, model: EcgModel) -> None:
    with pytest.raises(UserError, match=message):
        model.reconstruct(ecg(), 100, LEADS, hide=hide)


def test_patches_without_amplitude_are_not_drawn_as_an_ecg(model: EcgModel) -> None:
    other = dataclasses.replace(model, provenance={"config": {"target": "normalised"}})
    with pytest.raises(UserError, match="target=normalised"):
        other.reconstruct(ecg(), 100, LEADS)


def test_the_functions_underneath_are_pure_and_differentiable(model: EcgModel, tmp_path: Path) -> None:
    from lamae_jax.serve.functions import embed

    x, available = np.random.default_rng(0).normal(size=(2, 12, 1000)).astype(np.float32), np.ones((2, 12), bool)
    gradient = jax.jit(jax.grad(lambda x: embed(CONFIG, model.params, x, available)["cls"].sum()))(x)
    assert gradient.shape == x.shape and np.abs(gradient).max() > 0
