"""The text side of a store: records.parquet, rejected.csv, labels/*.csv. Bytes depend on the source and its records only."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lamae_jax.data.sources import Entry, Source
from lamae_jax.data.sources.csv_tables import clean_id
from lamae_jax.data.store import REJECTED, TABLE
from lamae_jax.errors import UserError
from lamae_jax.files import write_csv, write_with

OWN_COLUMNS = (
    "record_id",
    "window",
    "patient_id",
    "path",
    "age",
    "sex",
    "available",
    "flags",
    "sha256",
    "shard",
    "row",
)


def write_records(store: Path, entries: Sequence[Entry], parts: Sequence[dict[str, Any]]) -> None:
    """records.parquet: one row a stored waveform, in shard order. Folds are int16, -1 where an entry has none."""
    rows = [(shard, row, *stored) for shard, part in enumerate(parts) for row, stored in enumerate(part["stored"])]
    mine = [entries[row[2]] for row in rows]
    columns: dict[str, pa.Array] = {
        "record_id": pa.array([entry.record_id for entry in mine], pa.string()),
        "window": pa.array([row[3] for row in rows], pa.int32()),
        "patient_id": pa.array([entry.patient_id for entry in mine], pa.string()),
        "path": pa.array([entry.path for entry in mine], pa.string()),
    }
    for name in distinct(entry.folds for entry in entries):
        columns[name] = pa.array([entry.folds.get(name, -1) for entry in mine], pa.int16())
    columns |= {
        "age": pa.array([entry.age for entry in mine], pa.float32()),
        "sex": pa.array([entry.sex for entry in mine], pa.string()),
        "available": pa.array([row[4] for row in rows], pa.uint32()),
        "flags": pa.array([row[5] for row in rows], pa.string()),
        "sha256": pa.array([row[6] for row in rows], pa.string()),
        "shard": pa.array([row[0] for row in rows], pa.int32()),
        "row": pa.array([row[1] for row in rows], pa.int32()),
    }
    for name in distinct(entry.extra for entry in entries):
        values = [entry.extra.get(name) for entry in mine]
        columns[name] = pa.array(values, extra_type(entry.extra[name] for entry in entries if name in entry.extra))
    write_with(store / TABLE, lambda file: pq.write_table(pa.table(columns), file))


def distinct(mappings: Iterable[dict[str, Any]]) -> list[str]:
    """The keys of some mappings, each once, in the order in which they are first seen."""
    keys: dict[str, None] = {}
    for mapping in mappings:
        keys.update(dict.fromkeys(mapping))
    clash = sorted(set(keys) & set(OWN_COLUMNS))
    if clash:
        raise UserError(f"the source's column {clash[0]!r} has the name of a column of records.parquet; rename it")
    return list(keys)


def extra_type(values: Iterable[Any]) -> pa.DataType:
    """The narrowest of whole numbers, numbers and text that holds all values of a column."""
    kinds = {type(value) for value in values}
    return pa.int64() if kinds == {int} else pa.float64() if kinds <= {int, float} else pa.string()


def write_rejected(store: Path, entries: Sequence[Entry], parts: Iterable[dict[str, Any]]) -> None:
    """rejected.csv: `path` relative to the source without extension, `record_id`, `reason` (a fixed word), `detail`."""
    lines = [("path", "record_id", "reason", "detail")]
    lines += [
        (entries[index].path, entries[index].record_id, reason, detail)
        for part in parts
        for index, reason, detail in part["rejected"]
    ]
    write_csv(store / REJECTED, lines)


def write_labels(store: Path, source: Source, waveforms: set[str]) -> list[str]:
    """Copy the source's label tables whole to labels/NAME.csv; where the key column is there, add `has_waveform` (0, 1).

    Returns the files written, relative to the store. Raises UserError for a table that is no UTF-8 CSV.
    """
    written = []
    for name, path in sorted(source.label_tables.items()):
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = list(csv.reader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path}: not a CSV table in UTF-8 ({error})") from None
        if rows and source.label_key in rows[0]:
            width, key = len(rows[0]), rows[0].index(source.label_key)
            rows[0] = [*rows[0], "has_waveform"]
            for i, row in enumerate(rows[1:], 1):
                row = row + [""] * (width - len(row))  # a row cut short must not shift the new column
                rows[i] = [*row, "1" if clean_id(row[key]) in waveforms else "0"]
        write_csv(store / "labels" / f"{name}.csv", rows)
        written.append(f"labels/{name}.csv")
    return written
