"""How fast batches come: the loader alone, and what share of a training's time it is waited for.

The store is made for it in a temporary folder and has just been written, so its shards are in the page cache: what is measured
is the loader and not the disk.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lamae_jax.benchmark.step import in_a_line, jitted_step, loop_rate, measured, one_device, per_second
from lamae_jax.benchmark.stores import noise_store
from lamae_jax.data.loader import READ_AHEAD, BatchSource, train_batches
from lamae_jax.data.splits import train_rows
from lamae_jax.data.store import Store
from lamae_jax.errors import Stopped
from lamae_jax.model.presets import ModelConfig
from lamae_jax.progress import say
from lamae_jax.train.sharding import to_devices
from lamae_jax.train.step import Batch

RECORDS = 4096  # 245 MB
BATCH = 128


def loading(
    workdir: Path, models: Sequence[tuple[str, ModelConfig, int]], rounds: int, seconds: float
) -> dict[str, Any]:
    """Measure the loader, and fed by it the train step of each of `models` (preset, model, batch), on a made store; print, return
    the figures."""
    workdir.mkdir(parents=True, exist_ok=True)
    fed: list[dict[str, Any]] = []
    with TemporaryDirectory(prefix="store-", dir=workdir) as folder:
        store = noise_store(Path(folder), RECORDS)
        rates = loading_rates(store, BATCH, rounds, seconds)
        for way, records_per_s in rates.items():
            say(f"{way:10} {records_per_s:8.0f} records/s of {store.contract.samples} samples a lead, batch {BATCH}")
        for name, model, batch_size in models:
            try:
                share = stall_share(store, model, batch_size, rounds, seconds)
            except Stopped:
                raise
            except Exception as error:  # a batch larger than the store, out of memory: the others are worth their time
                words = in_a_line(error)
                fed.append({"preset": name, "batch_size": batch_size, "error": words})
                say(f"{name}, batch {batch_size}, fed by the loader: failed: {words}")
                continue
            fed.append({"preset": name, "batch_size": batch_size} | share)
            say(
                f"{name}, batch {batch_size}: {share['fed_ecg_per_s']:.1f} ECG/s fed by the loader, "
                f"{share['fixed_ecg_per_s']:.1f} with one batch again and again: {share['stall_share']:.1%} lost; blocked in "
                f"next() {share['blocked_share']:.1%}"
            )
    return {"records_per_s": rates, "fed": fed}


def loading_rates(store: Store, batch_size: int, rounds: int, seconds: float) -> dict[str, float]:
    """Records a second, medians of rounds by turns: `host`, batches as the loader gives them; `device`, put on the device too."""
    mesh = one_device()
    source = BatchSource([store], train_rows([store]), batch_size, seed=0)
    rates: dict[str, list[float]] = {"host": [], "device": []}
    with train_batches(source) as batches:
        ways: dict[str, Callable[[], Any]] = {
            "host": lambda: next(batches),
            "device": lambda: to_devices(next(batches), mesh),
        }
        for _ in range(rounds + 1):
            for name, way in ways.items():
                rates[name].append(batch_size * per_second(way, seconds))
    return {name: statistics.median(each[1:]) for name, each in rates.items()}  # the first round warms up


def stall_share(store: Store, model: ModelConfig, batch_size: int, rounds: int, seconds: float) -> dict[str, float]:
    """What feeding a train step from the loader costs, medians of rounds by turns.

    `stall_share` is the part of the fed loop's time that the same loop doesn't take with one batch that lies on the device
    (`fed_ecg_per_s` against `fixed_ecg_per_s`); where noise makes the fed loop the quicker one it is 0. `blocked_share` is the
    part of the fed loop's time that the host spends in next(): the device may be computing meanwhile, so that it says how
    long the loader is waited for, and not what is lost by it.
    """
    mesh = measured(batch_size)
    update, state = jitted_step(model, mesh)
    source = BatchSource([store], train_rows([store]), batch_size, seed=0)
    blocked = 0.0
    with train_batches(source) as batches:

        def fed() -> Iterator[Batch]:
            nonlocal blocked
            while True:
                begun = time.perf_counter()
                batch = next(batches)
                blocked += time.perf_counter() - begun
                yield to_devices(batch, mesh)

        fixed = to_devices(next(batches), mesh)
        fed_rates, fixed_rates, blocked_shares = [], [], []
        for _ in range(rounds + 1):
            rate, state = loop_rate(update, state, repeat(fixed), seconds)
            fixed_rates.append(batch_size * rate)
            for _ in range(READ_AHEAD + 1):  # what was read ahead while nobody asked is no merit
                next(batches)
            blocked, begun = 0.0, time.perf_counter()
            rate, state = loop_rate(update, state, fed(), seconds)
            blocked_shares.append(blocked / (time.perf_counter() - begun))
            fed_rates.append(batch_size * rate)
    lost = [1 - with_loader / without for with_loader, without in zip(fed_rates, fixed_rates, strict=True)]
    return {
        "fixed_ecg_per_s": statistics.median(fixed_rates[1:]),  # the first round compiles
        "fed_ecg_per_s": statistics.median(fed_rates[1:]),
        "stall_share": max(0.0, statistics.median(lost[1:])),
        "blocked_share": statistics.median(blocked_shares[1:]),
    }
