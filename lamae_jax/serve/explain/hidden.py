"""What would V4 have looked like: whole leads hidden from the model, and drawn by it from the others.

B records, L leads, n hidden ones, T patches a lead, P samples a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.model.inputs import MV_PER_COUNT, crop
from lamae_jax.model.masking import Masks, whole_leads
from lamae_jax.serve.functions import reconstruct_counts
from lamae_jax.serve.model import in_batches
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


def draw_hidden(model: Model, store: Store, rows: np.ndarray, hidden: tuple[int, ...]) -> Drawn:
    """The leads `hidden` (places in the contract) of the store's `rows` [n] as the model draws them from all others.

    Nothing of a hidden lead goes in, not even its share in the recording's scale; it may just as well not be there at all.
    Raises UserError for a model that was pretrained to draw patches without their scale.
    """
    if not draws_heights(model):
        raise UserError(
            "hidden: this model was pretrained with target=normalised and does not know how high a hidden lead is; "
            "use one with target=raw"
        )
    params, config = jax.device_put(model.params), model.config
    counts = np.asarray(crop(jnp.asarray(store.read(rows)), config.samples))
    shown = np.ones((len(rows), config.leads), bool)
    shown[:, hidden] = False

    def run(counts: jax.Array, shown: jax.Array, masks: Masks) -> dict[str, jax.Array]:
        return reconstruct_counts(params, counts, shown, masks, config=config, inputs=model.inputs)

    made = in_batches(run, counts, shown, whole_leads(shown, config.patches))["signal"]
    millivolts = counts.astype(np.float32) * MV_PER_COUNT
    recorded = np.where(store.available[rows][..., None], millivolts - millivolts.mean(axis=-1, keepdims=True), 0.0)
    return Drawn(recorded, made[:, hidden])


def likeness(recorded: np.ndarray, made: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of leads `recorded` and `made` [n, S]: their correlation [n], and the RMS of their difference in mV [n]."""
    one, two = (
        each - each.mean(axis=1, keepdims=True) for each in (recorded.astype(np.float64), made.astype(np.float64))
    )
    size = np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    r = np.divide((one * two).sum(axis=1), size, out=np.zeros(len(one)), where=size > 0)
    return r, np.sqrt(((one - two) ** 2).mean(axis=1))
