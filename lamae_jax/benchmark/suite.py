"""How fast the train step is on this machine, beside the machine's own matrix product; both in one run, by turns."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.benchmark.preparing import preparing_rates
from lamae_jax.errors import UserError
from lamae_jax.files import write_json
from lamae_jax.model.flops import training_flops
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import PRESETS, preset
from lamae_jax.progress import say
from lamae_jax.train.optimizer import OptimizerConfig
from lamae_jax.train.sharding import MeshConfig, make_mesh, to_devices
from lamae_jax.train.step import StepConfig, compile_init, compile_step


@dataclass(frozen=True)
class BenchmarkConfig:
    """`presets` and `batch_sizes` are comma-separated and go together; `rounds` measurements of at least `seconds` each."""

    presets: str
    batch_sizes: str
    dtype: str
    rounds: int
    seconds: float
    matmul: int
    source: str

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


def benchmark(config: BenchmarkConfig, workdir: Path) -> dict[str, Any]:
    """Measure each preset, write benchmark.json and print a table; returns what the file holds."""
    product, product_flops = matrix_product(config.matmul, config.dtype)
    rows: list[dict[str, Any]] = []
    peaks: list[float] = []
    say(f"{'preset':8} {'batch':>5} {'ECG/s':>9} {'GFLOP/s':>9} {'matmul':>9} {'share':>6} {'compile':>8}")
    for name, size in zip(config.presets.split(","), config.batch_sizes.split(","), strict=True):
        step, flops, compile_seconds = train_step(name, int(size), config.dtype)
        rates, products = [], []
        for _ in range(config.rounds):  # by turns, so that a change of the machine's mood meets both
            products.append(product_flops * rate(product, config.seconds))
            rates.append(int(size) * rate(step, config.seconds))
        peaks += products
        ecg_per_s, peak = statistics.median(rates), statistics.median(products)
        share = ecg_per_s * flops / peak
        row = {
            "preset": name,
            "batch_size": int(size),
            "dtype": config.dtype,
            "ecg_per_s": ecg_per_s,
            "flops_per_s": ecg_per_s * flops,
            "peak_flops": peak,
            "mfu": share,
            "compile_seconds": compile_seconds,
        }
        rows.append(row)
        achieved = f"{ecg_per_s * flops / 1e9:9.1f} {peak / 1e9:9.1f} {share:6.2f}"
        say(f"{name:8} {size:>5} {ecg_per_s:9.1f} {achieved} {compile_seconds:6.1f} s")
    machine = {
        "device": f"1 x {jax.devices()[0].device_kind}",
        "processor": platform.processor() or platform.machine(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    result: dict[str, Any] = {"machine": machine, "peak_flops": statistics.median(peaks), "train": rows}
    if config.source:
        result["prepare"] = preparing_rates(config.source, config.rounds)
        for name, records_per_s in result["prepare"].items():
            times = records_per_s / result["prepare"]["wfdb_rdrecord"]
            say(f"{name:21} {records_per_s:8.0f} records/s of one core ({times:.1f} x wfdb.rdrecord)")
    write_json(workdir / "benchmark.json", result)
    write_json(workdir / "summary.json", result)
    return result


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


def train_step(name: str, batch_size: int, dtype: str) -> tuple[Callable[[], Any], int, float]:
    """A preset's train step at 250 Hz, warm; its operations a record; and the seconds that compiling took."""
    config = StepConfig(preset(name, dtype=dtype), InputConfig(), MaskConfig(), OptimizerConfig(1_000_000, 1e-4))
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])  # one device, as the matrix product
    init, _, shardings = compile_init(config, mesh)
    update = compile_step(config, mesh, shardings)
    rng = np.random.default_rng(0)
    records = {
        "counts": rng.normal(0, 300, (batch_size, config.model.leads, config.model.samples)).astype(np.int16),
        "available": np.ones((batch_size, config.model.leads), bool),
    }
    batch, state = to_devices(records, mesh), [init()]

    def step() -> Any:
        state[0], metrics = update(state[0], batch)
        return metrics

    begun = time.perf_counter()
    jax.block_until_ready(step())
    compile_seconds = time.perf_counter() - begun
    jax.block_until_ready(step())
    return step, training_flops(config.model, config.masks), compile_seconds
