"""The sources: what they list, whom the recordings are of, and plain words for what a user got wrong."""

from __future__ import annotations

import csv
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lamae_jax.data.sources import Entry, Source, Unreadable, hash_fold, open_source
from lamae_jax.errors import UserError

LEADS = "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_record(folder: Path, path: str, value: int = 0, samples: int = 10) -> None:
    """A sound one-lead record of a constant count at 500 Hz."""
    place = folder / path
    place.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{place}.hea").write_text(f"{place.name} 1 500 {samples}\n{place.name}.dat 16 200/mV 16 0 0 0 0 I\n")
    Path(f"{place}.dat").write_bytes(np.full(samples, value, "<i2").tobytes())


def by_id(source: Source) -> dict[str, Entry]:
    return {entry.record_id: entry for entry in source.entries}


def error_of(name: str, folder: Path, fs: int = 500, **more: bool) -> str:
    """The one line that a user reads."""
    with pytest.raises(UserError) as caught:
        open_source(name, folder, fs, **more)
    assert not isinstance(caught.value, Unreadable)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# MIMIC-IV-ECG


def test_mimic_lists_each_study_once_in_the_order_of_its_table(mimic_shaped: Path) -> None:
    source = open_source("mimic_iv_ecg", mimic_shaped, 250)
    with open(mimic_shaped / "record_list.csv", newline="") as file:
        order = list(dict.fromkeys(row["study_id"] for row in csv.DictReader(file)))
    assert [entry.record_id for entry in source.entries] == order
    assert len(order) == 100
    assert source.notes == {"rows": 101, "duplicates": 1, "unusable_rows": 0, "without_fold": 0}
    assert set(source.label_tables) == {"records_w_diag_icd10", "machine_measurements"}
    assert source.label_key == "study_id"


def test_mimic_names_the_sound_record_that_no_table_lists(mimic_shaped: Path) -> None:
    source = open_source("mimic_iv_ecg", mimic_shaped, 250)
    assert source.unlisted == ["files/p1001/p10019024/s43660168/43660168"]


def test_mimic_takes_folds_age_and_sex_from_ext_icd(mimic_shaped: Path) -> None:
    source = open_source("mimic_iv_ecg", mimic_shaped, 250)
    assert (source.split.column, source.split.validation, source.split.test) == ("fold", (18,), (19,))
    assert source.split.train == tuple(range(18))
    entries = by_id(source)
    with open(mimic_shaped / "records_w_diag_icd10.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["study_id"] in entries:
                entry = entries[row["study_id"]]
                assert entry.patient_id == row["subject_id"]
                assert entry.folds == {"fold": int(row["fold"]), "strat_fold": int(row["strat_fold"])}
                assert entry.extra == {"ecg_no_within_stay": int(row["ecg_no_within_stay"])}
                assert entry.sex == {"M": "M", "F": "F", "missing": None}[row["gender"]]
                assert entry.age == (float(row["age"]) if row["age"] else None)


def test_mimic_without_ext_icd_keeps_patients_together(mimic_shaped: Path, tmp_path: Path) -> None:
    shutil.copy(mimic_shaped / "record_list.csv", tmp_path)
    source = open_source("mimic_iv_ecg", tmp_path, 250)
    assert (source.split.column, source.split.validation, source.split.test) == ("hash_fold", (9,), (10,))
    folds: dict[str | None, set[int]] = {}
    for entry in source.entries:
        assert (entry.age, entry.sex) == (None, None)
        folds.setdefault(entry.patient_id, set()).add(entry.folds["hash_fold"])
    assert all(len(found) == 1 for found in folds.values())
    assert {fold for found in folds.values() for fold in found} == set(range(1, 11))


def test_a_partly_downloaded_mimic_is_listed_whole(mimic_shaped: Path, tmp_path: Path) -> None:
    shutil.copytree(mimic_shaped / "files" / "p1000", tmp_path / "files" / "p1000")
    shutil.copy(mimic_shaped / "record_list.csv", tmp_path)
    source = open_source("mimic_iv_ecg", tmp_path, 250)
    absent = 0
    for entry in source.entries:
        try:
            source.read(entry)
        except Unreadable as error:
            if "p1001" in entry.path:
                assert error.reason == "absent"
            absent += error.reason == "absent"
    assert absent == 1 + sum("p1001" in entry.path for entry in source.entries)


@pytest.mark.parametrize("listed", ["files/p1/s7/7", "p1/s7/7"])
@pytest.mark.parametrize("there", ["files/p1/s7/7", "p1/s7/7"])
def test_mimic_with_and_without_its_files_folder(tmp_path: Path, listed: str, there: str) -> None:
    write_record(tmp_path, there, value=200)
    write_table(tmp_path / "record_list.csv", ["subject_id", "study_id", "path"], [[1, 7, listed]])
    source = open_source("mimic_iv_ecg", tmp_path, 250)
    assert source.read(source.entries[0]).signal.tolist() == [[1.0] * 10]
    assert source.unlisted == []


def test_mimic_tables_with_holes(tmp_path: Path) -> None:
    rows = [[1, 7, "files/a"], ["", 8, "files/b"], [1, 9, ""], ["1.0", "10.0", "files/c"], [1, 11, "../../etc/x"]]
    write_table(tmp_path / "record_list.csv", ["subject_id", "study_id", "path"], rows)
    ext = ["study_id", "fold", "strat_fold", "age", "gender", "ecg_no_within_stay"]
    write_table(
        tmp_path / "records_w_diag_icd10.csv", ext, [[7, "3.0", "x", "", "missing", "2"], [7, 5, 5, 50, "F", 0]]
    )
    source = open_source("mimic_iv_ecg", tmp_path, 250)
    assert [entry.record_id for entry in source.entries] == ["7", "10", "11"]
    assert source.notes == {"rows": 5, "duplicates": 0, "unusable_rows": 2, "without_fold": 2}
    first, second, third = source.entries
    assert first == Entry("7", "a", "1", {"fold": 3, "strat_fold": -1}, None, None, {"ecg_no_within_stay": 2})
    assert second.patient_id == "1"
    assert second.folds == {"fold": -1, "strat_fold": -1}  # in no fold: never trained or tested on
    with pytest.raises(Unreadable) as caught:
        source.read(third)
    assert caught.value.reason == "path"


def test_mimic_tables_that_are_not_there_or_not_right(tmp_path: Path) -> None:
    assert "record_list.csv" in error_of("mimic_iv_ecg", tmp_path)
    write_table(tmp_path / "record_list.csv", ["subject", "study_id", "path"], [[1, 7, "files/a"]])
    assert "'subject_id'" in error_of("mimic_iv_ecg", tmp_path)
    (tmp_path / "record_list.csv").write_text("subject_id,study_id,path\n1,7,files/a\n1,8\n")
    assert "record_list.csv" in error_of("mimic_iv_ecg", tmp_path)  # a table cut short is not a short table


def test_a_pickled_source_reads_and_is_small(mimic_shaped: Path) -> None:
    source = open_source("mimic_iv_ecg", mimic_shaped, 250)
    entry = by_id(source)["40559725"]
    assert source.unlisted
    packed = pickle.dumps(source)
    assert len(packed) < 3000
    worker = pickle.loads(packed)
    np.testing.assert_array_equal(worker.read(entry).signal, source.read(entry).signal)
    assert worker.entries == []


# PTB-XL


def test_ptb_xl_as_published(real_ptb_xl: Path) -> None:
    source = open_source("ptb_xl", real_ptb_xl, 100)
    first = source.entries[0]
    assert (
        first == Entry("1", "records100/00000/00001_lr", "15709", {"strat_fold": 3}, 56.0, "F")
        or first.record_id != "1"
    )
    assert (source.split.column, source.split.train) == ("strat_fold", (1, 2, 3, 4, 5, 6, 7, 8))
    assert (source.split.validation, source.split.test) == ((9,), (10,))
    assert source.label_key == "ecg_id"
    assert source.unlisted == []
    with open(real_ptb_xl / "ptbxl_database.csv", newline="") as file:
        rows = {row["ecg_id"]: row for row in csv.DictReader(file)}
    assert len(rows) == len(source.entries) == 60
    for entry in source.entries:
        row = rows[entry.record_id]
        assert f"{entry.patient_id}.0" == row["patient_id"]
        assert entry.sex == {"0": "M", "1": "F"}[row["sex"]]
        assert entry.age == (90.0 if row["age"] == "300.0" else float(row["age"]))
        assert source.read(entry).fs == 100


def test_ptb_xl_takes_the_files_for_the_rate(real_ptb_xl: Path, tmp_path: Path) -> None:
    # As published, but for the 500 Hz files of every third record.
    shutil.copy(real_ptb_xl / "ptbxl_database.csv", tmp_path)
    (tmp_path / "records100").symlink_to(real_ptb_xl / "records100")
    for number, file in enumerate(sorted((real_ptb_xl / "records500").rglob("*.*"))):
        place = tmp_path / file.relative_to(real_ptb_xl)
        place.parent.mkdir(parents=True, exist_ok=True)
        if number // 2 % 3:
            place.symlink_to(file)
    source = open_source("ptb_xl", tmp_path, 250)
    absent = 0
    for entry in source.entries:
        assert entry.path.startswith("records500/")
        try:
            assert source.read(entry).fs == 500
        except Unreadable as error:
            assert error.reason == "absent"
            absent += 1
    assert 0 < absent < 60
    both = open_source("ptb_xl", tmp_path, 250, allow_upsampling=True)
    rates = [both.read(entry).fs for entry in both.entries]
    assert rates.count(100) == absent == both.notes["read_at_the_other_rate"]


def ptb_xl_table(folder: Path, *rows: Sequence[object]) -> None:
    header = ["ecg_id", "patient_id", "age", "sex", "strat_fold", "filename_lr", "filename_hr"]
    write_table(folder / "ptbxl_database.csv", header, rows)


def test_ptb_xl_ages_and_ids(tmp_path: Path) -> None:
    (tmp_path / "records100").mkdir()
    ptb_xl_table(
        tmp_path,
        [1, "15709.0", "300.0", 0, 3, "records100/a", "records500/a"],
        [2, "", "", 1, 9, "records100/b", "records500/b"],
        [2, "7.0", "4.0", 1, 9, "records100/b", "records500/b"],
        [3, "7.0", "4.0", "", 11, "records100/c", "records500/c"],
    )
    source = open_source("ptb_xl", tmp_path, 100)
    assert [(e.record_id, e.patient_id, e.age, e.sex, e.folds) for e in source.entries] == [
        ("1", "15709", 90.0, "M", {"strat_fold": 3}),
        ("2", None, None, "F", {"strat_fold": 9}),
        ("3", "7", 4.0, None, {"strat_fold": -1}),
    ]
    assert source.notes == {"rows": 4, "duplicates": 1, "without_fold": 1}


def test_ptb_xl_without_any_file_of_the_rate_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "records100").mkdir()
    ptb_xl_table(tmp_path, [1, "15709.0", "56.0", 0, 3, "records100/a", "records500/a"])
    message = error_of("ptb_xl", tmp_path, 250)
    assert "records500" in message
    assert "allow_upsampling" in message


# Any folder of WFDB records


def test_any_folder_of_records(tmp_path: Path) -> None:
    for value, path in enumerate(["b", "a/x", "a/deep/er/y"]):
        write_record(tmp_path, path, value=200 * value)
    (tmp_path / "notes.txt").write_text("no record")
    source = open_source("wfdb", tmp_path, 500)
    assert [entry.record_id for entry in source.entries] == ["a/deep/er/y", "a/x", "b"]
    assert [float(source.read(entry).signal[0, 0]) for entry in source.entries] == [2.0, 1.0, 0.0]
    assert all(
        entry.patient_id is None and entry.folds == {"hash_fold": hash_fold(entry.record_id)}
        for entry in source.entries
    )
    assert "3 of 3 records" in source.split.rule
    assert source.notes["without_patient"] == 3


def test_metadata_says_whose_records_they_are(tmp_path: Path) -> None:
    for path in ("r/1", "r/2", "r/3"):
        write_record(tmp_path, path)
    write_table(
        tmp_path / "metadata.csv",
        ["record_id", "patient_id", "sex"],
        [["r/1", "p", "male"], ["r/2", "p", ""], ["r/9", "q", "F"]],
    )
    source = open_source("wfdb", tmp_path, 500)
    assert [(e.record_id, e.patient_id, e.sex) for e in source.entries] == [
        ("r/1", "p", "M"),
        ("r/2", "p", None),
        ("r/9", "q", "F"),
    ]
    assert source.entries[0].folds == source.entries[1].folds == {"hash_fold": hash_fold("p")}
    assert source.unlisted == ["r/3"]
    assert source.label_tables == {"metadata": tmp_path / "metadata.csv"}
    with pytest.raises(Unreadable) as caught:
        source.read(source.entries[2])
    assert caught.value.reason == "absent"


def test_folder_linked_into_itself_is_searched_once(tmp_path: Path) -> None:
    write_record(tmp_path, "a/r")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert len(open_source("wfdb", tmp_path, 500).entries) == 1


def test_an_empty_folder_and_no_folder(tmp_path: Path) -> None:
    assert "lists no record" in error_of("wfdb", tmp_path)
    assert "no folder" in error_of("wfdb", tmp_path / "nowhere")
    assert "mimic_iv_ecg, ptb_xl, wfdb, arrays, simulated" in error_of("mimic", tmp_path)


def test_the_hash_of_a_patient_never_changes() -> None:
    assert [hash_fold(str(patient)) for patient in range(8)] == HASHED
    spread = np.bincount([hash_fold(f"p{patient}") for patient in range(5000)], minlength=11)
    assert spread[0] == 0
    assert spread[1:].min() > 400


# From the definition, once, by `printf 0 | sha256sum`: first 8 bytes as a big-endian number, modulo 10, plus 1.
HASHED = [1, 4, 7, 4, 5, 4, 10, 1]


# Arrays


@pytest.fixture
def records() -> np.ndarray:
    """float32 [N, L, S]: 4 records, 12 leads, 50 samples."""
    return np.random.default_rng(0).normal(size=(4, 12, 50)).astype(np.float32)


def metadata(folder: Path, rows: Sequence[dict[str, object]]) -> None:
    """metadata.csv with the needed columns filled in, and the given ones."""
    full = [{"fs": 500, "leads": LEADS, "units": "mV"} | row for row in rows]
    write_table(folder / "metadata.csv", list(full[0]), [list(row.values()) for row in full])


def test_one_array_of_many_recordings(tmp_path: Path, records: np.ndarray) -> None:
    np.save(tmp_path / "ecg.npy", records)
    people = ["anna", "anna", "bert", "carl"]
    metadata(tmp_path, [{"file": "ecg.npy", "row": i, "record_id": f"r{i}", "patient_id": people[i]} for i in range(4)])
    source = open_source("arrays", tmp_path, 500)
    for number, entry in enumerate(source.entries):
        read = source.read(entry)
        np.testing.assert_array_equal(read.signal, records[number])
        assert (read.fs, read.leads, read.units) == (500.0, tuple(LEADS.split()), ("mV",) * 12)
        assert (entry.record_id, entry.patient_id) == (f"r{number}", people[number])
    assert source.entries[0].folds == source.entries[1].folds
    assert source.label_tables == {"metadata": tmp_path / "metadata.csv"}


def test_one_file_a_recording_in_every_kind_of_file(tmp_path: Path, records: np.ndarray) -> None:
    import h5py

    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "a.npy", records[0].astype(np.float64))
    np.savez_compressed(tmp_path / "b.npz", only=records[1])
    np.savez(tmp_path / "c.npz", ecg=records[2], other=np.zeros(3))
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("group/ecg", data=records, compression="gzip")
    metadata(
        tmp_path,
        [
            {"file": "sub/a.npy", "key": "", "row": ""},
            {"file": "b.npz", "key": "", "row": ""},
            {"file": "c.npz", "key": "ecg", "row": ""},
            {"file": "d.h5", "key": "group/ecg", "row": 3},
        ],
    )
    source = open_source("arrays", tmp_path, 500)
    assert [entry.record_id for entry in source.entries] == ["sub/a", "b", "c-ecg", "d-group/ecg-3"]
    worker = pickle.loads(pickle.dumps(source))
    for number, entry in enumerate(source.entries):
        np.testing.assert_array_equal(worker.read(entry).signal, records[number])


def test_whole_numbers_infinities_and_other_units(tmp_path: Path, records: np.ndarray) -> None:
    np.save(tmp_path / "counts.npy", (records[0] * 1000).astype(np.int16))
    records[1, 3, 7] = np.inf
    np.save(tmp_path / "floats.npy", records[1])
    units = " ".join(["mV"] * 11 + ["uV"])
    metadata(tmp_path, [{"file": "counts.npy", "units": "uV"}, {"file": "floats.npy", "units": units}])
    source = open_source("arrays", tmp_path, 500)
    counts, floats = (source.read(entry) for entry in source.entries)
    assert counts.units == ("uV",) * 12
    np.testing.assert_array_equal(counts.signal, (records[0] * 1000).astype(np.int16))
    assert floats.units[11] == "uV"
    assert np.argwhere(np.isnan(floats.signal)).tolist() == [[3, 7]]


def test_a_single_lead_may_be_a_plain_matrix(tmp_path: Path, records: np.ndarray) -> None:
    np.save(tmp_path / "one.npy", records[:, 0])
    metadata(tmp_path, [{"file": "one.npy", "row": row, "leads": "I"} for row in range(4)])
    source = open_source("arrays", tmp_path, 500)
    np.testing.assert_array_equal(source.read(source.entries[2]).signal, records[2, :1])


def test_folds_of_the_users_own(tmp_path: Path, records: np.ndarray) -> None:
    np.save(tmp_path / "ecg.npy", records)
    rows: list[dict[str, object]] = [
        {"file": "ecg.npy", "row": i, "fold": fold} for i, fold in enumerate((1, 1, 9, 10))
    ]
    metadata(tmp_path, rows)
    source = open_source("arrays", tmp_path, 500)
    assert [entry.folds for entry in source.entries] == [{"fold": 1}, {"fold": 1}, {"fold": 9}, {"fold": 10}]
    assert (source.split.column, source.split.validation, source.split.test) == ("fold", (9,), (10,))
    rows[1]["fold"] = ""
    metadata(tmp_path, rows)
    assert "line 3: no fold" in error_of("arrays", tmp_path)
    rows[1]["fold"] = 0
    metadata(tmp_path, rows)
    assert "line 3: fold '0'" in error_of("arrays", tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fs": ""}, "line 2: no fs"),
        ({"leads": ""}, "line 2: no leads"),
        ({"units": ""}, "line 2: no units"),
        ({"fs": "fast"}, "fs 'fast'"),
        ({"fs": -500}, "fs '-500'"),
        ({"row": 1.5}, "row '1.5'"),
        ({"row": -1}, "row '-1'"),
        ({"row": ""}, "holds 4 recordings [4, 12, 50]: column row must say which (0-3)"),
        ({"leads": "I II"}, "2 leads are named"),
        ({"leads": "I I"}, "stands twice"),
        ({"units": "mV mV"}, "2 units for 12 leads"),
        ({"file": "ecg.csv"}, ".npy, .npz, .h5"),
        ({"file": "../ecg.npy"}, "not a place in the source's folder"),
        ({"key": "ecg"}, "column key must be empty"),
        ({"sex": "0"}, "sex '0'"),
        ({"age": "old"}, "age 'old'"),
        ({"patientid": "anna"}, "'patient_id'"),
        ({"Fold": "1"}, "'fold'"),
        ({"file": "turned.npy"}, "not [samples, leads]"),
        ({"file": "pickled.npy"}, "pickled.npy"),
        ({"file": "text.npy"}, "not numbers"),
    ],
)
def test_mistakes_in_the_metadata_are_one_line(
    tmp_path: Path, records: np.ndarray, change: dict[str, object], said: str
) -> None:
    np.save(tmp_path / "ecg.npy", records)
    np.save(tmp_path / "turned.npy", records.transpose(0, 2, 1))
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.full((1, 12, 50), "x"))
    metadata(tmp_path, [{"file": "ecg.npy", "row": 0} | change])
    message = error_of("arrays", tmp_path)
    assert said in message
    assert str(tmp_path / "metadata.csv") in message


def test_missing_tables_and_columns_of_arrays(tmp_path: Path) -> None:
    assert "metadata.csv" in error_of("arrays", tmp_path)
    write_table(tmp_path / "metadata.csv", ["file", "leads", "units"], [["a.npy", LEADS, "mV"]])
    assert "no column 'fs'" in error_of("arrays", tmp_path)
    write_table(tmp_path / "metadata.csv", ["file", "fs", "leads", "units"], [])
    assert "lists no recording" in error_of("arrays", tmp_path)


def test_an_id_that_stands_twice(tmp_path: Path, records: np.ndarray) -> None:
    np.save(tmp_path / "ecg.npy", records)
    rows = [{"file": "ecg.npy", "row": row, "record_id": name} for row, name in ((0, "a"), (1, "b"), (0, "a"))]
    metadata(tmp_path, rows)
    source = open_source("arrays", tmp_path, 500)
    assert source.notes["duplicates"] == 1
    rows[2]["row"] = 2
    metadata(tmp_path, rows)
    assert "line 4: record 'a' stands on line 2" in error_of("arrays", tmp_path)


def test_single_arrays_that_cannot_be_read_are_refused_with_a_reason(tmp_path: Path, records: np.ndarray) -> None:
    import h5py

    np.save(tmp_path / "good.npy", records[0])
    np.save(tmp_path / "short.npy", records[0])
    (tmp_path / "short.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-4])
    (tmp_path / "long.npy").write_bytes((tmp_path / "good.npy").read_bytes() + b"0000")
    (tmp_path / "noise.npy").write_bytes(b"noise")
    (tmp_path / "noise2.npz").write_bytes(b"noise")
    (tmp_path / "noise3.h5").write_bytes(b"noise")
    np.save(tmp_path / "pickled.npy", np.array([None] * 3, object), allow_pickle=True)
    np.savez(tmp_path / "pickled2.npz", np.array([None] * 3, object))
    np.savez(tmp_path / "two.npz", a=records[0], b=records[1])
    np.save(tmp_path / "eleven.npy", records[0, :11])
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["ecg"] = records[0]
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["ecg"] = h5py.ExternalLink("secret.h5", "ecg")
    with h5py.File(tmp_path / "hollow.h5", "w") as file:
        file.create_dataset("ecg", (12, 10**11), "f4", chunks=(12, 1000))[:, :1000] = (
            1  # one chunk of a hundred million
        )
    cases = {
        "nothing.npy": "absent",
        "short.npy": "format size",  # numpy itself refuses to map it, or we do
        "long.npy": "size",
        "noise.npy": "format",
        "noise2.npz": "format",
        "noise3.h5": "format",
        "pickled.npy": "format",
        "pickled2.npz": "format",
        "two.npz": "format",
        "eleven.npy": "leads",
        "link.h5": "path",
        "hollow.h5": "size",
    }
    keys = {"link.h5": "ecg", "hollow.h5": "ecg"}
    metadata(tmp_path, [{"file": name, "key": keys.get(name, "")} for name in ("good.npy", *cases)])
    source = open_source("arrays", tmp_path, 500)
    assert source.read(source.entries[0]).signal.shape == (12, 50)
    for entry in source.entries[1:]:
        with pytest.raises(Unreadable) as caught:
            source.read(entry)
        assert caught.value.reason in cases[entry.path].split(), entry.path
        assert "\n" not in caught.value.detail


# Simulated


def simulated(folder: Path, patients: int = 2, seed: int = 0) -> Source:
    return open_source("simulated", folder, 500, simulated_patients=patients, seed=seed)


def test_simulated_recordings_are_written_once_and_opened_as_mimic(tmp_path: Path) -> None:
    source = simulated(tmp_path / "sim")
    assert source.name == "simulated"
    assert len({entry.patient_id for entry in source.entries}) == 2
    assert source.split.column == "fold"
    assert source.read(source.entries[0]).signal.shape == (12, 5000)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "sim").rglob("*")}
    assert simulated(tmp_path / "sim").entries == source.entries
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "sim").rglob("*")}


def test_simulation_never_writes_over_other_files(tmp_path: Path) -> None:
    simulated(tmp_path / "sim")
    with pytest.raises(UserError, match="seed 0, wanted 1"):
        simulated(tmp_path / "sim", seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "record_list.csv").write_text("mine")
    with pytest.raises(UserError, match="other than simulated"):
        simulated(tmp_path / "mine")
    assert (tmp_path / "mine" / "record_list.csv").read_text() == "mine"
