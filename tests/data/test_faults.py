"""The MIMIC-shaped set with deliberate faults: what is rejected, repaired and flagged is exactly what FAULTS.csv says."""

from __future__ import annotations

import csv
import shutil
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.signal.leads import STANDARD_LEADS

REASONS = {
    "missing_dat": "missing_signal", "empty_dat": "size", "truncated_dat_65536": "size", "truncated_dat_one_byte": "size",
    "truncated_dat_half": "size", "nsamp_10_billion": "size", "empty_hea": "header", "header_garbage": "header",
    "nsig_12_of_11_lines": "header", "nsig_13_of_12_lines": "header", "path_escape": "path", "path_absolute": "path",
    "gain_zero": "gain", "gain_nan": "gain", "unit_unknown": "unit", "unit_not_a_voltage": "unit",
    "record_all_nan": "no_signal", "record_flat": "no_signal", "too_short_8s": "too_short",
    "record_list_row_without_file": "absent",
}  # fmt: skip
# Of the records that are stored: what is said about them, and the leads that are unavailable. Of all others nothing is said.
FLAGS = {
    "unit_uV": "unit_converted", "unit_uV_1000_per_mV": "unit_converted", "nan_scattered_3pct": "gap_filled",
    "nan_scattered_3pct_edges": "gap_filled", "lead_absent": "lead_missing", "lead_flat": "lead_flat",
    "leads_flat_real": "lead_flat", "lead_all_nan": "lead_nan", "saturated_5mV": "clipped",
}  # fmt: skip
UNAVAILABLE = {
    "lead_absent": {"V3"},
    "lead_flat": {"V2"},
    "leads_flat_real": {"V2", "V4", "V6"},
    "lead_all_nan": {"V5"},
}


def config(source: Path, store: Path, **changes: object) -> PrepareConfig:
    values: dict[str, object] = {"kind": "mimic_iv_ecg", "fs": 250, "band": "highpass_0.5", "max_bad_fraction": 0.25}
    return tiny.config(source, store, **(values | changes))


@pytest.fixture(scope="module")
def faults(mimic_shaped: Path) -> list[dict[str, str]]:
    with open(mimic_shaped / "FAULTS.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def made(mimic_shaped: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The store, and the summary of the run that made it."""
    folder = tmp_path_factory.mktemp("faulty")
    return folder / "store", prepare(config(mimic_shaped, folder / "store"), folder / "run")


def test_rejected_is_exactly_what_cannot_be_read(
    faults: list[dict[str, str]], made: tuple[Path, dict[str, Any]]
) -> None:
    due = {
        (fault["path"], fault["study_id"], REASONS[fault["kind"]])
        for fault in faults
        if fault["expected"] == "rejected"
    }
    with open(made[0] / "rejected.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["path"], row["record_id"], row["reason"]) for row in rows} == due and len(rows) == len(due) == 21
    assert all(row["detail"] for row in rows)
    assert made[1]["rejected"] == Counter(reason for _, _, reason in due)
    assert (made[1]["listed"], made[1]["stored"]) == (100, 79)


def test_the_rest_is_repaired_or_flagged_as_the_table_says(
    faults: list[dict[str, str]], made: tuple[Path, dict[str, Any]]
) -> None:
    store = Store.open(made[0])
    kinds = {fault["study_id"]: fault["kind"] for fault in faults}
    assert len(set(store.record_ids.tolist())) == store.size == 79
    for row, record in enumerate(store.record_ids.tolist()):
        kind = kinds.get(record, "sound")
        flags = set(store.column("flags")[row].split(",")) - {"resampled", ""}
        assert flags == set(filter(None, [FLAGS.get(kind, "")])), (record, kind)
        unavailable = {lead for lead, here in zip(STANDARD_LEADS, store.available[row]) if not here}
        assert unavailable == UNAVAILABLE.get(kind, set()), (record, kind)
    counts = store.read(np.arange(store.size))
    assert np.array_equal((counts != 0).any(-1), store.available)  # an unavailable lead is all zeros, any other is not
    usual = np.abs(counts).max((1, 2))
    assert usual.min() > 200 and usual.max() < 12_000  # uV: no unit or gain has slipped through


def test_a_sound_file_that_no_table_lists_is_reported_and_not_loaded(
    faults: list[dict[str, str]], made: tuple[Path, dict[str, Any]]
) -> None:
    path = next(fault["path"] for fault in faults if fault["kind"] == "file_not_in_record_list")
    assert made[1]["unlisted"] == [path]
    assert path not in Store.open(made[0]).column("path").tolist()


def test_listed_studies_without_files_do_not_count_as_bad(mimic_shaped: Path, tmp_path: Path) -> None:
    """A user with the full list and a part of the files."""
    source = tmp_path / "partial"
    source.mkdir()
    (source / "files").symlink_to(mimic_shaped / "files")
    (source / "record_list.csv").write_bytes((mimic_shaped / "record_list_full.csv").read_bytes())
    with pytest.raises(UserError, match=r"20 of 99 records can't be used \(gain 2, header 4, .*max_bad_fraction 0.2;"):
        prepare(config(source, tmp_path / "store", max_bad_fraction=0.2), tmp_path / "run")
    summary = prepare(config(source, tmp_path / "store", max_bad_fraction=0.21), tmp_path / "run")
    assert (summary["listed"], summary["stored"], summary["rejected"]["absent"]) == (900, 79, 801)


def test_a_long_recording_gives_one_crop_or_three_windows(
    faults: list[dict[str, str]], mimic_shaped: Path, tmp_path: Path
) -> None:
    long = next(fault["study_id"] for fault in faults if fault["kind"] == "long_30s")
    prepare(config(mimic_shaped, tmp_path / "store", long="windows"), tmp_path / "run")
    store = Store.open(tmp_path / "store")
    assert store.size == 81 and store.record_ids.tolist().count(long) == 3


def test_real_records_are_all_stored_and_the_one_flat_lead_among_them_is_found(
    repo: Path, real_ptb_xl: Path, tmp_path: Path
) -> None:
    """Of the 14,170 real records at hand only 12722 has a flat lead: V5."""
    packed = repo.parent / "shared" / "data"
    sys.path.insert(0, str(packed))
    ids, signals = import_module("unpack").load(packed / "ptb-xl" / "fold-02.xz.b64", 1000)
    sys.path.remove(str(packed))
    source = tmp_path / "source"
    shutil.copytree(real_ptb_xl / "records100", source / "records100")
    table = (real_ptb_xl / "ptbxl_database.csv").read_text()
    header, first = table.splitlines()[:2]
    row = dict(zip(header.split(","), next(csv.reader([first]))))
    row |= {"ecg_id": "12722", "filename_lr": "records100/12000/12722_lr", "filename_hr": "records500/12000/12722_hr"}
    (source / "ptbxl_database.csv").write_text(table + ",".join(f'"{value}"' for value in row.values()) + "\n")
    tiny.write_record(source / "records100/12000/12722_lr", signals[list(ids).index(12722)])

    summary = prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")
    assert (summary["listed"], summary["stored"], summary["rejected"]) == (61, 61, {})
    store = Store.open(tmp_path / "store")
    assert summary["flags"] == {"lead_flat": 1} and store.column("flags").tolist() == [""] * 60 + ["lead_flat"]
    assert np.flatnonzero(~store.available.reshape(-1)).tolist() == [60 * 12 + STANDARD_LEADS.index("V5")]
