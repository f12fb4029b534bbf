"""Atomic writing: a reader sees the whole old file or the whole new one, never a half. And opening what may be no file at all.

Temporary name in the same folder, fsync, rename, fsync of the folder.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write_with(path: Path | str, fill: Callable[[BinaryIO], Any]) -> None:
    """Write `path` atomically; `fill` receives the open binary file. Raises OSError (full disk, no permission)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes that write the same file must not tear each other's temporary one; on two hosts they may have one id.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write bytes atomically."""
    write_with(path, lambda file: file.write(data))


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_csv(path: Path | str, lines: Iterable[Sequence[object]]) -> None:
    """Write lines of comma-separated values atomically."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    write_text(path, out.getvalue())


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused, since they are not JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_npy(path: Path | str, array: np.ndarray) -> None:
    """Write one array as .npy, atomically and without pickle."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_with(path, lambda file: file.write(buffer.getbuffer()))


def regular(path: str, flags: int) -> int:
    """For `open(path, opener=regular)`: a pipe, which would be waited for, or a device is an OSError like a missing file."""
    descriptor = os.open(path, flags | os.O_NONBLOCK)  # has no effect on files
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "is no regular file", path)


def sha256_files(paths: Iterable[Path]) -> str:
    """The hex sha256 of some files' bytes, one after the other: of the code that a result follows from, say."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.read_bytes())
    return whole.hexdigest()


def sha256_file(path: Path | str) -> str:
    """The hex sha256 of a file, read in pieces. Raises OSError, also for a pipe."""
    with open(path, "rb", opener=regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
