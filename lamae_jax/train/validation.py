"""The error on held-out patients, beside three predictors that need no learning.

Always in the model's units, on the raw target, with masks that are the same at every evaluation and on any devices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lamae_jax.data.loader import eval_batches
from lamae_jax.data.splits import Rows
from lamae_jax.model.inputs import crop, model_input
from lamae_jax.model.lamae import Params, patches_of, reconstruct
from lamae_jax.model.losses import counted_patches, squared_error, undo_targets
from lamae_jax.model.masking import Masks, draw_masks_by_record, hidden_patches
from lamae_jax.signal.leads import LIMB_LEADS, LIMB_PROJECTION
from lamae_jax.train.records import Data, spread
from lamae_jax.train.sharding import batch_divisor, batch_sharding, by_records, held_rows, replicated, to_devices
from lamae_jax.train.step import Batch, StepConfig, TrainState

T = TypeVar("T")

MASK_SEED = 12_345
BATCH = 64  # rounded up to the devices
RESAMPLES = 1000  # of the interval
YARDSTICKS = ("record_mean", "interpolation", "einthoven")


def interpolate(x: jax.Array, shown: jax.Array) -> jax.Array:
    """Fill samples that are not `shown [..., S]` on the line between the nearest shown ones; edges hold the nearest.

    Where nothing is shown the lead's mean stands.
    """
    samples = x.shape[-1]
    at = jnp.broadcast_to(jnp.arange(samples), x.shape)
    before = jax.lax.cummax(jnp.where(shown, at, -1), axis=x.ndim - 1)
    after = jax.lax.cummin(jnp.where(shown, at, samples), axis=x.ndim - 1, reverse=True)
    before, after = jnp.where(before < 0, after, before), jnp.where(after >= samples, before, after)
    low, high = jnp.clip(before, 0, samples - 1), jnp.clip(after, 0, samples - 1)
    left, right = jnp.take_along_axis(x, low, axis=-1), jnp.take_along_axis(x, high, axis=-1)
    weight = (at - low) / jnp.maximum(high - low, 1)
    line = left + (right - left) * weight
    return jnp.where(shown.any(axis=-1, keepdims=True), line, x.mean(axis=-1, keepdims=True))


def limb_laws(patches: jax.Array, visible: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Einthoven's and Goldberger's laws: limb-lead patches from the others that show the same time.

    `patches [B, 6, T, P]` in mV (means removed), `visible [B, 6, T]` -> least-squares estimate from all visible limb leads,
    and where at least two of them were visible, `[B, 1, T]` bool.
    """
    law = jnp.asarray(LIMB_PROJECTION, jnp.float32)  # [6, 2]: each limb lead from I and II
    shown = visible.astype(jnp.float32)
    enough = shown.sum(axis=1, keepdims=True) >= 2
    normal = jnp.einsum("blt,li,lj->btij", shown, law, law)
    normal = jnp.where(enough[:, 0, :, None, None], normal, jnp.eye(2)[None, None])
    right = jnp.einsum("blt,li,bltp->btip", shown, law, patches)
    return jnp.einsum("li,btij,btjp->bltp", law, jnp.linalg.inv(normal), right), enough


def yardsticks(x: jax.Array, scale: jax.Array, visible: jax.Array, leads: tuple[str, ...]) -> dict[str, jax.Array]:
    """Three predictions `[B, L, T, P]` for `x [B, L, S]` of which `visible [B, L, T]` is shown; `scale` is mV a unit of x."""
    records, count, patches = visible.shape
    mean = jnp.broadcast_to(x.mean(axis=-1, keepdims=True), x.shape)
    line = interpolate(x, jnp.repeat(visible, x.shape[-1] // patches, axis=-1))
    mean, line = (patches_of(part, x.shape[-1] // patches) for part in (mean, line))
    einthoven = line
    if all(lead in leads for lead in LIMB_LEADS):
        limb = np.array([leads.index(lead) for lead in LIMB_LEADS])
        unit = jnp.broadcast_to(scale, (records, count, 1))[:, limb, :, None]
        by_law, enough = limb_laws(patches_of(x, x.shape[-1] // patches)[:, limb] * unit, visible[:, limb])
        einthoven = line.at[:, limb].set(jnp.where(enough[..., None], by_law / unit, line[:, limb]))
    return {"record_mean": mean, "interpolation": line, "einthoven": einthoven}


def validation_inputs(config: StepConfig, batch: Batch, numbers: jax.Array) -> tuple[jax.Array, jax.Array, Masks]:
    """Counts -> `x [B, L, S]` cut from the middle, scale in mV, and the masks of the validation records `numbers [B]`."""
    model, available = config.model, batch["available"]
    x, scale = model_input(crop(batch["counts"], model.samples), available, config.inputs)
    key = jax.random.key(MASK_SEED)
    return x, scale, draw_masks_by_record(key, numbers, available, model.patches, config.masks)


def compile_validation(config: StepConfig, leads: tuple[str, ...], mesh: Mesh, shardings: Any) -> jax.stages.Wrapped:
    """A jitted `(params, batch, index) -> sums` of each record [B] of batch number `index`; `batch["weight"]` 0 is padding."""

    def sums(params: Params, batch: Batch, index: jax.Array) -> dict[str, jax.Array]:
        records = batch["weight"].shape[0]
        x, scale, masks = validation_inputs(config, batch, index * records + jnp.arange(records))
        predicted = reconstruct(config.model, params, x, masks, batch["available"], by_records(mesh))
        wanted = patches_of(x, config.model.patch)
        predicted = undo_targets(predicted, wanted, config.target)
        # Leads that are not there show nothing, also to the yardsticks.
        hidden = hidden_patches(masks, *wanted.shape[1:3])
        counted = counted_patches(hidden, batch["available"]) * batch["weight"][:, None, None]
        visible = ~hidden & batch["available"][..., None]
        guesses = {"val_mse": predicted}
        guesses |= {f"val_mse_{name}": guess for name, guess in yardsticks(x, scale, visible, leads).items()}
        each = jax.vmap(squared_error)
        return {name: each(guess, wanted, counted) for name, guess in guesses.items()} | {
            "patches": counted.sum(axis=(1, 2))
        }

    return jax.jit(
        sums, in_shardings=(shardings, batch_sharding(mesh), replicated(mesh)), out_shardings=replicated(mesh)
    )


def sums_by_record(
    run: Callable[..., dict[str, jax.Array]], params: Params, batches: Iterable[dict[str, jax.Array]], records: int
) -> dict[str, np.ndarray]:
    """Run over all batches: each figure's sum, and the `patches` that it is over, of each of the `records`, in float64."""
    results = jax.device_get([run(params, batch, jnp.asarray(i, jnp.int32)) for i, batch in enumerate(batches)])
    return {name: np.concatenate([r[name] for r in results])[:records].astype(np.float64) for name in results[0]}


def told(batches: Iterable[T], at: Callable[[str], None]) -> Iterator[T]:
    """The batches; `at` hears when the next one is waited for, and when it is there."""
    at("loading batch 1")
    for number, batch in enumerate(batches, 1):
        at(f"computing batch {number}")
        yield batch
        at(f"loading batch {number + 1}")
    at("collecting the figures")


def means(sums: dict[str, np.ndarray]) -> dict[str, float]:
    """Each figure: its sum over all records by their patches."""
    patches = max(float(sums["patches"].sum()), 1.0)
    return {name: float(values.sum()) / patches for name, values in sums.items() if name != "patches"}


def interval_by_patient(errors: np.ndarray, patches: np.ndarray, patients: np.ndarray) -> list[float]:
    """95 % percentile interval of the sum of `errors` [n] over that of `patches` [n], resampling whole `patients` [n]."""
    _, owner = np.unique(patients, return_inverse=True)
    per_patient = [np.bincount(owner, values) for values in (errors, patches)]
    count = len(per_patient[0])
    times = np.random.default_rng(MASK_SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    error, total = (times @ values for values in per_patient)
    return [float(bound) for bound in np.quantile(error / np.maximum(total, 1.0), (0.025, 0.975))]


def silent(doing: str) -> None:
    """For who does not want to hear what is being done."""


class Evaluation:
    """The validation error of a state on a fixed set of validation records, spread evenly over the fold."""

    def __init__(self, config: StepConfig, leads: tuple[str, ...], data: Data, mesh: Mesh, shardings: Any):
        self.data, self.mesh = data, mesh
        divisor = batch_divisor(mesh)
        self.batch = -(-BATCH // divisor) * divisor
        self.jitted = compile_validation(config, leads, mesh, shardings)
        self.run: Callable[..., dict[str, jax.Array]] = self.jitted

    def compile(self, state: TrainState) -> None:
        """Compile now, not at the first call."""
        contract, rows = self.data.stores[0].contract, batch_sharding(self.mesh)
        leads = (self.batch, len(contract.leads))
        batch = {
            "counts": jax.ShapeDtypeStruct((*leads, contract.samples), jnp.int16, sharding=rows),
            "available": jax.ShapeDtypeStruct(leads, bool, sharding=rows),
            "weight": jax.ShapeDtypeStruct((self.batch,), jnp.float32, sharding=rows),
        }
        self.run = self.jitted.lower(state.params, batch, jnp.asarray(0, jnp.int32)).compile()

    def __call__(
        self, state: TrainState, records: int, at: Callable[[str], None] = silent
    ) -> tuple[dict[str, float], float]:
        """`val_mse` and the yardsticks, in the model's units, and the seconds it took. Averaged parameters where there are.

        `at` hears what is being done, batch by batch.
        """
        begun = time.monotonic()
        figures = means(self.sums(state, spread(self.data.validation, records), at))
        return figures, time.monotonic() - begun

    def with_interval(self, state: TrainState, records: int, at: Callable[[str], None] = silent) -> dict[str, Any]:
        """The same figures, and of `val_mse` the 95 % interval over patients."""
        rows = spread(self.data.validation, records)
        sums = self.sums(state, rows, at)
        patients = [f"{s.name} {p}" for s, r in zip(self.data.stores, rows, strict=True) for p in s.patients[r]]
        return means(sums) | {
            "val_mse_interval": interval_by_patient(sums["val_mse"], sums["patches"], np.array(patients))
        }

    def sums(self, state: TrainState, rows: Rows, at: Callable[[str], None]) -> dict[str, np.ndarray]:
        """What each record of `rows` adds to each figure, in their order."""
        params = state.params if state.ema is None else state.ema
        held = held_rows(self.mesh, self.batch, self.mesh.local_devices)
        with eval_batches(self.data.stores, rows, self.batch, held) as batches:
            on_devices = (to_devices(batch, self.mesh) for batch in told(batches, at))
            return sums_by_record(self.run, params, on_devices, sum(map(len, rows)))
