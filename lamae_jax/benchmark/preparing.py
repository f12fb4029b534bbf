"""How fast recordings are read and conditioned, beside bare `wfdb.rdrecord` on the same files."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import wfdb
from threadpoolctl import threadpool_limits

from lamae_jax.data.sources import open_source
from lamae_jax.errors import UserError
from lamae_jax.signal.contract import SignalContract, condition

RECORDS = 300


def preparing_rates(folder: str, rounds: int) -> dict[str, float]:
    """Records a second of one core, medians of alternating rounds over the first 300 WFDB records of a folder.

    `wfdb_rdrecord` reads alone; `prepare` reads, resamples to 250 Hz (or keeps a lower rate), filters and rounds;
    `prepare_without_band` leaves the filter out. Raises UserError for a folder without readable records.
    """
    source = open_source("wfdb", Path(folder), 250)
    entries = source.entries[:RECORDS]
    if not entries:
        raise UserError(f"source={folder}: no WFDB record is there")
    fs = round(min(250, source.read(entries[0]).fs))
    contracts = {band: SignalContract(fs=fs, band=band) for band in ("highpass_0.5", "none")}

    def prepare(band: str) -> None:
        for entry in entries:
            recording = source.read(entry)
            condition(recording.signal, recording.fs, recording.leads, recording.units, contracts[band])

    def rdrecord() -> None:
        for entry in entries:
            wfdb.rdrecord(str(Path(folder) / entry.path))

    ways: dict[str, Callable[[], None]] = {
        "wfdb_rdrecord": rdrecord,
        "prepare": lambda: prepare("highpass_0.5"),
        "prepare_without_band": lambda: prepare("none"),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    with threadpool_limits(1):
        for _ in range(rounds + 1):
            for name, way in ways.items():
                begun = time.process_time()
                way()
                rates[name].append(len(entries) / (time.process_time() - begun))
    return {name: statistics.median(each[1:]) for name, each in rates.items()}  # the first round warms the cache
