"""The four ways in which a run ends early, each with its exit code, how SIGTERM becomes one, and a check of many configs."""

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


def check_at_least_one(config: object, *fields: str) -> None:
    """Raise UserError for the first of a config's fields that is below 1."""
    for name in fields:
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)}: must be at least 1")


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
