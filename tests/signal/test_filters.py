"""The block-wise filters are the textbook ones, to rounding error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal as dsp

from lamae_jax.signal.filters import highpass, resample


def wandering(leads: int, samples: int, seed: int = 0) -> np.ndarray:
    """Random walks of some mV in uV, far from zero at their ends."""
    return np.cumsum(np.random.default_rng(seed).normal(0, 30, (leads, samples)), axis=1) + 1000


@pytest.mark.parametrize(
    "up, down", [(1, 2), (1, 4), (1, 10), (25, 36), (250, 257), (5, 8), (2, 1), (5, 2), (250, 999)]
)
def test_resampling_is_scipys_away_from_the_ends(up: int, down: int) -> None:
    signal = wandering(3, 2 * 5000 + 17)
    ours, theirs = resample(signal, up, down), dsp.resample_poly(signal, up, down, axis=1)
    assert ours.shape == theirs.shape
    edge = 10 * max(up, down) // down + 1  # output samples that the filter's reach spoils in the zero-padded version
    assert np.abs(ours - theirs)[:, edge:-edge].max() < 1e-8


@pytest.mark.parametrize("up, down", [(1, 2), (25, 36), (5, 2)])
def test_resampling_has_no_step_at_the_ends(up: int, down: int) -> None:
    # A straight line continues as itself under odd reflection; with zeros around it the ends would fall by half.
    line = 2000 + 3.0 * np.arange(5000)[None]
    out = resample(line, up, down)
    expected = 2000 + 3.0 * np.arange(out.shape[1]) * down / up
    assert np.allclose(out, expected, rtol=0.001)  # the low-pass's own ripple


@pytest.mark.parametrize("fs", [100, 250, 500])
@pytest.mark.parametrize("samples", [2500, 2501, 2531, 7777])
def test_highpass_is_scipys_forward_and_backward_butterworth(fs: int, samples: int) -> None:
    signal = wandering(5, samples)
    sections = dsp.butter(2, 0.5, "highpass", fs=fs, output="sos")
    theirs = dsp.sosfiltfilt(sections, signal, axis=1, padtype="odd", padlen=min(3 * fs, samples - 1))
    assert np.abs(highpass(signal, fs) - theirs).max() < 1e-6


def test_highpass_of_a_signal_shorter_than_its_padding_uses_all_there_is() -> None:
    signal = wandering(2, 300)
    sections = dsp.butter(2, 0.5, "highpass", fs=250, output="sos")
    assert np.abs(highpass(signal, 250) - dsp.sosfiltfilt(sections, signal, axis=1, padlen=299)).max() < 1e-6


def test_a_lead_comes_out_the_same_in_any_company() -> None:
    signal = wandering(12, 5000)
    alone = np.concatenate([highpass(resample(lead[None], 1, 2), 250) for lead in signal])
    assert np.array_equal(alone, highpass(resample(signal, 1, 2), 250))


def test_inputs_stay_as_they_were() -> None:
    signal = wandering(2, 5000)
    before = signal.copy()
    highpass(resample(signal, 1, 2), 250)
    highpass(signal, 500)
    assert np.array_equal(signal, before)
