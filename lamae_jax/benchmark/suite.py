"""How fast this machine trains, loads, prepares and extracts features, beside its own matrix product; one run, by turns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from lamae_jax.benchmark.loading import loading
from lamae_jax.benchmark.preparing import preparing
from lamae_jax.benchmark.step import Case, in_a_line, machine, matrix_product, per_second
from lamae_jax.errors import Stopped, UserError
from lamae_jax.files import write_json
from lamae_jax.model.presets import PRESETS, ModelConfig, preset
from lamae_jax.progress import say
from lamae_jax.train.processes import use_cores


@dataclass(frozen=True)
class BenchmarkConfig:
    """`presets` and `batch_sizes` are comma-separated and go together; `rounds` measurements of at least `seconds` each.

    `remat`: those presets, comma-separated, whose blocks are recomputed in the backward pass.
    """

    presets: str
    batch_sizes: str
    dtype: str
    remat: str
    rounds: int
    seconds: float
    matmul: int
    source: str
    profile: bool

    def __post_init__(self) -> None:
        for field, names in (("presets", self.presets.split(",")), ("remat", [*filter(None, self.remat.split(","))])):
            for name in names:
                if name not in PRESETS:
                    raise UserError(f"{field}={getattr(self, field)}: {name} must be one of {', '.join(PRESETS)}")
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
        return preset(name, dtype=self.dtype, remat=name in self.remat.split(","))


def benchmark(config: BenchmarkConfig, workdir: Path) -> dict[str, Any]:
    """Measure all, print tables and write benchmark.json, anew after each row; returns what the file holds.

    A case that fails is a row of `failed`, and the others are measured. Raises UserError when none can be.
    """
    use_cores(config.common_batch)
    result: dict[str, Any] = {"machine": machine(config.common_batch), "train": [], "features": [], "failed": []}

    def keep(**more: Any) -> None:
        result.update(more)
        for name in ("benchmark.json", "summary.json"):
            write_json(workdir / name, result)

    product = matrix_product(config.matmul, config.dtype)
    say(
        f"{'preset':8} {'batch':>5} {'ECG/s':>9} {'GFLOP/s':>9} {'matmul':>9} {'share':>6} {'compile':>8} {'memory':>9} "
        f"{'features/s':>10}"
    )
    case: Case | None = None
    for name, size in config.cases:
        try:
            case = Case(config.model(name), size)
            row, extraction = measure(config, name, case, product)
            result["train"].append(row)
            result["features"].append(extraction)
            keep()
            if config.profile:
                write_profile(case, workdir / "profile" / f"{name}-{size}")
        except Stopped:
            raise
        except Exception as error:  # out of memory or whatever: the cases to come are worth their time
            words = in_a_line(error)
            result["failed"].append({"preset": name, "batch_size": size, "error": words})
            say(f"{name:8} {size:>5} failed: {words}")
            keep()
        finally:
            case = None  # its memory is the next one's
    if not result["train"]:
        raise UserError(f"presets={config.presets}: no case could be measured; see {workdir / 'benchmark.json'}")
    keep(peak_flops=statistics.median(row["peak_flops"] for row in result["train"]))
    ran = [(row["preset"], config.model(row["preset"]), row["batch_size"]) for row in result["train"]]
    keep(loader=loading(workdir, ran, config.rounds, config.seconds))
    keep(prepare=preparing(workdir, config.source, config.rounds))
    return result


def write_profile(case: Case, folder: Path) -> None:
    """A profile of two steps; what keeps it from being written (rights in a container, say) is said, the figures stand."""
    try:
        with jax.profiler.trace(str(folder)):
            case.train(0.0)
    except Stopped:
        raise
    except Exception as error:
        say(f"no profile: {in_a_line(error)}")


def measure(
    config: BenchmarkConfig, name: str, case: Case, product: tuple[Callable[[], Any], int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train step and feature extraction of a case of preset `name`, by turns with the matrix product: a row of each."""
    multiply, product_flops = product
    size = len(case.records["counts"])
    jax.block_until_ready(case.extract())  # compiles
    rates, products, extractions = [], [], []
    for _ in range(config.rounds):  # by turns, so that a change of the machine's speed meets all
        products.append(product_flops * per_second(multiply, config.seconds))
        rates.append(size * case.train(config.seconds))
        extractions.append(size * per_second(case.extract, config.seconds))
    ecg_per_s, peak, extracted = map(statistics.median, (rates, products, extractions))
    flops_per_s = ecg_per_s * case.flops
    row = {
        "preset": name,
        "batch_size": size,
        "dtype": config.dtype,
        "remat": case.model.remat,
        "ecg_per_s": ecg_per_s,
        "flops_per_s": flops_per_s,
        "peak_flops": peak,
        "mfu": statistics.median(r * case.flops / p for r, p in zip(rates, products, strict=True)),
        "compile_seconds": case.compile_seconds,
        "memory_bytes": case.memory_bytes,
    }
    say(
        f"{name:8} {size:>5} {ecg_per_s:9.1f} {flops_per_s / 1e9:9.1f} {peak / 1e9:9.1f} {row['mfu']:6.2f} "
        f"{case.compile_seconds:6.1f} s {case.memory_bytes / 1e6:6.0f} MB {extracted:10.1f}"
    )
    return row, {"preset": name, "batch_size": size, "ecg_per_s": extracted}
