"""The three yardsticks, checked against what they must say by hand, and the interval of the error."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.signal.leads import LIMB_PROJECTION, STANDARD_LEADS
from lamae_jax.train.validation import interpolate, interval_by_patient, limb_laws, means, yardsticks


def test_interpolation_draws_lines_between_shown_samples_and_holds_the_edges() -> None:
    x = jnp.array([[9.0, 1, 9, 9, 4, 9]])
    shown = jnp.array([[False, True, False, False, True, False]])
    np.testing.assert_allclose(interpolate(x, shown), [[1, 1, 2, 3, 4, 4]], atol=1e-6)


def test_interpolation_of_a_lead_that_shows_nothing_is_its_mean() -> None:
    x = jnp.array([[1.0, 2, 3, 6]])
    np.testing.assert_allclose(interpolate(x, jnp.zeros((1, 4), bool)), [[3, 3, 3, 3]])


def einthoven(rng: np.random.Generator, records: int, samples: int) -> np.ndarray:
    """[B, 12, S] mV whose limb leads obey the laws."""
    x = rng.normal(size=(records, 12, samples))
    x -= x.mean(axis=-1, keepdims=True)
    x[:, :6] = np.einsum("li,bis->bls", LIMB_PROJECTION, x[:, :2])
    return x


def test_limb_laws_find_every_limb_lead_from_any_two() -> None:
    x = einthoven(np.random.default_rng(0), 15, 10)[:, :6].reshape(15, 6, 1, 10)
    visible = np.zeros((15, 6, 1), bool)
    pairs = [(a, b) for a in range(6) for b in range(a)]
    for record, pair in enumerate(pairs):
        visible[record, list(pair)] = True
    found, enough = limb_laws(jnp.asarray(x), jnp.asarray(visible))
    assert enough.all()
    np.testing.assert_allclose(found, x, atol=1e-4)
    _, enough = limb_laws(jnp.asarray(x), jnp.asarray(visible).at[:, :, :].set(False).at[:, 0].set(True))
    assert not enough.any()


def test_yardsticks_never_see_hidden_samples_except_in_the_mean() -> None:
    """Law and line are computed from visible patches alone; only record_mean may know the whole lead, as defined."""
    rng = np.random.default_rng(1)
    x = jnp.asarray(einthoven(rng, 2, 100), jnp.float32)
    visible = jnp.asarray(rng.random((2, 12, 10)) < 0.4).at[:, :, 0].set(True)
    hidden = np.repeat(~np.asarray(visible), 10, axis=-1)
    other = jnp.where(hidden, 50.0, x)
    scale = jnp.full((2, 1, 1), 0.3)
    before, after = (yardsticks(part, scale, visible, STANDARD_LEADS) for part in (x, other))
    for name in ("interpolation", "einthoven"):
        np.testing.assert_allclose(before[name], after[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(before["record_mean"], 0, atol=1e-5)
    two = np.asarray(visible)[:, :6].sum(axis=1) >= 2  # [B, T]
    error = np.abs(np.asarray(before["einthoven"])[:, :6] - np.asarray(x).reshape(2, 12, 10, 10)[:, :6]).max(
        axis=(1, 3)
    )
    assert error[two].max() < 1e-4
    assert np.array_equal(before["einthoven"][:, 6:], before["interpolation"][:, 6:])


def test_laws_hold_when_each_lead_has_its_own_scale() -> None:
    x = einthoven(np.random.default_rng(2), 3, 50)
    scale = x.std(axis=-1, keepdims=True)
    visible = jnp.ones((3, 12, 5), bool).at[:, 2].set(False)
    guess = yardsticks(jnp.asarray(x / scale, jnp.float32), jnp.asarray(scale, jnp.float32), visible, STANDARD_LEADS)
    np.testing.assert_allclose(np.asarray(guess["einthoven"])[:, 2].reshape(3, 50), (x / scale)[:, 2], atol=1e-4)


def test_the_interval_is_of_patients_not_of_records() -> None:
    rng = np.random.default_rng(3)
    level = np.repeat(rng.normal(1.0, 0.2, 200), 5)  # a patient's five records are much alike
    patients, patches = np.repeat(np.arange(200), 5).astype(str), np.full(1000, 40.0)
    low, high = interval_by_patient(level * patches, patches, patients)
    half = 1.96 * 0.2 / np.sqrt(200)
    assert low < level.mean() < high and (high - low) / 2 == pytest.approx(half, rel=0.15)
    apart = interval_by_patient(level * patches, patches, np.arange(1000).astype(str))
    assert (apart[1] - apart[0]) / (high - low) == pytest.approx(1 / np.sqrt(5), rel=0.15)


def test_a_record_counts_by_its_patches() -> None:
    errors, patches = np.array([4.0, 0.0]), np.array([4.0, 12.0])
    assert means({"val_mse": errors, "patches": patches}) == {"val_mse": 0.25}
