"""The train step on what is measured, ready to run, and how rates are taken."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lamae_jax.evaluate.features import features_program
from lamae_jax.machine import processor
from lamae_jax.model.flops import training_flops
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import Params
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import ModelConfig
from lamae_jax.train.optimizer import OptimizerConfig
from lamae_jax.train.sharding import MeshConfig, make_mesh, sharing, to_devices
from lamae_jax.train.step import Batch, StepConfig, TrainState, compile_init, compile_step

OPTIMIZER = OptimizerConfig(1_000_000, 1e-4)
READOUTS = ("la_cls", "la_mean", "encoder_mean", "encoder_concat")


def machine(records: int) -> dict[str, str]:
    """What a result for batches of `records` says of where it was measured."""
    return {
        "device": f"{measured(records).size} x {jax.devices()[0].device_kind}",
        "processor": processor(),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def in_a_line(error: Exception) -> str:
    """What a result says of a part that could not be measured."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def one_device() -> Mesh:
    """A mesh of one device."""
    return make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])


def measured(records: int) -> Mesh:
    """What figures for a batch of `records` are for: a CPU's cores, as many as can share it out, or one accelerator."""
    return sharing(records) if jax.default_backend() == "cpu" else one_device()


def jitted_step(model: ModelConfig, mesh: Mesh) -> tuple[jax.stages.Wrapped, TrainState]:
    """The train step of a model, to be compiled at its first call, and its first state."""
    config = StepConfig(model, InputConfig(), MaskConfig(), OPTIMIZER)
    init, _, shardings = compile_init(config, mesh)
    return compile_step(config, mesh, shardings), init()


def noise_records(model: ModelConfig, records: int) -> dict[str, np.ndarray]:
    """A batch of noise, counts [B, L, S], on the host."""
    counts = np.random.default_rng(0).normal(0, 300, (records, model.leads, model.samples)).astype(np.int16)
    return {"counts": counts, "available": np.ones((records, model.leads), bool)}


def program_memory(program: jax.stages.Compiled) -> int:
    """Bytes that a program needs: what goes in, what comes out beside the donated, and what it needs in between."""
    stats = program.memory_analysis()
    assert stats is not None
    out = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return stats.argument_size_in_bytes + out + stats.temp_size_in_bytes


class Case:
    """A model's train step, compiled and warm, and its feature extraction."""

    def __init__(self, model: ModelConfig, batch_size: int):
        self.model, self.flops, mesh = model, training_flops(model, MaskConfig()), measured(batch_size)
        self.batch: Batch = to_devices(noise_records(model, batch_size), mesh)
        update, self.state = jitted_step(model, mesh)
        begun = time.perf_counter()
        compiled = update.lower(self.state, self.batch).compile()
        self.compile_seconds = time.perf_counter() - begun
        self.update: Callable[..., Any] = compiled
        self.memory_bytes = program_memory(compiled) * mesh.size
        self.params: Params = jax.device_get(self.state.params)  # a copy, as the state is donated at each step
        self.extractor = features_program(model, InputConfig(), READOUTS, mesh)
        self.records: Batch = jax.device_get(self.batch)
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
        return self.extractor(self.params, self.records["counts"], self.records["available"])


def loop_rate(
    update: Callable[[TrainState, Batch], Any], state: TrainState, batches: Iterator[Batch], seconds: float
) -> tuple[float, TrainState]:
    """Updates a second in a loop like that of a training, over at least so many seconds and two updates.

    As there, a step's figures are waited for when the next step has been given to the device.
    """
    begun, updates = time.perf_counter(), 0
    batch, before = next(batches), None
    while updates < 2 or time.perf_counter() - begun < seconds:
        state, metrics = update(state, batch)
        jax.block_until_ready(before)
        batch, before = next(batches), metrics
        updates += 1
    jax.block_until_ready(state)
    return updates / (time.perf_counter() - begun), state


def per_second(call: Callable[[], Any], seconds: float) -> float:
    """Calls a second, each waited for, over at least so many seconds and two calls."""
    begun, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - begun < seconds:
        jax.block_until_ready(call())
        calls += 1
    return calls / (time.perf_counter() - begun)


def matrix_product(size: int, dtype: str) -> tuple[Callable[[], Any], int]:
    """Square matrix products, compiled and warm, and their floating-point operations.

    One at a time on a CPU. On an accelerator ten, given to the device before the first is waited for, as a training gives it
    steps: the peak must not hold what the host takes to ask.
    """
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(a, b))
    together = 1 if jax.default_backend() == "cpu" else 10
    return lambda: [product(a, b) for _ in range(together)], together * 2 * size**3
