"""The latent-attention masked autoencoder, in the symbols of the paper's section 2.

B records, L leads, S samples, P samples a patch, T = S / P patches a lead, K visible patches a lead, n hidden leads,
M patch tokens that enter latent attention, D width, D' decoder width.

    x [B, L, S] -> patches [B, L, T, P] -> M_E -> E_phi -> z [B, L, 1+K, D] -> M_LA -> LA -> Z_out -> D_theta -> [B, L, T, P]

The model is a pure function: masks come in as data (model/masking.py), nothing is drawn here, no argument changes what a
method returns. Tokens of unavailable leads are masked out of every attention that other leads see.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from lamae_jax.model.layers import Placement, inverse_of, select_rows
from lamae_jax.model.masking import Masks, nothing_hidden
from lamae_jax.model.presets import ModelConfig
from lamae_jax.model.readouts import Tokens
from lamae_jax.model.stages import LatentAttention, LeadDecoder, LeadEncoder, small_normal

Params = dict[str, Any]


@struct.dataclass
class Seen:
    """E's tokens of the visible patches, each at its place, zero elsewhere; all `[B, L, T, D]`.

    With a posterior `mean` and `log_variance` say what E knows and `sample` is what D read; without, both are the token itself.
    """

    mean: jax.Array
    log_variance: jax.Array | None
    sample: jax.Array


def patches_of(x: jax.Array, patch: int) -> jax.Array:
    """`x [B, L, S]` -> `[B, L, T, P]`."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // patch, patch)


def _over_leads(module: type[nn.Module], in_axes: tuple[int | None, ...]) -> Any:
    """One module for all leads: the same parameters, lifted over axis 1 of its inputs and outputs."""
    return nn.vmap(module, in_axes=in_axes, out_axes=1, variable_axes={"params": None}, split_rngs={"params": False})


class LAMAE(nn.Module):
    """E_phi, M_LA, LA and D_theta. `reconstruct` is pretraining's forward pass, `tokens` what readouts are made of."""

    config: ModelConfig
    place: Placement | None = None

    def setup(self) -> None:
        config = self.config
        self.encoder = _over_leads(LeadEncoder, (1, 1, 1, None))(config, self.place)
        if config.latent_depth:
            self.latent_attention = LatentAttention(config, self.place)
        if config.posterior:
            self.posterior = nn.Dense(2 * config.width, dtype=jnp.dtype(config.dtype))
        self.to_decoder = nn.Dense(
            config.decoder_width, dtype=jnp.dtype(config.dtype), kernel_init=nn.initializers.xavier_uniform()
        )
        self.mask_token = self.param("mask_token", small_normal, (config.decoder_width,))
        self.decoder = _over_leads(LeadDecoder, (1, 1, 1))(config, self.place)

    def reconstruct(
        self, x: jax.Array, masks: Masks, available: jax.Array, lead_ids: jax.Array, decoded: jax.Array | None = None
    ) -> jax.Array:
        """Predict every patch of every lead from the visible ones: `[B, L, T, P]` float32.

        `x [B, L, S]` in the model's units, `masks` as drawn by draw_masks, `available [B, L]`; `lead_ids [L]` says which
        lead each row is. With `decoded [B, n]` only those rows are predicted, `[B, n, T, P]`.
        """
        lead_cls, seen = self._encode(x, masks, lead_ids)  # [B, L, D], [B, (L-n)K, D]
        return self._decode(lead_cls, self._mean(seen), masks, available, lead_ids, decoded)

    def reconstruct_and_seen(
        self,
        x: jax.Array,
        masks: Masks,
        available: jax.Array,
        lead_ids: jax.Array,
        decoded: jax.Array | None,
        noise: jax.Array | None,
    ) -> tuple[jax.Array, Seen]:
        """`reconstruct`, and what an alignment of the leads compares: E's tokens, each at its lead and time.

        With `config.posterior` D reads a sample of the posterior, made with standard normal `noise [B, (L-n)K, D]`.
        """
        records, leads, _ = x.shape
        lead_cls, seen = self._encode(x, masks, lead_ids)
        mean, log_variance, sample = seen, None, seen
        if noise is not None:
            mean, log_variance = self._posterior(seen)
            sample = mean + jnp.exp(0.5 * log_variance) * noise.astype(mean.dtype)
        place = places(masks, self.config.patches)
        source = inverse_of(place, leads * self.config.patches)

        def at_its_place(tokens: jax.Array) -> jax.Array:
            return select_rows(tokens, source, place).reshape(records, leads, self.config.patches, -1)

        spread = None if log_variance is None else at_its_place(log_variance)
        placed = Seen(at_its_place(mean), spread, at_its_place(sample))
        return self._decode(lead_cls, sample, masks, available, lead_ids, decoded), placed

    def tokens(self, x: jax.Array, available: jax.Array, lead_ids: jax.Array, keep: jax.Array | None = None) -> Tokens:
        """Encode with nothing hidden: what readouts are made of. Arguments as in `reconstruct`.

        `keep [E + LA depth, B]` lets records skip blocks in fine-tuning (model/layers.py, Transformer).
        """
        records, leads, _ = x.shape
        masks = nothing_hidden(records, leads, self.config.patches)
        mine, latent = (None, None) if keep is None else jnp.split(keep, [self.config.encoder_depth])
        lead_cls, seen = self._encode(x, masks, lead_ids, mine)
        seen = self._mean(seen)
        encoder = seen.reshape(records, leads, self.config.patches, -1)
        if not self.config.latent_depth:
            return Tokens(lead_cls, encoder, None, None, None)
        place = places(masks, self.config.patches)
        cls, la_leads, la = self._latent(lead_cls, seen, place, available, latent)
        return Tokens(lead_cls, encoder, cls, la_leads, la.reshape(encoder.shape))

    def _posterior(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of a Gaussian for each of E's tokens."""
        mean, log_variance = jnp.split(self.posterior(tokens), 2, axis=-1)
        return mean, jnp.clip(log_variance, -10.0, 2.0)  # a variance of 0 or of millions ends a training

    def _mean(self, tokens: jax.Array) -> jax.Array:
        return self._posterior(tokens)[0] if self.config.posterior else tokens

    def _encode(
        self, x: jax.Array, masks: Masks, lead_ids: jax.Array, keep: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """E_phi over the visible patches: every lead's CLS `[B, L, D]` and the shown leads' tokens `[B, (L-n)K, D]`."""
        records, leads, _ = x.shape
        patches = patches_of(x, self.config.patch)
        shown = masks.leads.shape[1]
        ids = jnp.broadcast_to(lead_ids, (records, leads))
        if shown < leads:
            patches = jnp.take_along_axis(patches, masks.leads[..., None, None], axis=1)
        if masks.visible.shape[-1] < self.config.patches:
            patches = jnp.take_along_axis(patches, masks.visible[..., None], axis=2)  # [B, L-n, K, P]
        z = self.encoder(
            patches, masks.visible, jnp.take_along_axis(ids, masks.leads, axis=1), keep
        )  # [B, L-n, 1+K, D]
        lead_cls, tokens = z[:, :, 0], z[:, :, 1:].reshape(records, -1, self.config.width)
        if shown == leads:
            return lead_cls, tokens
        # A hidden lead sends its CLS alone through E: no patch, only which lead it is.
        is_shown = inverse_of(masks.leads, leads)  # [B, L], L-n where hidden
        hidden = jax.lax.top_k((is_shown == shown).astype(jnp.int32), leads - shown)[1]  # [B, n], ascending
        none = jnp.zeros((records, leads - shown, 0, self.config.patch), x.dtype)
        alone = self.encoder(none, jnp.zeros(none.shape[:3], jnp.int32), jnp.take_along_axis(ids, hidden, axis=1), keep)
        both = jnp.concatenate([lead_cls, alone[:, :, 0]], axis=1)
        order = jnp.concatenate([masks.leads, hidden], axis=1)
        return select_rows(both, inverse_of(order, leads), order), tokens

    def _decode(
        self,
        lead_cls: jax.Array,
        seen: jax.Array,
        masks: Masks,
        available: jax.Array,
        lead_ids: jax.Array,
        decoded: jax.Array | None,
    ) -> jax.Array:
        """From what E gave to every patch of every lead, or of the leads `decoded`."""
        records, leads, _ = lead_cls.shape
        place = places(masks, self.config.patches)  # [B, (L-n)K] into L*T
        cls, lead_cls, tokens, place = self._mix(lead_cls, seen, place, masks.kept, available)

        # What D reads crosses to its width first, so that the mask token and the selection live in the narrower one.
        summary = lead_cls[:, :, None]  # [B, L, 1, D]
        if cls is not None:
            shared = jnp.broadcast_to(cls[:, None, None], (records, leads, 1, cls.shape[-1]))
            summary = jnp.concatenate([shared, summary], axis=2)
        tokens = self.to_decoder(tokens)
        source = inverse_of(place, leads * self.config.patches)  # [B, L*T]: which token stands there
        missing = (source == tokens.shape[1])[..., None]
        canvas = select_rows(tokens, source, place)
        canvas = jnp.where(missing, self.mask_token.astype(tokens.dtype)[None, None], canvas)
        canvas = canvas.reshape(records, leads, self.config.patches, -1)
        lead_ids = jnp.broadcast_to(lead_ids, (records, leads))
        if decoded is not None:
            summary, canvas = (
                jnp.take_along_axis(part, decoded[..., None, None], axis=1) for part in (summary, canvas)
            )
            lead_ids = jnp.take_along_axis(lead_ids, decoded, axis=1)
        return self.decoder(self.to_decoder(summary), canvas, lead_ids)

    def _mix(
        self, lead_cls: jax.Array, seen: jax.Array, place: jax.Array, kept: jax.Array, available: jax.Array
    ) -> tuple[jax.Array | None, jax.Array, jax.Array, jax.Array]:
        """M_LA and LA, and which of their results D reads: CLS, lead CLS tokens, patch tokens and their places."""
        reads = self.config.decoder_reads
        if not self.config.latent_depth:
            return None, lead_cls, seen, place
        tokens, kept_place = seen, place
        if kept.shape[1] < seen.shape[1]:
            tokens = select_rows(seen, kept, inverse_of(kept, seen.shape[1]))
            kept_place = jnp.take_along_axis(place, kept, axis=1)
        cls, la_leads, la = self._latent(lead_cls, tokens, kept_place, available)
        if reads == "cls_only":
            return cls, lead_cls, seen, place
        return (cls if reads == "tokens_and_cls" else None), la_leads, la, kept_place

    def _latent(
        self,
        lead_cls: jax.Array,
        tokens: jax.Array,
        place: jax.Array,
        available: jax.Array,
        keep: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """LA over tokens that stand at `place [B, M]` of the L*T patches."""
        patches = self.config.patches
        shown = jnp.concatenate([available, jnp.take_along_axis(available, place // patches, axis=1)], axis=1)
        return self.latent_attention(lead_cls, tokens, place % patches, shown, keep)


def places(masks: Masks, patches: int) -> jax.Array:
    """`[B, (L-n)K]`: where each visible patch stands among the record's L*T."""
    return (masks.leads[..., None] * patches + masks.visible).reshape(masks.visible.shape[0], -1)


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Draw the parameters: a nested dict of float32 arrays. Call it inside jit (it is slow outside)."""
    x = jnp.zeros((1, config.leads, config.samples), jnp.float32)
    masks = nothing_hidden(1, config.leads, config.patches)
    available = jnp.ones((1, config.leads), bool)
    variables = LAMAE(config).init(key, x, masks, available, jnp.arange(config.leads), method="reconstruct")
    return variables["params"]


def first_params(config: ModelConfig, seed: int) -> Params:
    """The parameters that a pretraining of this seed starts from, and so the model that it is to be compared with untrained.

    Call it inside jit, as `init_params`.
    """
    return init_params(config, jax.random.fold_in(jax.random.key(seed), 0))


def reconstruct(
    config: ModelConfig,
    params: Params,
    x: jax.Array,
    masks: Masks,
    available: jax.Array,
    place: Placement | None = None,
    decoded: jax.Array | None = None,
) -> jax.Array:
    """`LAMAE.reconstruct` as a function of params, for leads in the contract's order: `[B, L, T, P]` float32.

    With `decoded [B, n]` only those leads, `[B, n, T, P]`. On several devices `place` keeps each block's tokens where their
    records are.
    """
    lead_ids = jnp.arange(config.leads)
    out = LAMAE(config, place).apply({"params": params}, x, masks, available, lead_ids, decoded, method="reconstruct")
    return out  # type: ignore[return-value]


def reconstruct_and_seen(
    config: ModelConfig,
    params: Params,
    x: jax.Array,
    masks: Masks,
    available: jax.Array,
    place: Placement | None = None,
    decoded: jax.Array | None = None,
    noise: jax.Array | None = None,
) -> tuple[jax.Array, Seen]:
    """`LAMAE.reconstruct_and_seen` as a function of params."""
    lead_ids = jnp.arange(config.leads)
    out = LAMAE(config, place).apply(
        {"params": params}, x, masks, available, lead_ids, decoded, noise, method="reconstruct_and_seen"
    )
    return out  # type: ignore[return-value]


def encode(
    config: ModelConfig, params: Params, x: jax.Array, available: jax.Array, keep: jax.Array | None = None
) -> Tokens:
    """`LAMAE.tokens` as a function of params, for leads in the contract's order."""
    out = LAMAE(config).apply({"params": params}, x, available, jnp.arange(config.leads), keep, method="tokens")
    return out  # type: ignore[return-value]
