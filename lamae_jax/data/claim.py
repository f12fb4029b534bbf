"""Whose folder is it? A store that is being made is locked, says what it will be, and is cleared of leavings at the end."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamae_jax import __version__
from lamae_jax.data.sources import Source
from lamae_jax.data.store import BEGUN
from lamae_jax.errors import UserError
from lamae_jax.files import write_json


@contextmanager
def locked(store: Path, shared: bool) -> Iterator[None]:
    """Keep other prepare runs out of the store; jobs of one array share it. The lock ends with the process, however it ends."""
    descriptor = os.open(store, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"store {store}: another prepare is at work on it") from None
        except OSError:
            pass  # a file system without locks: atomic writes still keep the store whole
        yield
    finally:
        os.close(descriptor)


def fingerprint(source: Source) -> str:
    """Which records in which order: shards of two different lists must never meet in one store."""
    text = "\n".join(f"{entry.record_id}\t{entry.path}" for entry in source.entries)
    return f"{len(source.entries)} records, sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def compare(store: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raise UserError that names the first field in which a store differs from what is asked, and both values."""
    for name, value in ours.items():
        if name not in theirs or theirs[name] != value:
            there = repr(theirs[name]) if name in theirs else "absent"
            raise UserError(
                f"store {store}: {name} is {there} there, {value!r} is asked for; "
                "give another --config.store, or delete this one"
            )


def begin(store: Path, ours: dict[str, Any]) -> None:
    """Claim an empty folder, or see that what was begun there is the same store."""
    ours = ours | {"code_version": __version__}
    # Looked at before asking for BEGUN: another job of the array may be beginning right now, and writes BEGUN first.
    others = sorted(path.name for path in store.iterdir() if not path.name.startswith(f".{BEGUN}"))
    if (store / BEGUN).exists():
        compare(store, json.loads((store / BEGUN).read_bytes()), ours)
        return
    if others:
        raise UserError(f"store {store}: not a store and not empty (it holds {others[0]}); give another --config.store")
    write_json(store / BEGUN, ours)


def tidy(store: Path) -> None:
    """Remove what only an unfinished store needs."""
    shutil.rmtree(store / "parts", ignore_errors=True)
    (store / BEGUN).unlink(missing_ok=True)


def clear(store: Path) -> None:
    """Remove temporary files that a killed run has left."""
    for path in [*store.glob(".*.tmp"), *store.glob("*/.*.tmp")]:
        path.unlink(missing_ok=True)
