"""The diagnosis table: what a cell may be, what is counted, and the labels of a store that holds a part of the studies."""

from __future__ import annotations

import ast
import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lamae_jax.data.labels import icd10, load_labels, split_for
from lamae_jax.data.labels.diagnoses import REASONS, Diagnoses, parse_cell, read_diagnoses
from lamae_jax.data.labels.icd10 import Icd10Rules, codes_of, row_counts
from lamae_jax.data.splits import validation_rows
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError

HEADER = "study_id,subject_id,all_diag_all,fold,strat_fold,ecg_no_within_stay"


def table(folder: Path, cells: list[str], header: str = HEADER) -> Path:
    """A table with one study a cell, each of a patient of its own, first of its stay, all in fold 0."""
    path = folder / "records_w_diag_icd10.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows([number, 900 + number, cell, 0, 0, 0] for number, cell in enumerate(cells, 1))
    return path


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("['I10', 'E785']", ["I10", "E785"]),
        ('["I10"]', ["I10"]),
        ("[]", []),
        (" [ ] ", []),
        ("['I10 ', '']", ["I10 ", ""]),  # as written: repairs come later
    ],
)
def test_a_cell_is_a_list_of_texts(text: str, codes: list[str]) -> None:
    assert parse_cell(text) == codes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty_cell"),
        ("  ", "empty_cell"),
        ("['I10', 'E785'", "not_a_literal"),
        ("I10;E785", "not_a_literal"),
        ("nan", "not_a_literal"),
        ("__import__('os').getcwd()", "not_a_literal"),
        ("['I10', __import__('os').getcwd()]", "not_a_literal"),
        ("['I10' + 'E785']", "not_a_literal"),
        ("[f'I10']", "not_a_literal"),
        ("['I10\x00']", "not_a_literal"),
        ("[" * 5000, "not_a_literal"),
        ("-" * 9000 + "1", "not_a_literal"),
        ("[['I10'] * 99]", "not_a_literal"),
        ("['" + "I" * 10_000 + "']", "too_long"),
        ("('I10', 'E785')", "not_a_list"),
        ("{'I10': 1}", "not_a_list"),
        ("'I10'", "not_a_list"),
        ("None", "not_a_list"),
        ("9" * 400, "not_a_list"),
        ("9" * 9000, "not_a_literal"),  # Python reads no number of that many digits
        ("[4019, 4280]", "not_texts"),
        ("['I10', None]", "not_texts"),
        ("[b'I10']", "not_texts"),
        ("[['I10']]", "not_texts"),
    ],
)
def test_any_other_cell_says_in_a_fixed_word_why_it_is_unusable(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_cell(text)
    assert str(caught.value) == reason and reason in REASONS


def test_nothing_in_a_cell_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "run"
    with pytest.raises(ValueError, match="not_a_literal"):
        parse_cell(f"[open({str(mark)!r}, 'w').name]")
    assert not mark.exists()


def test_rows_and_codes_are_counted(tmp_path: Path) -> None:
    cells = ["['i10', 'I48.91', '4280', 'I10']", "[]", "['E119 ', '4280']", "I10", "['ZZZ99']", "['I10', 'I10']", ""]
    read = read_diagnoses(table(tmp_path, cells))
    assert read.counts() == {
        "table_rows": 7, "duplicate_rows": 0, "unusable_rows": 2, "rows_without_codes": 1, "rows_with_codes": 4,
        "repaired_codes": 3, "dropped_codes": 3,
    }  # fmt: skip
    assert read.unusable == {"not_a_literal": ["4"], "empty_cell": ["7"]}
    assert read.repairs() == {"blanks": 1, "dots": 1, "lower_case": 1}
    assert list(read.dropped().items()) == [("4280", 2), ("ZZZ99", 1)]  # the most common first
    labels = read.labels("all", Icd10Rules(min_count=1))
    assert dict(zip(labels.names, row_counts(labels.members).tolist()))["I10"] == 2


def test_no_diagnosis_is_not_the_same_as_none_of_the_chapter(tmp_path: Path) -> None:
    """`[]` is neither trained nor tested on; a study with other codes, even such as are none, is all negative."""
    read = read_diagnoses(table(tmp_path, ["['I10']", "[]", "['E119']", "['4280']", "broken"]))
    assert read.has_codes.tolist() == [True, False, True, True, False]
    assert read.part("train").tolist() == read.has_codes.tolist()
    labels = read.labels("chapter_ix", Icd10Rules(min_count=1))
    assert labels.names == ("IX", "I10-I1A", "I10")
    assert labels.members.toarray().tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_the_first_row_of_a_study_counts_and_later_ones_are_skipped(tmp_path: Path) -> None:
    rows = ["1,9,['I10'],0,0,0", "1.0,9,['I480'],0,0,0", "2,9,broken,0,0,0", "2,9,['I10'],0,0,0", ",9,['I10'],0,0,0"]
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *rows]))
    read = read_diagnoses(tmp_path / "t.csv")
    assert read.studies == ["1", "2"] and read.written == ("I10",)
    assert (read.rows, read.duplicates, read.counts()["rows_without_codes"]) == (5, 2, 0)
    assert read.unusable == {"no_study_id": ["row 5"], "not_a_literal": ["2"]}


def test_validation_and_test_take_the_first_ecg_of_a_stay_training_takes_all(tmp_path: Path) -> None:
    rows = [f"{n},{n},['E119'],{fold},0,{place}" for n, (fold, place) in enumerate(
        [(0, 0), (17, 3), (18, 0), (18, 1), (19, "0.0"), (19, 1), (19, -1), ("", 0), (20, 0)]
    )]  # fmt: skip
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *rows]))
    read = read_diagnoses(tmp_path / "t.csv")
    parts = {part: np.flatnonzero(read.part(part)).tolist() for part in ("train", "validation", "test")}
    assert parts == {"train": [0, 1], "validation": [2], "test": [4]}
    other = read_diagnoses(tmp_path / "t.csv", "strat_fold")
    assert np.flatnonzero(other.part("train")).tolist() == list(range(9)) and not other.part("test").any()
    assert other.split.column == "strat_fold" and other.split.rule.startswith("column strat_fold of MIMIC")


@pytest.mark.parametrize("column", HEADER.replace("strat_fold,", "").split(","))
def test_a_missing_column_is_named(column: str, tmp_path: Path) -> None:
    header = ",".join("other" if name == column else name for name in HEADER.split(","))
    with pytest.raises(UserError, match=f"has no column '{column}'; its columns are ") as caught:
        read_diagnoses(table(tmp_path, ["[]"], header))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_table_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.csv: no such file; records_w_diag_icd10.csv"):
        read_diagnoses(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes(HEADER.encode() + b"\n1,2,\xff\xfe,0,0,0\n")
    with pytest.raises(UserError, match="cannot be read as CSV"):
        read_diagnoses(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text(HEADER + "\n")
    with pytest.raises(UserError, match="no row has a code"):
        read_diagnoses(tmp_path / "t.csv").labels("all", Icd10Rules())


def test_a_table_as_long_as_the_published_one_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_diagnoses(table(tmp_path, ["['I10']"] * 3))
    assert read.labels("all", Icd10Rules(min_count=3)).names == ("I10",)
    monkeypatch.setattr(icd10, "PUBLISHED_ROWS", 3)
    with pytest.raises(UserError, match=r"min_count 2000 gives 0 labels .*, 1076 labels"):
        read.labels("all", Icd10Rules(min_count=3))


# --- the MIMIC-shaped table, whose expected labels were made by hand-checkable rules by others ---


@pytest.fixture(scope="module")
def shaped(mimic_shaped: Path) -> Diagnoses:
    return read_diagnoses(mimic_shaped / "records_w_diag_icd10.csv")


def test_the_shaped_table_gives_the_expected_labels_and_counts(shaped: Diagnoses, repo: Path) -> None:
    expected = repo.parent / "shared" / "data"
    with open(expected / "expected_labels.csv", newline="") as file:
        due = [(row["code"], int(row["rows"])) for row in csv.DictReader(file)]
    labels = shaped.labels("all", Icd10Rules(min_count=10, letters="I"))
    assert list(zip(labels.names, row_counts(labels.members).tolist(), strict=True)) == due
    assert Counter(labels.levels) == {"3": 29, "4": 40, "5": 18} and len(due) == 87
    assert len(shaped.labels("all", Icd10Rules(min_count=1, letters="I")).names) == 151

    text = (expected / "expected_labels.md").read_text().split("## Rows")[1].split("Distinct")[0]
    rows = [int(number) for number in re.findall(r"\| \**(\d+)\** \|$", text, flags=re.MULTILINE)]
    counts = shaped.counts()
    chapter = shaped.labels("chapter_ix", Icd10Rules(min_count=1))
    assert rows == [
        counts["table_rows"],
        counts["duplicate_rows"],
        counts["unusable_rows"],
        counts["table_rows"] - counts["duplicate_rows"] - counts["unusable_rows"],
        counts["rows_without_codes"],
        counts["rows_with_codes"],
        row_counts(chapter.members)[chapter.names.index("IX")],
    ]


def test_every_label_fault_is_repaired_dropped_or_left_out_as_listed(shaped: Diagnoses, mimic_shaped: Path) -> None:
    with open(mimic_shaped / "LABEL_FAULTS.csv", newline="") as file:
        faults = list(csv.DictReader(file))
    why = {
        "malformed_cell": "not_a_literal", "executable_cell": "not_a_literal", "literal_not_a_list": "not_a_list",
        "list_of_non_text": "not_texts", "nan_cell": "empty_cell",
    }  # fmt: skip
    due = {(fault["study_id"], why[fault["kind"]]) for fault in faults if fault["expected"] == "rejected"}
    assert {(study, reason) for reason, studies in shaped.unusable.items() for study in studies} == due
    assert shaped.duplicates == sum(fault["kind"] == "duplicated_row" for fault in faults) == 1

    cells = {fault["study_id"]: fault for fault in faults}
    row_of = {study: row for row, study in enumerate(shaped.studies)}
    labels = shaped.labels("all", Icd10Rules(min_count=1))
    members = labels.members.toarray()
    marks: Counter[str] = Counter()
    for study, fault in cells.items():
        if fault["kind"] not in ("codes_with_dots", "codes_lower_case", "code_trailing_space"):
            continue
        codes = ast.literal_eval(fault["cell"])
        plain = [code.strip().upper().replace(".", "") for code in codes]
        found = {name for name, has in zip(labels.names, members[row_of[study]]) if has}
        assert found == {name for code in plain for name in codes_of(code, Icd10Rules(), "")}, study
        marks[fault["kind"]] += sum(code != clean for code, clean in zip(codes, plain, strict=True))
    assert shaped.repairs() == {
        "blanks": marks["code_trailing_space"],
        "dots": marks["codes_with_dots"],
        "lower_case": marks["codes_lower_case"],
    }
    assert shaped.dropped() == {"42731": 1, "4280": 1, "ZZZ99": 1} and "I5Z9" in labels.names
    for study, fault in cells.items():
        if fault["kind"] in ("icd9_leftover", "unknown_code"):
            assert shaped.has_codes[row_of[study]], "the row stays"
        if fault["kind"] == "empty_list":
            assert not shaped.has_codes[row_of[study]]


# --- a store that holds the waveforms of a part of the studies (tests/conftest.py says which) ---


def test_the_whole_table_decides_and_stored_records_get_the_labels(mimic_store: Path) -> None:
    rules = Icd10Rules(min_count=17)
    store = split_for("icd10:chapter_ix", Store.open(mimic_store), rules)
    labels = load_labels("icd10:chapter_ix", store, rules)
    # 60 studies with I10 have no waveform here; of 20 with I4891 one has an unusable cell.
    assert labels.names == ("IX", "I10-I1A", "I30-I5A", "I10", "I48", "I489", "I4891")
    assert labels.levels == ("chapter", "block", "block", "3", "3", "4", "5")
    assert labels.descriptions[-2:] == ("Atrial fibrillation and flutter [of I48]", "Atrial fibrillation, unspecified")
    assert not labels.matrix[:, [1, 3]].any()  # I10 and its block: in no stored record
    ids = store.record_ids.astype(int)
    fibrillating = ((ids - 100) // 2 % 2 == 0) & (ids != 101)
    for c in (0, 2, 4, 5, 6):
        assert (labels.matrix[:, c] == fibrillating).all()


def test_who_is_kept_training_every_ecg_validation_and_test_the_first_of_each_stay(mimic_store: Path) -> None:
    rules = Icd10Rules(min_count=10)
    opened = Store.open(mimic_store)
    store = split_for("icd10:all", opened, rules)
    labels = load_labels("icd10:all", store, rules)
    kept = store.record_ids[labels.keep].astype(int).tolist()
    train = [study for study in range(100, 116) if study not in (101, 114, 115)]  # no list, no diagnosis, no diagnosis
    held_out = [study for study in range(116, 140, 2) if study != 126]  # 126: no diagnosis
    assert kept == train + held_out
    assert labels.notes["stored_without_codes"] == 5 and labels.notes["stored_not_first_of_stay"] == 11
    assert "first ECG of each stay" in store.split.rule and store.split.column == "fold"
    # Pretraining looks at all of them still.
    assert len(validation_rows([opened])[0]) == 12 and "first ECG" not in opened.split.rule


def test_other_labels_leave_the_stores_split_alone(mimic_store: Path) -> None:
    store = Store.open(mimic_store)
    assert split_for("csv:mine.csv", store, Icd10Rules(fold_column="strat_fold")) is store


def test_a_store_without_the_table_says_how_to_get_one(mimic_store: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "records.parquet", "shards"):
        (tmp_path / name).symlink_to(mimic_store / name)
    with pytest.raises(UserError, match="records_w_diag_icd10.csv: not there; .*prepare.py:mimic_iv_ecg"):
        split_for("icd10:all", Store.open(tmp_path))
