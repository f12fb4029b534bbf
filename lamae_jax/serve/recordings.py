"""What people have (arrays, WFDB records, a store) brought into a model's signal contract, the way `prepare` does it.

N recordings, L leads of the contract, S samples of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.data.sources import Recording, Unreadable
from lamae_jax.data.sources.wfdb_files import read_record
from lamae_jax.data.store import MANIFEST, Store
from lamae_jax.errors import UserError
from lamae_jax.machine import memory
from lamae_jax.signal.contract import Conditioned, SignalContract, SignalError, check_amplitude, condition, cut
from lamae_jax.signal.leads import STANDARD_LEADS, canonical_lead
from lamae_jax.signal.quality import fill_gaps, is_quiet, spans

Ecg = np.ndarray | str | os.PathLike[str] | Sequence[Any] | Store

# Flags of signal/quality.py that are worth a word to whoever embeds a recording: the others are as they should be. First those
# of a lead that is in the recording and can't be used, told with its name.
_LOST = ("lead_nan", "lead_gap", "lead_flat")
_TOLD = ("gap_filled", "clipped", "saturated")
_TOLD_OF_A_STORE = (*_TOLD, "upsampled", "quiet")  # of a recording at hand it is said in numbers


@dataclass(frozen=True)
class Prepared:
    """Recordings as the model takes them: `counts` int16 [N, L, S] (1 uV each), `available` bool [N, L]; `warnings` N lists."""

    counts: np.ndarray
    available: np.ndarray
    warnings: tuple[tuple[str, ...], ...]


def prepare_recordings(
    ecg: Ecg, fs: float | Sequence[float] | None, leads: Sequence[Any] | None, units: str | Sequence[str] | None,
    contract: SignalContract, bytes_each: int = 0,
) -> Prepared:  # fmt: skip
    """Bring `ecg` (see serve/model.py, EcgModel.embed) into `contract`. `bytes_each` is what will be made of each recording.

    Raises UserError, which names the recording, or the store; before it is read where it would fill the memory.
    """
    if isinstance(ecg, str | os.PathLike) and (Path(ecg) / MANIFEST).exists():
        ecg = Store.open(Path(ecg))
    if isinstance(ecg, Store):
        _refuse_given(fs, leads, units, "a store")
        return from_store(ecg, contract, bytes_each)
    paths = [ecg] if isinstance(ecg, str | os.PathLike) else ecg
    if isinstance(paths, list | tuple) and paths and all(isinstance(path, str | os.PathLike) for path in paths):
        _refuse_given(fs, leads, units, "WFDB records")
        n = len(paths)
        check_memory(n, bytes_each + _counts_bytes(contract))
        # One at a time: of each only the counts are kept.
        recordings: Iterable[tuple[str, Recording]] = ((f"{path}: ", read_wfdb(path)) for path in paths)
    else:
        given = from_arrays(ecg, fs, leads, "mV" if units is None else units)
        n, recordings = len(given), given
        check_memory(n, bytes_each + _counts_bytes(contract))
    counts = np.empty((n, len(contract.leads), contract.samples), np.int16)
    available = np.empty((n, len(contract.leads)), bool)
    warnings = []
    for k, (name, recording) in enumerate(recordings):
        try:
            counts[k], available[k], told = prepare_one(recording, contract)
            warnings.append(told)
        except SignalError as error:
            raise UserError(f"{name}{error}{_hint(error, recording)}") from None
        except UserError as error:
            raise UserError(f"{name}{error}") from None
    return Prepared(counts, available, tuple(warnings))


def from_store(store: Store, contract: SignalContract, bytes_each: int) -> Prepared:
    """All of a store of the model's contract; its records may be longer. Raises UserError with both values of a field, or
    where it would fill the memory."""
    check_store(store, contract)
    check_memory(store.size, bytes_each + _counts_bytes(store.contract))
    available, flags = store.available, store.column("flags")
    warnings = tuple(
        tuple(_warnings_of_store(there, str(text or "").split(","), store.contract, contract))
        for there, text in zip(available, flags, strict=True)
    )
    start = (store.contract.samples - contract.samples) // 2
    counts = store.read(np.arange(store.size))
    return Prepared(counts[..., start : start + contract.samples], available, warnings)


def check_memory(recordings: int, bytes_each: int) -> None:
    """Refuse recordings that, with what is made of them, would fill the machine's memory."""
    size = recordings * bytes_each
    most = memory() // 2
    if size > most:
        raise UserError(
            f"{recordings} recordings and what is made of them take {size / 1e9:.1f} GB, half of the memory is "
            f"{most / 1e9:.1f}; pass fewer at once, or use configs/embed.py, which writes one vector a recording"
        )


def _counts_bytes(contract: SignalContract) -> int:
    """Of one recording's counts, int16 [L, S]."""
    return 2 * len(contract.leads) * contract.samples


def check_store(store: Store, contract: SignalContract) -> None:
    """Raise UserError naming each field in which the store's contract is not the model's; stored records may be longer."""
    differences = contract.differences_from_stored(store.contract)
    if differences:
        raise UserError(
            f"store {store.folder} and model differ in their signal contract: {'; '.join(differences)}; "
            "embed the recordings themselves, or prepare them as the model has them"
        )


def read_wfdb(path: str | os.PathLike[str]) -> Recording:
    """A WFDB record by the path of its header, with or without extension. Raises UserError."""
    record = Path(path)
    if record.suffix in (".hea", ".dat", ".mat"):
        record = record.with_suffix("")
    if record.is_dir():
        raise UserError(
            f"{path}: a folder that is no store; name a record in it, or embed them all with configs/embed.py"
        )
    try:
        return read_record(record.parent, record.name)
    except Unreadable as error:
        raise UserError(f"{path}: {error}") from None


def from_arrays(ecg: Any, fs: Any, leads: Any, units: Any) -> list[tuple[str, Recording]]:
    """One recording or several from arrays, each with how it is called in errors. Raises UserError."""
    if leads is None:
        raise UserError(
            'leads: missing; name the rows of the array, as in leads=["I", "II", "V1"] (any order, any case)'
        )
    if fs is None:
        raise UserError("fs: missing; give the sampling rate in Hz (a WFDB record or a store says its own)")
    several = hasattr(ecg, "ndim") and ecg.ndim == 3
    if isinstance(ecg, list | tuple):
        if not ecg:
            raise UserError("ecg: an empty list")
        try:
            several = np.ndim(ecg[0]) >= 2
        except ValueError:
            raise UserError("ecg: rows of different lengths; pad the shorter ones with NaN") from None
    signals = list(ecg) if several else [ecg]
    n = len(signals)
    if not n:
        raise UserError("ecg: an array of no recording")
    rates, kinds, words = _listed(fs), _listed(units), _listed(leads)
    rates = [fs] * n if rates is None else rates
    kinds = [units] * n if kinds is None else kinds
    words = [leads] if words is None else words
    apart = bool(words) and all(_listed(names) is not None for names in words)  # names for each recording
    names = words if apart else [words] * n
    for what, values in (("fs", rates), ("units", kinds), ("leads", names)):
        if len(values) != n:
            raise UserError(f"{what}: given for {len(values)} recordings, ecg holds {n}")
    made = []
    for k in range(n):
        called = f"recording {k}: " if several else ""
        made.append((called, _recording(called, signals[k], rates[k], names[k], kinds[k])))
    return made


def _listed(value: Any) -> list[Any] | None:
    """What holds several things, as a list; None for a single one, which a text is."""
    if isinstance(value, str):
        return None
    try:
        return list(value)
    except TypeError:
        return None


def _recording(called: str, signal: Any, fs: Any, leads: Any, unit: Any) -> Recording:
    """One recording, its shape held against its lead names."""
    leads = list(leads)
    if not all(isinstance(name, str) for name in leads):
        raise UserError(f'{called}leads={str(leads)[:60]}: must be names of the rows, as in ["I", "II", "V1"]')
    try:
        array = np.asarray(signal)
    except ValueError:
        raise UserError(f"{called}ecg: rows of different lengths; pad the shorter ones with NaN") from None
    array = array[None] if array.ndim == 1 else array
    if array.dtype.kind not in "fiu":
        raise UserError(f"{called}ecg: of type {array.dtype}; numbers are due")
    if array.ndim != 2 or len(array) != len(leads):
        turned = array.ndim == 2 and array.shape[1] == len(leads)
        shape = "x".join(map(str, array.shape))
        raise UserError(
            f"{called}ecg has shape {shape}, leads names {len(leads)}: [leads, samples] is due"
            + ("; pass its transpose, ecg.T" if turned else "")
        )
    if not isinstance(fs, int | float | np.integer | np.floating) or isinstance(fs, bool):
        raise UserError(f"{called}fs={fs!r}: must be a number of Hz")
    if not isinstance(unit, str):
        raise UserError(f"{called}units={unit!r}: must be mV, uV or V")
    return Recording(array, float(fs), tuple(leads), (unit,) * len(leads))


def prepare_one(recording: Recording, contract: SignalContract) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Counts [L, S], available [L] and warnings of one recording. Raises SignalError or UserError."""
    whole = condition(recording.signal, recording.fs, recording.leads, recording.units, contract, allow_upsampling=True)
    counts = cut(whole, contract, "crop")[0]
    check_amplitude([counts], whole.available, recording.units[0])
    told = _warnings(recording, whole, contract)
    if is_quiet(counts[whole.available]):
        largest = spans(counts[whole.available]).max()
        told.append(f"quiet: the largest lead spans {largest:.0f} uV; was the unit really {recording.units[0]}?")
    return counts, whole.available, tuple(told)


def _warnings(recording: Recording, whole: Conditioned, contract: SignalContract) -> list[str]:
    """What whoever uses the result should know, each beginning with one fixed word."""
    known = [canonical_lead(name) for name in recording.leads]
    missing = [name for name in contract.leads if name not in known]
    unused = [name for name, lead in zip(recording.leads, known, strict=True) if lead not in contract.leads]
    told = []
    if missing:
        told.append(f"lead_missing: {' '.join(missing)}")
    if unused:
        told.append(f"lead_unknown: {' '.join(unused)} not used; known are {' '.join(contract.leads)}")
    lost: dict[str, list[str]] = {flag: [] for flag in _LOST}
    for name, there in zip(contract.leads, whole.available, strict=True):
        if not there and name not in missing:
            lost[_why_lost(recording.signal[known.index(name)], recording.fs)].append(name)
    told += [f"{flag}: {' '.join(names)} left out" for flag, names in lost.items() if names]
    told += [flag for flag in _TOLD if flag in whole.flags]
    if recording.fs < contract.fs:
        told.append(
            f"upsampled: from {recording.fs:g} to {contract.fs} Hz; nothing above {recording.fs / 2:g} Hz is in it"
        )
    if whole.counts.shape[1] > contract.samples + 1:
        told.append(_cut(contract, recording.signal.shape[1] / recording.fs))
    return told


def _why_lost(lead: np.ndarray, fs: float) -> str:
    """Which of _LOST an unavailable lead [S] of a recording is, by the order in which `condition` looks."""
    found = fill_gaps(np.array(lead, float), fs) if not np.isfinite(lead).all() else ""
    return found if found in _LOST else "lead_flat"


def _warnings_of_store(
    available: np.ndarray, flags: list[str], stored: SignalContract, contract: SignalContract
) -> list[str]:
    """The same for a stored record, of which it is no longer known which flag is which lead's: several share one text."""
    gone = [name for name, there in zip(contract.leads, available, strict=True) if not there]
    why = [flag for flag in ("lead_missing", *_LOST) if flag in flags] or ["lead_missing"]
    told = []
    if gone:
        told.append(f"{', '.join(why)}: {' '.join(gone)}" + ("" if why == ["lead_missing"] else " left out"))
    told += [flag for flag in _TOLD_OF_A_STORE if flag in flags]
    if stored.samples > contract.samples:
        told.append(_cut(contract, stored.seconds))
    return told


def _cut(contract: SignalContract, seconds: float) -> str:
    return f"cut: the middle {contract.seconds:g} s of {seconds:g} s are used"


def _refuse_given(fs: Any, leads: Any, units: Any, what: str) -> None:
    for name, value in (("fs", fs), ("leads", leads), ("units", units)):
        if value is not None:
            raise UserError(f"{name}={value!r}: not with {what}, which say their own; leave it out")


def _hint(error: SignalError, recording: Recording) -> str:
    """What may be behind a refusal."""
    finite = recording.signal[np.isfinite(recording.signal)]
    if error.reason == "no_signal" and not any(canonical_lead(name) for name in recording.leads):
        return f": {', '.join(recording.leads[:6])}; known are {', '.join(STANDARD_LEADS)} in any case"
    if error.reason == "no_signal" and finite.size and finite.max() > finite.min():
        return f"; the values span {np.ptp(finite):.3g} {recording.units[0]} in all: is that the unit?"
    return ""
