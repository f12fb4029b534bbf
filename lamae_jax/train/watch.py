"""Signs of life of all processes of a job, so that one that dies or hangs ends the job by name instead of stalling it.

The collectives of a training only wait: for a process that is gone until a timeout of the transport, for one that hangs
forever. Each process therefore writes what it does into a small file of the shared workdir, and watches the others' files.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lamae_jax.errors import Lost
from lamae_jax.files import write_json

T = TypeVar("T")

BEAT = 5.0  # s between two signs of life
DEAD = 60.0  # s without any: the process is gone
ENDED = "ended"
GO_ON = "the same command goes on from the newest checkpoint"
HUNG = 900.0  # s in which nobody went on: something hangs


@dataclass(frozen=True)
class Sign:
    """What one process says of itself: its job, how often it has written this, gone on and met the others, what it does."""

    job: str
    beats: int
    gone_on: int
    met: int
    doing: str


class Watch:
    """A thread that writes this process's sign of life and reads the others'. A single process has nobody to watch.

    `job` is the same in all processes and another in every job, so that files left by an earlier one count for nothing.
    """

    def __init__(
        self,
        folder: Path,
        job: str,
        index: int,
        count: int,
        dead: float = DEAD,
        hung: float = HUNG,
        beat: float = BEAT,
    ):
        self.folder, self.job, self.index, self.count = folder, job, index, count
        self.dead, self.hung, self.beat = dead, hung, beat
        self.beats, self.gone_on, self.met, self.doing = 0, 0, 0, "starting"
        self.ended, self.writing = threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        if self.count > 1:
            self._write()
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        if self.count == 1:
            return
        self.thread.join()
        # A process that leaves alone, with an error, is to be found dead by those that still wait for it.
        if error is None:
            self.at(ENDED)
        self._patiently(self._write)  # and not removed: another may still be about to see that this one has met it

    def at(self, doing: str) -> None:
        """This process has gone on, and does this now.

        To be called as often in every process, and between work of one's own and a wait for the others: one that hangs in
        its work is then behind those that wait for it.
        """
        self.gone_on, self.doing = self.gone_on + 1, doing

    def within(self, doing: str) -> Callable[[str], None]:
        """`at` for the parts of something, which are told with what they belong to."""
        return lambda part: self.at(f"{doing}: {part}")

    def meet(self, why: str) -> None:
        """Wait until all processes are here: a collective that the others reach much later would give up on them."""
        if self.count == 1:
            return
        self.met += 1
        self.at(f"waiting for the others: {why}")
        self._patiently(self._write)
        while not self._patiently(self._all_here):
            time.sleep(0.05)

    def lost(self, error: BaseException) -> str:
        """After a collective has failed: wait until it is known whose fault it is; returns what to say when it stays unknown."""
        time.sleep(self.dead + 6 * self.beat)  # a disk that is slow to write to makes beats longer
        try:
            signs = self._patiently(lambda: [self._read(index) for index in range(self.count)])
        except OSError:  # a disk that is away tells nothing
            signs = []
        if None in signs:
            return f"process {signs.index(None)} of {self.count} died before it gave a sign of life; {GO_ON}"
        return f"the processes of this job have lost each other: {str(error).splitlines()[0]}; {GO_ON}"

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:05d}.json"

    def _write(self) -> None:
        with self.writing:
            sign = Sign(self.job, self.beats, self.gone_on, self.met, self.doing)
            write_json(self._path(self.index), asdict(sign))

    def _read(self, index: int) -> Sign | None:
        """Another's sign, None before it has begun."""
        try:
            sign = Sign(**json.loads(self._path(index).read_text()))
        except FileNotFoundError:
            return None
        return sign if sign.job == self.job else None

    def _all_here(self) -> bool:
        return all(sign is not None and sign.met >= self.met for sign in map(self._read, range(self.count)))

    def _patiently(self, work: Callable[[], T]) -> T:
        """What `work` returns, though the disk be away for a moment (a stale handle of NFS, say); if for longer, its OSError."""
        patience = time.monotonic() + self.dead / 2  # before the others take this process for dead
        while True:
            try:
                return work()
            except OSError:
                if time.monotonic() > patience:
                    raise
                time.sleep(0.05)

    def _run(self) -> None:
        last: dict[int, Sign] = {}  # the last sign of each, and when it changed
        changed: dict[int, float] = {}
        steps: dict[int, int] = {}
        moved = time.monotonic()
        while not self.ended.wait(self.beat):
            self.beats += 1
            try:
                self._write()
                signs = {index: sign for index in range(self.count) if (sign := self._read(index)) is not None}
            except OSError:  # the disk is away for a moment; if for good, the run itself will say so
                continue
            now = time.monotonic()
            for index, sign in signs.items():
                if index not in last or last[index] != sign:
                    last[index], changed[index] = sign, now
                elif sign.doing != ENDED and now - changed[index] > self.dead:
                    self._end(f"process {index} of {self.count} died while {sign.doing}", "no sign of life", self.dead)
            before, steps = steps, {index: sign.gone_on for index, sign in signs.items()}
            if steps != before:
                moved = now
            elif now - moved > self.hung:
                self._end(hanging(signs, self.count), "nobody went on", self.hung)

    def _end(self, problem: str, why: str, seconds: float) -> None:
        end(f"{problem} ({why} for {seconds:.0f} s); {GO_ON}")


def hanging(signs: dict[int, Sign], count: int) -> str:
    """Who hangs, where nobody goes on: those furthest behind, unless all are at one place and may wait for a device."""
    done = {index: float(signs[index].gone_on) if index in signs else -1.0 for index in range(count)}
    done |= {index: float("inf") for index, sign in signs.items() if sign.doing == ENDED}
    behind = [index for index in done if done[index] == min(done.values())]
    doing = signs[behind[0]].doing if behind[0] in signs else "starting"
    if len(behind) == count:
        return f"all {count} processes are stuck while {doing}: the device, the network or one of them hangs"
    if len(behind) > 1:
        return f"one of the processes {', '.join(map(str, behind))} of {count} hangs while {doing}"
    return f"process {behind[0]} of {count} hangs while {doing}"


@contextmanager
def patience(seconds: float = HUNG + 60) -> Iterator[None]:
    """For a collective: where it takes longer than this, end the process with one line, for it would wait forever. Where a Watch
    is running, that is sooner, and names who hangs.
    """
    line = f"the processes of this job have waited {seconds:.0f} s for each other; one of them hangs"
    timer = threading.Timer(seconds, end, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def end(problem: str) -> None:
    """Say one line and end: the main thread waits inside a collective and cannot be woken."""
    sys.stderr.write(f"error: {problem}\n")
    sys.stderr.flush()
    os._exit(Lost.exit_code)
