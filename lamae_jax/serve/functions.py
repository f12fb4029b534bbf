"""What a model gives, as pure functions of parameters and signal, for people who write their own JAX.

B records, L leads, S samples, T = S / P patches a lead, D width, C labels. `counts` are int16, 1 uV each, as
`signal.contract.condition` and stores give them; `x` is in the model's units, as `model.inputs.model_input` gives it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lamae_jax.artifact.head import logits
from lamae_jax.errors import UserError
from lamae_jax.evaluate.features import few_at_a_time
from lamae_jax.model.inputs import InputConfig, crop, model_input
from lamae_jax.model.lamae import Params, encode, reconstruct
from lamae_jax.model.masking import Masks
from lamae_jax.model.presets import READOUTS, ModelConfig
from lamae_jax.model.readouts import Tokens, readout


def summary_readout(config: ModelConfig) -> str:
    """Which readout `cls` is: LA's CLS; in a model where it never learned, or that has no LA, the first that it can give."""
    for name in READOUTS:
        try:
            config.check_readout(name)
            return name
        except UserError:
            continue
    raise AssertionError("every model has encoder_mean")


def _encoded(config: ModelConfig, params: Params, x: jax.Array, available: jax.Array) -> Tokens:
    """What the model encodes, float32. The parameters of a loaded model are numpy arrays, which a tracer can't index."""
    tokens = encode(config, jax.tree.map(jnp.asarray, params), jnp.asarray(x), jnp.asarray(available))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tokens)


def embed(config: ModelConfig, params: Params, x: jax.Array, available: jax.Array) -> dict[str, jax.Array]:
    """`x [B, L, S]` with leads `available [B, L]` -> `cls [B, D]`, `leads [B, L, D]`, `tokens [B, L, T, D]`, float32.

    After latent attention where the model has it, else after the encoder. An unavailable lead's are NaN: it has none.
    """
    tokens = _encoded(config, params, x, available)
    return summarise(config, tokens, available)


def summarise(config: ModelConfig, tokens: Tokens, available: jax.Array) -> dict[str, jax.Array]:
    """`embed`'s three arrays from what the model encoded."""
    leads = tokens.encoder_cls if tokens.la_leads is None else tokens.la_leads
    patches = tokens.encoder if tokens.la is None else tokens.la
    there = jnp.asarray(available)[..., None]
    return {
        "cls": readout(tokens, summary_readout(config), available),
        "leads": jnp.where(there, leads, jnp.nan),
        "tokens": jnp.where(there[..., None], patches, jnp.nan),
    }


def predict(
    config: ModelConfig, params: Params, head: dict[str, jax.Array], name: str, x: jax.Array, available: jax.Array
) -> dict[str, jax.Array]:
    """Probabilities `[B, C]` that the arrays of a `head` (artifact/head.py) give to the readout `name`."""
    tokens = _encoded(config, params, x, available)
    return {"probabilities": jax.nn.sigmoid(logits(head, readout(tokens, name, available), available))}


@partial(jax.jit, static_argnames=("config", "inputs"))
def embed_counts(
    params: Params, counts: jax.Array, available: jax.Array, *, config: ModelConfig, inputs: InputConfig
) -> dict[str, jax.Array]:
    """`embed` of `counts [B, L, S']`, longer ones cut to their middle."""

    def some(part: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        x, _ = model_input(crop(part[0], config.samples), part[1], inputs)
        return embed(config, params, x, part[1])

    return few_at_a_time(some, (counts, available))


@partial(jax.jit, static_argnames=("config", "inputs", "name"))
def predict_counts(
    params: Params,
    head: dict[str, jax.Array],
    counts: jax.Array,
    available: jax.Array,
    *,
    config: ModelConfig,
    inputs: InputConfig,
    name: str,
) -> dict[str, jax.Array]:
    """`predict` of `counts [B, L, S']`."""

    def some(part: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
        x, _ = model_input(crop(part[0], config.samples), part[1], inputs)
        return predict(config, params, head, name, x, part[1])

    return few_at_a_time(some, (counts, available))


@partial(jax.jit, static_argnames=("config", "inputs"))
def reconstruct_counts(
    params: Params, counts: jax.Array, available: jax.Array, masks: Masks, *, config: ModelConfig, inputs: InputConfig
) -> dict[str, jax.Array]:
    """Every lead's `signal [B, L, S]` in mV about its mean, from what `masks` (model/masking.py) show of `counts [B, L, S]`.

    `available [B, L]` are the leads that show anything: mean and scale are theirs, so that nothing of a hidden lead gets
    through. The others take part as hidden leads do in pretraining: by a CLS token that says which lead it is.
    """

    def some(part: Any) -> dict[str, jax.Array]:
        counts, available, masks = part
        x, scale = model_input(counts, available, inputs)
        patches = reconstruct(config, params, x, masks, jnp.ones_like(available))
        if inputs.normalisation == "lead":  # what a hidden lead's own scale is, nobody knows: the mean of the others'
            there = available[..., None]
            mean = jnp.sum(scale * there, axis=1, keepdims=True) / jnp.sum(there, axis=1, keepdims=True)
            scale = jnp.where(there, scale, mean)
        return {"signal": patches.reshape(x.shape) * scale}

    return few_at_a_time(some, (counts, available, masks))
