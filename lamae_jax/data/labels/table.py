"""What labels are, and those from a table of the user's own: one row a record, one column a label."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamae_jax.errors import UserError


@dataclass(frozen=True)
class Labels:
    """Labels of a store's N records: `matrix` [N, C] of 1, 0 or NaN (unknown), `keep` [N] (False: outside the task).

    `names`, `descriptions` and `levels`: C texts each; the level in the hierarchy of ICD-10 (`chapter`, `block`, or the number of
    characters of the code), empty for other labels. `notes`: counts worth reporting.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    keep: np.ndarray
    descriptions: tuple[str, ...]
    levels: tuple[str, ...]
    notes: dict[str, int]


# A label column with gaps leaves most programs as 1.0 and 0.0.
VALUES = {"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "": np.nan}


def read_table(path: Path) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    """Label names and, a record id, its values (1, 0, NaN). Raises UserError naming the line, the column and the value."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            names = tuple(name for name in header if name != "record_id")
            if header.count("record_id") != 1 or not names:
                found = ", ".join(header) or "nothing"
                raise UserError(f"{path}: needs one column record_id and one column a label; found {found}")
            if len(set(names)) < len(names) or "" in names:
                raise UserError(f"{path}: every label needs a name of its own; found {', '.join(names)}")
            key = header.index("record_id")
            rows: dict[str, list[float]] = {}
            for cells in reader:
                if not cells:
                    continue
                where = f"{path}: line {reader.line_num}"
                if len(cells) != len(header):
                    raise UserError(f"{where}: has {len(cells)} cells, the header {len(header)}")
                record_id = cells[key].strip()
                if record_id in rows:
                    raise UserError(f"{where}: record_id {record_id} occurs twice")
                values = [cell.strip() for column, cell in enumerate(cells) if column != key]
                for name, value in zip(names, values, strict=True):
                    if value not in VALUES:
                        raise UserError(f"{where}: {name}={value}: must be 1, 0 or empty (unknown)")
                rows[record_id] = [VALUES[value] for value in values]
    except OSError as error:
        raise UserError(f"labels=csv:{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8 ({error})") from None
    return names, rows


def table_labels(path: Path, record_ids: Sequence[str]) -> Labels:
    """The labels of `record_ids`, without descriptions; records that are not in the table are unknown.

    Raises UserError where not one record of the table is asked for.
    """
    names, rows = read_table(path)
    unknown = [np.nan] * len(names)
    matrix = np.array([rows.get(str(record_id), unknown) for record_id in record_ids], np.float32).reshape(
        -1, len(names)
    )
    stored = {str(record_id) for record_id in record_ids}
    if not stored & rows.keys():
        raise UserError(
            f"{path}: none of its {len(rows)} record ids ({', '.join(list(rows)[:2])} ...) is in the store"
            f" ({', '.join(sorted(stored)[:2])} ...)"
        )
    notes = {"not_in_store": len(rows.keys() - stored), "not_in_table": len(stored - rows.keys())}
    keep = np.any(~np.isnan(matrix), axis=1)
    return Labels(names, matrix, np.asarray(keep), ("",) * len(names), ("",) * len(names), notes)
