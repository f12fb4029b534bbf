"""Stores for measuring, laid out and finished as `prepare` does it, and what opening one costs. No jax here.

Their signals are noise, or holes: files that announce zeros and take no room on the disk. L leads, S samples a record.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.data.loader import BatchSource, train_batches
from lamae_jax.data.prepare import PrepareConfig, finish, part_file
from lamae_jax.data.shards import CHUNK, RECORDS_PER_SHARD, Chunk, write_shard
from lamae_jax.data.sources import Entry, Recording, Source, hash_fold, hash_split
from lamae_jax.data.splits import check_disjoint, train_rows, validation_rows
from lamae_jax.data.store import Store, shard_file
from lamae_jax.files import sha256_file, write_text
from lamae_jax.signal.contract import SignalContract

CONTRACT = SignalContract()  # [12, 2500]: 250 Hz, 10 s
SHAPE = (len(CONTRACT.leads), CONTRACT.samples)
RECORDS_PER_PATIENT = 5  # as in MIMIC-IV-ECG
ALL_LEADS = (1 << len(CONTRACT.leads)) - 1

WriteShard = Callable[
    [Path, int, int], dict[str, Any]
]  # path, first record, number of records -> what `write_shard` says


def noise_store(folder: Path, records: int) -> Store:
    """A store of random counts: 60 kB a record, really written."""
    rng = np.random.default_rng(0)

    def chunks(first: int, count: int) -> Iterator[Chunk]:
        for start in range(first, first + count, CHUNK):
            counts = rng.integers(-1000, 1001, (min(CHUNK, first + count - start), *SHAPE), np.int16)
            stored = [
                [start + i, 0, ALL_LEADS, "", hashlib.sha256(each.data).hexdigest()] for i, each in enumerate(counts)
            ]
            yield Chunk(len(counts), list(counts), stored)

    return made_store(folder, records, lambda path, first, count: write_shard(path, SHAPE, chunks(first, count)))


def sparse_store(folder: Path, records: int) -> Store:
    """A store whose shards are a header and a hole: the index is real, the signals are zeros that take no room."""
    zeros = hashlib.sha256(bytes(2 * SHAPE[0] * SHAPE[1])).hexdigest()
    checksums: dict[int, str] = {}  # shards of one size are the same bytes, and hashing 245 MB takes a while

    def write_hole(path: Path, first: int, count: int) -> dict[str, Any]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<i2", "fortran_order": False, "shape": (count, *SHAPE)}
            )
            file.truncate(file.tell() + 2 * count * SHAPE[0] * SHAPE[1])
        if count not in checksums:
            checksums[count] = sha256_file(path)
        return {
            "sha256": checksums[count],
            "bytes": path.stat().st_size,
            "records": count,
            "stored": [[first + i, 0, ALL_LEADS, "", zeros] for i in range(count)],
            "rejected": [],
        }

    return made_store(folder, records, write_hole)


def made_store(folder: Path, records: int, write: WriteShard) -> Store:
    """A store of so many records, its shards written by `write`, its tables and manifest by `prepare`'s own code."""
    config = PrepareConfig(
        kind="made",
        source="made",
        store=str(folder),
        fs=CONTRACT.fs,
        seconds=CONTRACT.seconds,
        band=CONTRACT.band,
        workers=1,
        max_bad_fraction=0,
    )
    source = Source("made", made_entries(records), hash_split(0, records), no_recording, list, {})
    count = -(-records // RECORDS_PER_SHARD)
    for k in range(count):
        first = k * RECORDS_PER_SHARD
        part = write(folder / shard_file(k), first, min(RECORDS_PER_SHARD, records - first))
        write_text(part_file(folder, k), json.dumps(part))
    finish(config, CONTRACT, source, folder, config.identity(), count)
    return Store.open(folder)


def made_entries(records: int) -> list[Entry]:
    """Entries with ids and paths like those of MIMIC-IV-ECG, five to a patient, folds by a hash of the patient."""
    entries = []
    for number in range(records):
        record = str(40_000_000 + number)
        if number % RECORDS_PER_PATIENT == 0:
            patient = str(10_000_000 + number // RECORDS_PER_PATIENT)
            folds = {"hash_fold": hash_fold(patient)}
        entries.append(Entry(record, f"files/p{patient[:4]}/p{patient}/s{record}/{record}", patient, folds))
    return entries


def no_recording(entry: Entry) -> Recording:
    """There are no recordings behind a made store."""
    raise AssertionError(f"{entry.path}: a made store has no recordings")


def opening_costs_of_fresh_process(folder: Path, batch_size: int, batches: int) -> dict[str, float]:
    """`opening_costs` in a new process, whose memory holds nothing of what was done before."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(opening_costs, folder, batch_size, batches).result()


def opening_costs(folder: Path, batch_size: int, batches: int) -> dict[str, float]:
    """What a training run does with a store before its first step, and then some batches through the loader.

    Returns `open_seconds` and `first_batch_seconds` after it; `memory_*_mb`, this process's own, before, when open and after the
    batches; `peak_mb`, its highest resident memory, the code of libraries included; `shuffle_us`, choosing one batch's rows.
    """
    before = own_memory_mb()
    begun = time.perf_counter()
    stores = [Store.open(folder)]
    train, validation = train_rows(stores), validation_rows(stores)
    check_disjoint(stores, train=train, validation=validation)
    source = BatchSource(stores, train, batch_size, seed=0)
    opened = time.perf_counter()
    opened_memory = own_memory_mb()
    with train_batches(source) as loader:
        next(loader)
        first = time.perf_counter()
        for _ in islice(loader, batches - 1):
            pass
        read_memory = own_memory_mb()  # with the loader at work: what is read ahead counts
    return {
        "train_records": len(source.selection),
        "open_seconds": opened - begun,
        "first_batch_seconds": first - opened,
        "memory_before_mb": before,
        "memory_open_mb": opened_memory,
        "memory_read_mb": read_memory,
        "peak_mb": status_mb("VmHWM"),
        "shuffle_us": shuffle_us(source, 500),
    }


def shuffle_us(source: BatchSource, calls: int) -> float:
    """Microseconds to choose one batch's rows, the median of so many batches."""
    times = []
    for k in range(calls):
        begun = time.perf_counter()
        source.numbers(k)
        times.append(time.perf_counter() - begun)
    return 1e6 * statistics.median(times)


def own_memory_mb() -> float:
    """The anonymous memory of this process in MB: its own, and not files that the system keeps in memory (Linux)."""
    return status_mb("RssAnon")


def status_mb(field: str) -> float:
    """A memory field of /proc/self/status in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) * 1024 / 1e6
