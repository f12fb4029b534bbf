"""The analytic count against XLA's own, and against a count by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from lamae_jax.model.flops import block_flops, forward_flops, training_flops
from lamae_jax.model.lamae import init_params, reconstruct
from lamae_jax.model.masking import MaskConfig, draw_leads, draw_masks
from lamae_jax.model.presets import ModelConfig

MODEL = ModelConfig(
    width=64, heads=2, encoder_depth=1, latent_depth=1, decoder_width=64, decoder_heads=2, decoder_depth=1,
    samples=400, patch=20,
)  # fmt: skip


def test_by_hand() -> None:
    """T = 20, K = 5, M = 54: per lead 6 tokens in E, 67 in LA, 22 in D; embedding, head and the projection beside them."""
    block = 12 * block_flops(6, 64) + block_flops(67, 64) + 12 * block_flops(22, 64)
    rest = 2 * 60 * 20 * 64 + 2 * 12 * 20 * 64 * 20 + 2 * (24 + 54) * 64 * 64
    assert forward_flops(MODEL, MaskConfig()) == block + rest
    assert training_flops(MODEL, MaskConfig()) == 3 * (block + rest)


@pytest.mark.parametrize("hidden_leads, decode_leads", [(0, 0), (4, 0), (0, 5)])
def test_is_what_xla_counts_in_matrix_products(hidden_leads: int, decode_leads: int) -> None:
    masks_of = MaskConfig(hidden_leads=hidden_leads)
    available = jnp.ones((4, 12), bool)

    def forward(params, x):  # noqa: ANN001, ANN202
        masks = draw_masks(jax.random.key(0), available, MODEL.patches, masks_of)
        decoded = draw_leads(jax.random.key(1), 4, 12, decode_leads) if decode_leads else None
        return reconstruct(MODEL, params, x, masks, available, decoded=decoded)

    params = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0)))
    x = jax.ShapeDtypeStruct((4, 12, 400), jnp.float32)
    cost = jax.jit(forward).lower(params, x).compile().cost_analysis()
    assert cost["flops"] / 4 == pytest.approx(
        forward_flops(MODEL, masks_of, decode_leads), rel=0.15
    )  # the rest is norms, softmax, GELU
