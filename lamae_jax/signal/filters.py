"""Resampling and the high-pass of the signal contract, as block matrix products.

Both are textbook filters and agree with scipy's (`resample_poly`, `sosfiltfilt`) to rounding error; a test holds that. They are
written as products of short blocks with fixed matrices because preparing a large archive spends most of its time here, and a
matrix product does several multiplications in the time in which a sample-by-sample loop does one.

Both continue a signal beyond its ends by odd reflection (the signal turned by 180 degrees about its first and its last
sample), so that a baseline which is not zero makes no step there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import signal as dsp

HIGHPASS_HZ = 0.5
HIGHPASS_PADDING = 3.0  # seconds of odd reflection at either end; the filter has forgotten its start by then
_BLOCK = 32  # samples a block: long enough for matrix products to pay, short enough to waste little work in them


def _odd_reflection(signal: np.ndarray, before: int, after: int, total: int) -> np.ndarray:
    """`signal` [L, N] with `before` and `after` reflected samples around it, in an array [L, total] with zeros behind."""
    n = signal.shape[1]
    wide = np.empty((signal.shape[0], total))
    end = before + n
    np.subtract(2 * signal[:, :1], signal[:, before:0:-1], out=wide[:, :before])
    wide[:, before:end] = signal
    np.subtract(2 * signal[:, -1:], signal[:, -2 : -2 - after : -1], out=wide[:, end : end + after])
    wide[:, end + after :] = 0
    return wide


@lru_cache(maxsize=8)
def resampling_matrix(up: int, down: int) -> tuple[np.ndarray, int, int]:
    """Input samples of a window to output samples of a block [window, block], input samples a block, reach of the filter.

    The low-pass is `resample_poly`'s: 20 max(up, down) + 1 taps, Kaiser 5.0, half amplitude at the lower Nyquist rate.
    """
    half = 10 * max(up, down)
    taps = up * dsp.firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0))
    periods = max(1, _BLOCK // up)
    hop, reach = periods * down, half // up + 1
    times_in = np.arange(-reach, hop + reach)[:, None] * up  # both in units of the common, finest rate
    times_out = np.arange(periods * up)[None] * down
    lag = times_out - times_in + half
    matrix = np.where((lag >= 0) & (lag <= 2 * half), taps[np.clip(lag, 0, 2 * half)], 0.0)
    return matrix, hop, reach


def resample(signal: np.ndarray, up: int, down: int) -> np.ndarray:
    """Change the rate of `signal` float64 [L, N] by up/down (in lowest terms): [L, ceil(N up / down)].

    Output sample k is the signal at k down/up input samples. N must exceed 10 max(up, down) / up + 1 input samples.
    """
    matrix, hop, reach = resampling_matrix(up, down)
    leads, n = signal.shape
    samples = -(-n * up // down)
    blocks = -(-samples // matrix.shape[1])
    further = -(-2 * reach // hop)  # how many following blocks a window reaches into
    wide = _odd_reflection(signal, reach, reach, (blocks + further) * hop).reshape(leads, blocks + further, hop)
    out = wide[:, :blocks] @ matrix[:hop]
    for k in range(1, further + 1):
        rows = matrix[k * hop : (k + 1) * hop]
        out += wide[:, k : k + blocks, : len(rows)] @ rows
    return out.reshape(leads, -1)[:, :samples]


@lru_cache(maxsize=8)
def highpass_matrices(fs: float) -> tuple[complex, np.ndarray, np.ndarray, np.ndarray]:
    """The 2nd-order Butterworth high-pass as one complex state s, for blocks of samples.

    With poles p and its conjugate and the double zero at 1: y_t = k x_t + 2 Re(c s_t), s_(t+1) = p s_t + x_t,
    c = k (p - 1)^2 / (p - conj p). Over a block: y = x @ direct + (Re s, Im s) @ leaving, s' = p^block s + x @ entering.
    """
    _, poles, gain = dsp.butter(2, HIGHPASS_HZ, "highpass", fs=fs, output="zpk")
    pole = complex(poles[0])
    c = gain * (pole - 1) ** 2 / (pole - pole.conjugate())
    powers = pole ** np.arange(_BLOCK)
    response = np.concatenate([[gain], 2 * (c * powers[:-1]).real])  # to a unit impulse, [block]
    lag = np.arange(_BLOCK)[None] - np.arange(_BLOCK)[:, None]
    direct = np.where(lag >= 0, response[np.maximum(lag, 0)], 0.0)  # [block in, block out]
    entering = powers[::-1, None].copy().view(np.float64)  # [block, 2]
    leaving = np.stack([2 * (c * powers).real, -2 * (c * powers).imag])  # [2, block]
    return pole, direct, entering, leaving


def _states(driven: np.ndarray, pole: complex, first: np.ndarray) -> np.ndarray:
    """The filter's state as it enters each block [L, blocks, 2], from what each block adds [L, blocks, 2].

    `first` [L]: the sample that is taken to have stood there for ever before the first block.
    """
    step = pole**_BLOCK
    states = np.empty(driven.shape[:2], complex)
    states[:, 0] = first / (1 - pole)
    added = driven.view(complex)[:, :-1, 0]
    states[:, 1:] = dsp.lfilter([1.0], [1.0, -step], added, zi=step * states[:, :1])[0]
    return states.view(np.float64).reshape(driven.shape)


def highpass(signal: np.ndarray, fs: float) -> np.ndarray:
    """`signal` float64 [L, N] without what lies below .5 Hz: Butterworth of 2nd order, forward and backward (zero phase).

    The padding is 3 s, or all that a shorter signal has to reflect.
    """
    pole, direct, entering, leaving = highpass_matrices(fs)
    leads, n = signal.shape
    padding = min(round(HIGHPASS_PADDING * fs), n - 1)
    end = n + 2 * padding
    blocks = -(-end // _BLOCK)
    wide = _odd_reflection(signal, padding, padding, blocks * _BLOCK)
    x = wide.reshape(leads, blocks, _BLOCK)
    y = x @ direct
    added = _states(x @ entering, pole, wide[:, 0]) @ leaving
    y += added
    # Backward the same matrices serve, turned round. The last block may be longer than the signal: filled with the last
    # sample it leaves the filter in the state in which that sample had stood for ever, which is how the filter starts.
    flat = y.reshape(leads, -1)
    flat[:, end:] = flat[:, end - 1 : end]
    driven = (y @ entering[::-1])[:, ::-1]
    np.matmul(y, direct.T, out=x)
    x += np.matmul(_states(np.ascontiguousarray(driven), pole, flat[:, -1])[:, ::-1], leaving[:, ::-1], out=added)
    return wide[:, padding : padding + n]
