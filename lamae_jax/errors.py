"""The four ways in which a run ends early, each with its exit code."""

from __future__ import annotations


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
    """SIGTERM arrived and the state is saved; the same command goes on from there. Exit code 75."""

    exit_code = 75
