"""From counts to the model's units."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.errors import UserError
from lamae_jax.model.inputs import InputConfig, crop, model_input, random_start

rng = np.random.default_rng(0)
COUNTS = jnp.asarray(rng.normal(0, 100, (3, 12, 100)) * np.arange(1, 13)[:, None], jnp.int16)
ALL = jnp.ones((3, 12), bool)


def test_record_keeps_amplitudes_between_leads_and_has_rms_one() -> None:
    x, _ = model_input(COUNTS, ALL, InputConfig())
    np.testing.assert_allclose(np.square(x).mean(axis=(1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(x).mean(axis=-1), 0, atol=1e-5)
    before, after = np.asarray(COUNTS, float).std(axis=-1), np.asarray(x).std(axis=-1)
    np.testing.assert_allclose(after[0] / after[0, 0], before[0] / before[0, 0], rtol=1e-4)


def test_lead_gives_every_lead_rms_one_and_fixed_only_scales() -> None:
    x, _ = model_input(COUNTS, ALL, InputConfig("lead"))
    np.testing.assert_allclose(np.square(x).mean(axis=-1), 1, rtol=1e-5)
    x, scale = model_input(COUNTS, ALL, InputConfig("fixed"))
    np.testing.assert_allclose(x * scale, np.asarray(COUNTS) * 1e-3, atol=1e-6)


def test_unavailable_leads_are_zero_and_don_t_count() -> None:
    available = ALL.at[:, 11].set(False)
    x, _ = model_input(COUNTS, available, InputConfig())
    louder, _ = model_input(COUNTS.at[:, 11].multiply(3), available, InputConfig())
    assert not np.asarray(x[:, 11]).any()
    np.testing.assert_array_equal(x, louder)
    np.testing.assert_allclose(np.square(x[:, :11]).mean(axis=(1, 2)), 1, rtol=1e-5)


def test_clips_at_5_mv() -> None:
    spike = jnp.zeros((1, 1, 100), jnp.int16).at[0, 0, 50].set(32767)
    x, _ = model_input(spike, jnp.ones((1, 1), bool), InputConfig("fixed"))
    assert float(x.max()) == pytest.approx(5.0 / 0.2)


def test_a_silent_record_gives_zeros_not_nan() -> None:
    x, scale = model_input(jnp.zeros((1, 12, 100), jnp.int16), ALL[:1], InputConfig())
    assert not np.asarray(x).any()
    assert float(scale.squeeze()) == pytest.approx(0.05)


def test_crops_in_the_middle_or_where_told() -> None:
    counts = jnp.arange(20, dtype=jnp.int16).reshape(2, 1, 10)
    assert crop(counts, 4).tolist() == [[[3, 4, 5, 6]], [[13, 14, 15, 16]]]
    assert crop(counts, 4, jnp.array([0, 6])).tolist() == [[[0, 1, 2, 3]], [[16, 17, 18, 19]]]
    starts = random_start(jax.random.key(0), 1000, 10, 4)
    assert set(np.asarray(starts).tolist()) == set(range(7))
    assert random_start(jax.random.key(0), 2, 10, 10) is None


def test_unknown_normalisation_is_refused() -> None:
    with pytest.raises(UserError, match="signal.normalisation=zscore: must be one of record, lead, fixed"):
        InputConfig("zscore")
