"""Any folder of WFDB records, at any depth: every header below it is a recording, named by its path without extension.

If `metadata.csv` lies in the folder it says which recordings count and who they are of:

    record_id   path of the record below the folder, without extension
    patient_id  any text; records of one patient never stand on two sides of the split
    fold        1-8 train, 9 validation, 10 test; for every row or for none
    age, sex    years; M, F

All but `record_id` may be left out or empty. Without the file, or without patient ids, each recording is taken for a patient
of its own. Without folds they come from a hash of the patient id.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lamae_jax.data.sources import Source
from lamae_jax.data.sources.csv_tables import PEOPLE, people_entries, read_columns
from lamae_jax.data.sources.wfdb_files import WfdbReader, find_records, find_unlisted
from lamae_jax.errors import UserError

TABLE = "metadata.csv"


def open_wfdb_folder(folder: Path) -> Source:
    """List `folder`. Raises UserError when it holds no record, or its metadata.csv is not as above."""
    path = folder / TABLE
    tabled = path.exists()
    if tabled:
        columns = read_columns(path, ["record_id"], PEOPLE, strict=True)
        ids = [record_id.strip().removesuffix(".hea").removeprefix("./") for record_id in columns["record_id"]]
    else:
        ids = find_records(folder)
        columns = {name: [""] * len(ids) for name in PEOPLE}
    if not ids:
        raise UserError(f"source {str(folder)!r} lists no record; a folder of WFDB headers (.hea) is due")
    entries, split, notes = people_entries(path, ids, ids, columns, [{}] * len(ids))
    return Source(
        name="wfdb",
        entries=entries,
        split=split,
        reader=WfdbReader(folder),
        find_unlisted=partial(find_unlisted, folder, set(ids)) if tabled else list,
        notes=notes,
        label_tables={"metadata": path} if tabled else {},
    )
