"""The device half of the signal contract: from the store's int16 counts to what the encoder sees.

The host half (units, leads, gaps, resampling, band, rounding) is signal/contract.py; nothing else touches a signal.
Scale and mean are taken over the whole record, so they see samples that a mask will hide.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lamae_jax.errors import UserError

MV_PER_COUNT = 1e-3
NORMALISATIONS = ("record", "lead", "fixed")


@dataclass(frozen=True)
class InputConfig:
    """How counts become the model's units. Raises UserError for an unknown normalisation.

    `record` (default): each lead minus its mean, all over one RMS of the record's available leads: amplitudes between leads stay.
    `lead`: each lead over its own RMS. `fixed`: millivolts as they are, over `scale_mv`.
    `clip_mv` clips samples first; `floor_mv` keeps a nearly flat record from being blown up.
    """

    normalisation: str = "record"
    clip_mv: float = 5.0
    floor_mv: float = 0.05
    scale_mv: float = 0.2

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            raise UserError(f"signal.normalisation={self.normalisation}: must be one of {', '.join(NORMALISATIONS)}")


def crop(counts: jax.Array, samples: int, start: jax.Array | None = None) -> jax.Array:
    """Cut `[B, L, S']` to `[B, L, S]`: from `start [B]` where given (training), else centred."""
    length = counts.shape[-1]
    if length == samples:
        return counts
    if start is None:
        first = (length - samples) // 2
        return counts[..., first : first + samples]
    cut = jax.vmap(lambda record, first: jax.lax.dynamic_slice_in_dim(record, first, samples, axis=-1))
    return cut(counts, start)


def random_start(key: jax.Array, records: int, length: int, samples: int) -> jax.Array | None:
    """Where each record's random crop begins, `[B]`; None when there is nothing to crop."""
    return None if length == samples else jax.random.randint(key, (records,), 0, length - samples + 1)


def scale_of(signal: jax.Array, available: jax.Array, config: InputConfig) -> jax.Array:
    """The divisor in mV, `[B, 1, 1]` or `[B, L, 1]`, of a centred `signal [B, L, S]` in mV."""
    power = jnp.mean(jnp.square(signal), axis=-1, keepdims=True)  # [B, L, 1]
    if config.normalisation == "record":
        shown = available[..., None].astype(power.dtype)
        power = jnp.sum(power * shown, axis=1, keepdims=True) / jnp.maximum(shown.sum(axis=1, keepdims=True), 1.0)
    if config.normalisation == "fixed":
        return jnp.full_like(power, config.scale_mv)
    return jnp.maximum(jnp.sqrt(power), config.floor_mv)


def model_input(counts: jax.Array, available: jax.Array, config: InputConfig) -> tuple[jax.Array, jax.Array]:
    """Counts `[B, L, S]` (int16, 1 uV each) to the model's units.

    Returns `x [B, L, S]` float32, zero in unavailable leads, and the scale in mV that undoes it (see `scale_of`).
    """
    signal = jnp.clip(counts.astype(jnp.float32) * MV_PER_COUNT, -config.clip_mv, config.clip_mv)
    if config.normalisation != "fixed":
        signal = signal - signal.mean(axis=-1, keepdims=True)
    signal = jnp.where(available[..., None], signal, 0.0)
    scale = scale_of(signal, available, config)
    return signal / scale, scale
