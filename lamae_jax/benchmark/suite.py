"""How fast this machine trains, loads, prepares and extracts features, beside its own matrix product; one run, by turns."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from lamae_jax.benchmark.loading import loading
from lamae_jax.benchmark.preparing import preparing_rates
from lamae_jax.benchmark.step import Case, machine, matrix_product, per_second
from lamae_jax.errors import UserError
from lamae_jax.files import write_json
from lamae_jax.model.presets import PRESETS, ModelConfig, preset
from lamae_jax.progress import say
from lamae_jax.train.processes import use_cores


@dataclass(frozen=True)
class BenchmarkConfig:
    """`presets` and `batch_sizes` are comma-separated and go together; `rounds` measurements of at least `seconds` each."""

    presets: str
    batch_sizes: str
    dtype: str
    remat: bool
    rounds: int
    seconds: float
    matmul: int
    source: str
    profile: bool

    def __post_init__(self) -> None:
        for name in self.presets.split(","):
            if name not in PRESETS:
                raise UserError(f"presets={self.presets}: {name} must be one of {', '.join(PRESETS)}")
        sizes = self.batch_sizes.split(",")
        if not all(size.isdecimal() and int(size) for size in sizes) or len(sizes) != len(self.presets.split(",")):
            raise UserError(
                f"batch_sizes={self.batch_sizes}: must be one whole number for each of presets={self.presets}"
            )
        if self.rounds < 1 or self.seconds <= 0 or self.matmul < 1:
            raise UserError("rounds, seconds and matmul must be above 0")

    @property
    def cases(self) -> list[tuple[str, int]]:
        """Preset and batch size of each row."""
        return list(zip(self.presets.split(","), map(int, self.batch_sizes.split(",")), strict=True))

    @property
    def common_batch(self) -> int:
        """The largest number that divides all batches: among so many devices they can be split."""
        return math.gcd(*(size for _, size in self.cases))

    def model(self, name: str) -> ModelConfig:
        """A preset as it is measured."""
        return preset(name, dtype=self.dtype, remat=self.remat)


def benchmark(config: BenchmarkConfig, workdir: Path) -> dict[str, Any]:
    """Measure all, write benchmark.json and print tables; returns what the file holds."""
    use_cores(config.common_batch)
    rows, features = training(config, workdir)
    name, size = config.cases[0]
    result: dict[str, Any] = {
        "machine": machine(config.common_batch),
        "peak_flops": statistics.median(row["peak_flops"] for row in rows),
        "train": rows,
        "features": features,
        "loader": loading(workdir, name, config.model(name), size, config.rounds, config.seconds),
    }
    if config.source:
        result["prepare"] = preparing_rates(config.source, config.rounds)
        for name, records_per_s in result["prepare"].items():
            times = records_per_s / result["prepare"]["wfdb_rdrecord"]
            say(f"{name:21} {records_per_s:8.0f} records/s of one core ({times:.1f} x wfdb.rdrecord)")
    write_json(workdir / "benchmark.json", result)
    write_json(workdir / "summary.json", result)
    return result


def training(config: BenchmarkConfig, workdir: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train step and feature extraction of each case: two lists of rows, a printed table."""
    product, product_flops = matrix_product(config.matmul, config.dtype)
    rows: list[dict[str, Any]] = []
    features: list[dict[str, Any]] = []
    say(
        f"{'preset':8} {'batch':>5} {'ECG/s':>9} {'GFLOP/s':>9} {'matmul':>9} {'share':>6} {'compile':>8} {'memory':>9} "
        f"{'features/s':>10}"
    )
    for name, size in config.cases:
        case = Case(config.model(name), size)
        jax.block_until_ready(case.extract())  # compiles
        rates, products, extractions = [], [], []
        for _ in range(config.rounds):  # by turns, so that a change of the machine's speed meets all
            products.append(product_flops * per_second(product, config.seconds))
            rates.append(size * case.train(config.seconds))
            extractions.append(size * per_second(case.extract, config.seconds))
        if config.profile:
            with jax.profiler.trace(str(workdir / "profile" / f"{name}-{size}")):
                case.train(0.0)
        ecg_per_s, peak = statistics.median(rates), statistics.median(products)
        flops_per_s = ecg_per_s * case.flops
        rows.append(
            {
                "preset": name,
                "batch_size": size,
                "dtype": config.dtype,
                "ecg_per_s": ecg_per_s,
                "flops_per_s": flops_per_s,
                "peak_flops": peak,
                "mfu": statistics.median(r * case.flops / p for r, p in zip(rates, products, strict=True)),
                "compile_seconds": case.compile_seconds,
                "memory_bytes": case.memory_bytes,
            }
        )
        features.append({"preset": name, "batch_size": size, "ecg_per_s": statistics.median(extractions)})
        say(
            f"{name:8} {size:>5} {ecg_per_s:9.1f} {flops_per_s / 1e9:9.1f} {peak / 1e9:9.1f} {rows[-1]['mfu']:6.2f} "
            f"{case.compile_seconds:6.1f} s {case.memory_bytes / 1e6:6.0f} MB {features[-1]['ecg_per_s']:10.1f}"
        )
    return rows, features
