"""What can be wrong with a lead, and the one repair that is made: short gaps are bridged.

Nothing here guesses: a lead that cannot be used is marked unavailable, never rebuilt from others.
"""

from __future__ import annotations

import numpy as np

LONGEST_GAP = 0.2  # seconds without samples that are bridged by a straight line

# What is said about a recording, in the order in which it is said.
FLAGS = (
    "unit_converted",  # came in uV or V
    "resampled",  # came at another rate
    "lead_missing",  # a lead of the contract is not in the recording: unavailable
    "lead_nan",  # a lead without a single valid sample: unavailable
    "lead_gap",  # a lead with a gap longer than LONGEST_GAP: unavailable
    "lead_flat",  # a lead that never moves by a microvolt: unavailable
    "gap_filled",  # short gaps were bridged, or edges extended
    "clipped",  # flat tops: the amplifier or the file format had reached its limit
    "saturated",  # more than +-32.767 mV after the band filter: held at that limit in the store
    "upsampled",  # came at a rate below the contract's: nothing above half of its rate is in it
    "quiet",  # no lead spans TOO_SMALL: was the unit right?
)

# What a lead spans without the lowest and highest hundredth of its samples, uV. 14,170 recordings of PTB-XL: .2 to 3.8 mV in
# the middle lead of each, .5 to 13 mV in its largest, .07 mV in the smallest of all leads.
TOO_LARGE, TOO_SMALL = 20_000, 50

_LEAST_MOVEMENT = 1.0  # uV
_CLIPPED_FROM = 1000.0  # uV away from the lead's median; quantised T waves have flat tops too, but low ones
_FLAT_TOP = 0.006  # seconds at the very same extreme value, at least twice in a recording ...
_PLATEAU = 0.1  # ... or this long, once


def runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First indices and lengths of the runs of True in `mask` [N]."""
    steps = np.diff(mask.astype(np.int8), prepend=0, append=0)
    first = np.flatnonzero(steps == 1)
    return first, np.flatnonzero(steps == -1) - first


def fill_gaps(lead: np.ndarray, fs: float) -> str:
    """Bridge the samples of `lead` [N] that are not finite, in place: by a straight line, at the edges by the nearest value.

    Returns `gap_filled`, or, with the lead left as it was, `lead_nan` (no valid sample) or `lead_gap` (too long a gap).
    """
    valid = np.isfinite(lead)
    if not valid.any():
        return "lead_nan"
    if runs(~valid)[1].max() > LONGEST_GAP * fs + 1e-6:
        return "lead_gap"
    at = np.flatnonzero(valid)
    gaps = np.flatnonzero(~valid)
    lead[gaps] = np.interp(gaps, at, lead[at])  # extends the first and last valid value over the edges
    return "gap_filled"


def is_flat(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which leads never move, from their lowest and highest values in uV [L]: bool [L]."""
    return high - low < _LEAST_MOVEMENT


def spans(counts: np.ndarray) -> np.ndarray:
    """Highest less lowest of each lead of `counts` [l, S] in uV, a hundredth of the samples left out at either end: [l]."""
    ordered = np.sort(counts, axis=-1)  # an eighth of what np.percentile takes
    out = counts.shape[-1] // 100
    return ordered[..., -1 - out].astype(np.int32) - ordered[..., out]


def is_quiet(counts: np.ndarray) -> bool:
    """Whether no lead of `counts` [l, S] in uV spans TOO_SMALL; as a rule the first lead tells."""
    return all(spans(lead[None])[0] < TOO_SMALL for lead in counts)


def is_clipped(signal: np.ndarray, low: np.ndarray, high: np.ndarray, fs: float) -> bool:
    """Whether a lead of `signal` [L, N] in uV, with extremes `low` and `high` [L], has flat tops.

    Runs that touch the record's first or last sample do not count: PTB-XL holds a value there in sound records.
    """
    shortest = max(2, round(_FLAT_TOP * fs))
    for lead, extremes in zip(signal, zip(low, high, strict=True), strict=True):
        for extreme in extremes:
            at_extreme = lead == extreme
            if np.count_nonzero(at_extreme) < 2 * shortest:
                continue
            first, length = runs(at_extreme)
            inside = (first > 0) & (first + length < len(lead))
            tops = length[inside & (length >= shortest)]
            enough = len(tops) >= 2 or (len(tops) == 1 and tops[0] >= _PLATEAU * fs)
            if enough and abs(extreme - np.median(lead)) >= _CLIPPED_FROM:
                return True
    return False
