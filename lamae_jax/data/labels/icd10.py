"""ICD-10 labels: which codes a setting makes labels of, step by step.

The order of operations is that of the public benchmark on MIMIC-IV-ECG-Ext-ICD (Strodthoff, Lopez Alcaraz, Haverkamp, 2024;
its `2000_5A` is min_count 2000, digits 5, ancestors on); what is done about faulty codes is ours. R rows, V different codes as
written, C labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lamae_jax.data.labels.icd10_tree import above, level_of, place_of
from lamae_jax.errors import UserError

CHAPTER_IX, ALL = "chapter_ix", "all"
LABEL_SETS = (CHAPTER_IX, ALL)
FOLD_COLUMNS = ("fold", "strat_fold")
# Letter, digit, then one to five letters or digits. Codes of ICD-9 (4280) don't have this shape; whether a code of this shape
# exists can't be told without a list of all codes, and one that doesn't is rare and falls under min_count.
SHAPE = re.compile(r"[A-Z][0-9][0-9A-Z][0-9A-Z]{0,4}")
CATEGORY = 3  # characters of the shortest code: I48

# The table as published, and what 2000_5A makes of it: a count of labels for each number of characters.
PUBLISHED_ROWS = 800_035
PUBLISHED_MIN_COUNT = 2000
PUBLISHED_LABELS = {"3": 361, "4": 466, "5": 249}
PUBLISHED_CHAPTER_IX = 158


@dataclass(frozen=True)
class Icd10Rules:
    """What `icd10.*` says. Raises UserError naming the field for values that can't be.

    `digits`: characters that are kept of a code, 3 to 7; `ancestors`: I4891 also counts as I489 and I48; `min_count`: rows that a
    label needs, counted on `all` rows of the table or on those of the `train` folds; `letters`: first letters of the codes that
    count, empty for what the label set says (I for chapter_ix, every letter for all); `fold_column`: fold or strat_fold.
    """

    digits: int = 5
    ancestors: bool = True
    min_count: int = 1000
    count_on: str = "all"
    letters: str = ""
    fold_column: str = "fold"

    def __post_init__(self) -> None:
        if not CATEGORY <= self.digits <= 7:
            raise UserError(f"icd10.digits={self.digits}: must be from {CATEGORY} (I48) to 7 (W19XXXA)")
        if self.min_count < 1:
            raise UserError(f"icd10.min_count={self.min_count}: must be at least 1")
        if self.count_on not in ("all", "train"):
            raise UserError(f"icd10.count_on={self.count_on}: must be all or train")
        if not re.fullmatch("[A-Z]*", self.letters):
            raise UserError(f"icd10.letters={self.letters}: must be capital letters like I or IR, or empty")
        if self.fold_column not in FOLD_COLUMNS:
            raise UserError(f"icd10.fold_column={self.fold_column}: must be {' or '.join(FOLD_COLUMNS)}")


DEFAULT_RULES = Icd10Rules()


@dataclass(frozen=True)
class LabelSet:
    """The labels that a setting gives: `names` and hierarchy `levels`, C texts each, `members` 0 or 1 [R, C], sparse."""

    names: tuple[str, ...]
    levels: tuple[str, ...]
    members: csr_array


def letters_of(label_set: str, rules: Icd10Rules) -> str:
    """The first letters that count, empty for every letter. Raises UserError where set and letters contradict each other."""
    if label_set == ALL:
        return rules.letters
    if rules.letters not in ("", "I"):
        raise UserError(
            f"icd10.letters={rules.letters}: labels=icd10:chapter_ix are those of letter I; "
            f"for others take labels=icd10:all with icd10.letters={rules.letters}"
        )
    return "I"


def repaired(written: str) -> tuple[str, tuple[str, ...]]:
    """A code as ICD-10-CM prints it without its dot, and what had to be done: any of `blanks`, `lower_case`, `dots`."""
    code, done = written.strip(), []
    if code != written:
        done.append("blanks")
    if code.isascii() and code != code.upper():  # beyond ASCII, upper-casing would make codes of what is none
        done.append("lower_case")
        code = code.upper()
    if "." in code:
        done.append("dots")
        code = code.replace(".", "")
    return code, tuple(done)


def is_code(code: str) -> bool:
    """Whether a repaired code has the shape of ICD-10-CM; X alone is a filler, so that I1X names no category."""
    return SHAPE.fullmatch(code) is not None and len(code.rstrip("X")) >= CATEGORY


def shortened(code: str, digits: int) -> str:
    """Cut to `digits` characters, *then* without the X that only fill places: W19XXXA -> W19XX -> W19.

    The other order would leave W19XX, which the benchmark doesn't know.
    """
    return code[:digits].rstrip("X")


def with_ancestors(code: str) -> tuple[str, ...]:
    """The code and all that it is a case of, down to its category: I4891, I489, I48."""
    return tuple(code[:length] for length in range(len(code), CATEGORY - 1, -1))


def codes_of(written: str, rules: Icd10Rules, letters: str) -> tuple[str, ...]:
    """The codes that one code of a cell stands for; none where it is no code or begins with another letter."""
    code, _ = repaired(written)
    if not is_code(code):
        return ()
    code = shortened(code, rules.digits)
    # A digit fewer may have left a filler only: I1X5 cut to three characters.
    if len(code) < CATEGORY or (letters and code[0] not in letters):
        return ()
    return with_ancestors(code) if rules.ancestors else (code,)


def memberships(
    written: Sequence[str], cells: csr_array, rules: Icd10Rules, letters: str, tree: bool
) -> tuple[list[str], csr_array]:
    """Every name that some row has, and which rows have it, 0 or 1 [R, names].

    A row counts once, however many of its codes are cases of a name. `cells` [R, V] holds which of the codes `written` stand in
    each row's cell. With `tree` the names of blocks and chapter too.
    """
    names: dict[str, int] = {}
    rows, columns = [], []
    for number, text in enumerate(written):
        codes = codes_of(text, rules, letters)
        wider = above(codes[-1][:CATEGORY]) if tree and codes else ()
        for name in (*codes, *wider):
            rows.append(number)
            columns.append(names.setdefault(name, len(names)))
    ones = np.ones(len(rows), np.int32)
    stands_for = csr_array((ones, (rows, columns)), shape=(len(written), len(names)))
    found = csr_array(cells @ stands_for)
    found.data = np.ones_like(found.data, dtype=np.int8)
    return list(names), found


def row_counts(members: csr_array, rows: np.ndarray | None = None) -> np.ndarray:
    """How many rows have each name, int64; of the `rows` [R] bool where given."""
    weights = np.ones(members.shape[0]) if rows is None else rows.astype(float)
    return np.rint(members.T @ weights).astype(np.int64)


def choose_labels(
    written: Sequence[str], cells: csr_array, train: np.ndarray, label_set: str, rules: Icd10Rules
) -> LabelSet:
    """The labels with at least `min_count` rows: chapter, blocks in their order, then codes by count, equal ones by code.

    `train` [R] says which rows are in the training folds. Raises UserError when no label has that many.
    """
    letters = letters_of(label_set, rules)
    names, members = memberships(written, cells, rules, letters, tree=label_set == CHAPTER_IX)
    if not names:
        kind = f"a letter of {letters}" if letters else "a letter"
        raise UserError(f"labels=icd10:{label_set}: no row has a code that begins with {kind}; check the table")
    counts = row_counts(members, train if rules.count_on == "train" else None)
    order = sorted(range(len(names)), key=lambda c: (place_of(names[c]), -counts[c], names[c]))
    kept = [c for c in order if counts[c] >= rules.min_count]
    if not kept:
        most = max(order, key=lambda c: counts[c])
        raise UserError(
            f"icd10.min_count={rules.min_count}: no label has that many rows; the largest, {names[most]}, "
            f"has {counts[most]} (count_on={rules.count_on})"
        )
    chosen = tuple(names[c] for c in kept)
    return LabelSet(chosen, tuple(level_of(name) for name in chosen), csr_array(members[:, kept]))


def check_published(rows: int, counts: Mapping[str, int]) -> None:
    """Stop where the published table doesn't give the published labels. Tables of another length pass.

    `counts` are rows a code at digits 5 with ancestors over all letters. The figures are those of the benchmark's results and
    of the table's readers: 1,076 labels at 2000_5A, 158 of them in chapter IX. Raises UserError.
    """
    if rows != PUBLISHED_ROWS:
        return
    kept = [code for code, count in counts.items() if count >= PUBLISHED_MIN_COUNT]
    found = {length: sum(len(code) == int(length) for code in kept) for length in PUBLISHED_LABELS}
    chapter = sum(code.startswith("I") for code in kept)
    if (found, chapter) != (PUBLISHED_LABELS, PUBLISHED_CHAPTER_IX):
        raise UserError(
            f"records_w_diag_icd10.csv has the {PUBLISHED_ROWS} rows of version 1.0.1 but not its codes: min_count "
            f"{PUBLISHED_MIN_COUNT} gives {_shown(found, chapter)}, {_shown(PUBLISHED_LABELS, PUBLISHED_CHAPTER_IX)} "
            "would be right; download it again"
        )


def _shown(levels: Mapping[str, int], chapter: int) -> str:
    lengths = ", ".join(f"{number} of {length}" for length, number in levels.items())
    return f"{sum(levels.values())} labels ({lengths} characters; {chapter} in chapter IX)"
