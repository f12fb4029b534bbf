"""Arrays of your own: .npy, .npz or .h5 files and a `metadata.csv` that says what is in them, all in one folder.

One row of `metadata.csv` a recording. Its columns:

    file        needed   path below the folder, with extension: `ecg.npy`, `2021/0007.npz`, `all.h5` (or .hdf5)
    fs          needed   sampling rate in Hz
    leads       needed   lead names in the order of the array, apart by blanks: `I II III aVR aVL aVF V1 V2 V3 V4 V5 V6`
    units       needed   mV, uV or V: one for all leads, or one a lead
    row         for an array of many recordings [N, leads, samples]: which one, from 0
    key         for .npz and .h5 with more than one array: its name (`ecg`, `group/ecg`)
    record_id   name of the recording; left out, it is made of file, key and row
    patient_id  any text; recordings of one patient never stand on two sides of the split
    fold        1-8 train, 9 validation, 10 test (a split of your own: write 1, 9 and 10); for every row or for none
    age, sex    years; M, F

Further columns are yours (labels, say) and are kept when there is a `record_id`. A recording is [leads, samples], real numbers in
`units`; NaN marks what is not valid. Whole numbers are taken as they stand: counts of an ADC must be turned into uV first.

One array `ecg.npy` [N, 12, 5000] in mV at 500 Hz, and `patients`, a list of N ids:

    import csv
    with open("folder/metadata.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "row", "record_id", "patient_id", "fs", "units", "leads"])
        for row, patient in enumerate(patients):
            table.writerow(["ecg.npy", row, row, patient, 500, "mV", "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"])

One file a recording: the same without `row`, and the file's name in each line. Pickled arrays are never opened. A .npz is
unpacked whole in every worker: at most 16 GiB, large arrays belong into .npy or .h5.
"""

from __future__ import annotations

import math
import os
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.data.sources import Entry, Recording, Source, Unreadable, check_size
from lamae_jax.data.sources.csv_tables import PEOPLE, clean_id, people_entries, read_columns, whole
from lamae_jax.data.sources.wfdb_files import record_path
from lamae_jax.errors import UserError

TABLE = "metadata.csv"
KINDS = (".npy", ".npz", ".h5", ".hdf5")
LARGEST_UNPACKED = 1 << 34  # bytes of an array in a .npz


@dataclass(frozen=True)
class ArrayReader:
    """Reads the entries of a folder of arrays; all that a worker needs to know of a source."""

    folder: Path

    def __call__(self, entry: Entry) -> Recording:
        """The recording of `entry`. Raises Unreadable."""
        path = record_path(self.folder, entry.path)
        row, key = int(entry.extra["array_row"]), str(entry.extra["array_key"])
        leads = tuple(str(entry.extra["source_leads"]).split())
        units = tuple(str(entry.extra["source_units"]).split())
        array = open_array(path, key)
        if array.dtype.kind not in "fiu":
            raise Unreadable("format", f"{entry.path} holds {array.dtype}, not numbers")
        signal = one_recording(array, row, leads, entry.path)
        with np.errstate(over="ignore"):
            signal = np.array(signal, np.float32, order="C")
        signal[~np.isfinite(signal)] = np.nan
        return Recording(
            signal, float(entry.extra["source_fs"]), leads, units * len(leads) if len(units) == 1 else units
        )


def open_arrays(folder: Path) -> Source:
    """List `folder`. Raises UserError, naming the line, where metadata.csv is not as above or the first array contradicts it."""
    path = folder / TABLE
    columns = read_columns(path, ["file", "fs", "leads", "units"], ["row", "key", "record_id", *PEOPLE], strict=True)
    ids: list[str] = []
    extras: list[dict[str, int | float | str]] = []
    for number, file in enumerate(columns["file"]):
        cells = {name: columns[name][number].strip() for name in ("fs", "leads", "units", "row", "key", "record_id")}
        extra = described(f"{path} line {number + 2}", file, cells)
        made = "-".join(part for part in (os.path.splitext(file.strip())[0], cells["key"], cells["row"]) if part)
        ids.append(clean_id(cells["record_id"]) or made)
        extras.append(extra)
    if not ids:
        raise UserError(f"{path} lists no recording; one row a recording is due")
    files = [file.strip() for file in columns["file"]]
    entries, split, notes = people_entries(path, ids, files, columns, extras)
    reader = ArrayReader(folder)
    try:  # what is wrong with the first array is most likely wrong with all: say so before any work
        reader(entries[0])
    except Unreadable as error:
        if error.reason in ("leads", "format", "path"):
            raise UserError(f"{path} line 2: {error.detail}") from None
    return Source(
        name="arrays",
        entries=entries,
        split=split,
        reader=reader,
        find_unlisted=list,  # a file that the table does not name may be anything
        notes=notes,
        label_tables={"metadata": path} if any(text.strip() for text in columns["record_id"]) else {},
    )


def described(line: str, file: str, cells: dict[str, str]) -> dict[str, int | float | str]:
    """What a row says about its array, checked. Raises UserError."""
    for name in ("fs", "leads", "units"):
        if not cells[name]:
            raise UserError(f"{line}: no {name}; it is needed for every recording and never guessed")
    if not file.strip().lower().endswith(KINDS):
        raise UserError(f"{line}: file {file!r}; right are {', '.join(KINDS)}")
    try:
        fs = float(cells["fs"])
    except ValueError:
        fs = math.nan
    if not 0 < fs < math.inf:
        raise UserError(f"{line}: fs {cells['fs']!r}; right is a rate in Hz, such as 500")
    row = whole(cells["row"]) if cells["row"] else -1
    if row is None or (cells["row"] and row < 0):
        raise UserError(f"{line}: row {cells['row']!r}; right is a whole number from 0, or empty")
    leads, units = words(cells["leads"]), words(cells["units"])
    if len(set(leads)) < len(leads):
        raise UserError(f"{line}: a lead stands twice in {cells['leads']!r}")
    if len(units) not in (1, len(leads)):
        raise UserError(f"{line}: {len(units)} units for {len(leads)} leads; right is one for all, or one a lead")
    return {
        "source_fs": fs,
        "source_leads": " ".join(leads),
        "source_units": " ".join(units),
        "array_row": row,
        "array_key": cells["key"],
    }


@lru_cache(maxsize=256)
def words(text: str) -> list[str]:
    """Names apart by blanks, commas, semicolons or bars."""
    return [word for word in re.split(r"[\s,;|]+", text) if word]


def one_recording(array: Any, row: int, leads: tuple[str, ...], path: str) -> np.ndarray:
    """Row `row` of `array` [N, n, S] (or the whole of [n, S] where row is -1) -> [n, S]. Raises Unreadable."""
    shape = tuple(array.shape)
    if row < 0 and len(shape) == 3:
        which = f"column row must say which (0-{shape[0] - 1})"
        raise Unreadable("format", f"{path} holds {shape[0]} recordings {list(shape)}: {which}")
    if row >= 0 and len(shape) != 3 and not (len(shape) == 2 and len(leads) == 1):
        raise Unreadable("format", f"{path} is {list(shape)}: row {row} needs [recordings, leads, samples]")
    if row >= 0:
        if row >= shape[0]:
            raise Unreadable("size", f"{path} holds {shape[0]} recordings: there is no row {row} (the first is 0)")
        shape = shape[1:]
    if len(shape) == 1 and len(leads) == 1:
        shape = (1, *shape)
    if len(shape) != 2:
        due = "[leads, samples] is due, or [recordings, leads, samples] with column row"
        raise Unreadable("format", f"{path} is {list(array.shape)}: {due}")
    if shape[0] != len(leads):
        turned = "; turn the array: [leads, samples] is due, not [samples, leads]" if shape[1] == len(leads) else ""
        raise Unreadable("leads", f"{path} is {list(array.shape)}, {len(leads)} leads are named{turned}")
    check_size(*shape)
    return np.asarray(array[row] if row >= 0 else array[...]).reshape(shape)


def open_array(path: str, key: str) -> Any:
    """The array `key` of file `path`, not yet read where the format allows. Raises Unreadable."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise Unreadable("absent", f"listed, but the file cannot be found: {error.strerror}") from None
    name, version = os.path.basename(path), (status.st_mtime_ns, status.st_size)
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("format", f"{name} is no regular file")
    try:
        if path.lower().endswith(".npy"):
            if key:
                raise Unreadable("format", f"{name} is one array: column key must be empty, not {key!r}")
            return open_npy(path, version)
        if path.lower().endswith(".npz"):
            return open_npz(path, key, version)
        return open_h5(path, key, version)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("format", f"{name}: {' '.join(str(error).split())[:150]}") from None


# Each worker keeps what it has open: many rows of one file follow each other. `version` tells a file that has changed.


@lru_cache(maxsize=16)
def open_npy(path: str, version: tuple[int, int]) -> np.ndarray:
    """A memory map; numpy compares its size with the file's."""
    array = np.lib.format.open_memmap(path, mode="r")
    due = array.offset + array.nbytes
    if due != version[1]:
        claim = f"{list(array.shape)} {array.dtype}"
        raise Unreadable("size", f"{os.path.basename(path)} has {version[1]} bytes, {due} are due for {claim}")
    return array


@lru_cache(maxsize=2)
def open_npz(path: str, key: str, version: tuple[int, int]) -> np.ndarray:
    """One array of a .npz, in memory."""
    with zipfile.ZipFile(path) as archive:
        names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = choose(os.path.basename(path), key, list(names))
        with archive.open(names[chosen]) as member:  # its announced size before anything of that size is allocated
            major = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if major == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(member)
            if kind.hasobject:
                raise Unreadable("format", f"{os.path.basename(path)}: {chosen} is pickled, which is never opened")
            due = member.tell() + math.prod(shape) * kind.itemsize
        if due != names[chosen].file_size:
            raise Unreadable(
                "size", f"{chosen} has {names[chosen].file_size} bytes, {due} are due for {list(shape)} {kind}"
            )
        if due > LARGEST_UNPACKED:
            raise Unreadable(
                "size", f"{chosen} has {due} bytes unpacked, {LARGEST_UNPACKED} are the most; write a .npy"
            )
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[chosen]


@lru_cache(maxsize=16)
def open_h5(path: str, key: str, version: tuple[int, int]) -> Any:
    """A dataset of an HDF5 file, which h5py reads row by row; one whose samples lie in another file is refused."""
    import h5py  # here, so that only those who have .h5 files wait for it

    file, name = h5py.File(path, "r"), os.path.basename(path)
    if not key:
        key = choose(name, key, [item for item in file if file.get(item, getclass=True) is h5py.Dataset])
    parts = [part for part in key.split("/") if part]
    for depth in range(1, len(parts) + 1):
        if isinstance(file.get("/".join(parts[:depth]), getlink=True), h5py.ExternalLink):
            raise Unreadable("path", f"{name}: {key!r} is a link to another file")
    data = file.get(key)
    if not isinstance(data, h5py.Dataset):
        raise Unreadable("format", f"{name} holds no array {key!r}")
    if data.is_virtual or data.external:
        raise Unreadable("path", f"{name}: the samples of {key!r} lie in another file")
    # Parts of a dataset that were never written read as zeros, whatever size is announced. Compression reaches 1000 at best.
    if math.prod(data.shape or ()) * data.dtype.itemsize > 1000 * data.id.get_storage_size():
        raise Unreadable("size", f"{name}: {key!r} announces {list(data.shape)} and holds next to nothing")
    return data


def choose(file: str, key: str, names: list[str]) -> str:
    """The array meant by `key`; an empty one means the only array. Raises Unreadable."""
    if not key and len(names) == 1:
        return names[0]
    if key not in names:
        there = ", ".join(names)[:200] or "none"
        raise Unreadable(
            "format", f"{file} has the arrays {there}; column key must name one" + (f", not {key!r}" if key else "")
        )
    return key
