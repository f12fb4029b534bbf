"""WFDB headers and stores from anywhere: a thousand damaged ones each, read or refused in one line, nothing read elsewhere."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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


LIMIT = 5  # seconds for each case


def test_a_thousand_damaged_headers(tmp_path: Path) -> None:
    tiny.write_record(tmp_path / "in" / "a", tiny.signal_of(1))
    header = tmp_path / "in" / "a.hea"
    good, rng, refused = header.read_bytes(), random.Random(0), 0
    import wfdb  # noqa: F401  (now, since what is opened is watched from here on)

    with hostile.opened() as opened:
        for _ in range(1000):
            header.write_bytes(damaged(good, rng))
            try:
                with hostile.within(LIMIT):
                    signal = read_record(tmp_path / "in", "a").signal
                assert signal.ndim == 2 and signal.size <= 12 * 1000
            except Unreadable as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 300 and elsewhere(opened, tmp_path) == set()


def elsewhere(opened: list[str], folder: Path) -> set[str]:
    """What was opened outside of `folder`, libraries aside, which read their own parts when first used."""
    libraries = os.path.dirname(os.path.dirname(os.path.realpath(np.__file__)))
    return {path for path in opened if not path.startswith((os.path.realpath(folder), libraries))}


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
    with hostile.opened() as opened:
        for number in range(1000):
            name = files[number % 3]
            head = good[name][:128] if name.startswith("shards") else good[name]
            (store / name).write_bytes(damaged(head, rng) + good[name][len(head) :])
            try:
                with hostile.within(LIMIT):
                    use(store)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error)
            (store / name).write_bytes(good[name])
    assert refused > 300 and verify(store) == [] and elsewhere(opened, tmp_path) == set()


def use(store: Path) -> None:
    """Open a store and read some of everything."""
    opened = Store.open(store)
    counts = opened.read(np.arange(min(opened.size, 4)))
    assert counts.dtype == np.int16 and len(opened.available) == len(opened.record_ids) == len(opened.folds)


def with_column(store: Path, name: str, values: list) -> None:
    """One column of records.parquet replaced."""
    table = pq.read_table(store / "records.parquet")
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values)), store / "records.parquet")


def of_any_number_of_rows(store: Path) -> None:
    """Some thousand bytes that stand for 200 million rows."""
    table = pq.read_table(store / "records.parquet")
    column = pa.DictionaryArray.from_arrays(pa.nulls(200_000_000, pa.int8()), pa.array(["x"]))
    pq.write_table(
        pa.table({"record_id": column} | {"available": pa.nulls(len(column), pa.uint32())}), store / "records.parquet"
    )
    assert table.num_rows == 3


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "nested JSON": (lambda s: (s / "manifest.json").write_text("[" * 200_000), "manifest.json is damaged"),
    "a manifest of a terabyte": (lambda s: os.truncate(s / "manifest.json", 10**12), "manifest.json is damaged"),
    "a manifest that is a pipe": (lambda s: hostile.pipe(s / "manifest.json"), "is no regular file"),
    "a table that is a pipe": (lambda s: hostile.pipe(s / "records.parquet"), "is no regular file"),
    "a shard that is a pipe": (lambda s: hostile.pipe(s / "shards/00000.npy"), "is no regular file"),
    "texts for leads": (lambda s: with_column(s, "available", ["a", "b", "c"]), "available of .* whole numbers are due"),
    "nothing for leads": (lambda s: with_column(s, "available", [None, 1, 2]), "available of .* whole numbers are due"),
    "texts for folds": (lambda s: with_column(s, "strat_fold", ["1", "b", "c"]), "strat_fold of .* whole numbers are due"),
    "a table of any number of rows": (of_any_number_of_rows, "has 200000000 rows, the manifest says 3"),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_store_made_to_do_harm_is_refused_in_one_line_and_soon(harm: str, made: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(made, tmp_path / "store"))
    change, message = HARM[harm]
    change(store)
    with hostile.within(LIMIT), pytest.raises(UserError, match=message) as caught:
        use(store)
    assert "\n" not in str(caught.value)
    with hostile.within(LIMIT):  # names what is wrong, or refuses
        try:
            assert verify(store)
        except UserError as error:
            assert "\n" not in str(error)


def test_record_too_long_is_refused_by_prepare_and_the_others_are_stored(tmp_path: Path) -> None:
    source = tiny.write_ptb_xl(tmp_path / "source", 3)
    record = source / "records100/00000/00002_lr"
    header = record.with_suffix(".hea")
    header.write_text(header.read_text().replace("100 1000", "100 10000000000", 1))
    os.truncate(record.with_suffix(".dat"), 240_000_000_000)
    summary = prepare(tiny.config(source, tmp_path / "store"), tmp_path / "work")
    assert (summary["stored"], summary["rejected"]) == (2, {"size": 1})


def test_array_too_long_or_a_pipe_is_refused(tmp_path: Path) -> None:
    """`long.npy` announces, and sparsely has, ten billion samples."""
    np.save(tmp_path / "good.npy", np.stack([tiny.signal_of(number) for number in range(2)]))
    with open(tmp_path / "long.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<i2", "fortran_order": False, "shape": (12, 10_000_000_000)}
        )
        file.truncate(file.tell() + 240_000_000_000)
    os.mkfifo(tmp_path / "pipe.h5")
    rows = ["good.npy,0", "good.npy,1", "long.npy,", "pipe.h5,"]
    leads = " ".join(tiny.LEADS)
    lines = ["file,row,fs,leads,units", *[f"{row},100,{leads},uV" for row in rows]]
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    with hostile.within(LIMIT):
        summary = prepare(tiny.config(tmp_path, tmp_path / "store", kind="arrays"), tmp_path / "work")
    assert (summary["stored"], summary["rejected"]) == (2, {"format": 1, "size": 1})
