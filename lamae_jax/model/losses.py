"""The reconstruction loss (paper, eq. 2) as sums and counts, so that devices and microbatches add up exactly."""

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
