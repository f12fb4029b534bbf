"""Short gaps are bridged, long ones are not; flat tops are seen, and held edges are not taken for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamae_jax.signal.quality import fill_gaps, is_clipped, is_flat, runs


def test_runs_are_where_they_are() -> None:
    first, length = runs(np.array([1, 1, 0, 0, 1, 0, 1, 1, 1], bool))
    assert first.tolist() == [0, 4, 6] and length.tolist() == [2, 1, 3]


def test_a_short_gap_becomes_a_straight_line() -> None:
    lead = np.array([0, 1, np.nan, np.nan, 4, 0, 0])
    assert fill_gaps(lead, fs=500) == "gap_filled"
    assert lead.tolist() == [0, 1, 2, 3, 4, 0, 0]


def test_edges_take_the_nearest_value() -> None:
    lead = np.array([np.nan, 3, 4, 5, np.inf])
    assert fill_gaps(lead, fs=500) == "gap_filled"
    assert lead.tolist() == [3, 3, 4, 5, 5]


@pytest.mark.parametrize("start", [0, 300, 900])
@pytest.mark.parametrize("length, found", [(100, "gap_filled"), (101, "lead_gap")])
def test_a_fifth_of_a_second_is_the_longest_gap(start: int, length: int, found: str) -> None:
    lead = np.arange(1001.0)
    lead[start : start + length] = np.nan
    before = lead.copy()
    assert fill_gaps(lead, fs=500) == found
    assert np.array_equal(lead, before, equal_nan=True) == (found == "lead_gap")


def test_many_short_gaps_are_all_bridged() -> None:
    lead = np.arange(5000.0)
    lead[np.random.default_rng(0).random(5000) < 0.03] = np.nan
    assert fill_gaps(lead, fs=500) == "gap_filled"
    assert np.allclose(lead[10:-10], np.arange(5000.0)[10:-10])


def test_a_lead_without_any_sample_is_named_so() -> None:
    assert fill_gaps(np.full(100, np.nan), fs=500) == "lead_nan"


def test_a_lead_that_moves_less_than_a_microvolt_is_flat() -> None:
    assert is_flat(np.array([-2.0, 5.0, 0.0]), np.array([-2.0, 5.9, 1.0])).tolist() == [True, True, False]


def beats(height: float, fs: float = 500) -> np.ndarray:
    """Ten seconds of one lead [1, N] with a bump of `height` uV a second, in steps of 5 uV."""
    time = np.arange(round(10 * fs)) / fs
    return 5 * np.round(height / 5 * np.exp(-0.5 * ((time % 1 - 0.5) / 0.02) ** 2))[None]


def clipped(signal: np.ndarray, fs: float = 500) -> bool:
    return is_clipped(signal, signal.min(axis=1), signal.max(axis=1), fs)


@pytest.mark.parametrize("fs", [100, 500, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_tops_cut_at_one_height_are_clipped(fs: float, sign: int) -> None:
    signal = sign * beats(8000, fs)
    assert not clipped(signal, fs)
    assert clipped(np.clip(signal, -5000, 5000), fs)


def test_one_long_plateau_is_clipped() -> None:
    signal = beats(1500)
    signal[0, 2000:2100] = 10000
    assert clipped(signal)


def test_values_held_at_the_edges_of_a_recording_are_not() -> None:
    signal = beats(1500)
    signal[0, :60] = 3000
    signal[0, -60:] = 3000
    assert not clipped(signal)


def test_low_quantised_waves_with_flat_tops_are_not() -> None:
    assert not clipped(50 * np.round(beats(300) / 50))


def test_sound_real_recordings_are_not_clipped(real_ptb_xl: Path) -> None:
    files = sorted(real_ptb_xl.glob("records*/*/*.dat"))
    assert len(files) >= 60
    for file in files:
        signal = np.fromfile(file, "<i2").reshape(-1, 12).T.astype(float)
        assert not clipped(signal, fs=len(signal[0]) / 10), file.name
