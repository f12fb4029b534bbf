"""Where recordings come from: one file a source, all of them giving the same `Source`.

A source lists its recordings without opening them and reads one at a time, as written: physical units, leads and rate of
the file. What a recording must be like to be used is not decided here but in `signal/contract.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lamae_jax.errors import UserError

SOURCES = ("mimic_iv_ecg", "ptb_xl", "wfdb", "arrays", "simulated")

LARGEST_RECORDING = 12 * 24 * 3600 * 250  # values: a day of twelve leads at 250 Hz, some GB of memory

Reason = Literal[
    "absent",  # listed, but no file at all is there
    "missing_signal",  # a header without its signal file
    "size",  # the signal file does not hold what was announced, or more than LARGEST_RECORDING
    "header",  # empty, no text, or contradicting itself
    "path",  # points outside its folder
    "gain",  # uncalibrated, or no positive number
    "fs",  # no positive sampling rate
    "leads",  # lead names missing or repeated, or not as many as signals
    "format",  # a way of storing samples that cannot be read
]


class Unreadable(UserError):
    """One recording that cannot be read: a fixed short `reason` and a `detail` in one line."""

    def __init__(self, reason: Reason, detail: str):
        super().__init__(reason, detail)  # both as args, so that the exception survives the way back from a worker
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def check_size(leads: int, samples: int) -> None:
    """Raise Unreadable, reason `size`, for a recording that would fill the memory: a sparse file can hold any number of zeros."""
    if leads * samples > LARGEST_RECORDING:
        raise Unreadable(
            "size",
            f"{leads} leads x {samples} samples; {LARGEST_RECORDING} values (24 h of twelve leads at 250 Hz) are the most",
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed recording.

    `path` is relative to the source's folder, with slashes and without extension (arrays keep theirs). `patient_id` is None
    where unknown, `sex` "M", "F" or None. `folds` and `extra` are shared between entries: read them, never change them.
    """

    record_id: str
    path: str
    patient_id: str | None
    folds: dict[str, int]
    age: float | None = None
    sex: str | None = None
    extra: dict[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """One recording as written: `signal` float32 [n, N] in `units`, NaN where invalid; n leads, N samples at `fs` Hz."""

    signal: np.ndarray
    fs: float
    leads: tuple[str, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Which values of fold column `column` are for training, validation and test, and by what `rule` they came about."""

    column: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    rule: str


@dataclass(eq=False)
class Source:
    """A listed set of recordings.

    `entries` stand in the order of the source's table, each record once. `reader` turns an entry into a recording; it is small
    and picklable. `label_tables` are CSV files to keep whole, joined to `record_id` by column `label_key`. `notes` are counts
    worth reporting (rows, duplicates, ...). A pickled source can read but lists nothing: a worker gets its entries in chunks.
    """

    name: str
    entries: list[Entry]
    split: Split
    reader: Callable[[Entry], Recording]
    find_unlisted: Callable[[], list[str]]
    notes: dict[str, int]
    label_tables: dict[str, Path] = field(default_factory=dict)
    label_key: str = "record_id"

    def read(self, entry: Entry) -> Recording:
        """The recording of `entry`. Raises Unreadable."""
        return self.reader(entry)

    @cached_property
    def unlisted(self) -> list[str]:
        """Sound records on disk that no table lists; the folder is searched at the first call."""
        return self.find_unlisted()

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name != "unlisted"}
        return state | {"entries": [], "find_unlisted": list}


def hash_fold(key: str) -> int:
    """Fold 1-10 of a patient (or of a record whose patient is unknown), the same on every machine."""
    return 1 + int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 10


def ten_folds(column: str, rule: str) -> Split:
    """The split of every source with ten folds: 1-8 train, 9 validation, 10 test."""
    return Split(column, tuple(range(1, 9)), (9,), (10,), f"{rule}; 1-8 train, 9 validation, 10 test")


def hash_split(unknown: int, total: int) -> Split:
    """The split by hash, whose rule says for how many of `total` records the patient is unknown."""
    rule = "ten folds by a hash of the patient id"
    if unknown:
        rule += f" ({unknown} of {total} records have none: each is taken for a patient of its own)"
    return ten_folds("hash_fold", rule)


def open_source(
    name: str,
    folder: Path | str,
    fs: int,
    *,
    allow_upsampling: bool = False,
    simulated_patients: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> Source:
    """List the recordings of `folder`, laid out as source `name` lays them out.

    `fs` is the rate wanted: PTB-XL has two. The last three are for `simulated`, which writes the folder first. Raises UserError
    when the folder or its tables are not as the source has them.
    """
    # Imported here: these files take their names from this one, and each run needs one of them.
    folder = Path(folder)
    if name == "simulated":
        from lamae_jax.data.sources.simulated import open_simulated

        return open_simulated(folder, simulated_patients, seed, workers)
    if name not in SOURCES:
        raise UserError(f"source kind {name!r} is unknown; there are {', '.join(SOURCES)}")
    if not folder.is_dir():
        raise UserError(f"source {str(folder)!r} is no folder; give the folder that holds the recordings")
    if name == "mimic_iv_ecg":
        from lamae_jax.data.sources.mimic_iv_ecg import open_mimic_iv_ecg

        return open_mimic_iv_ecg(folder)
    if name == "ptb_xl":
        from lamae_jax.data.sources.ptb_xl import open_ptb_xl

        return open_ptb_xl(folder, fs, allow_upsampling)
    if name == "wfdb":
        from lamae_jax.data.sources.wfdb_folder import open_wfdb_folder

        return open_wfdb_folder(folder)
    from lamae_jax.data.sources.arrays import open_arrays

    return open_arrays(folder)
