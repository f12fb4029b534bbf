"""What would V4 have looked like: whole leads hidden from the model, and drawn by it from the others.

B records, L leads, n hidden ones, T patches a lead, P samples a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.data.loader import eval_batches
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.features import CPU_RECORDS
from lamae_jax.model.inputs import MV_PER_COUNT, InputConfig, crop, model_input
from lamae_jax.model.lamae import Params, reconstruct
from lamae_jax.model.masking import Masks
from lamae_jax.model.presets import ModelConfig
from lamae_jax.signal.leads import canonical_lead


def named_leads(text: str, leads: Sequence[str]) -> tuple[int, ...]:
    """Where the comma-separated names in any case stand among `leads`, ascending. Raises UserError for another name, or all."""
    found = set()
    for part in text.split(","):
        name = canonical_lead(part)
        if name not in leads:
            raise UserError(f"hidden={text}: {part.strip() or '(empty)'} must be one of {', '.join(leads)}")
        found.add(leads.index(name))
    if len(found) == len(leads):
        raise UserError(f"hidden={text}: names every lead; at least one must be left to draw the others from")
    return tuple(sorted(found))


def whole_leads_hidden(shown: jax.Array, patches: int) -> Masks:
    """The masks that show all T = `patches` of the leads `shown [B, L-n]` (ascending), and nothing of the others."""
    records, leads = shown.shape

    def all_of(*shape: int) -> jax.Array:
        return jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int32), shape)

    return Masks(shown, all_of(records, leads, patches), all_of(records, leads * patches))


class Drawn(NamedTuple):
    """`recorded` and `made` in mV: the leads of n recordings [n, L, S], and what the model drew of the hidden ones [n, H, S]."""

    recorded: np.ndarray
    made: np.ndarray


def draws_heights(model: Model) -> bool:
    """False for a model that was pretrained to draw each patch without its mean and scale."""
    match model.provenance:  # any JSON object
        case {"config": {"target": "normalised"}}:
            return False
    return True


def draw_hidden(model: Model, store: Store, rows: np.ndarray, hidden: tuple[int, ...], batch_size: int) -> Drawn:
    """The leads `hidden` (places in the contract) of the store's `rows` [n] as the model draws them from the others.

    Nothing of a hidden lead goes in, not even its share in the recording's scale; it may just as well not be there at all.
    Raises UserError for a model that was pretrained to draw patches without their scale.
    """
    if not draws_heights(model):
        raise UserError(
            "hidden: this model was pretrained with target=normalised and does not know how high a hidden lead is; "
            "use one with target=raw"
        )
    params, leads = jax.device_put(model.params), range(model.config.leads)
    shown = jnp.array([lead for lead in leads if lead not in hidden], jnp.int32)
    which = shown, jnp.array(hidden, jnp.int32)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    with eval_batches([store], [rows], batch_size) as batches:
        for batch in batches:
            made = _drawn(params, batch["counts"], batch["available"], which, model.config, model.inputs)
            parts.append(jax.device_get(made))
    recorded, drawn = (np.concatenate(each)[: len(rows)] for each in zip(*parts, strict=True))
    return Drawn(recorded, drawn)


@partial(jax.jit, static_argnames=("config", "inputs"))
def _drawn(
    params: Params,
    counts: jax.Array,
    available: jax.Array,
    which: tuple[jax.Array, jax.Array],
    config: ModelConfig,
    inputs: InputConfig,
) -> tuple[jax.Array, jax.Array]:
    shown, hidden = which  # [L-n], [n]: data, so that one program serves whichever leads are hidden
    gone = jnp.zeros(config.leads, bool).at[hidden].set(True)[None]

    def of_one(one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        counts, available = (part[None] for part in one)
        counts = crop(counts, config.samples)
        x, scale = model_input(counts, available & ~gone, inputs)
        masks = whole_leads_hidden(shown[None], config.patches)
        # In pretraining a hidden lead's CLS is seen by the others, unlike that of a lead that is not available.
        made = reconstruct(config, params, x, masks, available | gone, decoded=hidden[None])
        if scale.shape[1] > 1:  # each lead has a scale of its own, and a hidden one's is not known: the others' mean
            there = (available & ~gone)[..., None].astype(scale.dtype)
            scale = (scale * there).sum(axis=1, keepdims=True) / jnp.maximum(there.sum(axis=1, keepdims=True), 1.0)
        millivolts = counts.astype(jnp.float32) * MV_PER_COUNT
        millivolts = jnp.where(available[..., None], millivolts - millivolts.mean(axis=-1, keepdims=True), 0.0)
        return millivolts[0], (made.reshape(1, len(hidden), -1) * scale)[0]

    return jax.lax.map(of_one, (counts, available), batch_size=CPU_RECORDS)


def likeness(recorded: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of leads `recorded` and `made` [n, S]: their correlation [n], and the RMS of their difference in mV [n]."""
    one, two = (
        each - each.mean(axis=1, keepdims=True) for each in (recorded.astype(np.float64), made.astype(np.float64))
    )
    size = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    r = np.divide((one * two).sum(axis=1), size, out=np.zeros(len(one)), where=size > 0)
    return r, np.sqrt(((one - two) ** 2).mean(axis=1))
