"""The prepared store: its layout on disk, opened for reading.

    manifest.json         format, contract, split, counts, checksums; written last, so that its presence means "complete"
    shards/00000.npy ...  int16 [n_i, L, S], 1 uV a count; shard i holds source records [4096 i, 4096 (i + 1)) less the rejected
    records.parquet       one row a stored waveform, in shard order
    labels/*.csv          the source's label tables whole; those of one row a record with a last column `has_waveform`
    rejected.csv          what could not be used and why

N stored waveforms, L leads, S samples.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lamae_jax.data.sources import Split
from lamae_jax.errors import UserError
from lamae_jax.files import regular, sha256_file
from lamae_jax.signal.contract import SignalContract

FORMAT = 1
MANIFEST = "manifest.json"
TABLE = "records.parquet"
REJECTED = "rejected.csv"
LARGEST_MANIFEST = 1 << 28  # bytes; what grows is the list of unlisted files
BEGUN = "preparing.json"  # stands where `manifest.json` will, while a store is being made


def shard_file(index: int) -> str:
    """The name of a shard inside its store."""
    return f"shards/{index:05d}.npy"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete store. Raises UserError in one line when there is none or it can't be read."""
    path = folder / MANIFEST
    try:
        with open(path, "rb", opener=regular) as file:
            if os.fstat(file.fileno()).st_size > LARGEST_MANIFEST:
                raise ValueError
            manifest = json.loads(file.read())
        number = manifest["format"]
    except (FileNotFoundError, NotADirectoryError):
        if (folder / BEGUN).exists():
            raise UserError(f"store {folder}: not complete yet; run its prepare command again to finish it") from None
        what = "has no manifest.json" if folder.is_dir() else "there is no such folder"
        raise UserError(f"store {folder}: {what}; make one with --config=configs/prepare.py:SOURCE") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"store {folder}: manifest.json is damaged; delete the store and prepare it again") from None
    except OSError as error:
        raise UserError(f"store {folder}: manifest.json can't be read: {error.strerror}") from None
    if number != FORMAT:
        raise UserError(
            f"store {folder}: format {number}, this version reads {FORMAT}; "
            "use the version of lamae_jax that wrote it, or prepare it again"
        )
    return manifest


def verify(folder: Path | str) -> list[str]:
    """Everything that is wrong with the files of a store, one line each; an empty list means that all checksums hold.

    Raises UserError when it is no store, or not a complete one.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    due = {shard["file"]: shard["sha256"] for shard in manifest["shards"]} | manifest["files"]
    problems = []
    for name, expected in due.items():
        if name.startswith("/") or ".." in name.split("/"):
            problems.append(f"{name}: lies outside the store")
            continue
        try:
            found = sha256_file(folder / name)
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
            continue
        if found != expected:
            problems.append(f"{name}: sha256 is {found[:12]}..., the manifest says {expected[:12]}...")
    there = {path.relative_to(folder).as_posix() for path in (folder / "shards").glob("*.npy")}
    problems += [f"{name}: not in the manifest" for name in sorted(there - set(due))]
    return problems


class Store:
    """A complete store, opened for reading; columns and shards are opened when first asked for."""

    def __init__(self, folder: Path, manifest: dict[str, Any], contract: SignalContract):
        self.folder, self.manifest, self.contract = folder, manifest, contract
        split = manifest["split"]
        self.split = Split(
            column=split["column"],
            train=tuple(split["train"]),
            validation=tuple(split["validation"]),
            test=tuple(split["test"]),
            rule=split["rule"],
        )
        self.name: str = manifest["source"]
        counts = [shard["records"] for shard in manifest["shards"]]
        self.ends = np.cumsum(counts, dtype=np.int64)  # [shards]: row numbers at which shards end
        self.size = int(self.ends[-1]) if counts else 0
        self._files: dict[int, tuple[int, int]] = {}  # shard -> (file descriptor, offset of its first sample)

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store by its manifest alone (checksums are `verify`'s). Raises UserError in one line."""
        folder = Path(path)
        manifest = read_manifest(folder)
        try:
            store = cls(folder, manifest, SignalContract.from_dict(manifest["contract"]))
            for index, shard in enumerate(manifest["shards"]):
                if shard["file"] != shard_file(index):  # never a file elsewhere, whoever wrote the manifest
                    raise TypeError(f"shard {index} is called {str(shard['file'])[:60]!a}")
            return store
        except UserError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"store {folder}: manifest.json is damaged ({error}); prepare it again") from None

    @cached_property
    def hash(self) -> str:
        """Hex sha256 of manifest.json, which holds every other checksum: the identity of the store's contents."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    def with_split(self, split: Split) -> Store:
        """The same store with another split, of one of its fold columns."""
        other = Store(self.folder, self.manifest, self.contract)
        other.split = split
        return other

    def column(self, name: str) -> np.ndarray:
        """One column of records.parquet [N]; texts come as objects, missing values as None or NaN."""
        try:
            with open(self.folder / TABLE, "rb", opener=regular) as opened, pq.ParquetFile(opened) as file:
                names = file.schema_arrow.names
                self._check_rows(file.metadata.num_rows)  # first: some bytes can stand for any number of rows
                values = file.read([name]).column(0).to_numpy() if name in names else None
        except UserError:
            raise
        except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
            raise UserError(
                f"store {self.folder}: {TABLE} can't be read ({' '.join(str(error).split())}); check it with verify_only"
            ) from None
        if values is None:
            raise UserError(f"store {self.folder}: no column {name!r}; there are {', '.join(names)}")
        self._check_rows(len(values))
        return values

    def _check_rows(self, rows: int) -> None:
        if rows != self.size:
            raise UserError(f"store {self.folder}: {TABLE} has {rows} rows, the manifest says {self.size}")

    def _whole_numbers(self, name: str) -> np.ndarray:
        """A column that must hold whole numbers [N]."""
        values = self.column(name)
        if values.dtype.kind not in "iu":
            kind = "texts" if values.dtype == object else str(values.dtype)
            raise UserError(f"store {self.folder}: column {name} of {TABLE} holds {kind}; whole numbers are due")
        return values

    @cached_property
    def available(self) -> np.ndarray:
        """Which leads each waveform has, bool [N, L]."""
        bits = np.arange(len(self.contract.leads), dtype=np.uint32)
        return (self._whole_numbers("available").astype(np.uint32)[:, None] >> bits & 1).astype(bool)

    @cached_property
    def record_ids(self) -> np.ndarray:
        """The source's record ids, texts [N]; with `long=windows` the windows of a record share one."""
        return self.column("record_id")

    @cached_property
    def patients(self) -> np.ndarray:
        """Patient ids, texts [N]; where the source knows none, each record is its own patient."""
        ids = self.column("patient_id")
        unknown = np.array([patient is None for patient in ids], bool)
        if unknown.any():
            ids = ids.copy()
            ids[unknown] = [f"record {record}" for record in self.record_ids[unknown]]
        return ids

    @cached_property
    def folds(self) -> np.ndarray:
        """The fold of each waveform in the split's column, int16 [N]; -1 where the source has none."""
        return self._whole_numbers(self.split.column)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Waveforms int16 [n, L, S] of the rows [n], in their order. Safe to call from several threads.

        Plain positioned reads, not a memory map: a damaged shard is then an error and not a bus error that kills the process,
        and the process's memory doesn't grow with what it has read. Raises UserError when a shard ends too soon.
        """
        rows = np.asarray(rows, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.size):
            raise IndexError(f"store {self.folder}: row {rows.min()} or {rows.max()} of {self.size}")
        out = np.empty((len(rows), len(self.contract.leads), self.contract.samples), np.int16)
        bytes_each = out[0].nbytes if len(rows) else 0
        target = out.reshape(-1).view(np.uint8).data
        shards = np.searchsorted(self.ends, rows, side="right")
        within = rows - np.concatenate([[0], self.ends])[shards]
        for i, (shard, row) in enumerate(zip(shards.tolist(), within.tolist(), strict=True)):
            descriptor, start = self._files.get(shard) or self._open(shard)
            piece = target[i * bytes_each : (i + 1) * bytes_each]
            if os.preadv(descriptor, [piece], start + row * bytes_each) != bytes_each:
                raise UserError(f"store {self.folder}: {shard_file(shard)} ends too soon; check it with verify_only")
        return out

    def _open(self, shard: int) -> tuple[int, int]:
        """Open a shard, check its header against the manifest and remember its descriptor."""
        name = self.manifest["shards"][shard]["file"]
        due = (self.manifest["shards"][shard]["records"], len(self.contract.leads), self.contract.samples)
        try:
            with open(self.folder / name, "rb", opener=regular) as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError("not version 1.0 of .npy")
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                start = file.tell()
                descriptor = os.dup(file.fileno())
        except Exception as error:  # numpy parses the header with Python's parser, which raises this and that on damage
            why = " ".join(str(error).split())[:200]
            raise UserError(f"store {self.folder}: {name} can't be read ({why}); check it with verify_only") from None
        weakref.finalize(self, os.close, descriptor)
        if (shape, fortran, dtype) != (due, False, np.dtype("<i2")):
            raise UserError(f"store {self.folder}: {name} holds {dtype} {shape}, the manifest says int16 {due}")
        self._files[shard] = descriptor, start
        return descriptor, start

    def verify(self) -> list[str]:
        """Everything that is wrong with the store's files, one line each."""
        return verify(self.folder)


def open_stores(paths: str) -> list[Store]:
    """Open the stores of a comma-separated list; all must have one contract, else UserError names the differing fields."""
    stores = [Store.open(path.strip()) for path in paths.split(",") if path.strip()]
    if not stores:
        raise UserError(f"data.store: {paths!r} names no store")
    first = stores[0]
    for store in stores[1:]:
        different = store.contract.differences(first.contract, theirs=str(first.folder), ours=str(store.folder))
        if different:
            raise UserError(f"stores must have one signal contract: {'; '.join(different)}")
    return stores
