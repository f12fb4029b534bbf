"""For tests of input from anywhere: which files are opened meanwhile, and a limit of time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WATCHERS: list[list[str]] = []
# From 3.12 on the interpreter looks for the faulty line of a text that numpy has it tokenize (a header, say) in a file so named.
_TEXT = "<string>"


def _watch(event: str, args: tuple) -> None:
    if _WATCHERS and event == "open" and isinstance(args[0], str | os.PathLike):  # else a descriptor, opened before
        if args[0] == _TEXT:
            return
        for names in _WATCHERS:
            names.append(os.path.realpath(args[0]))


sys.addaudithook(_watch)  # cannot be taken away again; it does nothing while nobody watches


@contextmanager
def opened() -> Iterator[list[str]]:
    """The real paths of all files that Python opens meanwhile, by whatever function."""
    names: list[str] = []
    _WATCHERS.append(names)
    try:
        yield names
    finally:
        _WATCHERS.remove(names)


def pipe(path: Path) -> None:
    """Put a pipe that nobody writes to where a file stands."""
    path.unlink()
    os.mkfifo(path)


class Hangs(BaseException):
    """No Exception: what is under test may turn those, and OSErrors first of all, into refusals."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Hangs where what stands inside takes longer, also when it waits for a pipe that nobody writes to."""

    def late(*_: object) -> None:
        raise Hangs(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
