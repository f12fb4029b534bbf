"""Where CLS looks: the weights are the model's own, and mean what they say."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.errors import UserError
from lamae_jax.model.lamae import Params, encode, init_params
from lamae_jax.model.layers import Block
from lamae_jax.model.presets import ModelConfig
from lamae_jax.serve.explain.attention import Looks, block_with_weights, cls_looks, latent_weights

SMALL = ModelConfig(
    width=16, heads=2, encoder_depth=1, latent_depth=2, decoder_width=16, decoder_heads=2, decoder_depth=1,
    samples=60, patch=10,
)  # fmt: skip
B, L, T = 2, 12, 6
X = jax.random.normal(jax.random.key(1), (B, L, 60))
ALL = jnp.ones((B, L), bool)
weights_of = jax.jit(latent_weights, static_argnums=0)
both_of = jax.jit(lambda *given: (latent_weights(*given), encode(*given)), static_argnums=0)
looks_of = jax.jit(cls_looks, static_argnums=0)


@functools.cache
def params_of(config: ModelConfig) -> Params:
    """Parameters with every array away from its initial value, so that no part is without effect by chance."""
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def without(*leads: int) -> jax.Array:
    return ALL.at[:, list(leads)].set(False)


@pytest.mark.parametrize("changes", [{}, {"positions": "sincos", "qk_norm": True}], ids=str)
def test_the_layers_end_where_the_model_ends(changes: dict[str, object]) -> None:
    """The tokens after the last layer, normalised, are the CLS, lead and patch tokens that `encode` gives."""
    config = dataclasses.replace(SMALL, **changes)
    params, available = params_of(config), without(3)
    ours, encoded = both_of(config, params, X, available)
    tokens, _ = ours
    norm = params["latent_attention"]["transformer"]["norm"]
    deviation = jnp.sqrt(tokens.var(axis=-1, keepdims=True) + 1e-6)
    normed = (tokens - tokens.mean(axis=-1, keepdims=True)) / deviation * norm["scale"][None, None] + norm["bias"][
        None, None
    ]
    np.testing.assert_allclose(normed[:, 0], encoded.la_cls, atol=1e-5)
    np.testing.assert_allclose(normed[:, 1 : 1 + L], encoded.la_leads, atol=1e-5)
    np.testing.assert_allclose(normed[:, 1 + L :].reshape(B, L, T, -1), encoded.la, atol=1e-5)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_weights_times_values_are_what_the_attention_of_the_model_gives(qk_norm: bool) -> None:
    config = dataclasses.replace(SMALL, qk_norm=qk_norm)
    block = jax.tree.map(lambda leaf: leaf[1], params_of(config)["latent_attention"]["transformer"]["layers"])
    x = jax.random.normal(jax.random.key(3), (B, 9, 16))
    shown = jnp.arange(9)[None].repeat(B, axis=0) != 4

    @jax.jit
    def run(x: jax.Array) -> tuple[jax.Array, Any]:
        _, weights = block_with_weights(config, block, x, None, shown)
        _, inside = Block(2, qk_norm, jnp.float32, None).apply(
            {"params": block}, x, None, shown, None, capture_intermediates=True, mutable=["intermediates"]
        )
        return weights, inside

    weights, inside = run(x)
    made = inside["intermediates"]["attention"]
    value = made["qkv"]["__call__"][0][..., 2, :, :]  # [B, N, H, Dh]
    out = block["attention"]["out"]
    mixed = jnp.einsum("bhnm,bmhd,hde->bne", weights, value, out["kernel"]) + out["bias"][None, None]
    np.testing.assert_allclose(mixed, made["__call__"][0], atol=1e-5)
    assert np.all(np.asarray(weights)[..., 4] == 0)


def test_a_lead_that_is_not_there_is_not_looked_at() -> None:
    available = without(2, 7)
    for row in looks_of(SMALL, params_of(SMALL), X, available):
        row = np.asarray(row)
        assert np.all(row[:, [2, 7]] == 0) and np.all(row[:, [0, 1, 3]] > 0)
        assert row.shape == (B, L, 1 + T)


def test_what_cls_gives_to_leads_and_keeps_for_itself_is_all() -> None:
    _, layers = weights_of(SMALL, params_of(SMALL), X, ALL)
    first, second = (np.asarray(weights).mean(axis=1) for weights in layers)
    last, rollout = (np.asarray(row) for row in looks_of(SMALL, params_of(SMALL), X, ALL))
    np.testing.assert_allclose(last.sum(axis=(1, 2)) + second[:, 0, 0], 1, atol=1e-5)
    # Rollout by hand: half of each layer's output came in, half was attended to (Abnar and Zuidema 2020).
    through = [0.5 * np.eye(second.shape[1]) + 0.5 * each for each in (first, second)]
    by_hand = (through[1] @ through[0])[:, 0]
    np.testing.assert_allclose(rollout[:, :, 0], by_hand[:, 1 : 1 + L], atol=1e-6)
    np.testing.assert_allclose(rollout[:, :, 1:].reshape(B, -1), by_hand[:, 1 + L :], atol=1e-6)


def test_shares_of_the_leads_add_up_to_one() -> None:
    for shares in Looks(*looks_of(SMALL, params_of(SMALL), X, without(5))).shares():
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
        assert np.all(shares[:, 5] == 0)


def test_independent_leads_have_no_cls_to_ask() -> None:
    config = dataclasses.replace(SMALL, latent_depth=0)
    with pytest.raises(UserError, match="latent_depth=0"):
        latent_weights(config, params_of(config), X, ALL)
