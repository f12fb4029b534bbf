"""How cost grows: that of a train step with batch, leads, length and patch; that of a store with its number of records."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lamae_jax.benchmark.step import jitted_step, loop_rate, noise_records, one_device
from lamae_jax.benchmark.stores import opening_costs_of_fresh_process, sparse_store
from lamae_jax.errors import UserError
from lamae_jax.files import write_json
from lamae_jax.model.flops import training_flops
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import ModelConfig, preset
from lamae_jax.progress import say
from lamae_jax.train.sharding import to_devices

FS = 250
BASE = {"batch": 16, "leads": 12, "seconds": 10, "patch": 50}
# One thing is changed at a time. Patches are in samples.
STEPS: tuple[dict[str, int], ...] = (
    BASE,
    *(BASE | {"batch": size} for size in (4, 8, 32, 64)),
    *(BASE | {"leads": leads} for leads in (2, 6)),
    *(BASE | {"seconds": seconds} for seconds in (5, 20, 40)),
    *(BASE | {"patch": patch} for patch in (25, 100)),
)
BATCH, BATCHES = 128, 200  # read from each store


@dataclass(frozen=True)
class GrowthConfig:
    """`records`: sizes of stores, comma-separated; `rounds` measurements of each step, of at least `seconds`."""

    records: str
    rounds: int
    seconds: float

    def __post_init__(self) -> None:
        for size in self.records.split(","):
            if not size.isdecimal() or int(size) < 2 * BATCH:  # a batch must remain to train on
                raise UserError(
                    f"records={self.records}: must be whole numbers of at least {2 * BATCH}, like 8000,80000"
                )
        if self.rounds < 1 or self.seconds <= 0:
            raise UserError("rounds and seconds must be above 0")


def growth(config: GrowthConfig, workdir: Path) -> dict[str, Any]:
    """Measure stores of such sizes and the steps of STEPS; write growth.json, print two tables, return what it holds."""
    records = list(map(int, config.records.split(",")))
    rounds, seconds = config.rounds, config.seconds
    workdir.mkdir(parents=True, exist_ok=True)
    result = {"stores": store_costs(workdir, records), "steps": step_costs(STEPS, rounds, seconds)}
    write_json(workdir / "growth.json", result)
    write_json(workdir / "summary.json", result)
    return result


def store_costs(workdir: Path, records: Iterable[int]) -> list[dict[str, float]]:
    """What opening stores of so many records costs, each in a process of its own (see `opening_costs`), as a printed table."""
    rows = []
    for number in records:
        with TemporaryDirectory(prefix="store-", dir=workdir) as folder:
            sparse_store(Path(folder), number)
            rows.append({"records": number} | opening_costs_of_fresh_process(Path(folder), BATCH, BATCHES))
    head = f"{'records':>9} {'open':>8} {'1st batch':>9} {'own memory: before':>18} {'open':>8} {'reading':>8}"
    say(f"{head} {'shuffle':>10}")
    for row in rows:
        memory = [row[f"memory_{when}_mb"] for when in ("before", "open", "read")]
        say(
            f"{row['records']:>9} {row['open_seconds']:6.2f} s {row['first_batch_seconds']:7.2f} s "
            f"{memory[0]:15.0f} MB {memory[1]:5.0f} MB {memory[2]:5.0f} MB {row['shuffle_us']:7.0f} us"
        )
    return rows


def step_costs(shapes: Sequence[dict[str, int]], rounds: int, seconds: float) -> list[dict[str, float]]:
    """ECG/s and FLOP/s of nano's train step for each of some shapes, as a printed table.

    All are compiled first; then they take turns, so that a change of the machine's speed meets them all.
    """
    mesh = one_device()
    models = [model_of(shape) for shape in shapes]
    batches = [
        to_devices(noise_records(model, shape["batch"]), mesh) for model, shape in zip(models, shapes, strict=True)
    ]
    updates, states = map(list, zip(*(jitted_step(model, mesh) for model in models), strict=True))
    rates: list[list[float]] = [[] for _ in shapes]
    for _ in range(rounds + 1):
        for i, shape in enumerate(shapes):
            rate, states[i] = loop_rate(updates[i], states[i], repeat(batches[i]), seconds)
            rates[i].append(shape["batch"] * rate)
    rows = []
    say(f"{'batch':>5} {'leads':>5} {'seconds':>7} {'patch':>5} {'MFLOP/ECG':>9} {'ECG/s':>9} {'GFLOP/s':>9}")
    for shape, model, each in zip(shapes, models, rates, strict=True):
        flops, ecg_per_s = training_flops(model, MaskConfig()), statistics.median(each[1:])  # the first round compiles
        rows.append(shape | {"flops": flops, "ecg_per_s": ecg_per_s, "flops_per_s": flops * ecg_per_s})
        sizes = f"{shape['batch']:>5} {shape['leads']:>5} {shape['seconds']:>7} {shape['patch']:>5}"
        say(f"{sizes} {flops / 1e6:9.1f} {ecg_per_s:9.1f} {flops * ecg_per_s / 1e9:9.1f}")
    return rows


def model_of(shape: dict[str, int]) -> ModelConfig:
    """The nano model of a shape."""
    return preset("nano", leads=shape["leads"], samples=FS * shape["seconds"], patch=shape["patch"])
