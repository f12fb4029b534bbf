"""The four ways in which a run ends early, each with its exit code, and how SIGTERM becomes one of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A user's mistake: shown as one line that names the thing, the value and what would be right. Exit code 2."""

    exit_code = 2


class NotFinite(ArithmeticError):
    """A loss or gradient that is not finite. Exit code 3."""

    exit_code = 3


class Lost(Exception):
    """Another process of the job has died or hangs. Exit code 4."""

    exit_code = 4


class Stopped(Exception):
    """SIGTERM arrived and what is finished is saved; the same command goes on from there. Exit code 75."""

    exit_code = 75


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """Turn SIGTERM into Stopped, so that temporary files and workers are cleared away on the way out."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Stopped("by SIGTERM; what is finished is kept, the same command goes on from there")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
