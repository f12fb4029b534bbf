"""The folder of a run: claimed for one run at a time, and held to the config that it was begun with."""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamae_jax.command import Command, decides_result
from lamae_jax.config import flat
from lamae_jax.errors import UserError
from lamae_jax.files import write_json

# What a claimed folder holds before its run has made anything.
OWN = (".lock", "config.json")


@contextmanager
def claimed(command: Command, process: int = 0) -> Iterator[Path]:
    """The run's folder, for this run alone while open; refused where it holds another config or another run is at work.

    Of the processes of one job the first, `process` 0, claims it for all. A mistake that stops a run before it has made
    anything leaves the folder free for the corrected command.
    """
    folder = command.folder
    if process:
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    record = {"task": command.task, "variant": command.variant, **command.config}
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--workdir={folder}: another process is running there; wait for it, or name another"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
                raise
        compare(folder, record)
        fresh = not (folder / "config.json").exists()
        write_json(folder / "config.json", record)
        try:
            yield folder
        except UserError:
            if fresh and not any(path.is_file() and path.name not in OWN for path in folder.rglob("*")):
                (folder / "config.json").unlink()
            raise


def compare(folder: Path, ours: dict[str, Any]) -> None:
    """Refuse a folder that holds a run of another config; what does not decide the result may differ."""
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        theirs = flat(json.loads(path.read_text()))
    except ValueError:
        raise UserError(
            f"{path}: damaged; remove it to claim the folder for this config, or name another --workdir"
        ) from None
    mine = flat(ours)
    for name in sorted(theirs.keys() | mine.keys()):
        if not decides_result(ours["task"], name):
            continue
        old, new = (values[name] if name in values else "absent" for values in (theirs, mine))
        if old != new:
            raise UserError(
                f"--workdir={folder}: holds a run with {name}={old}, this one has {name}={new}; name another"
            )
