"""Frozen features kept on disk, so that a second probe of the same model and records does not encode again.

    FOLDER/KEY/key.json            what the key stands for
    FOLDER/KEY/PIECE/rows.npy      [n] rows of the store
    FOLDER/KEY/PIECE/record_ids.npy
    FOLDER/KEY/PIECE/NAME.npy      one array a readout, [n, ...]
    FOLDER/KEY/PIECE/piece.json    their checksums; written last

The key follows from all that features follow from: parameters, sizes, inputs, the store, the code that encodes and the kind of
device. Pieces are never changed: rows that none holds yet are encoded and become new ones, so a run that was killed goes on. A
piece that is damaged is not used and its rows are encoded again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lamae_jax import model as model_room
from lamae_jax.artifact.folder import Model, flatten
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate import features as features_file
from lamae_jax.evaluate.features import extract
from lamae_jax.files import sha256_file, sha256_files, write_json, write_npy
from lamae_jax.progress import say

PIECE = 2048  # records: what is lost when a run is killed, and what is held in memory


class Stored:
    """One readout of N rows, in as many files as they were encoded in; read when asked for."""

    def __init__(self, arrays: list[np.ndarray], piece: np.ndarray, place: np.ndarray):
        self.arrays, self.piece, self.place = arrays, piece, place  # row i is arrays[piece[i]][place[i]]

    def __len__(self) -> int:
        return len(self.piece)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """The rows `index` [n] of the N, in their order: [n, ...]."""
        piece, place = self.piece[index], self.place[index]
        out = np.empty((len(piece), *self.arrays[0].shape[1:]), self.arrays[0].dtype)
        for number in np.unique(piece):
            mine = piece == number
            out[mine] = self.arrays[number][place[mine]]
        return out

    def part(self, index: np.ndarray) -> Stored:
        """The same for some of the rows, not yet read."""
        return Stored(self.arrays, self.piece[index], self.place[index])


def cached_features(
    folder: Path, model: Model, store: Store, rows: np.ndarray, names: tuple[str, ...], batch_size: int, label: str
) -> dict[str, Stored]:
    """`features.extract` of the store's `rows` [N], taken from `folder` as far as they are there; the rest is encoded and kept.

    Raises NotFinite as `extract` does, UserError where the folder changes meanwhile.
    """
    key = features_key(model, store, names)
    home = folder / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    pieces = _whole_pieces(home, store, names)
    missing = np.setdiff1d(rows, np.concatenate([[], *(piece["rows"] for piece in pieces)]).astype(np.int64))
    if 0 < len(missing) < len(rows):
        say(f"{label}: features of {len(rows) - len(missing)} of {len(rows)} records are in {home}")
    if len(missing):
        write_json(home / "key.json", key)
    parts = [missing[first : first + PIECE] for first in range(0, len(missing), PIECE)]
    for number, part in enumerate(parts, 1):
        which = f"{label}, part {number} of {len(parts)}" if len(parts) > 1 else label
        arrays = extract(model.params, model.config, model.inputs, store, part, names, batch_size, which)
        _write_piece(home, store, part, arrays)
    if parts:
        pieces = _whole_pieces(home, store, names)
    piece, place = located([each["rows"] for each in pieces], rows)
    if (piece < 0).any():
        raise UserError(f"{home}: features vanished or changed while they were read; the same command makes them again")
    return {name: Stored([each[name] for each in pieces], piece, place) for name in names}


def located(held: list[np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In which of the arrays `held` each of `rows` [N] stands, and where in it; -1 where in none.

    Of [4, 7] and [2], row 7 is (0, 1), row 2 is (1, 0), row 5 is (-1, -1).
    """
    all_rows = np.concatenate([np.zeros(0, np.int64), *held])
    piece_of = np.repeat(np.arange(len(held)), [len(each) for each in held])
    place_of = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(each)) for each in held)])
    order = np.argsort(all_rows, kind="stable")
    found = np.searchsorted(all_rows, rows, sorter=order)
    there = found < len(all_rows)
    there[there] = all_rows[order[found[there]]] == rows[there]
    at = order[found[there]]
    piece, place = np.full(len(rows), -1), np.full(len(rows), -1)
    piece[there], place[there] = piece_of[at], place_of[at]
    return piece, place


def features_key(model: Model, store: Store, names: tuple[str, ...]) -> dict[str, Any]:
    """All that features follow from, as plain values."""
    params = hashlib.sha256()
    for name, array in flatten(model.params).items():
        params.update(f"{name} {array.shape}".encode())
        params.update(array.data)
    code = (*sorted(Path(str(model_room.__file__)).parent.glob("*.py")), Path(features_file.__file__))
    return {
        "params": params.hexdigest(),
        "model": dataclasses.asdict(model.config),
        "inputs": dataclasses.asdict(model.inputs),
        "store": store.hash,
        "readouts": list(names),
        "code": sha256_files(code),
        "device": jax.default_backend(),
    }


def _write_piece(home: Path, store: Store, rows: np.ndarray, arrays: dict[str, np.ndarray]) -> None:
    # Named by its rows: two runs that make the same piece at once write the same files.
    folder = home / hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16]
    contents = {"rows": rows.astype(np.int64), "record_ids": store.record_ids[rows].astype(str), **arrays}
    for name, array in contents.items():
        write_npy(folder / f"{name}.npy", array)
    write_json(folder / "piece.json", {name: sha256_file(folder / f"{name}.npy") for name in contents})


def _whole_pieces(home: Path, store: Store, names: tuple[str, ...]) -> list[dict[str, np.ndarray]]:
    """The pieces that are as they were written, their arrays left on disk."""
    whole = []
    for record in sorted(home.glob("*/piece.json")):
        try:
            checksums = json.loads(record.read_text())
            contents = {}
            for name in ("rows", "record_ids", *names):
                path = record.parent / f"{name}.npy"
                if sha256_file(path) != checksums[name]:
                    raise ValueError(f"{path.name} was altered or cut short")
                contents[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            if not np.array_equal(contents["record_ids"], store.record_ids[contents["rows"]].astype(str)):
                raise ValueError("its record ids are not the store's")
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            say(f"features in {record.parent} can't be used ({error}): they are made again")
            record.unlink(missing_ok=True)
            continue
        whole.append(contents)
    return whole
