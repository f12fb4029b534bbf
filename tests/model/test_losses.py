"""Aligning leads: what each form measures, by the definition written out in loops."""

from __future__ import annotations

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.model.losses import aligned_pairs, mixture_alignment, pairwise_alignment

B, L, T, D = 2, 4, 5, 6
RNG = np.random.default_rng(0)
TOKENS = RNG.normal(size=(B, L, T, D)).astype(np.float32)
SHOWN = RNG.random((B, L, T)) < 0.6
SHOWN[0, :, 0] = False  # a time that no lead shows
SHOWN[0, :, 1] = [True, False, False, False]  # and one that a single lead shows


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens of two leads of one record at one time, wherever both are shown."""
    return [
        (TOKENS[b, i, t], TOKENS[b, j, t])
        for b in range(B)
        for t in range(T)
        for i, j in combinations(range(L), 2)
        if SHOWN[b, i, t] and SHOWN[b, j, t]
    ]


def test_pairwise_is_one_less_the_cosine_of_equal_times() -> None:
    by_hand = sum(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs())
    np.testing.assert_allclose(pairwise_alignment(TOKENS, SHOWN), by_hand, rtol=1e-5)
    assert float(aligned_pairs(jnp.asarray(SHOWN))) == len(pairs())


def test_leads_that_say_the_same_at_each_time_are_aligned_whatever_the_scale() -> None:
    same = TOKENS[:, :1] * np.array([1, 2, 0.5, 7], np.float32)[None, :, None, None]
    np.testing.assert_allclose(pairwise_alignment(same, np.ones((B, L, T), bool)), 0, atol=1e-4)


def test_the_same_tokens_in_another_order_of_time_are_not_aligned() -> None:
    """The trap: to compare visible tokens in the order in which masking left them."""
    shuffled = np.stack([np.roll(TOKENS[:, 0], lead, axis=1) for lead in range(L)], axis=1)
    assert pairwise_alignment(shuffled, np.ones((B, L, T), bool)) > 10


def mixture_by_hand(mean: np.ndarray, log_variance: np.ndarray, sample: np.ndarray) -> float:
    def log_normal(b: int, m: int, t: int, z: np.ndarray) -> float:
        variance = np.exp(log_variance[b, m, t])
        return float(-0.5 * np.sum((z - mean[b, m, t]) ** 2 / variance + log_variance[b, m, t]))

    total = 0.0
    for b in range(B):
        for t in range(T):
            there = [lead for lead in range(L) if SHOWN[b, lead, t]]
            for lead in there:
                z = sample[b, lead, t]
                mixture = np.log(np.mean([np.exp(log_normal(b, m, t, z)) for m in there]))
                total += log_normal(b, lead, t, z) - mixture
    return total / D


def posterior() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    log_variance = RNG.normal(size=TOKENS.shape).astype(np.float32) * 0.5
    noise = RNG.normal(size=TOKENS.shape).astype(np.float32)
    return TOKENS, log_variance, TOKENS + np.exp(0.5 * log_variance) * noise


def test_mixture_is_the_kl_to_the_mean_of_the_leads_posteriors_by_one_sample() -> None:
    mean, log_variance, sample = posterior()
    np.testing.assert_allclose(
        mixture_alignment(mean, log_variance, sample, SHOWN), mixture_by_hand(mean, log_variance, sample), rtol=1e-4
    )


def test_mixture_of_equal_posteriors_is_zero() -> None:
    mean, log_variance, sample = (np.broadcast_to(part[:, :1], part.shape) for part in posterior())
    np.testing.assert_allclose(mixture_alignment(mean, log_variance, sample, SHOWN), 0, atol=1e-4)


@pytest.mark.parametrize("form", ["pairwise", "mixture"])
def test_gradients_are_finite_where_tokens_are_zero_or_nothing_is_shown(form: str) -> None:
    zero = jnp.zeros((B, L, T, D))

    def loss(tokens: jax.Array) -> jax.Array:
        if form == "pairwise":
            return pairwise_alignment(tokens, SHOWN)
        return mixture_alignment(tokens, zero, tokens, SHOWN)

    for tokens in (TOKENS * SHOWN[..., None], zero):
        assert np.isfinite(jax.grad(loss)(jnp.asarray(tokens))).all()
