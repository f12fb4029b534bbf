"""Reading the CSV tables that come with recordings, quickly and in plain words when they are not as they should be."""

from __future__ import annotations

import csv
import difflib
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from lamae_jax.data.sources import Entry, Split, hash_fold, hash_split, ten_folds
from lamae_jax.errors import UserError
from lamae_jax.files import regular

PEOPLE = ("patient_id", "fold", "age", "sex")
SEXES = {"": None, "m": "M", "male": "M", "f": "F", "female": "F"}


def read_columns(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), strict: bool = False
) -> dict[str, list[str]]:
    """The named columns of a CSV, every cell as its text; an optional column that is not there is "" throughout.

    `strict` refuses a column whose name is nearly that of an absent optional one (`patientid`), which would be passed over in
    silence. Raises UserError when the file or a required column is missing, or a row has more or fewer cells than the header.
    """
    # Imported here: workers unpickle readers from the modules beside this one and never read a table.
    import pyarrow
    import pyarrow.csv

    try:
        with open(path, encoding="utf-8-sig", newline="", opener=regular) as file:
            names = next(csv.reader(file), [])
    except FileNotFoundError:
        raise UserError(f"source folder {str(path.parent)!r} holds no {path.name}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from None
    missing = [name for name in required if name not in names]
    if missing:
        raise UserError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(names)[:300]}")
    if len(set(names)) < len(names):
        twice = [name for name in (*required, *optional) if names.count(name) > 1]
        if twice:
            raise UserError(f"{path} has the column {twice[0]!r} twice")
    if strict:
        refuse_near_misses(path, names, required, optional)
    wanted = [name for name in (*required, *optional) if name in names]
    try:
        table = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pyarrow.string()), strings_can_be_null=False
            ),
        )
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} cannot be read as CSV: {' '.join(str(error).split())[:200]}") from None
    columns = {name: table.column(name).to_pylist() for name in wanted}
    return columns | {name: [""] * table.num_rows for name in optional if name not in columns}


def refuse_near_misses(path: Path, names: Sequence[str], required: Sequence[str], optional: Sequence[str]) -> None:
    """Raise UserError when a column looks like a misspelt optional one."""
    spare = {re.sub(r"[^a-z]", "", name.lower()): name for name in names if name not in (*required, *optional)}
    for absent in (name for name in optional if name not in names):
        near = difflib.get_close_matches(absent.replace("_", ""), spare, n=1, cutoff=0.85)
        if near:
            raise UserError(f"{path} has a column {spare[near[0]]!r}; write {absent!r} if it is meant, else rename it")


@lru_cache(maxsize=4096)
def whole(text: str) -> int | None:
    """`3`, `3.0` -> 3; anything else None."""
    match = re.fullmatch(r"\s*(-?[0-9]{1,15})(?:\.0*)?\s*", text)
    return int(match[1]) if match else None


def clean_id(text: str) -> str:
    """An id as text; one that went through a float (`15709.0`) without its `.0`."""
    if text.isdigit():  # nearly all of them
        return text
    text = text.strip()
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


@lru_cache(maxsize=4096)
def age_of(text: str) -> float | None:
    """Years; None when empty or no age."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age < math.inf else None


def people_entries(
    path: Path,
    ids: list[str],
    paths: list[str],
    columns: dict[str, list[str]],
    extras: list[dict[str, int | float | str]],
) -> tuple[list[Entry], Split, dict[str, int]]:
    """Entries from a user's own table with the columns of PEOPLE: (entries, split, notes).

    A row that repeats another in every cell counts once. Raises UserError, naming the line, for an id that stands twice with
    different cells, for a fold that is not 1-10 or is given for some rows only, and for a sex or age that cannot be read.
    """
    given = [bool(text.strip()) for text in columns["fold"]]
    if any(given) and not all(given):
        raise UserError(f"{path} line {given.index(False) + 2}: no fold; give every row one (1-10), or none")
    entries: dict[str, Entry] = {}
    rows: dict[str, int] = {}
    for number, record_id in enumerate(ids):
        line = f"{path} line {number + 2}"
        patient = clean_id(columns["patient_id"][number]) or None
        if given[number]:
            fold = whole(columns["fold"][number])
            if fold is None or not 1 <= fold <= 10:
                raise UserError(f"{line}: fold {columns['fold'][number]!r}; right are 1-8 train, 9 validation, 10 test")
            folds = {"fold": fold}
        else:
            folds = {"hash_fold": hash_fold(patient or record_id)}
        sex, age = columns["sex"][number].strip().lower(), columns["age"][number].strip()
        if sex not in SEXES:
            raise UserError(f"{line}: sex {columns['sex'][number]!r}; right are M, F or empty")
        if age and age_of(age) is None:
            raise UserError(f"{line}: age {age!r}; right are years, or empty")
        entry = Entry(record_id, paths[number], patient, folds, age_of(age), SEXES[sex], extras[number])
        if entries.setdefault(record_id, entry) != entry:
            first = f"stands on line {rows[record_id]} with other cells"
            raise UserError(f"{line}: record {record_id!r} {first}; give each a record_id of its own")
        rows.setdefault(record_id, number + 2)
    unknown = sum(entry.patient_id is None for entry in entries.values())
    split = ten_folds("fold", f"column fold of {path.name}") if any(given) else hash_split(unknown, len(entries))
    notes = {"rows": len(ids), "duplicates": len(ids) - len(entries), "without_patient": unknown}
    return list(entries.values()), split, notes
