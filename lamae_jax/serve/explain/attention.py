"""How latent attention's CLS looks over leads and time.

B records, L leads, T patches a lead, N = 1 + L + L T tokens of latent attention (its CLS, each lead's CLS, all patches), H heads.
Nothing here imitates the model: each layer is run by the model's own block with the model's own parameters, and the weights
are made of the queries and keys that this block gave out.

What is attended to are tokens of the encoder, which have looked along their own lead already: a bright patch says where the token
stands, and that CLS reads it, not that these samples alone made it what it is.
"""

from __future__ import annotations

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
from lamae_jax.model.inputs import InputConfig, crop, model_input
from lamae_jax.model.lamae import Params, encode
from lamae_jax.model.layers import Block, Rotation, rotate, rotation
from lamae_jax.model.presets import ModelConfig
from lamae_jax.progress import Progress


class Looks(NamedTuple):
    """How much of CLS's attention each token takes, [B, L, 1+T]: a lead's own CLS first, then its patches.

    `last`: in the last layer, mean over heads. `rollout`: through all layers of latent attention (Abnar and Zuidema 2020). What
    CLS keeps for itself is left out, so a record's sum is below 1.
    """

    last: np.ndarray
    rollout: np.ndarray

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """What each lead takes of what all leads take, [B, L] each (last, rollout)."""
        by_lead = (np.asarray(each).sum(axis=2) for each in self)
        last, rollout = (each / each.sum(axis=1, keepdims=True) for each in by_lead)
        return last, rollout


def block_with_weights(
    config: ModelConfig, params: Params, x: jax.Array, turn: Rotation | None, shown: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One block of latent attention over tokens `x [B, N, D]`, and its attention weights `[B, H, N, N]` float32.

    `params` are the block's; `shown [B, N]`: which tokens may be attended to.
    """
    dtype = jnp.dtype(config.dtype)
    block = Block(config.heads, config.qk_norm, dtype, None)
    (out, _), inside = block.apply(
        {"params": params}, x, turn, shown, None, capture_intermediates=True, mutable=["intermediates"]
    )
    made = inside["intermediates"]["attention"]
    (qkv,) = made["qkv"]["__call__"]  # [B, N, 3, H, Dh]
    query, key = (jnp.swapaxes(qkv[..., i, :, :], -2, -3) for i in range(2))
    if config.qk_norm:
        ((query,), (key,)) = (made[name]["__call__"] for name in ("query_norm", "key_norm"))
    if turn is not None:
        query, key = rotate(query, turn), rotate(key, turn)
    query = query * jnp.asarray(query.shape[-1] ** -0.5, query.dtype)
    scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)
    return out, jax.nn.softmax(jnp.where(shown[:, None, None, :], scores, -jnp.inf), axis=-1)


def latent_weights(
    config: ModelConfig, params: Params, x: jax.Array, available: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """Latent attention's tokens after its last block `[B, N, D]`, and every layer's weights `[B, H, N, N]`.

    `x [B, L, S]` in the model's units, leads `available [B, L]`. Raises UserError for a model without latent attention.
    """
    if not config.latent_depth:
        raise UserError("this model has no latent attention (latent_depth=0): there is no CLS that looks over leads")
    records, leads, _ = x.shape
    encoded = encode(config, params, x, available)
    stage = params["latent_attention"]
    cls = jnp.broadcast_to(stage["cls"], (records, 1, config.width)).astype(encoded.encoder_cls.dtype)
    patches = encoded.encoder.reshape(records, leads * config.patches, config.width)
    tokens = jnp.concatenate([cls, encoded.encoder_cls, patches], axis=1)
    turn = None
    if config.positions != "sincos":
        times = jnp.concatenate([jnp.zeros(1 + leads, jnp.int32), jnp.tile(jnp.arange(config.patches), leads)])
        turn = rotation(jnp.broadcast_to(times, (records, len(times))), config.width // config.heads)
    own = jnp.ones((records, 1), bool)
    shown = jnp.concatenate([own, available, jnp.repeat(available, config.patches, axis=1)], axis=1)
    weights = []
    for layer in range(config.latent_depth):
        block = jax.tree.map(lambda leaf: leaf[layer], stage["transformer"]["layers"])  # noqa: B023
        tokens, of_layer = block_with_weights(config, block, tokens, turn, shown)
        weights.append(of_layer)
    return tokens, weights


def cls_looks(config: ModelConfig, params: Params, x: jax.Array, available: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`Looks` of `x [B, L, S]`, as a pure function. Raises UserError as `latent_weights` does."""
    records, leads, _ = x.shape
    _, layers = latent_weights(config, params, x, available)
    mean = [weights.mean(axis=1) for weights in layers]  # [B, N, N]
    # What CLS holds in the end, traced back: half of each layer's output is what came in, half what was attended to.
    row = jnp.zeros((records, mean[0].shape[1])).at[:, 0].set(1.0)
    for weights in reversed(mean):
        row = 0.5 * row + 0.5 * jnp.einsum("bn,bnm->bm", row, weights)

    def by_lead(row: jax.Array) -> jax.Array:
        patches = row[:, 1 + leads :].reshape(records, leads, config.patches)
        return jnp.concatenate([row[:, 1 : 1 + leads, None], patches], axis=2)

    return by_lead(mean[-1][:, 0]), by_lead(row)


@partial(jax.jit, static_argnames=("config", "inputs"))
def _looks(
    params: Params, counts: jax.Array, available: jax.Array, config: ModelConfig, inputs: InputConfig
) -> tuple[jax.Array, jax.Array]:
    def of_one(one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        counts, available = (part[None] for part in one)
        x, _ = model_input(crop(counts, config.samples), available, inputs)
        last, rollout = cls_looks(config, params, x, available)
        return last[0], rollout[0]

    # Weights between all tokens of a record are megabytes: few records at a time, on any device.
    return jax.lax.map(of_one, (counts, available), batch_size=CPU_RECORDS)


def look(model: Model, store: Store, rows: np.ndarray, batch_size: int, label: str) -> Looks:
    """The `Looks` of the store's `rows` [n], in their order. Raises UserError as `latent_weights` does."""
    params = jax.device_put(model.params)
    progress = Progress(len(rows), "ECG", label)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    done = 0
    with eval_batches([store], [rows], batch_size) as batches:
        for batch in batches:
            made = _looks(params, batch["counts"], batch["available"], model.config, model.inputs)
            count = min(batch_size, len(rows) - done)
            parts.append(tuple(part[:count] for part in jax.device_get(made)))  # type: ignore[arg-type]
            done += count
            progress.update(done)
    progress.close()
    last, rollout = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Looks(last, rollout)
