"""The diagnosis table of MIMIC-IV-ECG-Ext-ICD, read whole: a row a study, whether or not its waveform is here.

A cell of `all_diag_all` is the text of a Python list of ICD-10-CM codes: the hospital's diagnoses of the stay in which the ECG
was taken or, where there are none, the emergency department's. `[]` means that no diagnosis is linked: nothing is known of such
a study, which is not the same as nothing being wrong. R studies, V different codes as written.
"""

from __future__ import annotations

import ast
import warnings
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from lamae_jax.data.labels import icd10
from lamae_jax.data.labels.icd10 import Icd10Rules, LabelSet, is_code, repaired, row_counts
from lamae_jax.data.labels.icd10_tree import description_of
from lamae_jax.data.labels.table import Labels
from lamae_jax.data.sources import Split
from lamae_jax.data.sources.csv_tables import clean_id, read_columns, whole
from lamae_jax.data.sources.mimic_iv_ecg import DIAGNOSES, SPLIT, fold_of
from lamae_jax.data.splits import PER_STAY, STAY_COLUMN, not_first_of_stay, split_by
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError

COLUMN = "all_diag_all"
# A real cell has at most 40 codes, some 400 characters. Python's parser is not to be handed megabytes.
LONGEST_CELL = 10_000
# Why a row is unusable.
REASONS = {
    "no_study_id": "the row has no study_id",
    "empty_cell": f"{COLUMN} is empty, where the table writes [] for no diagnosis",
    "too_long": f"{COLUMN} has more than {LONGEST_CELL} characters",
    "not_a_literal": f"{COLUMN} is no Python literal: broken, without brackets, or something to be run",
    "not_a_list": f"{COLUMN} is a literal, but no list",
    "not_texts": f"{COLUMN} is a list of other things than texts",
}


@dataclass(frozen=True)
class Diagnoses:
    """What the table says of R studies, in its order.

    `studies`, `patients`: ids. `written`: the V different codes, as they stand in the cells; `cells` [R, V] sparse: which of them
    a study has. `has_codes` [R] bool: its list is not empty, whatever the codes are. `folds` [R] int16, -1 for none.
    `first_of_stay` [R] bool. `split`: which folds are for what. `rows`: of the file; `duplicates`: rows of a study that has one
    already, skipped; `unusable`: reason -> ids of its studies.
    """

    studies: list[str]
    patients: list[str]
    written: tuple[str, ...]
    cells: csr_array
    has_codes: np.ndarray
    folds: np.ndarray
    first_of_stay: np.ndarray
    split: Split
    rows: int
    duplicates: int
    unusable: dict[str, list[str]]

    def in_folds(self, part: str) -> np.ndarray:
        """The studies in the folds of `train`, `validation` or `test`, bool [R]."""
        return np.isin(self.folds, getattr(self.split, part))

    def part(self, part: str) -> np.ndarray:
        """The studies that a part uses, bool [R]: with a code of any kind; in validation and test the first ECG of each stay."""
        inside = self.has_codes & self.in_folds(part)
        return inside if part == "train" else inside & self.first_of_stay

    def labels(self, label_set: str, rules: Icd10Rules) -> LabelSet:
        """The labels of a set. Raises UserError where there are none, or where the published table is not as published."""
        if self.rows == icd10.PUBLISHED_ROWS:
            names, members = icd10.memberships(self.written, self.cells, icd10.DEFAULT_RULES, "", tree=False)
            icd10.check_published(self.rows, dict(zip(names, row_counts(members).tolist(), strict=True)))
        return icd10.choose_labels(self.written, self.cells, self.in_folds("train"), label_set, rules)

    def repairs(self) -> dict[str, int]:
        """How many codes were repaired, by what was done; a code counts once a study."""
        done: Counter[str] = Counter()
        for code, count in zip(self.written, row_counts(self.cells).tolist(), strict=True):
            done.update(dict.fromkeys(repaired(code)[1], count))
        return dict(sorted(done.items()))

    def dropped(self) -> dict[str, int]:
        """The codes that are none, as written, with how many studies have them, the most common first."""
        counts = zip(self.written, row_counts(self.cells).tolist(), strict=True)
        none = [(code, count) for code, count in counts if not is_code(repaired(code)[0])]
        return dict(sorted(none, key=lambda each: (-each[1], each[0])))

    def counts(self) -> dict[str, int]:
        """What became of the table's rows and codes."""
        unusable = sum(map(len, self.unusable.values()))
        with_codes = int(np.count_nonzero(self.has_codes))
        return {
            "table_rows": self.rows,
            "duplicate_rows": self.duplicates,
            "unusable_rows": unusable,
            "rows_without_codes": self.rows - self.duplicates - unusable - with_codes,
            "rows_with_codes": with_codes,
            "repaired_codes": sum(self.repairs().values()),
            "dropped_codes": sum(self.dropped().values()),
        }


def read_diagnoses(path: Path, fold_column: str = "fold") -> Diagnoses:
    """Read the table. Raises UserError when it is not there, is no CSV or lacks a column; faulty rows and cells are counted."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; {DIAGNOSES} of MIMIC-IV-ECG-Ext-ICD would be right")
    table = read_columns(path, ["study_id", "subject_id", COLUMN, fold_column, STAY_COLUMN])
    ids = [clean_id(text) for text in table["study_id"]]
    # The first row of a study counts, also where it is unusable and a later one isn't: which is right can't be told.
    row_of: dict[str, int] = {}
    for row, study in enumerate(ids):
        row_of.setdefault(study, row)
    row_of.pop("", None)
    studies, first = list(row_of), list(row_of.values())
    unusable = {"no_study_id": [f"row {row}" for row, study in enumerate(ids, 1) if not study]}
    written, cells, has_codes = read_cells(studies, [table[COLUMN][row] for row in first], unusable)
    return Diagnoses(
        studies=studies,
        patients=[clean_id(table["subject_id"][row]) for row in first],
        written=written,
        cells=cells,
        has_codes=has_codes,
        folds=np.array([fold_of(table[fold_column][row]) for row in first], np.int16),
        first_of_stay=np.array([whole(table[STAY_COLUMN][row]) == 0 for row in first], bool),
        split=split_by(SPLIT, fold_column, PER_STAY),
        rows=len(ids),
        duplicates=len(ids) - len(first) - len(unusable["no_study_id"]),
        unusable={reason: found for reason, found in unusable.items() if found},
    )


def read_cells(
    studies: Sequence[str], texts: Sequence[str], unusable: dict[str, list[str]]
) -> tuple[tuple[str, ...], csr_array, np.ndarray]:
    """`written`, `cells` and `has_codes` of Diagnoses from the texts of R cells; adds to `unusable` the studies it can't read."""
    numbers: dict[str, int] = {}
    found, ends = array("i"), array("q", [0])
    has_codes = np.zeros(len(texts), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # an escape that Python doesn't know: the code is dropped later
        warnings.simplefilter("ignore", DeprecationWarning)  # the same before Python 3.12
        for row, text in enumerate(texts):
            try:
                codes = parse_cell(text)
            except ValueError as reason:
                unusable.setdefault(str(reason), []).append(studies[row])
                codes = []
            has_codes[row] = bool(
                codes
            )  # of the raw cell: a study with codes of other chapters only has statements too
            # A code that stands twice in a cell counts once.
            found.extend(numbers.setdefault(code, len(numbers)) for code in dict.fromkeys(codes))
            ends.append(len(found))
    columns = np.frombuffer(found, np.int32) if found else np.zeros(0, np.int32)
    ones = np.ones(len(columns), np.int32)
    cells = csr_array((ones, columns, np.frombuffer(ends, np.int64)), shape=(len(texts), len(numbers)))
    return tuple(numbers), cells, has_codes


def parse_cell(text: str) -> list[str]:
    """The codes of a cell, as written. Nothing is ever run. Raises ValueError with one of the words of REASONS."""
    if text == "[]":
        return []
    if not text.strip():
        raise ValueError("empty_cell")
    if len(text) > LONGEST_CELL:
        raise ValueError("too_long")
    try:
        codes = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("not_a_literal") from None
    if not isinstance(codes, list):
        raise ValueError("not_a_list")
    if not all(isinstance(code, str) for code in codes):
        raise ValueError("not_texts")
    return codes


def diagnosis_table(store: Store) -> Path:
    """Where the table lies in a store. Raises UserError where it doesn't."""
    path = store.folder / "labels" / DIAGNOSES
    if not path.is_file():
        raise UserError(
            f"{path}: not there; labels=icd10:... needs a store made with configs/prepare.py:mimic_iv_ecg "
            f"from a folder in which {DIAGNOSES} lies beside record_list.csv"
        )
    return path


def icd10_labels(diagnoses: Diagnoses, label_set: str, store: Store, rules: Icd10Rules) -> Labels:
    """The stored records' labels of a set that the whole table decides on.

    Not kept: a record that the table lacks or knows no diagnosis of and, in validation and test, one not the first of its stay.
    """
    chosen = diagnoses.labels(label_set, rules)
    row_of = {study: row for row, study in enumerate(diagnoses.studies)}
    rows = np.array([row_of.get(record, -1) for record in store.record_ids.tolist()], np.int64)
    listed = rows >= 0
    matrix = np.zeros((len(rows), len(chosen.names)), np.float32)
    matrix[listed] = chosen.members[rows[listed]].toarray()
    known = listed.copy()
    known[listed] = diagnoses.has_codes[rows[listed]]
    later = known & not_first_of_stay(store)
    notes = diagnoses.counts() | {
        "stored_not_in_table": int(np.count_nonzero(~listed)),
        "stored_without_codes": int(np.count_nonzero(listed & ~known)),
        "stored_not_first_of_stay": int(np.count_nonzero(later)),
    }
    descriptions = tuple(description_of(name) for name in chosen.names)
    return Labels(chosen.names, matrix, known & ~later, descriptions, chosen.levels, notes)
