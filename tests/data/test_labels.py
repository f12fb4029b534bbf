"""Labels: PTB-XL's statements as its benchmark reads them, and a user's own table, read strictly."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lamae_jax.data.labels import Labels, load_labels
from lamae_jax.data.labels.scp import parse_scp_codes
from lamae_jax.errors import UserError

STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NDT,non-diagnostic T abnormalities,1.0,1.0,,STTC,STTC
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior myocardial infarction,1.0,,,MI,IMI
ILMI,inferolateral myocardial infarction,1.0,,,MI,IMI
LOWT,low amplitude T-waves,,1.0,,,
SR,sinus rhythm,,,1.0,,
"""
RECORDS = {
    "1": "{'NORM': 100.0, 'SR': 0.0}",
    "2": "{'ILMI': 0.0, 'NDT': 0.0}",
    "3": "{'SR': 0.0}",
    "4": "{'IMI': 15, 'ILMI': 50.0, 'LOWT': 0.0}",
}


def fake_store(folder: Path, ids: list[str]) -> SimpleNamespace:
    """As much of a store as labels need: its folder and the ids of its rows."""
    return SimpleNamespace(folder=folder, record_ids=np.array(ids, object))


def write_ptb_xl(folder: Path, cells: dict[str, str] = RECORDS) -> None:
    (folder / "labels").mkdir(exist_ok=True)
    (folder / "labels" / "scp_statements.csv").write_text(STATEMENTS)
    with open(folder / "labels" / "ptbxl_database.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ecg_id", "report", "scp_codes", "has_waveform"])
        table.writerows([ecg_id, "two\nlines, one cell", cell, "1"] for ecg_id, cell in cells.items())


def ptbxl(folder: Path, task: str, ids: list[str]) -> Labels:
    return load_labels(f"ptbxl:{task}", fake_store(folder, ids))


def of(labels: Labels, row: int) -> set[str]:
    return {name for name, value in zip(labels.names, labels.matrix[row], strict=True) if value == 1}


def test_superclasses_come_from_diagnostic_statements_whatever_their_likelihood(tmp_path: Path) -> None:
    write_ptb_xl(tmp_path)
    labels = ptbxl(tmp_path, "super", ["4", "3", "2", "1"])
    assert set(labels.names) == {"STTC", "NORM", "MI"}
    assert [of(labels, row) for row in range(4)] == [{"MI"}, set(), {"MI", "STTC"}, {"NORM"}]
    assert labels.keep.tolist() == [True, False, True, True]  # record 3 has a rhythm and no diagnosis
    assert dict(zip(labels.names, labels.descriptions, strict=True))["MI"] == "myocardial infarction"


def test_the_other_tasks(tmp_path: Path) -> None:
    write_ptb_xl(tmp_path)
    ids = list(RECORDS)
    expected = {
        "sub": [{"NORM"}, {"IMI", "STTC"}, set(), {"IMI"}],
        "diag": [{"NORM"}, {"ILMI", "NDT"}, set(), {"IMI", "ILMI"}],
        "form": [set(), {"NDT"}, set(), {"LOWT"}],
        "rhythm": [{"SR"}, set(), {"SR"}, set()],
        "all": [{"NORM", "SR"}, {"ILMI", "NDT"}, {"SR"}, {"IMI", "ILMI", "LOWT"}],
    }
    for task, sets in expected.items():
        labels = ptbxl(tmp_path, task, ids)
        assert [of(labels, row) for row in range(4)] == sets, task
        assert labels.keep.tolist() == [bool(each) for each in sets], task


def test_windows_of_one_record_share_its_labels(tmp_path: Path) -> None:
    write_ptb_xl(tmp_path)
    labels = ptbxl(tmp_path, "super", ["1", "1", "2"])
    np.testing.assert_array_equal(labels.matrix[0], labels.matrix[1])


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "dict(NORM=1.0)",
        "{'NORM': float(1)}",
        "['NORM']",
        "{'NORM': 'x'}",
        "{'NORM': True}",
        "{1: 1.0}",
        "{'NORM': 1.0",
        "",
        "None",
    ],
)
def test_a_cell_is_parsed_and_type_checked_never_evaluated(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scp_codes"):
        parse_scp_codes(text)
    write_ptb_xl(tmp_path, RECORDS | {"7": text})
    with pytest.raises(UserError, match="ecg_id 7"):
        ptbxl(tmp_path, "super", ["1", "7"])


def test_an_unknown_statement_a_lost_record_and_a_lost_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prepare.py:ptb_xl"):
        ptbxl(tmp_path, "super", ["1"])
    write_ptb_xl(tmp_path, RECORDS | {"8": "{'XYZ': 1.0}"})
    with pytest.raises(UserError, match="'XYZ' is not in scp_statements"):
        ptbxl(tmp_path, "super", ["8"])
    with pytest.raises(UserError, match="no ecg_id 9"):
        ptbxl(tmp_path, "super", ["9"])


def test_published_tables_give_the_published_numbers_of_labels(real_ptb_xl: Path, tmp_path: Path) -> None:
    (tmp_path / "labels").symlink_to(real_ptb_xl)
    with open(real_ptb_xl / "ptbxl_database.csv", newline="") as file:
        ids = [row["ecg_id"] for row in csv.DictReader(file)]
    sizes = {task: len(ptbxl(tmp_path, task, ids).names) for task in ("super", "sub", "diag", "form", "rhythm", "all")}
    assert sizes == {"super": 5, "sub": 23, "diag": 44, "form": 19, "rhythm": 12, "all": 71}
    assert all(ptbxl(tmp_path, "sub", ids).descriptions)


def own_table(folder: Path, text: str, ids: list[str]) -> Labels:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return load_labels(f"csv:{folder / 'labels.csv'}", fake_store(folder, ids))


def test_own_table_knows_one_zero_and_unknown(tmp_path: Path) -> None:
    text = "\ufeffAF,record_id,LVH\n1,a,0\n,b,1.0\n0.0,c,\n,d,\n1,elsewhere,1\n"
    labels = own_table(tmp_path, text, ["c", "a", "b", "d", "not listed"])
    nan = np.nan
    assert labels.names == ("AF", "LVH")
    np.testing.assert_array_equal(labels.matrix, [[0, nan], [1, 0], [nan, 1], [nan, nan], [nan, nan]])
    assert labels.keep.tolist() == [True, True, True, False, False]
    assert labels.notes == {"not_in_store": 1, "not_in_table": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("record_id,AF\na,1\nb,yes\n", "line 3: AF=yes: must be 1, 0 or empty"),
        ("record_id,AF\na,2\n", "AF=2"),
        ("record_id,AF\na,1\na,0\n", "record_id a occurs twice"),
        ("record_id,AF\na,1,1\n", "line 2: has 3 cells, the header 2"),
        ("id,AF\na,1\n", "needs one column record_id .* found id, AF"),
        ("record_id\na\n", "one column a label"),
        ("record_id,AF,AF\na,1,1\n", "name of its own"),
        ("record_id;AF\na;1\n", "needs one column record_id"),
        ("", "found nothing"),
        ("record_id,AF\nx,1\n", "none of its 1 record ids .x ...* is in the store .a"),
    ],
)
def test_own_table_is_read_strictly(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        own_table(tmp_path, text, ["a"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["", "ptbxl", "ptbxl:supper", "csv:", "icd:x", "icd10:", "icd10:IX"])
def test_an_unknown_kind_of_labels_says_which_there_are(spec: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be icd10:chapter_ix\|all, ptbxl:super\|sub.*or csv:FILE"):
        load_labels(spec, fake_store(tmp_path, ["a"]))


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_labels(f"csv:{tmp_path / 'none.csv'}", fake_store(tmp_path, ["a"]))
