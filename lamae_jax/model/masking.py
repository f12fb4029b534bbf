"""The two random masks, M_E and M_LA, drawn outside the model and passed to it as indices.

The sense of every mask here: an index in `visible` or `kept` is *shown*; `hidden_patches` is True where a patch must be
reconstructed. Each record of a batch draws its own masks. The draw depends on the key alone, so it is the same for any
number of devices.

An example: one record of L = 2 leads of T = 4 patches, of which alpha_E = .5 shows K = 2; alpha_LA = .25 keeps M = 3 of the 4
tokens that are shown.

    leads           [[0, 1]]                          both leads show patches
    visible         [[[0, 3], [1, 2]]]                lead 0 its patches 0 and 3, lead 1 its 1 and 2: tokens 0, 1, 2, 3
    kept            [[0, 2, 3]]                       token 1, lead 0's patch 3, does not enter latent attention
    hidden_patches  [[[0, 1, 1, 0], [1, 0, 0, 1]]]    the loss is over the ones; not over token 1, which E has seen

The model (lamae.py) counts patches through the record: patch t of lead l has place l T + t, one of 8.

    place           [[0, 3, 5, 6]]                    of the tokens shown
    kept_place      [[0, 5, 6]]                       of those that latent attention gives to the decoder
    source          [[0, 3, 3, 3, 3, 1, 2, 3]]        which of these stands at each of the 8 places; 3 = none, a mask token
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from lamae_jax.errors import UserError

MODES = ("independent", "shared", "block")


@struct.dataclass
class Masks:
    """One draw for a batch. n = hidden leads, K = visible patches of each other lead, M = tokens for latent attention."""

    leads: jax.Array  # [B, L-n] int32: leads that show patches, ascending
    visible: jax.Array  # [B, L-n, K] int32: which of their T patches are shown, ascending
    kept: jax.Array  # [B, M] int32: which of the (L-n)K shown tokens enter latent attention, ascending


@dataclass(frozen=True)
class MaskConfig:
    """M_E: ratio `alpha_E`, `mode`, `block`, `hidden_leads`. M_LA: ratio `alpha_LA`. Raises UserError for impossible values."""

    alpha_E: float = 0.75
    alpha_LA: float = 0.1
    mode: str = "independent"
    block: int = 5
    hidden_leads: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha_E < 1:
            raise UserError(f"mask.alpha_E={self.alpha_E:g}: must be above 0 and below 1")
        if not 0 <= self.alpha_LA < 1:
            raise UserError(f"mask.alpha_LA={self.alpha_LA:g}: must be at least 0 and below 1")
        if self.mode not in MODES:
            raise UserError(f"mask.mode={self.mode}: must be one of {', '.join(MODES)}")
        if self.block < 1:
            raise UserError(f"mask.block={self.block}: must be at least 1")
        if self.hidden_leads < 0:
            raise UserError(f"mask.hidden_leads={self.hidden_leads}: must be 0 or more")

    def visible_patches(self, patches: int) -> int:
        """K = T - floor(alpha_E T + .5), checked to leave something shown and something hidden."""
        kept = patches - int(self.alpha_E * patches + 0.5)
        if not 1 <= kept < patches:
            what = "shows no patch" if kept < 1 else "hides no patch"
            raise UserError(
                f"mask.alpha_E={self.alpha_E:g}: {what} of a lead's {patches}; "
                f"use {0.5 / patches:.3g} to {1 - 0.5 / patches:.3g} (exclusive)"
            )
        return kept

    def kept_tokens(self, leads: int, patches: int) -> int:
        """M = (L-n)K - floor(alpha_LA (L-n)K + .5)."""
        shown = self.shown_leads(leads) * self.visible_patches(patches)
        kept = shown - int(self.alpha_LA * shown + 0.5)
        if kept < 1:
            raise UserError(
                f"mask.alpha_LA={self.alpha_LA:g}: keeps none of the {shown} visible tokens; use a smaller one"
            )
        return kept

    def shown_leads(self, leads: int) -> int:
        """L - n, checked to leave a lead."""
        if self.hidden_leads >= leads:
            raise UserError(f"mask.hidden_leads={self.hidden_leads}: must be below the number of leads, {leads}")
        return leads - self.hidden_leads


def whole_leads(shown: np.ndarray, patches: int) -> Masks:
    """The masks that show all T = `patches` of the leads `shown` [B, L], as many in each record, and nothing of the others."""
    leads = np.nonzero(shown)[1].reshape(len(shown), -1).astype(np.int32)

    def all_of(*shape: int) -> jax.Array:
        return jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int32), shape)

    return Masks(jnp.asarray(leads), all_of(*leads.shape, patches), all_of(len(leads), leads.shape[1] * patches))


def draw_masks(key: jax.Array, available: jax.Array, patches: int, config: MaskConfig) -> Masks:
    """Draw M_E and M_LA for a batch with `available [B, L]` leads of T = `patches`."""
    records, leads = available.shape
    shown_leads = config.shown_leads(leads)
    which_leads, which_patches, which_tokens = jax.random.split(key, 3)

    shown = _shown_leads(which_leads, available, shown_leads)  # [B, L-n]
    rows = 1 if config.mode == "shared" else shown_leads
    shape = (records, rows, patches)
    kept_patches = config.visible_patches(patches)
    if config.mode == "block":
        visible = _visible_between_blocks(which_patches, shape, kept_patches, config.block)
    else:
        visible = _random_subset(jax.random.uniform(which_patches, shape), kept_patches)
    visible = jnp.broadcast_to(visible, (records, shown_leads, kept_patches))

    # Tokens of unavailable leads go first: availability counts more than any draw below 1.
    tokens = shown_leads * kept_patches
    usable = jnp.repeat(jnp.take_along_axis(available, shown, axis=1), kept_patches, axis=1)  # [B, (L-n)K]
    score = jax.random.uniform(which_tokens, (records, tokens)) + usable.astype(jnp.float32)
    return Masks(leads=shown, visible=visible, kept=_random_subset(score, config.kept_tokens(leads, patches)))


def draw_masks_by_record(
    key: jax.Array, numbers: jax.Array, available: jax.Array, patches: int, config: MaskConfig
) -> Masks:
    """As draw_masks, but a record's masks depend on the key and its number in `numbers [B]` alone, not on its batch."""

    def of_one(number: jax.Array, leads: jax.Array) -> Masks:
        masks = draw_masks(jax.random.fold_in(key, number), leads[None], patches, config)
        return jax.tree.map(lambda part: part[0], masks)

    return jax.vmap(of_one)(numbers, available)


def draw_leads(key: jax.Array, records: int, leads: int, size: int) -> jax.Array:
    """`[B, n]`: `size` of each record's leads, all equally likely, ascending."""
    return _random_subset(jax.random.uniform(key, (records, leads)), size)


def hidden_patches(masks: Masks, leads: int, patches: int) -> jax.Array:
    """`[B, L, T]` bool, True where a patch was hidden from the encoder: the loss is over these (of available leads)."""

    def of_one(shown: jax.Array, visible: jax.Array) -> jax.Array:
        return jnp.ones((leads, patches), bool).at[shown[:, None], visible].set(False)

    # A record at a time: see `inverse_of`.
    return jax.vmap(of_one)(masks.leads, masks.visible)


def nothing_hidden(records: int, leads: int, patches: int) -> Masks:
    """The mask that shows everything, for readouts."""
    tokens = leads * patches

    def all_of(*shape: int) -> jax.Array:
        return jnp.broadcast_to(jnp.arange(shape[-1], dtype=jnp.int32), shape)

    return Masks(leads=all_of(records, leads), visible=all_of(records, leads, patches), kept=all_of(records, tokens))


def _random_subset(noise: jax.Array, size: int) -> jax.Array:
    """Indices of the `size` largest along the last axis, ascending, int32 (top_k is far quicker than argsort on CPU)."""
    if size == noise.shape[-1]:
        return jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), noise.shape)
    return jnp.sort(jax.lax.top_k(noise, size)[1].astype(jnp.int32), axis=-1)


def _shown_leads(key: jax.Array, available: jax.Array, size: int) -> jax.Array:
    """`[B, L-n]`: which leads show patches.

    Hidden leads are drawn among the available ones; one available lead is always shown; where a record has too few
    available leads the unavailable ones fill the hidden places, where they change nothing.
    """
    records, leads = available.shape
    noise = jax.random.uniform(key, (records, leads))
    # One random available lead is safe (3 and more); then unavailable leads (2 to 3) and the other available ones (below 1)
    # are shown by turns. n hidden places are taken by available leads first, so unavailable ones are shown before them.
    lucky = jnp.argmax(noise + available, axis=1)[:, None] == jnp.arange(leads)[None, :]
    score = jnp.where(available, noise, 2.0 + noise) + 4.0 * (lucky & available)
    return _random_subset(score, size)


def _visible_between_blocks(key: jax.Array, shape: tuple[int, int, int], visible: int, block: int) -> jax.Array:
    """`[B, L, K]`: hidden patches come in runs of `block` (the last run is what remains), placed at random without overlap."""
    records, leads, patches = shape
    hidden = patches - visible
    runs = -(-hidden // block)
    # A line of K visible patches and `runs` runs, in random order; a run's length is the block's, one is the remainder's.
    _, where = jax.lax.top_k(
        jax.random.uniform(key, (records, leads, visible + runs)), runs
    )  # [B, L, runs], in random order
    lengths = jnp.full((runs,), block, jnp.int32).at[0].set(hidden - block * (runs - 1))

    def of_one(places: jax.Array) -> tuple[jax.Array, jax.Array]:
        empty = jnp.ones((visible + runs,), jnp.int32)
        return empty.at[places].set(lengths), jnp.zeros(empty.shape, bool).at[places].set(True)

    line, is_run = jax.vmap(jax.vmap(of_one))(where)  # a lead at a time: see `inverse_of`
    begins = jnp.cumsum(line, axis=-1) - line
    return jnp.sort(jnp.where(is_run, patches, begins), axis=-1)[..., :visible]
