"""The train step: one jitted, donated function of state and batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from lamae_jax.errors import UserError
from lamae_jax.model.inputs import InputConfig, crop, model_input, random_start
from lamae_jax.model.lamae import Params, first_params, patches_of, reconstruct, reconstruct_and_seen
from lamae_jax.model.layers import Placement
from lamae_jax.model.losses import TARGETS, counted_patches, squared_error, targets
from lamae_jax.model.masking import MaskConfig, Masks, draw_leads, draw_masks, hidden_patches
from lamae_jax.model.presets import ModelConfig
from lamae_jax.train.alignment import AlignConfig, alignment, alignment_count, beta_at
from lamae_jax.train.optimizer import OptimizerConfig, make_optimizer, schedule
from lamae_jax.train.sharding import batch_divisor, batch_sharding, by_records, replicated, state_shardings

Batch = dict[str, jax.Array]


@dataclass(frozen=True)
class StepConfig:
    """All that a train step depends on beside state and batch.

    `accumulate`: microbatches a step, 0 = as many as are quickest here (see `microbatches`). `ema`: the decay of the averaged
    parameters, 0 = none. `decode_leads`: how many leads of a record, drawn at each step, are decoded; 0 = all. The loss is
    then an unbiased estimate, at a lower cost. `align`: MMVM's alignment of independent leads, None = none.
    """

    model: ModelConfig
    inputs: InputConfig
    masks: MaskConfig
    optimizer: OptimizerConfig
    seed: int = 0
    target: str = "raw"
    accumulate: int = 0
    ema: float = 0.0
    decode_leads: int = 0
    align: AlignConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must be from 0 to {2**32 - 1}")
        if self.target not in TARGETS:
            raise UserError(f"target={self.target}: must be one of {', '.join(TARGETS)}")
        if self.accumulate < 0:
            raise UserError(f"accumulate={self.accumulate}: must be a number of microbatches, or 0 for the quickest")
        if not 0 <= self.ema < 1:
            raise UserError(f"ema={self.ema:g}: must be at least 0 and below 1")
        if not 0 <= self.decode_leads <= self.model.leads:
            raise UserError(f"decode_leads={self.decode_leads}: must be 0 (all) to {self.model.leads}")
        self.masks.kept_tokens(self.model.leads, self.model.patches)
        if not self.model.latent_depth and self.masks.alpha_LA:
            raise UserError(
                f"mask.alpha_LA={self.masks.alpha_LA:g}: must be 0 with model.latent_depth=0, where nothing mixes the leads"
            )
        mixture = self.align is not None and self.align.form == "mixture"
        if mixture != self.model.posterior:
            raise UserError(f"model.posterior={self.model.posterior}: goes with align.form=mixture, and only with it")


@struct.dataclass
class TrainState:
    """What a checkpoint holds. `step` counts the updates done; with it data and masks are known too."""

    step: jax.Array  # int32
    params: Params
    opt_state: Any
    ema: Params | None


def init_state(config: StepConfig) -> TrainState:
    """Step 0, drawn from the seed; to be called inside jit with the shardings of `state_shardings`."""
    params = first_params(config.model, config.seed)
    opt_state = make_optimizer(config.optimizer).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, params if config.ema else None)


def masked_inputs(config: StepConfig, batch: Batch, key: jax.Array) -> tuple[jax.Array, Masks, jax.Array]:
    """Counts -> `x [B, L, S]` from a random crop, masks, and the patches that count `[B, L, T]`."""
    counts, available = batch["counts"], batch["available"]
    for_crop, for_masks = jax.random.split(key)
    start = random_start(for_crop, counts.shape[0], counts.shape[-1], config.model.samples)
    x, _ = model_input(crop(counts, config.model.samples, start), available, config.inputs)
    masks = draw_masks(for_masks, available, config.model.patches, config.masks)
    hidden = hidden_patches(masks, config.model.leads, config.model.patches)
    return x, masks, counted_patches(hidden, available)


def train_step(
    config: StepConfig, state: TrainState, batch: Batch, place: Placement | None = None
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. Masks come from `fold_in(key(seed), step)`; the loss is over the global batch's hidden patches.

    `place` keeps tokens on the devices of their records, see sharding.by_records.
    """
    key = jax.random.fold_in(jax.random.key(config.seed), state.step + 1)
    x, masks, counted = masked_inputs(config, batch, key)
    total = jnp.maximum(counted.sum(), 1.0)
    decoded = None
    if config.decode_leads:
        decoded = draw_leads(jax.random.fold_in(key, 1), len(x), config.model.leads, config.decode_leads)
        counted = jnp.take_along_axis(counted, decoded[..., None], axis=1) * (config.model.leads / config.decode_leads)
    shown = noise = None
    if config.align:
        hidden = hidden_patches(masks, config.model.leads, config.model.patches)
        shown = ~hidden & batch["available"][..., None]
        beta = beta_at(config.align, state.step, config.optimizer.steps, config.optimizer.warmup)
        shown_total = alignment_count(config.align.form, shown)
        if config.model.posterior:
            tokens = masks.visible.shape[1] * masks.visible.shape[2]
            noise = jax.random.normal(jax.random.fold_in(key, 2), (len(x), tokens, config.model.width))

    def loss_of(params: Params, part: tuple[Any, ...]) -> tuple[jax.Array, dict[str, jax.Array]]:
        x, masks, available, counted, decoded, shown, noise = part
        if config.align:
            predicted, seen = reconstruct_and_seen(config.model, params, x, masks, available, place, decoded, noise)
        else:
            predicted = reconstruct(config.model, params, x, masks, available, place, decoded)
        patches = patches_of(x, config.model.patch)
        if decoded is not None:
            patches = jnp.take_along_axis(patches, decoded[..., None, None], axis=1)
        error = squared_error(predicted, targets(patches, config.target), counted) / total
        if not config.align:
            return error, {"train/loss": error}
        aligned = alignment(config.align.form, seen, shown) / shown_total
        return error + beta * aligned, {"train/loss": error, "train/alignment": aligned}

    whole = (x, masks, batch["available"], counted, decoded, shown, noise)
    value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
    (_, losses), gradient = accumulated(value_and_grad, state.params, whole, max(1, config.accumulate))
    tx = make_optimizer(config.optimizer)
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = state.ema
    if ema is not None:
        ema = jax.tree.map(lambda old, new: config.ema * old + (1 - config.ema) * new, ema, params)
    metrics = losses | {
        "grad_norm": optax.tree.norm(gradient),
        "learning_rate": schedule(config.optimizer)(state.step),
    }
    return TrainState(state.step + 1, params, opt_state, ema), metrics


def microbatches(records: int, width: int, mesh: Mesh) -> int:
    """Into how many parts a batch is best split on CPUs; 1 on accelerators, where a whole batch is quickest.

    A CPU is bound by memory: what a few records need stays in its caches and in pages that it already has. Where one device
    has all cores, narrow models have too little work for each call and get more records a part. Measured in docs/speed.md.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return 1
    most = 8 if width <= 64 and mesh.size == 1 else 4
    mine = max(1, records // batch_divisor(mesh))  # of each device
    part = next(size for size in range(min(most, mine), 0, -1) if mine % size == 0)
    return mine // part if 2 * part >= most else 1  # a batch of 13, say, has no good parts


def accumulated(value_and_grad: Callable[..., Any], params: Params, whole: Any, parts: int) -> Any:
    """Losses and gradient summed over microbatches. Masks are drawn before, so the number of parts changes nothing else."""
    if parts == 1:
        return value_and_grad(params, whole)

    def split(rows: jax.Array) -> jax.Array:
        # [B, ...] -> [parts, B/parts, ...]; strided, so each device keeps its rows
        return jnp.swapaxes(rows.reshape(rows.shape[0] // parts, parts, *rows.shape[1:]), 0, 1)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, value_and_grad(params, part)), None

    pieces = jax.tree.map(split, whole)
    shapes = jax.eval_shape(value_and_grad, params, jax.tree.map(lambda rows: rows[0], pieces))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zero, pieces)[0]


def compile_init(config: StepConfig, mesh: Mesh) -> tuple[Callable[[], TrainState], Any, Any]:
    """A jitted `init_state` that makes every array where it belongs, the abstract state, and its shardings."""
    abstract = jax.eval_shape(lambda: init_state(config))
    shardings = state_shardings(abstract, mesh)
    return jax.jit(lambda: init_state(config), out_shardings=shardings), abstract, shardings


def compile_step(config: StepConfig, mesh: Mesh, shardings: Any) -> jax.stages.Wrapped:
    """The jitted train step; the state is donated, its shardings go in and come out the same."""

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        parts = config.accumulate or microbatches(len(batch["counts"]), config.model.width, mesh)
        return train_step(dataclasses.replace(config, accumulate=parts), state, batch, by_records(mesh))

    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
