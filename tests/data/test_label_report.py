"""Task `labels`: what a setting gives, from a table alone or from a store; every mistake is one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lamae_jax.main import main

LABELS = "--config=configs/labels.py"


def run(workdir: Path, *flags: str) -> tuple[list[dict[str, str]], dict, str]:
    """labels.csv, summary.json and report.txt of a run."""
    assert main([LABELS, f"--workdir={workdir}", *flags]) == 0
    with open(workdir / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((workdir / "summary.json").read_text()), (workdir / "report.txt").read_text()


def test_a_table_alone_is_counted_whole(mimic_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = mimic_store / "labels" / "records_w_diag_icd10.csv"
    rows, summary, report = run(tmp_path / "run", f"--config.table={table}", "--config.icd10.min_count=19")
    assert list(rows[0]) == ["label", "level", "description", "rows", "train", "val", "test"]
    assert [row["label"] for row in rows] == ["IX", "I10-I1A", "I30-I5A", "I10", "I48", "I489", "I4891"]
    # 60 studies with I10, three a fold; of patients 0, 2 .. 18 with I4891 the first four train, then three each.
    assert [rows[3][name] for name in ("level", "rows", "train", "val", "test")] == ["3", "60", "54", "3", "3"]
    assert [rows[6][name] for name in ("level", "rows", "train", "val", "test")] == ["5", "19", "7", "3", "3"]
    assert [rows[0][name] for name in ("level", "rows", "train", "val", "test")] == ["chapter", "79", "61", "6", "6"]
    assert rows[4]["description"] == "Atrial fibrillation and flutter"
    assert summary["records"] == {"train": 67, "validation": 8, "test": 9} and summary["number"] == 7
    assert summary["levels"] == {"chapter": 1, "block": 2, "3": 2, "4": 1, "5": 1}
    assert summary["counts"]["rows_without_codes"] == 4 and summary["unusable"] == {"not_a_literal": 1}
    assert summary["split"]["column"] == "fold" and "first ECG of each stay" in summary["split"]["rule"]
    assert summary["icd10"]["min_count"] == 19 and len(summary["sha256"]) == 64
    assert "table rows: 100" in report and "not_a_literal" in report and "1: 101" in report
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("labels icd10:chapter_ix: 7 (1 chapter, 2 block, 2 of 3 characters")
    assert printed[2].split()[:5] == ["IX", "79", "61", "6", "6"]


def test_a_store_counts_the_records_that_a_probe_sees(mimic_store: Path, tmp_path: Path) -> None:
    flags = [f"--config.data.store={mimic_store}", "--config.icd10.min_count=19"]
    rows, summary, _ = run(tmp_path / "run", *flags)
    by_name = {row["label"]: [row[name] for name in ("rows", "train", "val", "test")] for row in rows}
    assert by_name["I10"] == ["60", "0", "0", "0"]  # the table has them, the store has no waveform of theirs
    assert by_name["I4891"] == ["19", "7", "3", "3"]
    assert summary["records"] == {"train": 13, "validation": 5, "test": 6} and len(summary["hash"]) == 64


def test_other_labels_of_a_store_are_counted_too(mimic_store: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("record_id,AF\n100,1\n102,0\n116,1\n117,\n130,1\n")
    flags = [f"--config.data.store={mimic_store}", f"--config.labels=csv:{tmp_path / 'own.csv'}"]
    rows, summary, report = run(tmp_path / "run", *flags)
    assert rows == [{"label": "AF", "level": "", "description": "", "rows": "3", "train": "1", "val": "1", "test": "1"}]
    assert summary["records"] == {"train": 2, "validation": 1, "test": 1} and "not in store: 0" in report


def test_an_awkward_table_is_reported(tmp_path: Path) -> None:
    header = "study_id,subject_id,all_diag_all,fold,ecg_no_within_stay"
    rows = ["1,1,['i10'],0,0", "1,1,['I10'],0,0", "2,2,\"['4280', ' I10', 'I10.']\",0,0", "3,3,eval('1'),0,0"]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    _, summary, report = run(tmp_path / "run", f"--config.table={tmp_path / 't.csv'}", "--config.icd10.min_count=2")
    assert summary["repaired"] == {"blanks": 1, "dots": 1, "lower_case": 1} and summary["dropped"] == {"4280": 1}
    assert "duplicate rows: 1" in report and "'4280' 1" in report and "lower_case: 1" in report


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "table and data.store are empty: pass --config.table=CSV or --config.data.store=DIR"),
        (["--config.table=a.csv", "--config.data.store=b"], "only one of them can be read"),
        (["--config.table=nowhere.csv"], "nowhere.csv: no such file"),
        (["--config.table=pyproject.toml"], "has no column 'study_id'"),
        (["--config.table=TABLE"], "icd10.min_count=1000: no label has that many rows; the largest, IX, has 79"),
        (["--config.table=TABLE", "--config.labels=ptbxl:super"], "labels=ptbxl:super needs a store"),
        (["--config.table=TABLE", "--config.labels=icd9:all"], "labels=icd9:all: must be icd10:chapter_ix|all"),
        (["--config.table=TABLE", "--config.icd10.digits=9"], "icd10.digits=9: must be from 3"),
        (
            ["--config.table=TABLE", "--config.icd10.fold_column=strat_fold"],
            "icd10.fold_column=strat_fold: patients on two sides of the split: 1 (train and test)",
        ),
        (
            ["--config.data.store=STORE", "--config.icd10.min_count=1", "--config.icd10.fold_column=strat_fold"],
            "patients on two sides of the split: 1 (train and test)",
        ),
        (["--config.data.store=STORE", "--config.labels=ptbxl:super"], "scp_statements.csv: not there"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    flags: list[str], words: str, mimic_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(mimic_store / "labels" / "records_w_diag_icd10.csv")
    flags = [flag.replace("TABLE", table).replace("STORE", str(mimic_store)) for flag in flags]
    assert main([LABELS, f"--workdir={tmp_path / 'run'}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "labels.csv").exists()


def test_the_shaped_tables_leak_stops_the_run(
    mimic_shaped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--config.table={mimic_shaped / 'records_w_diag_icd10.csv'}", "--config.icd10.min_count=10"]
    rows, summary, _ = run(tmp_path / "run", *flags)
    assert len(rows) == 97 and summary["levels"] == {"chapter": 1, "block": 9, "3": 29, "4": 40, "5": 18}
    # Counted by hand: rows with a code from the first to the last category of a block; in val and test the first ECG of a stay.
    wide = [row for row in rows if row["level"] in ("chapter", "block")]
    assert {row["label"]: [int(row[name]) for name in ("rows", "train", "val", "test")] for row in wide} == {
        "IX": [565, 504, 22, 21], "I05-I09": [15, 15, 0, 0], "I10-I1A": [372, 332, 15, 16], "I20-I25": [252, 237, 6, 8],
        "I26-I28": [63, 53, 2, 4], "I30-I5A": [368, 335, 15, 10], "I60-I69": [36, 35, 1, 0], "I70-I79": [50, 46, 2, 2],
        "I80-I89": [29, 24, 3, 0], "I95-I99": [114, 105, 4, 4],
    }  # fmt: skip
    assert main([LABELS, f"--workdir={tmp_path / 'leak'}", *flags, "--config.icd10.fold_column=strat_fold"]) == 2
    assert "10019010 (train and test)" in capsys.readouterr().err
