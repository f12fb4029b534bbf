"""The reconstruction loss (paper, eq. 2), and MMVM's alignment of leads, as sums and counts: devices and microbatches add up."""

from __future__ import annotations

import jax
import jax.numpy as jnp

TARGETS = ("raw", "normalised")
VARIANCE_FLOOR = 1e-6


def targets(patches: jax.Array, kind: str) -> jax.Array:
    """What D must predict for `patches [B, L, T, P]`: themselves, or each normalised by its own mean and variance.

    The floor is inside the root: a flat patch gives zeros, not NaN. Undoing it needs the hidden patch's mean and variance.
    """
    if kind == "raw":
        return patches
    mean = patches.mean(axis=-1, keepdims=True)
    return (patches - mean) / jnp.sqrt(patches.var(axis=-1, keepdims=True) + VARIANCE_FLOOR)


def undo_targets(predicted: jax.Array, patches: jax.Array, kind: str) -> jax.Array:
    """What D predicted, in the units of `patches [B, L, T, P]`; for `normalised` with their true mean and variance."""
    if kind == "raw":
        return predicted
    mean = patches.mean(axis=-1, keepdims=True)
    return predicted * jnp.sqrt(patches.var(axis=-1, keepdims=True) + VARIANCE_FLOOR) + mean


def counted_patches(hidden: jax.Array, available: jax.Array) -> jax.Array:
    """The patches that count, `[B, L, T]` float32: hidden ones of available leads."""
    return (hidden & available[..., None]).astype(jnp.float32)


def squared_error(predicted: jax.Array, wanted: jax.Array, counted: jax.Array) -> jax.Array:
    """Sum over counted patches of the patch's mean squared error; over `counted.sum()` it is the loss.

    With all leads available and none hidden that is eq. 2 over T P, alpha_E read as hidden / T.
    """
    return jnp.sum(jnp.mean(jnp.square(predicted - wanted), axis=-1) * counted)


def pairwise_alignment(tokens: jax.Array, shown: jax.Array) -> jax.Array:
    """How far the leads of a record are from saying the same at the same time: a sum over pairs of leads that show it.

    A pair adds 1 - cos of its tokens, half their squared distance at unit length. `tokens [B, L, T, D]`, `shown [B, L, T]`.
    Divided by `aligned_pairs(shown)` it is a mean, from 0 (the same direction) to at most 1 + 1 / (L - 1).
    """
    tokens = tokens.astype(jnp.float32)
    # The root's slope at 0 is infinite; under the maximum it is none.
    length = jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(tokens), axis=-1, keepdims=True), 1e-12))
    unit = jnp.where(shown[..., None], tokens / length, 0)
    together = jnp.sum(jnp.square(jnp.sum(unit, axis=1)), axis=-1)  # [B, T]: n + 2 sum over pairs of cos
    count = shown.sum(axis=1).astype(jnp.float32)
    return aligned_pairs(shown) - jnp.sum(together - count) / 2


def aligned_pairs(shown: jax.Array) -> jax.Array:
    """How many pairs of leads show the same time, over all records and times of `shown [B, L, T]`."""
    count = shown.sum(axis=1).astype(jnp.float32)
    return jnp.sum(count * (count - 1)) / 2


def mixture_alignment(mean: jax.Array, log_variance: jax.Array, sample: jax.Array, shown: jax.Array) -> jax.Array:
    """Each lead's posterior drawn to the mixture of all leads' at the same time (Sutter et al. 2024, MMVM-VAE).

    The sum over shown tokens of one-sample estimates of KL(q_l || 1/n sum_m q_m), a dimension. Arguments `[B, L, T, D]` and
    `shown [B, L, T]`; divided by `shown.sum()` it is a mean, at most log(L) / D in expectation.
    """
    mean, log_variance, sample = (part.astype(jnp.float32) for part in (mean, log_variance, sample))
    precision = jnp.exp(-log_variance)
    # log q_m(z_l), up to a constant, for all pairs of leads at a time: products, instead of an array of L L T D differences.
    distance = (
        jnp.einsum("bltd,bmtd->btlm", jnp.square(sample), precision)
        - 2 * jnp.einsum("bltd,bmtd->btlm", sample, mean * precision)
        + jnp.sum(jnp.square(mean) * precision + log_variance, axis=-1).swapaxes(1, 2)[:, :, None]
    )
    there = shown.swapaxes(1, 2)  # [B, T, L]
    density = jnp.where(there[:, :, None], -0.5 * distance, -jnp.inf)
    count = jnp.maximum(there.sum(axis=-1, keepdims=True), 1)
    # Where nothing is shown there is nothing to compare, and no infinity less infinity either.
    density = jnp.where(there.any(axis=-1)[..., None, None], density, 0)
    mixture = jax.nn.logsumexp(density, axis=-1) - jnp.log(count)
    own = -0.5 * jnp.diagonal(distance, axis1=2, axis2=3)
    return jnp.sum(jnp.where(there, own - mixture, 0)) / mean.shape[-1]
