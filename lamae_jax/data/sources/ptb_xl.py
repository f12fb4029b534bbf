"""PTB-XL as PhysioNet lays it out: every recording at 100 Hz (`records100/`) and at 500 Hz (`records500/`).

At a wanted rate of 100 Hz or less the 100 Hz files are read, above it the 500 Hz files. A recording without the file for its
rate is `absent`; with `allow_upsampling` its other file is read instead. The table writes age 300 for everyone over 89; here
that is 90. Folds are the published `strat_fold`, which keeps each patient in one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lamae_jax.data.sources import Entry, Source, ten_folds
from lamae_jax.data.sources.csv_tables import age_of, clean_id, read_columns, whole
from lamae_jax.data.sources.wfdb_files import WfdbReader, find_unlisted
from lamae_jax.errors import UserError

TABLE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"  # what the codes mean; the probe needs it for its label sets
OVER_89 = 300.0
SEX: dict[int | None, str] = {0: "M", 1: "F"}


def open_ptb_xl(folder: Path, fs: int, allow_upsampling: bool = False) -> Source:
    """List `folder` for a wanted rate of `fs` Hz. Raises UserError when the table or all files of that rate are missing."""
    table = read_columns(
        folder / TABLE, ["ecg_id", "patient_id", "age", "sex", "strat_fold", "filename_lr", "filename_hr"]
    )
    low = fs <= 100
    first, second = ("filename_lr", "filename_hr") if low else ("filename_hr", "filename_lr")
    rate = "records100" if low else "records500"
    if not allow_upsampling and not (folder / rate).is_dir():
        way = (
            "prepare with --config.fs=100, or --config.allow_upsampling=true"
            if not low
            else "or prepare with --config.fs=250"
        )
        raise UserError(f"source {str(folder)!r} holds no {rate}/, which {fs} Hz needs; download it, {way}")

    entries: dict[str, Entry] = {}
    folds: list[dict[str, int]] = [{"strat_fold": number} for number in range(11)]
    duplicates = without_fold = other_rate = 0
    for number, ecg in enumerate(table["ecg_id"]):
        record_id = clean_id(ecg)
        if record_id in entries:
            duplicates += 1
            continue
        path, other = table[first][number].strip(), table[second][number].strip()
        if allow_upsampling and not (folder / f"{path}.hea").exists() and (folder / f"{other}.hea").exists():
            path = other
            other_rate += 1
        fold = whole(table["strat_fold"][number])
        inside = fold is not None and 1 <= fold <= 10
        without_fold += not inside
        age, sex = age_of(table["age"][number]), whole(table["sex"][number])
        entries[record_id] = Entry(
            record_id,
            path,
            clean_id(table["patient_id"][number]) or None,
            folds[fold] if fold is not None and inside else {"strat_fold": -1},
            90.0 if age == OVER_89 else age,
            SEX.get(sex),
        )
    listed = {path.strip() for column in (first, second) for path in table[column]}
    notes = {"rows": len(table["ecg_id"]), "duplicates": duplicates, "without_fold": without_fold}
    if allow_upsampling:
        notes["read_at_the_other_rate"] = other_rate
    return Source(
        name="ptb_xl",
        entries=list(entries.values()),
        split=ten_folds("strat_fold", "column strat_fold of PTB-XL"),
        reader=WfdbReader(folder),
        find_unlisted=partial(find_unlisted, folder, listed),
        notes=notes,
        label_tables={Path(name).stem: folder / name for name in (TABLE, STATEMENTS) if (folder / name).is_file()},
        label_key="ecg_id",
    )
