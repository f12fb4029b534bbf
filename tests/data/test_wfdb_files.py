"""WFDB records: the bits of the wfdb package on sound ones, a fixed reason for every fault, nothing opened elsewhere."""

from __future__ import annotations

import csv
import os
import pickle
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path

import hostile
import numpy as np
import pytest

from lamae_jax.data.sources import Unreadable
from lamae_jax.data.sources import wfdb_files as ours

SIGNALS, SAMPLES = 3, 400

# Reading or conditioning? What a header and a file size cannot show is for signal/contract.py to judge.
READING = {
    "missing_dat": "missing_signal",
    "empty_dat": "size",
    "truncated_dat_65536": "size",
    "truncated_dat_one_byte": "size",
    "truncated_dat_half": "size",
    "empty_hea": "header",
    "header_garbage": "header",
    "path_escape": "path",
    "path_absolute": "path",
    "nsig_12_of_11_lines": "header",
    "nsig_13_of_12_lines": "header",
    "nsamp_10_billion": "size",
    "gain_zero": "gain",
    "gain_nan": "gain",
    "record_list_row_without_file": "absent",
}
CONDITIONING = {"unit_unknown", "unit_not_a_voltage", "record_all_nan", "record_flat", "too_short_8s"}


def by_wfdb(record: Path) -> np.ndarray:
    """The physical signal float64 [n, N] as the wfdb package reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wfdb

        return wfdb.rdrecord(str(record)).p_signal.T


def written(folder: Path, counts: np.ndarray, **header: str) -> Path:
    """A sound record `folder/r` of counts int16 [N, n], one word or line of its header replaced on demand."""
    count, signals = counts.shape
    record = header.get("record", f"r {signals} 500 {count}")
    fields = {"file": "r.dat", "format": "16", "gain": "200(0)/mV", "rest": "16 0 0 0 0"} | header
    lines = [f"{fields['file']} {fields['format']} {fields['gain']} {fields['rest']} L{i}" for i in range(signals)]
    if "lines" in header:
        lines = header["lines"].split("\n")
    (folder / "r.hea").write_text("\n".join([record, *lines, "# a comment"]) + "\n")
    (folder / "r.dat").write_bytes(counts.astype("<i2").tobytes())
    return folder / "r"


@pytest.fixture
def counts() -> np.ndarray:
    """int16 [N, n] over the whole range, but for the mark of an invalid sample."""
    return np.random.default_rng(0).integers(-32767, 32768, (SAMPLES, SIGNALS)).astype(np.int16)


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The names of all files that are opened meanwhile, by whatever function."""
    with hostile.opened() as names:
        yield names


def reason_of(folder: Path, path: str = "r") -> str:
    with pytest.raises(Unreadable) as caught:
        ours.read_record(folder, path)
    assert caught.value.detail and "\n" not in caught.value.detail
    return caught.value.reason


def test_real_ptb_xl_records_have_the_bits_of_wfdb(real_ptb_xl: Path) -> None:
    paths = ours.find_records(real_ptb_xl)
    chosen = [path for path in paths if path.startswith("records100")][::4] + [path for path in paths if "500" in path][
        :6
    ]
    assert len(chosen) > 15
    for path in chosen:
        read = ours.read_record(real_ptb_xl, path)
        assert read.leads == ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
        assert read.units == ("mV",) * 12
        assert (read.fs, read.signal.shape) == ((500.0, (12, 5000)) if "500" in path else (100.0, (12, 1000)))
        assert read.signal.dtype == np.float32
        np.testing.assert_array_equal(read.signal, by_wfdb(real_ptb_xl / path).astype(np.float32))


def test_every_readable_mimic_record_has_the_bits_of_wfdb(mimic_shaped: Path) -> None:
    sound = 0
    for path in ours.find_records(mimic_shaped):
        try:
            read = ours.read_record(mimic_shaped, path)
        except Unreadable:
            continue
        np.testing.assert_array_equal(read.signal, by_wfdb(mimic_shaped / path).astype(np.float32))
        sound += 1
    assert sound == 85  # 56 clean, and the faulty ones that can be read


def test_every_listed_fault_is_refused_or_read(mimic_shaped: Path) -> None:
    with open(mimic_shaped / "FAULTS.csv", newline="") as file:
        faults = list(csv.DictReader(file))
    assert len(faults) == 45
    for fault in faults:
        if fault["kind"] in READING:
            assert fault["expected"] == "rejected"
            assert reason_of(mimic_shaped, fault["path"]) == READING[fault["kind"]], fault["kind"]
        else:
            assert fault["expected"] != "rejected" or fault["kind"] in CONDITIONING, fault["kind"]
            read = ours.read_record(mimic_shaped, fault["path"])
            assert read.signal.shape[0] == len(read.leads) == len(read.units)


def test_faults_that_are_repaired_later_come_out_as_written(mimic_shaped: Path) -> None:
    with open(mimic_shaped / "FAULTS.csv", newline="") as file:
        paths = {row["kind"]: row["path"] for row in csv.DictReader(file)}

    def read(kind: str) -> ours.Recording:
        return ours.read_record(mimic_shaped, paths[kind])

    assert read("unit_uV").units == ("uV",) * 12
    assert read("unit_mv_lower_case").units == ("mv",) * 12
    assert read("unit_unknown").units == ("xV",) * 12
    assert read("leads_shuffled").leads[:3] == ("V6", "V5", "I")
    assert len(read("lead_absent").leads) == 11
    assert read("extra_leads_xyz").leads[:4] == ("X", "Y", "Z", "I")
    assert np.isnan(read("record_all_nan").signal).all()
    assert np.isnan(read("nan_scattered_3pct").signal).mean() == pytest.approx(0.03, abs=0.001)
    assert (read("fs_250").fs, read("fs_1000").fs) == (250.0, 1000.0)
    assert read("long_30s").signal.shape == (12, 15000)


@pytest.mark.parametrize(
    "gain", ["200", "200/mV", "200.0(0)/mV", "0.2/uV", "1e3(-17)/mV", "204.8(1024)/V", "3.3(-32768)/uV"]
)
def test_gains_and_baselines_have_the_bits_of_wfdb(tmp_path: Path, counts: np.ndarray, gain: str) -> None:
    record = written(tmp_path, counts, gain=gain)
    read = ours.read_record(tmp_path, "r")
    np.testing.assert_array_equal(read.signal, by_wfdb(record).astype(np.float32))
    assert read.units[0] == (gain.split("/")[1] if "/" in gain else "mV")


def test_a_missing_baseline_is_the_adc_zero(tmp_path: Path, counts: np.ndarray) -> None:
    record = written(tmp_path, counts, gain="200/mV", rest="16 100 0 0 0")
    read = ours.read_record(tmp_path, "r")
    np.testing.assert_array_equal(read.signal[0], ((counts[:, 0] - np.float32(100)) / np.float32(200)))
    np.testing.assert_array_equal(read.signal, by_wfdb(record).astype(np.float32))


def test_the_lowest_count_is_no_sample(tmp_path: Path, counts: np.ndarray) -> None:
    counts[7, 1] = counts[-1, 2] = -32768
    written(tmp_path, counts, gain="200(5)/mV")
    signal = ours.read_record(tmp_path, "r").signal
    assert np.argwhere(np.isnan(signal)).tolist() == [[1, 7], [2, SAMPLES - 1]]


def test_names_with_blanks_are_kept(tmp_path: Path, counts: np.ndarray) -> None:
    line = "r.dat 16 200/mV 16 0 0 0 0 "
    written(tmp_path, counts, lines="\n".join(line + name for name in ("lead I", "lead II", "V1")))
    assert ours.read_record(tmp_path, "r").leads == ("lead I", "lead II", "V1")


def test_a_micro_sign_is_not_lost(tmp_path: Path, counts: np.ndarray) -> None:
    record = written(tmp_path, counts, gain="0.2/µV")
    assert ours.read_record(tmp_path, "r").units[0] == "µV"
    text = Path(f"{record}.hea").read_text()
    Path(f"{record}.hea").write_bytes(text.encode("latin-1"))
    assert ours.read_record(tmp_path, "r").units[0] == "µV"  # wfdb reads V here, a million times too much


@pytest.mark.parametrize("code", ["16", "24", "32", "80", "212", "508", "516", "524"])
def test_other_formats_go_through_wfdb(tmp_path: Path, code: str) -> None:
    top = {"80": 127, "508": 127, "212": 2047}.get(code, 32767)
    values = np.random.default_rng(1).integers(-top, top + 1, (SAMPLES + 1, SIGNALS))
    wfdb_writes(tmp_path, values, [code] * SIGNALS, ["r.dat"] * SIGNALS)
    read = ours.read_record(tmp_path, "r")
    np.testing.assert_array_equal(read.signal, (values.T / 200).astype(np.float32))
    assert read.leads == ("L0", "L1", "L2")


def wfdb_writes(folder: Path, values: np.ndarray, codes: list[str], files: list[str]) -> None:
    """A record `folder/r` of digital values [N, n], gain 200, written by the wfdb package."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wfdb

        record = wfdb.Record(
            record_name="r", n_sig=SIGNALS, fs=250, sig_len=len(values), file_name=files, fmt=codes, d_signal=values,
            adc_gain=[200.0] * SIGNALS, baseline=[0] * SIGNALS, units=["mV"] * SIGNALS, adc_res=[16] * SIGNALS,
            adc_zero=[0] * SIGNALS, block_size=[0] * SIGNALS, sig_name=["L0", "L1", "L2"], init_value=[0] * SIGNALS,
            checksum=[0] * SIGNALS, samps_per_frame=[1] * SIGNALS, skew=[None] * SIGNALS, byte_offset=[None] * SIGNALS,
        )  # fmt: skip
        record.wrheader(write_dir=str(folder))
        record.wr_dats(expanded=False, write_dir=str(folder))


def test_several_signal_files(tmp_path: Path, counts: np.ndarray) -> None:
    wfdb_writes(tmp_path, counts.astype(np.int64), ["16"] * 3, ["a.dat", "a.dat", "b.dat"])
    np.testing.assert_array_equal(ours.read_record(tmp_path, "r").signal, (counts.T / 200).astype(np.float32))
    (tmp_path / "b.dat").write_bytes((tmp_path / "b.dat").read_bytes()[:-2])
    assert reason_of(tmp_path) == "size"
    (tmp_path / "b.dat").unlink()
    assert reason_of(tmp_path) == "missing_signal"


def test_matlab_files_of_the_challenges(tmp_path: Path, counts: np.ndarray) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "r.mat", {"val": counts.T}, format="4")
    record = written(tmp_path, counts, file="r.mat", format="16+24")
    Path(f"{record}.dat").unlink()
    read = ours.read_record(tmp_path, "r")
    np.testing.assert_array_equal(read.signal, (counts.T / np.float32(200)))
    np.testing.assert_array_equal(read.signal, by_wfdb(record).astype(np.float32))


def test_a_flac_file_must_hold_what_the_header_says(tmp_path: Path, counts: np.ndarray) -> None:
    wfdb_writes(tmp_path, counts.astype(np.int64), ["516"] * 3, ["r.dat"] * 3)
    header = (tmp_path / "r.hea").read_text()
    for claim in (SAMPLES - 1, SAMPLES + 1, 10_000_000_000):
        (tmp_path / "r.hea").write_text(header.replace(f" {SAMPLES}", f" {claim}", 1))
        assert reason_of(tmp_path) == "size"
    (tmp_path / "r.hea").write_text(header)
    (tmp_path / "r.dat").write_bytes(b"RIFF" + (tmp_path / "r.dat").read_bytes()[4:])
    assert reason_of(tmp_path) == "format"


def test_a_flac_file_that_unpacks_to_far_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    wfdb_writes(tmp_path, np.zeros((400_000, SIGNALS), np.int64), ["516"] * 3, ["r.dat"] * 3)
    assert reason_of(tmp_path) == "size"


GOOD = "r.dat 16 200/mV 16 0 0 0 0 "


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"gain": "0/mV"}, "gain"),
        ({"gain": "-200/mV"}, "gain"),
        ({"gain": "inf/mV"}, "gain"),
        ({"gain": "1e-300/mV"}, "gain"),
        ({"lines": "r.dat 16\nr.dat 16\nr.dat 16"}, "gain"),
        ({"record": f"r 3 0 {SAMPLES}"}, "fs"),
        ({"record": f"r 3 -500 {SAMPLES}"}, "fs"),
        ({"record": f"r 3 nan {SAMPLES}"}, "fs"),
        ({"record": "r 3"}, "fs"),
        ({"record": "r 3 500"}, "header"),
        ({"record": "r 3 500 0"}, "header"),
        ({"record": "r 3 500 -400"}, "header"),
        ({"record": "r 99999999 500 400"}, "header"),
        ({"record": "r 0 500 400"}, "header"),
        ({"record": "r"}, "header"),
        ({"record": f"r 3 500 {SAMPLES - 1}"}, "size"),
        ({"record": f"r 3 500 {SAMPLES + 1}"}, "size"),
        ({"record": f"r/2 3 500 {SAMPLES}"}, "format"),
        ({"lines": f"{GOOD}I\n{GOOD}II\n{GOOD}I"}, "leads"),
        ({"lines": f"{GOOD}I\n{GOOD}II\n{GOOD}"}, "leads"),
        ({"lines": f"{GOOD}I\n{GOOD}II\nr.dat 16 16 0 0 0 0 III"}, "header"),  # the gain is left out, all else moves up
        ({"format": "17"}, "format"),
        ({"format": "16x2"}, "format"),
        ({"format": "sixteen"}, "header"),
        ({"format": "16+24"}, "size"),
        ({"file": "other.dat"}, "missing_signal"),
        ({"file": "../r.dat"}, "path"),
        ({"file": "/etc/hostname"}, "path"),
        ({"file": "https://example.org/r.dat"}, "path"),
        ({"file": "sub/r.dat"}, "path"),
        ({"file": ".."}, "path"),
    ],
)
def test_faulty_headers_are_refused_with_their_reason(
    tmp_path: Path, counts: np.ndarray, header: dict[str, str], reason: str
) -> None:
    written(tmp_path, counts, **header)
    assert reason_of(tmp_path) == reason


def test_a_file_outside_the_folder_is_never_opened(tmp_path: Path, counts: np.ndarray, opened: list[str]) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.dat").write_bytes(counts.tobytes())  # whole, and it would fit
    opened.clear()
    for name in ("../outside.dat", str(tmp_path / "outside.dat"), f"file://{tmp_path}/outside.dat"):
        for code in ("16", "212"):
            written(inside, counts, file=name, format=code)
            assert reason_of(inside) == "path"
    assert any(name.endswith("r.hea") for name in opened)  # the watcher does see what is opened
    assert not any("outside.dat" in name for name in opened)


@pytest.mark.parametrize("path", ["../r", "a/../../r", "/etc/hostname", "", "http::/r"])
def test_a_table_that_points_outside_the_source_is_refused(tmp_path: Path, counts: np.ndarray, path: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    written(tmp_path, counts)
    assert reason_of(inside, path) == "path"


def test_a_link_in_the_folder_is_followed(tmp_path: Path, counts: np.ndarray) -> None:
    record = written(tmp_path, counts)
    Path(f"{record}.dat").rename(tmp_path / "store.bin")
    Path(f"{record}.dat").symlink_to(tmp_path / "store.bin")
    assert ours.read_record(tmp_path, "r").signal.shape == (SIGNALS, SAMPLES)


def test_a_pipe_is_no_signal_file(tmp_path: Path, counts: np.ndarray) -> None:
    record = written(tmp_path, counts)
    Path(f"{record}.dat").unlink()
    os.mkfifo(f"{record}.dat")  # opening it would wait for ever
    assert reason_of(tmp_path) == "missing_signal"


def test_a_pipe_is_no_header(tmp_path: Path, counts: np.ndarray) -> None:
    record = written(tmp_path, counts)
    Path(f"{record}.hea").unlink()
    os.mkfifo(f"{record}.hea")
    with hostile.within(5):
        assert reason_of(tmp_path) == "header"


@pytest.mark.parametrize("code", ["16", "212"])
def test_a_file_of_ten_billion_zeros_that_take_no_room_is_refused(
    tmp_path: Path, counts: np.ndarray, code: str
) -> None:
    written(tmp_path, counts, record="r 3 500 10000000000", format=code)
    os.truncate(tmp_path / "r.dat", {"16": 60_000_000_000, "212": 45_000_000_000}[code])
    assert reason_of(tmp_path) == "size"


def test_an_enormous_claim_allocates_nothing(tmp_path: Path, counts: np.ndarray) -> None:
    for code in ("16", "212", "310"):
        written(tmp_path, counts, record="r 3 500 10000000000", format=code)
        tracemalloc.start()
        assert reason_of(tmp_path) == "size"
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 19


def test_a_signal_without_header_is_not_called_absent(tmp_path: Path, counts: np.ndarray) -> None:
    record = written(tmp_path, counts)
    Path(f"{record}.hea").unlink()
    assert reason_of(tmp_path) == "header"
    Path(f"{record}.dat").unlink()
    assert reason_of(tmp_path) == "absent"


def test_refusals_survive_the_way_back_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(Unreadable("gain", "it is 0")))
    assert (error.reason, error.detail, str(error)) == ("gain", "it is 0", "gain: it is 0")
