"""How fast recordings are prepared, beside bare `wfdb.rdrecord` on the same files.

What is measured is what `prepare`'s workers and its writer call: reading, conditioning, quality flags, hashes, the shard's file.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import wfdb
from threadpoolctl import threadpool_limits

from lamae_jax.data.shards import Recipe, make_chunks, write_shard
from lamae_jax.data.sources import Source, Unreadable, open_source
from lamae_jax.errors import UserError
from lamae_jax.progress import say
from lamae_jax.signal.contract import SignalContract
from lamae_jax.signal.simulated import write_simulated

RECORDS = 300
PATIENTS = 200  # simulated, with some 350 recordings
SIMULATED = "simulated: 16-bit WFDB files, 500 Hz, 12 leads, 10 s"


def preparing(workdir: Path, folder: str, rounds: int) -> dict[str, Any]:
    """Measure on the WFDB records of a folder, or where it is empty on simulated ones; print, return the figures.

    `files` says which they were, `records` how many, `records_per_s` what each way does (see `preparing_rates`).
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="recordings-", dir=workdir) as made:
        if not folder:
            write_simulated(made, PATIENTS, seed=0)
        where = folder or made
        listed = open_source("wfdb", where, 250)
        contract = contract_for(listed, where)
        source = usable(listed, contract, where)
        rates = preparing_rates(source, contract, Path(where), Path(made), rounds)
    for way, records_per_s in rates.items():
        times = records_per_s / rates["wfdb_rdrecord"]
        say(f"{way:21} {records_per_s:8.0f} records/s of one core ({times:.1f} x wfdb.rdrecord)")
    return {"files": folder or SIMULATED, "records": len(source.entries), "records_per_s": rates}


def contract_for(source: Source, folder: str) -> SignalContract:
    """10 s at 250 Hz, or at the rate of the first recording that can be read, where that is lower. Raises UserError for none."""
    for entry in source.entries[:RECORDS]:
        try:
            return SignalContract(fs=round(min(250, source.read(entry).fs)))
        except Unreadable:
            continue
    raise UserError(f"source={folder}: none of the first {RECORDS} recordings can be read; see prepare")


def recipe(source: Source, contract: SignalContract) -> Recipe:
    """What `prepare` would make of a source."""
    return Recipe(source, contract, long="crop", allow_upsampling=False)


def usable(source: Source, contract: SignalContract, folder: str) -> Source:
    """The first 300 recordings of a source without those that `prepare` would reject. Raises UserError when none is left."""
    entries = source.entries[:RECORDS]
    source = dataclasses.replace(source, entries=entries)
    with closing(make_chunks(recipe(source, contract), [0], 1)) as chunks:
        stored = [row[0] for chunk in chunks for row in chunk.stored]
    if not stored:
        raise UserError(f"source={folder}: none of the first {len(entries)} recordings can be used; see prepare")
    return dataclasses.replace(source, entries=[entries[index] for index in stored])


def preparing_rates(
    source: Source, contract: SignalContract, folder: Path, scratch: Path, rounds: int
) -> dict[str, float]:
    """Records a second of one core, medians of alternating rounds over a source's records in `folder`.

    `wfdb_rdrecord` reads alone; `prepare` makes a shard of them in `scratch`; `prepare_without_band` leaves the high-pass out.
    """

    def prepare(made: Recipe) -> None:
        shape = (len(made.contract.leads), made.contract.samples)
        with closing(make_chunks(made, [0], 1)) as chunks:
            write_shard(scratch / "shard.npy", shape, chunks)

    def rdrecord() -> None:
        for entry in source.entries:
            wfdb.rdrecord(str(folder / entry.path))

    with_band, without = (recipe(source, dataclasses.replace(contract, band=band)) for band in ("highpass_0.5", "none"))
    ways: dict[str, Callable[[], None]] = {
        "wfdb_rdrecord": rdrecord,
        "prepare": lambda: prepare(with_band),
        "prepare_without_band": lambda: prepare(without),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with threadpool_limits(1):
        for _ in range(rounds + 1):
            for name, way in ways.items():
                begun = time.process_time()
                way()
                rates[name].append(len(source.entries) / (time.process_time() - begun))
    return {name: statistics.median(each[1:]) for name, each in rates.items()}  # the first round warms the cache
