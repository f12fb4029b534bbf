"""The host half of the signal contract once more, as a JAX program, so that an exported model carries it along.

`signal.contract.condition` is what counts; a test holds this to its very counts. Everything here is double precision, since the
high-pass remembers for seconds; the result is int16. Not here, because it is not numerical: names of leads and units. B records,
L leads in the contract's order, N samples at the rate of the recording, S samples of the contract.
"""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.errors import UserError
from lamae_jax.signal import filters
from lamae_jax.signal.contract import HIGHEST_FS, LARGEST_COUNT, LOWEST_FS, SignalContract
from lamae_jax.signal.quality import LONGEST_GAP

_GRID, _LEAST_MOVEMENT = 1024.0, 1.0  # as in signal/contract.py and signal/quality.py


def samples_at(contract: SignalContract, fs: float) -> int:
    """N, the samples of a recording of the contract's length at `fs` Hz. Raises UserError for a rate that is not taken."""
    if not LOWEST_FS <= fs <= HIGHEST_FS:
        raise UserError(f"fs={fs:g}: {LOWEST_FS:g} to {HIGHEST_FS:g} Hz are accepted")
    n = round(fs * contract.seconds)
    if abs(n - fs * contract.seconds) > 1e-6:
        raise UserError(f"fs={fs:g}: {contract.seconds:g} s are no whole number of samples")
    return n


def conditioned(signal: jax.Array, fs: float, contract: SignalContract) -> tuple[jax.Array, jax.Array]:
    """`signal [B, L, N]` float32 in mV at `fs`, NaN where there is none -> counts int16 `[B, L, S]`, available `[B, L]`.

    A lead that is missing altogether is a row of NaN. Double precision is switched on inside, whatever jax is set to.
    """
    records, leads, n = signal.shape
    with jax.enable_x64(True):
        x = jnp.rint(signal.astype(jnp.float64) * (1e3 * _GRID)) * (1 / _GRID)
        x, available = _gaps_filled(x, fs)
        available &= x.max(axis=-1) - x.min(axis=-1) >= _LEAST_MOVEMENT
        x = x.reshape(records * leads, n)
        ratio = Fraction(contract.fs / fs).limit_denominator(1000)
        if ratio != 1:
            x = _resampled(x, ratio.numerator, ratio.denominator)
        if contract.band == "highpass_0.5":
            x = _highpassed(x, contract.fs)
        x = x[:, (x.shape[1] - contract.samples) // 2 :][:, : contract.samples]
        x = jnp.clip(jnp.rint(x), -LARGEST_COUNT, LARGEST_COUNT).reshape(records, leads, contract.samples)
        return jnp.where(available[..., None], x, 0.0).astype(jnp.int16), available


def _gaps_filled(x: jax.Array, fs: float) -> tuple[jax.Array, jax.Array]:
    """Short gaps of `x [B, L, N]` bridged, edges extended; False, and zeros, for leads with longer ones."""
    n = x.shape[-1]
    at = jnp.arange(n, dtype=jnp.int32)
    valid = jnp.isfinite(x)
    last = jax.lax.cummax(jnp.where(valid, at[None, None], -1), axis=2)
    following = jax.lax.cummin(jnp.where(valid, at[None, None], n), axis=2, reverse=True)
    usable = jnp.all(valid | (following - last - 1 <= LONGEST_GAP * fs + 1e-6), axis=-1)
    before = jnp.take_along_axis(x, jnp.clip(last, 0, n - 1), axis=-1)
    after = jnp.take_along_axis(x, jnp.clip(following, 0, n - 1), axis=-1)
    before, after = jnp.where(last < 0, after, before), jnp.where(following >= n, before, after)
    way = (at[None, None] - last) / jnp.maximum(following - last, 1)
    filled = jnp.where(valid, x, before + (after - before) * way.astype(x.dtype))
    return jnp.where(usable[..., None], filled, 0.0), usable


def _odd_reflection(x: jax.Array, before: int, after: int, total: int) -> jax.Array:
    """As signal.filters: `x [R, N]` turned about its ends, zeros behind, `[R, total]`."""
    left = 2 * x[:, :1] - x[:, before:0:-1]
    right = 2 * x[:, -1:] - x[:, -2 : -2 - after : -1]
    rest = total - before - x.shape[1] - after
    return jnp.pad(jnp.concatenate([left, x, right], axis=1), ((0, 0), (0, rest)))


def _times(x: jax.Array, matrix: np.ndarray | jax.Array) -> jax.Array:
    return jnp.matmul(x, jnp.asarray(matrix, jnp.float64), precision=jax.lax.Precision.HIGHEST)


def _resampled(x: jax.Array, up: int, down: int) -> jax.Array:
    """signal.filters.resample of `x [R, N]`."""
    matrix, hop, reach = filters.resampling_matrix(up, down)
    rows, n = x.shape
    samples = -(-n * up // down)
    blocks = -(-samples // matrix.shape[1])
    further = -(-2 * reach // hop)
    wide = _odd_reflection(x, reach, reach, (blocks + further) * hop).reshape(rows, blocks + further, hop)
    out = _times(wide[:, :blocks], matrix[:hop])
    for k in range(1, further + 1):
        part = matrix[k * hop : (k + 1) * hop]
        out = out + _times(wide[:, k : k + blocks, : len(part)], part)
    return out.reshape(rows, blocks * matrix.shape[1])[:, :samples]


def _highpassed(x: jax.Array, fs: float) -> jax.Array:
    """signal.filters.highpass of `x [R, N]`; its complex state is a pair of reals here, which every device has."""
    pole, direct, entering, leaving = filters.highpass_matrices(fs)
    rows, n = x.shape
    block = len(direct)
    padding = min(round(filters.HIGHPASS_PADDING * fs), n - 1)
    end = n + 2 * padding
    blocks = -(-end // block)
    wide = _odd_reflection(x, padding, padding, blocks * block)

    def filtered(x: jax.Array) -> jax.Array:
        """Once, in the direction of time, over `x [R, blocks * block]`."""
        pieces = x.reshape(rows, blocks, block)
        states = _states(jnp.moveaxis(_times(pieces, entering), 1, 0), pole, block, x[:, 0])
        return (_times(pieces, direct) + _times(jnp.moveaxis(states, 0, 1), leaving)).reshape(rows, blocks * block)

    y = filtered(wide)
    # The last block may be longer than the signal: filled with the last sample, which had then stood there for ever.
    inside = jnp.arange(blocks * block)[None] < end
    y = jnp.where(inside, y, y[:, end - 1 : end])
    return filtered(y[:, ::-1])[:, ::-1][:, padding : padding + n]


def _states(driven: jax.Array, pole: complex, block: int, first: jax.Array) -> jax.Array:
    """The state as it enters each block, `[blocks, R, 2]`, from what each adds; `first [R]` had stood there for ever."""

    def turning(z: complex) -> jax.Array:
        return jnp.asarray([[z.real, z.imag], [-z.imag, z.real]], jnp.float64)  # (re, im) @ this = z * (re + i im)

    start = first[:, None] * jnp.asarray([(1 / (1 - pole)).real, (1 / (1 - pole)).imag], jnp.float64)[None]
    step = turning(pole**block)

    def advance(state: jax.Array, added: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _times(state, step) + added, state

    return jax.lax.scan(advance, start, driven)[1]
