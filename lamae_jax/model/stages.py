"""The three stages of LAMAE as Flax modules: E_phi and D_theta for one lead, LA over all leads.

Letters as in model/lamae.py, which says how data flows through them.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from lamae_jax.model.layers import Placement, Transformer, rotation, sincos_table
from lamae_jax.model.presets import ModelConfig

small_normal = nn.initializers.normal(0.02)


def _transformer(config: ModelConfig, place: Placement | None, depth: int, heads: int, name: str) -> Transformer:
    # Layers written out run faster than in a loop (docs/speed.md); many of them would take the compiler long. With remat the loop
    # must stay: written out, the compiler would find the recomputed blocks equal to the first ones and keep those after all.
    unroll = depth <= 8 and not config.remat
    return Transformer(depth, heads, config.qk_norm, config.remat, unroll, jnp.dtype(config.dtype), place, name=name)


class LeadEncoder(nn.Module):
    """E_phi for the visible patches of one lead."""

    config: ModelConfig
    place: Placement | None = None

    @nn.compact
    def __call__(self, patches: jax.Array, times: jax.Array, lead_ids: jax.Array, keep: jax.Array | None) -> jax.Array:
        """`patches [B, K, P]` at `times [B, K]` of leads `lead_ids [B]` -> `z_l [B, 1+K, D]`, the lead's CLS first."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        width = config.width
        init = nn.initializers.xavier_uniform()
        tokens = nn.Dense(width, dtype=dtype, kernel_init=init, name="patch_embedding")(patches)
        if config.positions != "rotary":
            tokens = tokens + jnp.asarray(sincos_table(config.patches, width), dtype)[times]
        cls = self.param("cls", small_normal, (width,))
        lead = self.param("lead_embedding", small_normal, (config.leads, width))[lead_ids]
        cls = jnp.broadcast_to(cls, (patches.shape[0], 1, width)).astype(dtype)
        tokens = jnp.concatenate([cls, tokens], axis=1) + lead[:, None].astype(dtype)
        turn = None
        if config.positions != "sincos":
            turn = rotation(jnp.pad(times, ((0, 0), (1, 0))), width // config.heads)  # CLS at time 0
        return _transformer(config, self.place, config.encoder_depth, config.heads, "transformer")(
            tokens, turn, keep=keep
        )


class LatentAttention(nn.Module):
    """LA: self-attention over the kept tokens of all leads together, with a CLS of its own (paper, eq. 1)."""

    config: ModelConfig
    place: Placement | None = None

    @nn.compact
    def __call__(
        self, lead_cls: jax.Array, tokens: jax.Array, times: jax.Array, shown: jax.Array, keep: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`lead_cls [B, L, D]`, `tokens [B, M, D]` at `times [B, M]`, `shown [B, L+M]` -> CLS `[B, D]`, and the first two."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        records, leads, width = lead_cls.shape
        cls = jnp.broadcast_to(self.param("cls", small_normal, (width,)), (records, 1, width)).astype(dtype)
        x = jnp.concatenate([cls, lead_cls, tokens], axis=1)
        turn = None
        if config.positions != "sincos":
            turn = rotation(jnp.pad(times, ((0, 0), (1 + leads, 0))), width // config.heads)
        shown = jnp.pad(shown, ((0, 0), (1, 0)), constant_values=True)
        x = _transformer(config, self.place, config.latent_depth, config.heads, "transformer")(x, turn, shown, keep)
        return x[:, 0], x[:, 1 : 1 + leads], x[:, 1 + leads :]


class LeadDecoder(nn.Module):
    """D_theta for one lead."""

    config: ModelConfig
    place: Placement | None = None

    @nn.compact
    def __call__(self, summary: jax.Array, tokens: jax.Array, lead_ids: jax.Array) -> jax.Array:
        """`summary [B, c, D']` (CLS tokens), `tokens [B, T, D']` (mask tokens filled in), `lead_ids [B]` -> `[B, T, P]`."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        width, extra = config.decoder_width, summary.shape[1]
        if config.positions != "rotary":
            tokens = tokens + jnp.asarray(sincos_table(config.patches, width), dtype)[None]
        lead = self.param("lead_embedding", small_normal, (config.leads, width))[lead_ids]
        x = jnp.concatenate([summary, tokens], axis=1) + lead[:, None].astype(dtype)
        turn = None
        if config.positions != "sincos":
            turn = rotation(jnp.pad(jnp.arange(config.patches), (extra, 0))[None], width // config.decoder_heads)
        x = _transformer(config, self.place, config.decoder_depth, config.decoder_heads, "transformer")(x, turn)
        # The head works in the compute dtype; the prediction leaves it as float32.
        head = nn.Dense(config.patch, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name="head")
        return head(x[:, extra:]).astype(jnp.float32)
