"""PTB-XL's labels: SCP-ECG statements, and the benchmark's six tasks made from them.

`ptbxl_database.csv` holds, a record, the text of a Python dict {statement: likelihood}; `scp_statements.csv` says of each
statement whether it is about diagnosis, form or rhythm, and to which class a diagnosis belongs. A likelihood of 0.0 means
"present, not graded", so that presence in the dict is what counts, never the number.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lamae_jax.data.labels.table import Labels
from lamae_jax.errors import UserError

DATABASE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
STATEMENT_COLUMNS = ("", "description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")
TASKS = {  # task: which flag a statement must carry, and the column that names its class (the statement itself is under "")
    "super": ("diagnostic", "diagnostic_class"),
    "sub": ("diagnostic", "diagnostic_subclass"),
    "diag": ("diagnostic", ""),
    "form": ("form", ""),
    "rhythm": ("rhythm", ""),
    "all": ("", ""),
}

# Classes that are not themselves statements; the others take their statement's description.
CLASS_DESCRIPTIONS = {
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
    "_AVB": "atrioventricular block",
    "ISCA": "ischaemia in anterior or lateral leads",
    "ISCI": "ischaemia in inferior leads",
    "LAFB/LPFB": "left anterior or posterior fascicular block",
}


def parse_scp_codes(text: str) -> frozenset[str]:
    """The statements of one cell, whatever their likelihood. Raises ValueError unless it is a dict of texts to numbers."""
    try:
        codes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(f"scp_codes {text[:60]!r} is not a Python dict") from None
    if not isinstance(codes, dict):
        raise ValueError(f"scp_codes {text[:60]!r} is not a Python dict")
    for code, likelihood in codes.items():
        if not isinstance(code, str) or isinstance(likelihood, bool) or not isinstance(likelihood, int | float):
            raise ValueError(f"scp_codes {text[:60]!r} is not a dict of statements to likelihoods")
    return frozenset(codes)


def task_classes(statements: Sequence[Mapping[str, str]], task: str) -> tuple[dict[str, str], dict[str, str]]:
    """For each statement of a task its class, and for each class a description, in the order of the statements file.

    `statements` are rows of scp_statements.csv, the statement itself under the key "".
    """
    kind, column = TASKS[task]
    words = {row[""]: row["description"] for row in statements} | CLASS_DESCRIPTIONS
    # The flags are the texts "1.0" or nothing.
    class_of = {row[""]: row[column] for row in statements if not kind or row[kind] in ("1.0", "1")}
    return class_of, {name: words.get(name, name) for name in class_of.values()}


def ptbxl_labels(folder: Path, task: str, record_ids: Sequence[str]) -> Labels:
    """The labels of `record_ids` for a task, from the two tables in `folder`; a record without any is not kept.

    Raises UserError where a table is absent, a record is not in it, or a cell is not what PTB-XL writes.
    """
    statements = _read(folder / STATEMENTS, STATEMENT_COLUMNS)
    known = {row[""] for row in statements}
    class_of, descriptions = task_classes(statements, task)
    names = tuple(descriptions)
    column = {name: c for c, name in enumerate(names)}
    cells = {row["ecg_id"]: row["scp_codes"] for row in _read(folder / DATABASE, ("ecg_id", "scp_codes"))}
    matrix = np.zeros((len(record_ids), len(names)), np.float32)
    for row, record_id in enumerate(record_ids):
        if record_id not in cells:
            raise UserError(
                f"{folder / DATABASE}: has no ecg_id {record_id}, which the store holds; prepare the store again"
            )
        try:
            codes = parse_scp_codes(cells[record_id])
        except ValueError as error:
            raise UserError(f"{folder / DATABASE}: ecg_id {record_id}: {error}") from None
        if codes - known:
            raise UserError(f"{folder / DATABASE}: ecg_id {record_id}: {min(codes - known)!r} is not in {STATEMENTS}")
        for code in codes & class_of.keys():
            matrix[row, column[class_of[code]]] = 1
    keep = np.asarray(matrix.any(axis=1))
    notes = {"without_label_of_task": int(np.count_nonzero(~keep))}
    return Labels(names, matrix, keep, tuple(descriptions.values()), ("",) * len(names), notes)


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in needed if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: has no column {missing[0]!r}, so it is not PTB-XL's table")
            return list(reader)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not there; labels=ptbxl:... needs a store made with configs/prepare.py:ptb_xl"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV ({error})") from None
