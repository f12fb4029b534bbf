"""What of this machine a process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """The cores that this process may run on; all of the machine where it can't be told (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
