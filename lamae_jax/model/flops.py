"""How much arithmetic a record costs, counted over the tokens that are really processed."""

from __future__ import annotations

from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import ModelConfig


def block_flops(tokens: int, width: int) -> int:
    """A transformer block over so many tokens, forward: 24 N D^2 for its matrices, 4 N^2 D for attention."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def forward_flops(model: ModelConfig, masks: MaskConfig, decode_leads: int = 0) -> int:
    """One record's forward pass of pretraining, multiply and add counted as two; `decode_leads` 0 = all are decoded."""
    leads, patches = model.leads, model.patches
    shown, hidden = masks.shown_leads(leads), masks.hidden_leads
    visible, kept = masks.visible_patches(patches), masks.kept_tokens(leads, patches)
    embed = 2 * shown * visible * model.patch * model.width
    encoder = shown * block_flops(1 + visible, model.width) + hidden * block_flops(1, model.width)
    latent = block_flops(1 + leads + kept, model.width)
    summary = 2 if model.latent_depth and model.decoder_reads != "tokens" else 1
    read = kept if model.latent_depth and model.decoder_reads != "cls_only" else shown * visible
    decoded = decode_leads or leads
    project = 2 * (summary * decoded + read) * model.width * model.decoder_width
    decoder = decoded * block_flops(summary + patches, model.decoder_width)
    head = 2 * decoded * patches * model.decoder_width * model.patch
    blocks = model.encoder_depth * encoder + model.latent_depth * latent + model.decoder_depth * decoder
    return embed + blocks + project + head


def training_flops(model: ModelConfig, masks: MaskConfig, decode_leads: int = 0) -> int:
    """One record's update: the backward pass costs twice the forward one. Recomputation (remat) is not counted."""
    return 3 * forward_flops(model, masks, decode_leads)
