"""prepare: from recordings to a store, the same bytes however it gets there."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from lamae_jax.data import shards
from lamae_jax.data.prepare import prepare
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError

COUNT, ABSENT, CUT_SHORT = 60, (7, 40), (8, 9, 33)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "RECORDS_PER_SHARD", 16)
    monkeypatch.setattr(shards, "CHUNK", 5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_ptb_xl(tmp_path_factory.mktemp("source"), COUNT, ABSENT, CUT_SHORT)


@pytest.fixture
def whole(source: Path, tmp_path: Path) -> Path:
    """A store made in one go in this process."""
    prepare(tiny.config(source, tmp_path / "whole"), tmp_path / "whole-run")
    return tmp_path / "whole"


def test_the_store_holds_every_usable_record_in_the_order_of_the_table(source: Path, whole: Path) -> None:
    store = Store.open(whole)
    usable = [number for number in range(1, COUNT + 1) if number not in ABSENT + CUT_SHORT]
    assert store.record_ids.tolist() == [str(number) for number in usable]
    assert np.array_equal(store.read(np.arange(store.size)), np.stack([tiny.signal_of(number) for number in usable]))
    # Shard i is source records [16 i, 16 (i + 1)) less the rejected: numpy alone reads it.
    sizes = [len(np.load(whole / f"shards/{i:05d}.npy")) for i in range(4)]
    assert sizes == [16 - 3, 16, 16 - 2, 12]
    table = pq.read_table(whole / "records.parquet").to_pydict()
    assert table["shard"] == sorted(table["shard"]) and table["row"][:14] == [*range(13), 0]
    assert table["path"][0] == "records100/00000/00001_lr"
    assert table["patient_id"][:4] == ["1000", "1000", "1001", "1001"] and table["strat_fold"][:4] == [1, 1, 2, 2]
    assert set(table["available"]) == {2**12 - 1}


def test_what_cannot_be_used_is_named_with_its_reason(source: Path, tmp_path: Path) -> None:
    summary = prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")
    with open(tmp_path / "store" / "rejected.csv", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert {(row["record_id"], row["reason"]) for row in rejected} == {
        ("7", "absent"),
        ("40", "absent"),
        ("8", "size"),
        ("9", "size"),
        ("33", "size"),
    }
    assert rejected[0]["path"] == "records100/00000/00007_lr"
    assert list(rejected[0]) == ["path", "record_id", "reason", "detail"]
    assert summary["rejected"] == {"absent": 2, "size": 3}
    assert summary["listed"] == COUNT and summary["stored"] == COUNT - 5
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_label_tables_come_whole_and_say_which_waveforms_are_here(whole: Path) -> None:
    with open(whole / "labels" / "ptbxl_database.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == COUNT and list(rows[0])[-1] == "has_waveform"
    assert [int(row["ecg_id"]) for row in rows if row["has_waveform"] == "0"] == sorted(ABSENT + CUT_SHORT)
    assert rows[0]["scp_codes"] == "{'NORM': 100.0}"


def test_ids_that_went_through_a_float_are_known_in_label_tables_too(tmp_path: Path) -> None:
    tiny.write_ptb_xl(tmp_path / "source", 6)
    table = tmp_path / "source/ptbxl_database.csv"
    head, *lines = table.read_text().splitlines()
    assert head.startswith("ecg_id,")
    table.write_text("\n".join([head, *(line.replace(",", ".0,", 1) for line in lines)]) + "\n")
    prepare(tiny.config(tmp_path / "source", tmp_path / "store"), tmp_path / "run")
    with open(tmp_path / "store/labels/ptbxl_database.csv", newline="") as file:
        assert [(row["ecg_id"], row["has_waveform"]) for row in csv.DictReader(file)][0] == ("1.0", "1")


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(source: Path, whole: Path, tmp_path: Path, workers: int) -> None:
    prepare(tiny.config(source, tmp_path / "other", workers=workers), tmp_path / "run")
    assert tiny.contents(tmp_path / "other") == tiny.contents(whole)


def test_jobs_of_an_array_and_merge_give_the_same_bytes(source: Path, whole: Path, tmp_path: Path) -> None:
    store = tmp_path / "jobs"
    for job in ("2/3", "0/3"):
        prepare(tiny.config(source, store, shard=job), tmp_path / "run")
    with pytest.raises(UserError, match="1 of 4 shards are not there yet"):
        prepare(tiny.config(source, store, merge=True), tmp_path / "run")
    with pytest.raises(UserError, match="not complete yet"):
        Store.open(store)
    prepare(tiny.config(source, store, shard="1/3"), tmp_path / "run")
    prepare(tiny.config(source, store, merge=True), tmp_path / "run")
    assert tiny.contents(store) == tiny.contents(whole)


def test_running_again_on_a_complete_store_changes_nothing(
    source: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    summary = prepare(tiny.config(source, whole), tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    assert summary["stored"] == COUNT - 5 and "complete already" in capsys.readouterr().out


def test_a_complete_store_no_longer_needs_its_recordings(tmp_path: Path) -> None:
    source = tiny.write_ptb_xl(tmp_path / "source", 4)
    config = tiny.config(source, tmp_path / "store")
    first = prepare(config, tmp_path / "run")
    shutil.rmtree(source)
    again = prepare(config, tmp_path / "run")
    assert first | {"seconds": 0} == again | {"seconds": 0}


def test_a_shard_that_was_lost_or_cut_before_the_store_was_complete_is_made_again(
    source: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    prepare(tiny.config(source, store, shard="0/2"), tmp_path / "run")
    (store / "shards" / "00000.npy").write_bytes(b"half")
    (store / "shards" / "00002.npy").unlink()
    prepare(tiny.config(source, store), tmp_path / "run")
    assert tiny.contents(store) == tiny.contents(whole)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import tiny
from pathlib import Path
from lamae_jax.data import prepare, shards
from lamae_jax.errors import sigterm_stops
shards.RECORDS_PER_SHARD, shards.CHUNK = 16, 5
if __name__ == "__main__":
    print("begins", flush=True)
    with sigterm_stops():  # as main does
        prepare.prepare(tiny.config(Path({source!r}), Path({store!r}), workers={workers}), Path({run!r}))
"""


def start(tmp_path: Path, source: Path, store: Path, workers: int) -> subprocess.Popen[str]:
    """A real process that prepares; returns when its imports are done and the work begins."""
    script = tmp_path / "killed.py"
    script.write_text(
        KILLED.format(
            tests=str(Path(__file__).parent),
            source=str(source),
            store=str(store),
            run=str(tmp_path / "run"),
            workers=workers,
        )
    )
    root = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    return process


def files_of(folder: Path) -> int:
    """How many files a folder holds at this moment, temporary ones included."""
    return sum(len(files) for _, _, files in os.walk(folder))


@pytest.mark.parametrize("workers, kills", [(1, (0, 3, 8)), (2, (2, 5))])
def test_kill_9_at_any_moment_and_run_again_gives_the_same_bytes(
    source: Path, whole: Path, tmp_path: Path, workers: int, kills: tuple[int, ...]
) -> None:
    """A real process, killed a few random milliseconds after the store has come to hold some number of files."""
    store, dice = tmp_path / "killed", random.Random(workers)
    for files in kills:
        process = start(tmp_path, source, store, workers)
        while files_of(store) < files and process.poll() is None:
            time.sleep(0.001)
        time.sleep(dice.random() * 0.02)
        process.kill()
        process.communicate(timeout=60)  # ends only when its workers, too, have let go of the pipe
        for path in sorted(store.glob("shards/*.npy")):  # never a half shard under a shard's name
            assert np.array_equal(np.load(path), np.load(whole / "shards" / path.name))
    output, _ = start(tmp_path, source, store, workers).communicate()
    assert tiny.contents(store) == tiny.contents(whole), output


def test_killed_between_any_two_writes_and_run_again_gives_the_same_bytes(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each atomic write is a moment at which a run can end; all of them, one after the other."""

    class Killed(BaseException):
        pass

    rename, left = os.replace, 0

    def dying(*names: object) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        rename(*names)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", dying)
    for moment in range(14):  # begun, 4 x (shard, part), parquet, rejected, labels, manifest, summary
        store, left = tmp_path / f"{moment}", moment
        with pytest.raises(Killed):
            prepare(tiny.config(source, store), tmp_path / "run")
        left = 1000
        prepare(tiny.config(source, store), tmp_path / "run")
        assert tiny.contents(store) == tiny.contents(whole)


def test_sigterm_leaves_nothing_running_and_can_be_continued(source: Path, whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, source, tmp_path / "store", 2)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)  # ends only when its workers have let go of the pipe
    assert process.returncode == 0 or "Stopped: by SIGTERM" in output
    prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")
    assert tiny.contents(tmp_path / "store") == tiny.contents(whole)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("fs", 50, "fs is 100 there, 50 is asked for"),
        ("band", "highpass_0.5", "band is 'none' there, 'highpass_0.5' is asked for"),
        ("long", "windows", "long is 'crop' there, 'windows' is asked for"),
    ],
)
def test_a_store_of_another_configuration_is_refused(
    source: Path, whole: Path, tmp_path: Path, field: str, value: object, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        prepare(tiny.config(source, whole, **{field: value}), tmp_path / "run")


def test_an_unfinished_store_of_another_configuration_is_refused(source: Path, tmp_path: Path) -> None:
    prepare(tiny.config(source, tmp_path / "store", shard="0/2"), tmp_path / "run")
    with pytest.raises(UserError, match="seconds is 10.0 there, 5.0 is asked for"):
        prepare(tiny.config(source, tmp_path / "store", seconds=5.0), tmp_path / "run")


def test_a_source_whose_table_has_changed_is_refused(whole: Path, tmp_path: Path) -> None:
    other = tiny.write_ptb_xl(tmp_path / "source", 20)
    with pytest.raises(UserError, match="entries is '60 records, .* there, '20 records, "):
        prepare(tiny.config(other, whole), tmp_path / "run")


def test_a_folder_that_holds_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="not a store and not empty .it holds one.jpg."):
        prepare(tiny.config(source, tmp_path / "photos"), tmp_path / "run")


def test_too_many_bad_records_stop_the_run_and_leave_the_list(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(UserError, match=r"3 of 58 records can't be used \(size 3\), more than max_bad_fraction 0.05"):
        prepare(tiny.config(source, store, max_bad_fraction=0.05), tmp_path / "run")
    assert "records100/00000/00008_lr,8,size" in (store / "rejected.csv").read_text()
    assert not (store / "manifest.json").exists()
    prepare(tiny.config(source, store, max_bad_fraction=0.06), tmp_path / "run")  # absent ones don't count
    assert Store.open(store).size == COUNT - 5


def test_a_source_without_any_file_is_one_line(tmp_path: Path) -> None:
    source = tiny.write_ptb_xl(tmp_path / "source", 4, absent=(1, 2, 3, 4))
    (source / "records100").mkdir()
    with pytest.raises(UserError, match="none of the 4 listed records has a file"):
        prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")


def test_long_recordings_are_cropped_or_cut_into_windows(tmp_path: Path) -> None:
    source = tiny.write_ptb_xl(tmp_path / "source", 4, seconds=25)
    prepare(tiny.config(source, tmp_path / "crop"), tmp_path / "run")
    prepare(tiny.config(source, tmp_path / "windows", long="windows"), tmp_path / "run")
    crop, windows = Store.open(tmp_path / "crop"), Store.open(tmp_path / "windows")
    whole = tiny.signal_of(1, 2500)
    assert np.array_equal(crop.read(np.array([0]))[0], whole[:, 750:1750])
    assert windows.record_ids.tolist() == ["1", "1", "2", "2", "3", "3", "4", "4"]
    assert windows.column("window").tolist() == [0, 1] * 4
    assert np.array_equal(windows.read(np.array([0, 1])), np.stack([whole[:, :1000], whole[:, 1000:2000]]))


def test_values_that_no_ecg_has_are_rejected_and_odd_ones_flagged_as_embed_warns(tmp_path: Path) -> None:
    source = tiny.write_ptb_xl(tmp_path / "source", 4)
    header = source / "records100/00000/00002_lr.hea"
    header.write_text(header.read_text().replace("1000.0(0)/mV", "1.0(0)/mV"))  # microvolts called mV
    tiny.write_record(source / "records100/00000/00003_lr", tiny.signal_of(3) // 100)
    prepare(tiny.config(source, tmp_path / "store", fs=250, allow_upsampling=True), tmp_path / "run")
    store = Store.open(tmp_path / "store")
    flags = ["resampled,upsampled", "resampled,upsampled,quiet", "resampled,upsampled"]
    assert store.record_ids.tolist() == ["1", "3", "4"] and store.column("flags").tolist() == flags
    with open(tmp_path / "store" / "rejected.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["record_id"] == "2" and row["reason"] == "unit"
    assert row["detail"].endswith("no ECG does; are they microvolts (units=uV) or counts of a converter?")


def test_some_seconds_of_a_loose_electrode_do_not_cost_a_long_recording(tmp_path: Path) -> None:
    source = tiny.write_ptb_xl(tmp_path / "source", 1, seconds=40)
    signal = tiny.signal_of(1, 4000)
    signal[:, 100:400:2] = 30_000
    signal[:, 101:400:2] = -30_000
    tiny.write_record(source / "records100/00000/00001_lr", signal)
    prepare(tiny.config(source, tmp_path / "store", long="windows"), tmp_path / "run")
    assert Store.open(tmp_path / "store").size == 4


def test_verify_only_finds_a_changed_byte_and_a_missing_file(source: Path, whole: Path, tmp_path: Path) -> None:
    check = tiny.config(source, whole, verify_only=True)
    assert prepare(check, tmp_path / "run")["verified"]
    shard = whole / "shards" / "00002.npy"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(UserError, match="shards/00002.npy: sha256 is"):
        prepare(check, tmp_path / "run")
    (whole / "shards" / "00001.npy").unlink()
    with pytest.raises(UserError, match=r"shards/00001.npy: No such file or directory \(and 1 more"):
        prepare(check, tmp_path / "run")


def test_an_unwritable_place_is_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a regular file")
    with pytest.raises(UserError, match="file/store: Not a directory"):
        prepare(tiny.config(source, tmp_path / "file" / "store"), tmp_path / "run")


def test_a_full_disk_is_one_line_and_can_be_continued(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="store: No space left on device"):
        prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")
    prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")
    assert tiny.contents(tmp_path / "store") == tiny.contents(whole)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"shard": "3/3"}, "shard: '3/3'; i/n with i from 0 to n - 1"),
        ({"shard": "x"}, "shard: 'x'"),
        ({"workers": 0}, "workers: 0"),
        ({"long": "pad"}, "long: 'pad'; crop or windows"),
        ({"max_bad_fraction": 2.0}, "max_bad_fraction: 2.0"),
        ({"shard": "0/2", "merge": True}, "shard and merge"),
    ],
)
def test_impossible_configurations_fail_before_any_work(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny.config(tmp_path, tmp_path / "store", **changes)


def test_two_runs_cannot_work_on_one_store_at_a_time(source: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "store").mkdir()
    descriptor = os.open(tmp_path / "store", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another prepare is at work on it"):
        prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")
    os.close(descriptor)
    prepare(tiny.config(source, tmp_path / "store"), tmp_path / "run")
