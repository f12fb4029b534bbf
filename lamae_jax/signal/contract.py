"""The signal contract: what a signal in a store, and before a model, is; and the host half of the way there.

The order of operations is part of the contract, and `condition` is the only place that carries it out: leads by name; to
microvolts; gaps up to .2 s bridged, leads with longer ones unavailable; resampling; band, on the whole recording before any
cut; rounding to int16 at 1 uV a count. The device half (clip, normalisation) is in `model/inputs.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from lamae_jax.errors import UserError
from lamae_jax.signal import filters
from lamae_jax.signal.leads import STANDARD_LEADS, canonical_lead
from lamae_jax.signal.quality import FLAGS, TOO_LARGE, fill_gaps, is_clipped, is_flat, spans

BANDS = ("highpass_0.5", "none")
LOWEST_FS, HIGHEST_FS = 100.0, 1000.0  # rates of recordings that are accepted
LONGEST = 3600.0  # seconds of a contract that is read; beyond, a stored number is damaged
LARGEST_COUNT = 32767  # symmetric: -32768 is WFDB's word for "no sample" and never occurs in a store

# The micro sign and the Greek letter look alike, and both are in use.
_MICROVOLTS = {"uV": 1.0, "uv": 1.0, "\u00b5V": 1.0, "\u03bcV": 1.0, "mV": 1e3, "mv": 1e3, "V": 1e6, "v": 1e6}
# Samples are first put on a grid of 2^-10 uV. Converters give multiples of 5, 4.8828125, 1 or .5 uV, which all lie on it: what
# float32 did to them in one unit or another is undone, and a recording in uV gives the counts that it gives in mV.
_GRID = 1024.0
_LEADS_AT_ONCE = (
    4  # filtered together: few enough for their arrays to stay in the cache, and in memory that malloc keeps
)


class SignalError(UserError):
    """One recording cannot be used. `reason` is a fixed word (unit, leads, fs, too_short, no_signal), `detail` says more."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)  # both as arguments, so that the error can cross between processes
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


@dataclass(frozen=True)
class SignalContract:
    """What a stored signal is: leads in their order, samples a second, length, unit, band. Compared field by field."""

    leads: tuple[str, ...] = STANDARD_LEADS
    fs: int = 250
    seconds: float = 10.0
    unit: str = "mV"  # of what the model sees; the store holds thousandths of it
    band: str = "highpass_0.5"

    def __post_init__(self) -> None:
        wrong = [name for name in self.leads if name not in STANDARD_LEADS]
        if wrong or not self.leads or len(set(self.leads)) < len(self.leads):
            raise UserError(f"leads {' '.join(self.leads)}: must be different ones of {' '.join(STANDARD_LEADS)}")
        if not 50 <= self.fs <= HIGHEST_FS:
            raise UserError(f"fs {self.fs}: must be a whole number from 50 to {HIGHEST_FS:g} Hz")
        if not (math.isfinite(self.seconds) and self.seconds >= 1):
            raise UserError(f"seconds {self.seconds}: must be 1 or more")
        if abs(self.fs * self.seconds - self.samples) > 1e-6:
            raise UserError(f"seconds {self.seconds}: must be a whole number of samples at {self.fs} Hz")
        if self.unit != "mV":
            raise UserError(f"unit {self.unit}: must be mV")
        if self.band not in BANDS:
            raise UserError(f"band {self.band}: must be one of {', '.join(BANDS)}")

    @property
    def samples(self) -> int:
        """S, samples a lead."""
        return round(self.fs * self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return dataclasses.asdict(self) | {"leads": list(self.leads)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> SignalContract:
        """The contract that `to_dict` wrote. Raises UserError for a missing, unknown or ill-typed field."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in names:
            if name not in fields:
                raise UserError(f"signal contract: field {name} is missing")
        for name in fields:
            if name not in names:
                raise UserError(f"signal contract: field {name} is unknown; there are {', '.join(names)}")
        leads, fs, seconds = fields["leads"], fields["fs"], fields["seconds"]
        if not (isinstance(leads, list | tuple) and all(isinstance(name, str) for name in leads)):
            raise UserError(f"signal contract: leads {leads!r}: must be a list of names")
        if type(fs) is not int:
            raise UserError(f"signal contract: fs {fs!r}: must be a whole number")
        if type(seconds) not in (int, float) or not abs(seconds) <= LONGEST:
            raise UserError(f"signal contract: seconds {repr(seconds)[:20]}: must be a number of at most {LONGEST:g}")
        return cls(tuple(leads), fs, float(seconds), str(fields["unit"]), str(fields["band"]))

    def differences(self, other: SignalContract, theirs: str = "theirs", ours: str = "ours") -> list[str]:
        """One text a differing field, as "fs: store 100, model 250" (`other` is `theirs`); empty when the two are equal."""

        def shown(value: Any) -> str:
            if isinstance(value, tuple):
                return " ".join(value)
            return f"{value:g}" if isinstance(value, float) else str(value)

        pairs = [(f.name, getattr(other, f.name), getattr(self, f.name)) for f in dataclasses.fields(self)]
        return [f"{name}: {theirs} {shown(b)}, {ours} {shown(a)}" for name, b, a in pairs if a != b]

    def differences_from_stored(self, stored: SignalContract, theirs: str = "store", ours: str = "model") -> list[str]:
        """What keeps a model of this contract from reading a store of the contract `stored`, as `differences` puts it: stored
        records may be longer, they are cut."""
        seconds = self.seconds if stored.seconds >= self.seconds else stored.seconds
        return self.differences(dataclasses.replace(stored, seconds=seconds), theirs, ours)


@dataclass(frozen=True)
class Conditioned:
    """A whole recording in the contract's leads, rate and band."""

    counts: np.ndarray  # int16 [L, N], 1 uV a count; an unavailable lead is all zeros
    available: np.ndarray  # bool [L]
    flags: tuple[str, ...]  # of quality.FLAGS, in that order


def condition(
    signal: np.ndarray,
    fs: float,
    leads: Sequence[str],
    units: Sequence[str] | str,
    contract: SignalContract,
    allow_upsampling: bool = False,
) -> Conditioned:
    """Bring a whole recording into the contract's form (but for its length: see `cut`).

    `signal` [n, N] in physical `units` (one for all leads, or one each), not finite where there is no sample; `leads` its n
    names, any case and order, extra ones ignored. Raises SignalError when the recording cannot be used.
    """
    signal = np.asarray(signal)
    up, down = _rate_change(fs, contract, allow_upsampling)
    picked = _picked_leads(signal, leads, units, contract)
    n = signal.shape[1]
    if n < round(fs * contract.seconds) or -(-n * up // down) < contract.samples:
        raise SignalError("too_short", f"{n} samples at {fs:g} Hz are {n / fs:g} s; {contract.seconds:g} s are needed")

    flags: set[str] = set()
    if up > down:
        flags.add("upsampled")
    if len(picked) < len(contract.leads):
        flags.add("lead_missing")
    if any(lead.microvolts != 1e3 for lead in picked):
        flags.add("unit_converted")
    microvolts, usable = _usable_leads(signal, picked, fs, flags)
    if not usable:
        why = [flag for flag in ("lead_missing", "lead_nan", "lead_gap", "lead_flat") if flag in flags]
        raise SignalError("no_signal", f"none of {len(contract.leads)} leads can be used ({', '.join(why)})")

    counts = np.zeros((len(contract.leads), -(-n * up // down)), np.int16)
    for k in range(0, len(usable), _LEADS_AT_ONCE):
        some = microvolts[k : k + _LEADS_AT_ONCE]
        if up != down:
            flags.add("resampled")
            some = filters.resample(some, up, down)
        if contract.band == "highpass_0.5":
            some = filters.highpass(some, contract.fs)
        some = np.rint(some)
        if max(some.max(), -some.min()) > LARGEST_COUNT:
            flags.add("saturated")
            np.clip(some, -LARGEST_COUNT, LARGEST_COUNT, out=some)
        counts[usable[k : k + _LEADS_AT_ONCE]] = some
    available = np.zeros(len(contract.leads), bool)
    available[usable] = True
    return Conditioned(counts, available, tuple(flag for flag in FLAGS if flag in flags))


class _Picked(NamedTuple):
    """One lead of the contract that the recording has."""

    position: int  # in the contract
    row: int  # in the recording
    microvolts: float  # in one of its units


def _rate_change(fs: float, contract: SignalContract, allow_upsampling: bool) -> tuple[int, int]:
    """The rate's ratio contract.fs / fs as up, down in lowest terms. Raises SignalError, reason `fs`."""
    if not LOWEST_FS <= fs <= HIGHEST_FS:  # also refuses NaN
        raise SignalError("fs", f"{fs:g} Hz; {LOWEST_FS:g} to {HIGHEST_FS:g} Hz are accepted")
    if fs < contract.fs and not allow_upsampling:
        raise SignalError("fs", f"{fs:g} Hz is below {contract.fs} Hz; it is raised only with allow_upsampling")
    # Exact for whole rates. A rate such as 499.998 Hz is taken for its nearest simple neighbour, well under 1 ms apart in 10 s.
    ratio = Fraction(contract.fs / fs).limit_denominator(1000)
    return ratio.numerator, ratio.denominator


def _picked_leads(
    signal: np.ndarray, leads: Sequence[str], units: Sequence[str] | str, contract: SignalContract
) -> list[_Picked]:
    """The contract's leads that the recording has, in the contract's order. Raises SignalError, reason `leads` or `unit`."""
    units = [units] * len(leads) if isinstance(units, str) else units
    if signal.ndim != 2 or not len(leads) == len(units) == len(signal):
        given = f"{len(leads)} lead names, {len(units)} units"
        raise SignalError("leads", f"{given} and a signal of shape {signal.shape}; it must be [leads, samples]")
    row_of: dict[str, int] = {}
    for row, name in enumerate(leads):
        lead = canonical_lead(name)
        if lead is None or lead not in contract.leads:
            continue
        if lead in row_of:
            raise SignalError("leads", f"lead {lead} stands twice among {' '.join(leads)}")
        if units[row].strip() not in _MICROVOLTS:
            raise SignalError("unit", f"lead {lead} is in {units[row]!r}; mV, uV and V are known")
        row_of[lead] = row
    return [
        _Picked(position, row_of[lead], _MICROVOLTS[units[row_of[lead]].strip()])
        for position, lead in enumerate(contract.leads)
        if lead in row_of
    ]


def _usable_leads(
    signal: np.ndarray, picked: Sequence[_Picked], fs: float, flags: set[str]
) -> tuple[np.ndarray, list[int]]:
    """The leads that can be used, gaps bridged, in uV float64 [k, N], and their positions in the contract; adds to `flags`."""
    microvolts = np.empty((len(picked), signal.shape[1]))
    for lead, row in zip(picked, microvolts, strict=True):
        row[:] = signal[lead.row]
    microvolts *= np.array([[lead.microvolts * _GRID] for lead in picked]).reshape(-1, 1)
    np.rint(microvolts, out=microvolts)
    microvolts *= 1 / _GRID
    low, high = microvolts.min(axis=1), microvolts.max(axis=1)  # NaN where there is one in the lead
    keep = np.ones(len(picked), bool)
    for k in np.flatnonzero(~(np.isfinite(low) & np.isfinite(high))):
        found = fill_gaps(microvolts[k], fs)
        flags.add(found)
        keep[k] = found == "gap_filled"
        low[k], high[k] = (microvolts[k].min(), microvolts[k].max()) if keep[k] else (0.0, np.inf)
    flat = is_flat(low, high)
    if flat.any():
        flags.add("lead_flat")
    keep &= ~flat
    if not keep.all():
        microvolts, low, high = microvolts[keep], low[keep], high[keep]
    if is_clipped(microvolts, low, high, fs):
        flags.add("clipped")
    return microvolts, [lead.position for lead, kept in zip(picked, keep, strict=True) if kept]


def check_amplitude(pieces: Sequence[np.ndarray], available: np.ndarray, unit: str) -> None:
    """Raise SignalError, reason `unit`, where most `pieces` [L, S] of a recording hold values in `unit` that no ECG has."""
    if all(int(piece.max()) - int(piece.min()) <= TOO_LARGE for piece in pieces):  # as a rule; no lead spans more
        return
    middle = np.median([np.median(spans(piece[available])) for piece in pieces])
    if middle > TOO_LARGE:
        raise SignalError(
            "unit",
            f"the values span {middle / 1e3:.0f} mV or more when taken as {unit}, no ECG does; "
            f"{'are they microvolts (units=uV) or counts of a converter?' if unit == 'mV' else 'which unit is it?'}",
        )


def cut(conditioned: Conditioned, contract: SignalContract, long: str) -> list[np.ndarray]:
    """Pieces of the contract's length, int16 [L, S]: the middle of the recording (`crop`), or as many whole consecutive
    windows from its start as it holds (`windows`)."""
    samples, n = contract.samples, conditioned.counts.shape[1]
    if long == "crop":
        starts = [(n - samples) // 2]
    elif long == "windows":
        starts = list(range(0, n - samples + 1, samples))
    else:
        raise UserError(f"long {long}: must be crop or windows")
    return [conditioned.counts[:, start : start + samples] for start in starts]
