"""Strict reading of the files of a model folder, which may come from anywhere: nothing is trusted before it was checked.

Whatever is missing, unknown, mistyped, out of bounds, altered or outside the folder is refused in one line (UserError).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_safetensors

from lamae_jax.errors import UserError
from lamae_jax.machine import memory

C = TypeVar("C")

LARGEST_JSON = 1 << 24  # bytes; what pretraining writes has some thousand
LARGEST_INTEGER = 1 << 20  # of a model's fields
LARGEST_HEADER = 1 << 20  # bytes before the numbers of a file; a large model's has some ten thousand


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of moderate size."""
    check_place(path)
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"{path}: {path.stat().st_size} bytes; {LARGEST_JSON} are the most that are read")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return values


def check_place(path: Path) -> None:
    """Refuse a file that lies elsewhere: a link in a folder from someone else could point anywhere."""
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise UserError(f"{path}: is a link that leads out of the folder; put the file itself there")


def checked_bytes(path: Path, sha256: object, size: object, record: str, most: int) -> bytes:
    """The bytes of a file whose sha256, and size where it is known, stand in the file named `record`, whose other fields make
    `most` bytes of numbers. Raises UserError, for a file that is larger before it is read."""
    if not path.is_file():
        raise UserError(f"{path}: missing, although {record} lists it")
    check_place(path)
    there = path.stat().st_size
    if size is not None and there != size:
        raise UserError(f"{path}: has {there} bytes, {record} says {size}: the file was altered or cut short")
    if there > most + LARGEST_HEADER:
        raise UserError(f"{path}: has {there} bytes; by {record} it holds {most} bytes of numbers and a short header")
    if there > memory() // 2:  # it is held twice: as bytes, and as arrays
        raise UserError(f"{path}: its {there} bytes do not fit into this machine's memory")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(
            f"{path}: its sha256 is not the one in {record}: the file was altered or cut short; copy it again"
        )
    return data


def tensors(path: Path, data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    try:
        return read_safetensors(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:  # its own, and for types that numpy lacks
        raise UserError(f"{path}: not a safetensors file of numpy's types ({error})") from None


def uint64_list(path: Path, data: bytes, count: object) -> np.ndarray:
    """A one-dimensional uint64 .npy file of `count` values; nothing is allocated for what its header claims."""
    file = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("not version 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy's parser raises whatever Python's own raises on foreign bytes
        raise UserError(f"{path}: not a .npy file ({' '.join(str(error).split())[:100]})") from None
    rest = data[file.tell() :]
    if shape != (count,) or dtype != np.uint64 or len(rest) != 8 * shape[0]:
        raise UserError(f"{path}: must hold {count} values of uint64, holds {dtype} {shape}")
    return np.frombuffer(rest, np.uint64).copy()


def from_fields(kind: type[C], values: object, where: str, later: Mapping[str, Any] = MappingProxyType({})) -> C:
    """A dataclass from a JSON object that has exactly its fields; UserError names what is missing, unknown or mistyped.

    `later` says what it means where a field is missing that older files do not have.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: must be an object, not {str(values)[:60]!r}")
    values = dict(later) | values
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    same_names(where, set(values), set(fields))
    for name, value in values.items():
        # The annotations of these dataclasses are plain names, so their text says the type.
        wanted = {"int": int, "float": (int, float), "str": str, "bool": bool}[str(fields[name].type)]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):  # type: ignore[arg-type]
            raise UserError(f"{where}.{name}={str(value)[:60]!r}: must be {fields[name].type}")
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise UserError(f"{where}.{name}={value:.3g}: must be at most {LARGEST_INTEGER}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{where}.{name}={value}: must be finite")
    return kind(**values)


def same_names(where: str, found: set[str], wanted: set[str]) -> None:
    """Raise UserError naming the first of what is missing and of what is unknown."""
    problems = [
        f"{word} {', '.join(repr(name)[1:-1][:60] for name in sorted(names)[:4])}{' ...' if len(names) > 4 else ''}"
        for word, names in (("lacks", wanted - found), ("has unknown", found - wanted))
        if names
    ]
    if problems:
        raise UserError(f"{where}: {' and '.join(problems)}")
