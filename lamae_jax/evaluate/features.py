"""Frozen features of a store's records: one pass over the waveforms, every readout at once.

N records, B a batch, L leads, S' stored samples, S the model's, T patches a lead, D width, F features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lamae_jax.data.loader import eval_batches
from lamae_jax.data.store import Store
from lamae_jax.errors import NotFinite
from lamae_jax.model.inputs import InputConfig, crop, model_input
from lamae_jax.model.lamae import Params, encode
from lamae_jax.model.presets import ModelConfig
from lamae_jax.model.readouts import Tokens, readout
from lamae_jax.progress import Progress
from lamae_jax.train.sharding import sharing

CPU_RECORDS = 2
TOKENS = "tokens"


def last_tokens(tokens: Tokens) -> jax.Array:
    """The patch tokens of latent attention, of independent leads the encoder's: `[B, L, T, D]`.

    float16, for there are hundreds a record to be kept: they come out of a LayerNorm, so three digits are enough and none is
    too large.
    """
    return (tokens.encoder if tokens.la is None else tokens.la).astype(jnp.float16)


def batch_features(
    params: Params,
    counts: jax.Array,
    available: jax.Array,
    *,
    config: ModelConfig,
    inputs: InputConfig,
    names: tuple[str, ...],
) -> dict[str, jax.Array]:
    """Readouts of `counts [B, L, S']`, longer ones cut to their middle: `[B, D]`, or `[B, L, D]` of `encoder_concat`, float32.

    TOKENS is the patch tokens themselves, `[B, L, T, D]` float16.
    """

    def encode_some(some: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        counts, available = some
        x, _ = model_input(crop(counts, config.samples), available, inputs)
        tokens = encode(config, params, x, available)
        # A mean over hundreds of bfloat16 tokens would lose what tells records apart.
        tokens = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tokens)
        return {name: last_tokens(tokens) if name == TOKENS else readout(tokens, name, available) for name in names}

    return few_at_a_time(encode_some, (counts, available))


def few_at_a_time(encode: Callable[[Any], dict[str, jax.Array]], batch: Any) -> dict[str, jax.Array]:
    """`encode(batch)`, on a CPU a few records at a time: attention among all L T tokens of many would run through memory
    instead of the cache. Every array of `batch` and of the result has the records as first axis."""
    if jax.default_backend() != "cpu":
        return encode(batch)
    few = math.gcd(len(jax.tree.leaves(batch)[0]), CPU_RECORDS)
    out = jax.lax.map(encode, jax.tree.map(lambda whole: whole.reshape(-1, few, *whole.shape[1:]), batch))
    return {name: values.reshape(-1, *values.shape[2:]) for name, values in out.items()}


@lru_cache(maxsize=8)
def features_program(
    config: ModelConfig, inputs: InputConfig, names: tuple[str, ...], mesh: Mesh
) -> Callable[[Params, Any, Any], dict[str, jax.Array]]:
    """`batch_features`, compiled, of batches that the devices of `mesh` share out."""
    work = partial(batch_features, config=config, inputs=inputs, names=names)
    split = P("data")
    return jax.jit(jax.shard_map(work, mesh=mesh, in_specs=(P(), split, split), out_specs=split, check_vma=False))


def extract(
    params: Params,
    config: ModelConfig,
    inputs: InputConfig,
    store: Store,
    rows: np.ndarray,
    names: tuple[str, ...],
    batch_size: int,
    label: str,
) -> dict[str, np.ndarray]:
    """The readouts `names` of the store's `rows` [N], in their order: float32 [N, D], `encoder_concat` [N, L, D], and
    TOKENS [N, L, T, D] float16.

    One batch shape, so one compilation; the last batch is padded and cut. Raises NotFinite where a feature is not finite.
    """
    mesh = sharing(batch_size)
    program = features_program(config, inputs, names, mesh)
    params = jax.device_put(params, NamedSharding(mesh, P()))
    progress = Progress(len(rows), "ECG", label)
    out: dict[str, np.ndarray] = {}
    done = 0

    def take(result: dict[str, jax.Array]) -> int:
        """Bring one batch to the host, behind what was taken before."""
        count = 0
        for name, values in jax.device_get(result).items():
            if name not in out:
                out[name] = np.empty((len(rows), *values.shape[1:]), values.dtype)
            count = min(len(values), len(rows) - done)
            out[name][done : done + count] = values[:count]
        return count

    before: dict[str, jax.Array] | None = None
    with eval_batches([store], [rows], batch_size) as batches:
        for batch in batches:
            running = program(params, batch["counts"], batch["available"])
            if before is not None:  # the device works on this batch while the host takes the one before
                done += take(before)
                progress.update(done)
            before = running
    if before is not None:
        done += take(before)
    progress.close()
    for name in names:
        values = out[name]
        broken = int(np.count_nonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1)))
        if broken:
            raise NotFinite(
                f"{label}: {name} is not finite for {broken} of {len(rows)} records; the parameters are of no use"
            )
    return out


def fill_of(concat: np.ndarray, available: np.ndarray, train: np.ndarray) -> np.ndarray:
    """What stands for a lead that a record lacks in `encoder_concat` [N, L, D]: its mean over the training records that have it.

    `available` [N, L] and `train` [N] are boolean; a lead that no training record has is zero. Returns [L D].
    """
    there = available[..., None] & train[:, None, None]
    count = there.sum(axis=0)  # [L, 1]
    return np.ravel(np.sum(concat, axis=0, where=there, dtype=np.float64) / np.maximum(count, 1))


def filled(concat: np.ndarray, available: np.ndarray, train: np.ndarray, fill: np.ndarray) -> np.ndarray:
    """`encoder_concat` [N, L, D] -> [N, L D]: a lead that a record or all training records lack as `fill` [L D] says."""
    shown = available & available[train].any(axis=0)
    return np.where(shown[..., None], concat, fill.reshape(concat.shape[1:])).reshape(len(concat), -1)


def fill_unavailable(concat: np.ndarray, available: np.ndarray, train: np.ndarray) -> np.ndarray:
    """`filled` with what `fill_of` says."""
    return filled(concat, available, train, fill_of(concat, available, train))


def standardisation(features: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The training records' mean [F], and 1 over their standard deviation, 0 where a feature is constant."""
    x = features[train].astype(np.float64)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    # Below float32's resolution a feature's spread is rounding, and to blow it up would be to probe noise.
    constant = deviation <= 1e-6 * np.abs(mean)
    return mean, np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))


def standardise(features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features [N, F] less the training records' mean, over their standard deviation, float64; constant features become zero."""
    mean, scale = standardisation(features, train)
    return (features.astype(np.float64) - mean) * scale
