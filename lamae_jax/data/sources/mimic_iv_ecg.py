"""MIMIC-IV-ECG as PhysioNet lays it out, whole or in part.

`record_list.csv` says which recordings exist; one that is listed but not downloaded is `absent` when read. If
`records_w_diag_icd10.csv` of MIMIC-IV-ECG-Ext-ICD lies beside it, patients have its folds (18 validation, 19 test), age and
sex, and its diagnoses are kept; without it the folds come from a hash of the patient id. A folder from which `files/` was left
out when copying is understood.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lamae_jax.data.sources import Entry, Source, Split, hash_fold, hash_split
from lamae_jax.data.sources.csv_tables import age_of, clean_id, read_columns, whole
from lamae_jax.data.sources.wfdb_files import WfdbReader, find_unlisted

DIAGNOSES = "records_w_diag_icd10.csv"
MEASUREMENTS = "machine_measurements.csv"
SPLIT = Split(
    "fold", tuple(range(18)), (18,), (19,), "column fold of MIMIC-IV-ECG-Ext-ICD; 0-17 train, 18 validation, 19 test"
)

# What Ext-ICD knows of a study: its folds, age, sex and place within the hospital stay.
Known = tuple[dict[str, int], float | None, str | None, dict[str, int | float | str]]


def open_mimic_iv_ecg(folder: Path) -> Source:
    """List `folder`. Raises UserError when a table is missing or lacks a column."""
    table = read_columns(folder / "record_list.csv", ["subject_id", "study_id", "path"])
    described = (folder / DIAGNOSES).exists()
    known = read_diagnoses(folder / DIAGNOSES) if described else {}
    # A study that Ext-ICD does not list belongs to no fold: it is stored, and neither trained nor tested on.
    unknown: Known = ({"fold": -1, "strat_fold": -1}, None, None, {"ecg_no_within_stay": -1})
    hashed: list[dict[str, int]] = [{"hash_fold": number} for number in range(11)]
    add, strip = prefix(folder)

    entries: dict[str, Entry] = {}
    unusable = duplicates = without_fold = 0
    for subject, study, path in zip(table["subject_id"], table["study_id"], table["path"], strict=True):
        record_id, patient, path = clean_id(study), clean_id(subject), path.strip()
        if not (record_id and patient and path):
            unusable += 1
        elif record_id in entries:
            duplicates += 1
        else:
            if described:
                without_fold += record_id not in known
                about = known.get(record_id, unknown)
            else:
                about = (hashed[hash_fold(patient)], None, None, {})
            if strip and path.startswith("files/"):
                path = path[len("files/") :]
            elif add and not path.startswith("files/"):
                path = f"files/{path}"
            entries[record_id] = Entry(record_id, path, patient, *about)
    listed = list(entries.values())
    notes = {"rows": len(table["path"]), "duplicates": duplicates, "unusable_rows": unusable}
    if described:
        notes["without_fold"] = without_fold
    return Source(
        name="mimic_iv_ecg",
        entries=listed,
        split=SPLIT if described else hash_split(0, len(listed)),
        reader=WfdbReader(folder),
        find_unlisted=partial(unlisted, folder, listed),
        notes=notes,
        label_tables={Path(name).stem: folder / name for name in (DIAGNOSES, MEASUREMENTS) if (folder / name).exists()},
        label_key="study_id",
    )


def prefix(folder: Path) -> tuple[bool, bool]:
    """Whether `files/` must be put before listed paths that lack it, or taken away from those that have it."""
    inside = (folder / "files").is_dir()
    return inside, not inside


def unlisted(folder: Path, entries: list[Entry]) -> list[str]:
    """The sound records on disk that the record list does not have."""
    return find_unlisted(folder, {entry.path for entry in entries})


def read_diagnoses(path: Path) -> dict[str, Known]:
    """Folds, age, sex and `ecg_no_within_stay` of each study; the first row of a study counts."""
    table = read_columns(path, ["study_id", "fold", "strat_fold", "age", "gender", "ecg_no_within_stay"])
    known: dict[str, Known] = {}
    # Rows share their few different dicts: 800,000 of them would take hundreds of megabytes.
    folds: dict[tuple[str, str], dict[str, int]] = {}
    stays: dict[str, dict[str, int | float | str]] = {}
    rows = zip(
        *(table[name] for name in ("study_id", "fold", "strat_fold", "age", "gender", "ecg_no_within_stay")),
        strict=True,
    )
    for study, fold, strat_fold, age, gender, number in rows:
        if (fold, strat_fold) not in folds:
            folds[fold, strat_fold] = {"fold": fold_of(fold), "strat_fold": fold_of(strat_fold)}
        if number not in stays:
            place = whole(number)
            stays[number] = {"ecg_no_within_stay": -1 if place is None else place}
        sex = gender if gender in ("M", "F") else None
        known.setdefault(clean_id(study), (folds[fold, strat_fold], age_of(age), sex, stays[number]))
    return known


def fold_of(text: str) -> int:
    """A fold 0-19, or -1 for a cell that is none."""
    fold = whole(text)
    return fold if fold is not None and 0 <= fold < 20 else -1
