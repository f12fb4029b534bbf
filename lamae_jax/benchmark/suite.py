"""How fast this machine trains, loads, prepares and extracts features, beside its own matrix product; one run, by turns."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from lamae_jax.benchmark.loading import loading, loop_rate, noise_batch, one_device
from lamae_jax.benchmark.preparing import preparing_rates
from lamae_jax.errors import UserError
from lamae_jax.evaluate.features import batch_features
from lamae_jax.files import write_json
from lamae_jax.model.flops import training_flops
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import Params
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import PRESETS, ModelConfig, preset
from lamae_jax.progress import say
from lamae_jax.train.optimizer import OptimizerConfig
from lamae_jax.train.step import Batch, StepConfig, TrainState, compile_init, compile_step

READOUTS = ("la_cls", "la_mean", "encoder_mean", "encoder_concat")


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


def benchmark(config: BenchmarkConfig, workdir: Path) -> dict[str, Any]:
    """Measure all, write benchmark.json and print tables; returns what the file holds."""
    machine = {
        "device": f"1 x {jax.devices()[0].device_kind}",
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    rows, features = training(config, workdir)
    result: dict[str, Any] = {
        "machine": machine,
        "peak_flops": statistics.median(row["peak_flops"] for row in rows),
        "train": rows,
        "features": features,
        "loader": loading(workdir, *config.cases[0], config.rounds, config.seconds),
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
        case = Case(preset(name, dtype=config.dtype, remat=config.remat), size)
        jax.block_until_ready(case.extract())  # compiles
        rates, products, extractions = [], [], []
        for _ in range(config.rounds):  # by turns, so that a change of the machine's mood meets all
            products.append(product_flops * rate(product, config.seconds))
            rates.append(size * case.train(config.seconds))
            extractions.append(size * rate(case.extract, config.seconds))
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


class Case:
    """A model's train step on one device, compiled and warm, and its feature extraction."""

    def __init__(self, model: ModelConfig, batch_size: int):
        mesh = one_device()
        config = StepConfig(model, InputConfig(), MaskConfig(), OptimizerConfig(1_000_000, 1e-4))
        init, _, shardings = compile_init(config, mesh)
        self.model, self.flops = model, training_flops(model, config.masks)
        self.batch: Batch = noise_batch(model, batch_size, mesh)
        self.state: TrainState = init()
        begun = time.perf_counter()
        compiled = compile_step(config, mesh, shardings).lower(self.state, self.batch).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.update: Callable[..., Any] = compiled
        memory = compiled.memory_analysis()
        assert memory is not None
        # State and batch, what comes out beside the donated state, and what the step needs in between.
        self.memory_bytes = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )
        self.params: Params = jax.tree.map(jnp.copy, self.state.params)  # the state is donated at each step
        self.train(0.0)

    def step(self) -> Any:
        """One update; returns its figures, still being computed."""
        self.state, figures = self.update(self.state, self.batch)
        return figures

    def train(self, seconds: float) -> float:
        """Updates a second, over at least so many seconds."""
        updates, self.state = loop_rate(self.update, self.state, repeat(self.batch), seconds)
        return updates

    def extract(self) -> Any:
        """All readouts of the batch."""
        counts, available = self.batch["counts"], self.batch["available"]
        return batch_features(self.params, counts, available, config=self.model, inputs=InputConfig(), names=READOUTS)


def rate(call: Callable[[], Any], seconds: float) -> float:
    """Calls a second, over at least so many seconds and two calls."""
    begun, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - begun < seconds:
        jax.block_until_ready(call())
        calls += 1
    return calls / (time.perf_counter() - begun)


def matrix_product(size: int, dtype: str) -> tuple[Callable[[], Any], int]:
    """A square matrix product, compiled and warm, and its floating-point operations."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, b))
    return lambda: product(a, b), 2 * size**3
