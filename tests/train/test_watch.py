"""Signs of life: who has died or hangs is named, by a real process that watches."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamae_jax.train.watch import ENDED, Sign, Watch, hanging

# A process of a job of two: it beats quickly, goes on as long as it is told to, then does what `end` says.
PROCESS = """
import sys, time
from pathlib import Path
from lamae_jax.train.watch import Watch

folder, job, index, end = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
with Watch(folder, job, index, 2, dead=4.0, hung=8.0, beat=0.1) as watch:
    watch.meet("both are here")
    watch.at("computing step 1")
    if end == "hang":
        time.sleep(60)
    watch.at("loading step 2")
    watch.at("computing step 2")
    if end == "die":
        import os; time.sleep(0.5); os._exit(9)
    if end == "fail":
        raise OSError("no space left")
    if end == "wait":
        time.sleep(60)
"""


def process(folder: Path, index: int, end: str, job: str = "today") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", PROCESS, str(folder), job, str(index), end]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "end, problem",
    [
        ("die", "process 1 of 2 died while computing step 2"),
        ("fail", "process 1 of 2 died while computing step 2"),
        ("hang", "process 1 of 2 hangs while computing step 1"),
    ],
)
def test_a_process_that_dies_or_hangs_ends_the_job_and_is_named(tmp_path: Path, end: str, problem: str) -> None:
    waiting, other = process(tmp_path, 0, "wait"), process(tmp_path, 1, end)
    assert waiting.wait(30) == 4
    assert waiting.stderr is not None
    message = waiting.stderr.read()
    other.kill()
    assert problem in message and message.count("\n") == 1


@pytest.mark.parametrize(
    "done, said",
    [
        ((3, 2), "process 1 of 2 hangs while computing step 2"),
        ((2, 3, 3), "process 0 of 3 hangs while computing step 2"),
        ((3, 2, 1), "process 2 of 3 hangs while computing step 1"),
        ((3, 2, 2), "one of the processes 1, 2 of 3 hangs while computing step 2"),
        ((3, 3), "all 2 processes are stuck while computing step 3: the device, the network or one of them hangs"),
        ((3, None), "process 1 of 2 hangs while starting"),
        ((ENDED, 3), "process 1 of 2 hangs while computing step 3"),
    ],
)
def test_who_hangs_is_named_only_where_it_is_behind_the_others(done: tuple[int | str | None, ...], said: str) -> None:
    """`done`: how many steps each has begun, None before its first sign of life."""
    signs = {
        index: Sign("today", 9, 2, 0, ENDED)
        if steps == ENDED
        else Sign("today", 9, int(steps), 0, f"computing step {steps}")
        for index, steps in enumerate(done)
        if steps is not None
    }
    assert hanging(signs, len(done)) == said


def test_two_that_wait_at_one_place_say_so_without_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lamae_jax.train.watch.end", said.append)
    first, second = (Watch(tmp_path, "today", index, 2, hung=1.0, beat=0.05) for index in (0, 1))
    with first, second:
        for watch in (first, second):
            watch.at("evaluating after step 4")
        while not said:
            time.sleep(0.05)
    assert said[0] == (
        "all 2 processes are stuck while evaluating after step 4: the device, the network or one of them hangs (nobody went on "
        "for 1 s); the same command goes on from the newest checkpoint"
    )


def test_one_that_hangs_in_its_own_work_is_behind_those_that_wait_for_it(tmp_path: Path) -> None:
    """Both evaluate; one never gets to its first batch, the other waits for the figures of all."""
    from lamae_jax.train.validation import told

    waits, hangs = (Watch(tmp_path, "today", index, 2) for index in (0, 1))
    assert list(told("ab", waits.within("evaluating after step 4"))) == ["a", "b"]
    assert waits.doing == "evaluating after step 4: collecting the figures"
    next(iter(told("ab", hangs.within("evaluating after step 4"))))
    assert hangs.doing == "evaluating after step 4: computing batch 1"
    assert hangs.gone_on < waits.gone_on


def test_one_that_died_before_its_first_sign_is_named_by_who_has_lost_it(tmp_path: Path) -> None:
    first, second, third = (Watch(tmp_path, "today", index, 3, dead=0.1, beat=0.01) for index in range(3))
    reset = ValueError("UNKNOWN: Connection reset by peer\nand more")
    for watch in (first, third):
        watch._write()
    assert first.lost(reset).startswith("process 1 of 3 died before it gave a sign of life; the same command")
    second._write()
    said = "the processes of this job have lost each other: UNKNOWN: Connection reset by peer; the same command"
    assert first.lost(reset).startswith(said)


def test_a_process_that_ends_well_is_missed_by_nobody(tmp_path: Path) -> None:
    first, second = process(tmp_path, 0, "done"), process(tmp_path, 1, "done")
    assert first.wait(30) == 0 and second.wait(30) == 0


def test_files_of_an_earlier_job_count_for_nothing(tmp_path: Path) -> None:
    """A killed job leaves its signs; the next one neither meets a ghost nor takes it for dead."""
    left = process(tmp_path, 1, "die", job="yesterday")
    helper = process(tmp_path, 0, "wait", job="yesterday")
    left.wait(30)
    helper.kill()
    helper.wait()
    assert list(tmp_path.glob("*.json"))
    first = process(tmp_path, 0, "done")
    time.sleep(1)
    assert first.poll() is None  # it waits for the real one
    assert process(tmp_path, 1, "done").wait(30) == 0 and first.wait(30) == 0


def away(monkeypatch: pytest.MonkeyPatch, method: str, times: float) -> None:
    """Let the disk be away for so many calls of a method of Path."""
    real, calls = getattr(Path, method), itertools.count()

    def stale(self: Path, *arguments: object, **options: object) -> object:
        if next(calls) < times:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, method, stale)


@pytest.mark.parametrize("method", ["read_text", "mkdir"])
def test_a_disk_that_is_away_for_a_moment_does_not_end_a_meeting(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = process(tmp_path, 1, "wait")
    away(monkeypatch, method, times=3)
    Watch(tmp_path, "today", 0, 2).meet("both are here")
    other.kill()
    other.wait()


def test_a_disk_that_stays_away_ends_a_meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away(monkeypatch, "read_text", times=float("inf"))
    with pytest.raises(OSError, match="Stale"):
        Watch(tmp_path, "today", 0, 2, dead=0.2).meet("both are here")


def test_a_meeting_to_which_one_never_comes_ends_with_a_line() -> None:
    program = """
import time
from lamae_jax.train.watch import patience

with patience(0.6):
    pass
time.sleep(1)
with patience(0.6):
    time.sleep(60)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert answer.returncode == 4
    assert answer.stderr == "error: the processes of this job have waited 1 s for each other; one of them hangs\n"


def test_a_single_process_watches_nobody(tmp_path: Path) -> None:
    with Watch(tmp_path / "processes", "job", 0, 1) as watch:
        watch.at("computing")
        watch.meet("alone")
    assert not (tmp_path / "processes").exists()
