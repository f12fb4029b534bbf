"""WFDB headers and stores from anywhere: a thousand damaged ones each, read or refused in one line, nothing read elsewhere."""

from __future__ import annotations

import builtins
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny

from lamae_jax.data.prepare import prepare
from lamae_jax.data.sources import Unreadable
from lamae_jax.data.sources.wfdb_files import read_record
from lamae_jax.data.store import Store, verify
from lamae_jax.errors import UserError

PIECES = [
    "../x.dat",
    "/etc/passwd",
    "nan",
    "0",
    "-1",
    "inf",
    "1e999",
    "999999999999999999999999999",
    "16x2",
    "212",
    "508",
    "%s",
    "(",
    ")/mV",
    "10000000000",
    "I",
    "~",
    "http://x/y.dat",
    "\x00",
    "é",
]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Cut, a bit turned, a stretch lost or doubled, or a piece of another header put in."""
    at, kind = rng.randrange(len(data)), rng.randrange(5)
    length = rng.randrange(1, 30)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at + length :]
    if kind == 3:
        return data[:at] + data[at : at + length] * 2 + data[at + length :]
    return data[:at] + rng.choice(PIECES).encode() + data[at + rng.randrange(8) :]


def test_a_thousand_damaged_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write_record(tmp_path / "in" / "a", tiny.signal_of(1))
    header = tmp_path / "in" / "a.hea"
    good, rng, refused = header.read_bytes(), random.Random(0), 0
    opened: list[str] = []
    really = builtins.open

    def watched(file: object, *rest: object, **more: object) -> object:
        opened.append(os.path.realpath(str(file)))
        return really(file, *rest, **more)  # type: ignore[call-overload]

    read_record(tmp_path / "in", "a")
    for _ in range(1000):
        header.write_bytes(damaged(good, rng))
        monkeypatch.setattr(builtins, "open", watched)
        try:
            signal = read_record(tmp_path / "in", "a").signal
            assert signal.ndim == 2 and signal.size <= 12 * 1000
        except Unreadable as error:
            refused += 1
            assert "\n" not in str(error)
        finally:
            monkeypatch.setattr(builtins, "open", really)
    inside = os.path.realpath(tmp_path)
    assert (
        refused > 300
        and {path for path in opened if not path.startswith((inside, os.path.dirname(np.__file__)))} == set()
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    prepare(tiny.config(tiny.write_ptb_xl(folder / "source", 3), folder / "store"), folder / "work")
    return folder / "store"


def test_a_thousand_damaged_stores(made: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(made, tmp_path / "store"))
    files = ("manifest.json", "records.parquet", "shards/00000.npy")
    good, rng, refused = {name: (store / name).read_bytes() for name in files}, random.Random(1), 0
    # Of a shard the header is what is parsed; the samples are numbers, whatever they are.
    for number in range(1000):
        name = files[number % 3]
        head = good[name][:128] if name.startswith("shards") else good[name]
        (store / name).write_bytes(damaged(head, rng) + good[name][len(head) :])
        try:
            opened = Store.open(store)
            counts = opened.read(np.arange(min(opened.size, 4)))
            assert counts.dtype == np.int16 and len(opened.available) == len(opened.record_ids)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        (store / name).write_bytes(good[name])
    assert refused > 300 and verify(store) == []
