"""The attention probe: one learned query looks over a frozen model's tokens, a linear head reads what it gathers.

B records, L leads, T patches, D width, H heads, C labels, V strengths of the penalty. The query [H, D] is what remains of
multi-head attention with a single query once its key projection is folded in; head h gathers the h-th slice of the tokens, so
that the gathered vector is as wide as any other readout (D). Query and head are learned together for the whole label set, at
every strength at once; strength and number of epochs are those that do best on validation.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import Prediction
from lamae_jax.progress import Progress

L2_VALUES = (1e-4, 1e-3, 1e-2, 1e-1)
RATE = 3e-3  # Adam's peak; a cosine brings it to 1 %
BATCH = 64
EPOCHS, FEWEST_STEPS = 20, 1000
ROUNDS = 20  # looks at the validation records on the way
SCALED_BY = 1024  # training records that tokens are standardised on

Probe = dict[str, jax.Array]  # query [H, D], weights [D, C], bias [C]


class Rows(Protocol):
    """Arrays by record, in memory or on disk: `rows[index]` for an index [n] gives [n, L, T, D]."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: np.ndarray, /) -> np.ndarray: ...


class TokenExamples(NamedTuple):
    """`tokens` of n records [n, L, T, D], which leads they have, `available` [n, L], and `labels` [n, C] (1, 0 or NaN)."""

    tokens: Rows
    available: np.ndarray
    labels: np.ndarray


class Scale(NamedTuple):
    """Mean and spread of each token dimension over training records, [D] float32."""

    mean: jax.Array
    spread: jax.Array


def attention(
    train: TokenExamples, validation: TokenExamples, test: Rows, test_available: np.ndarray, heads: int, seed: int
) -> Prediction:
    """Learn on train, choose L2 and epochs on validation (the first, then the strongest, of equals), predict `test`.

    `heads` must divide D; every label of `train` needs both signs. `seed`: of the order of records and the query's first values.
    """
    rng = np.random.default_rng(seed)
    records, batch = len(train.labels), max(1, min(BATCH, len(train.labels) // 8))
    rounds, each = ROUNDS, math.ceil(max(EPOCHS * (records // batch), FEWEST_STEPS) / ROUNDS)
    schedule = optax.cosine_decay_schedule(RATE, rounds * each, 0.01)
    optimizer = optax.adam(schedule)
    scale = _scale(train, rng)
    l2 = jnp.asarray(L2_VALUES)
    first = _first(train.labels, heads, len(scale.mean), seed)
    probes = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(L2_VALUES), *leaf.shape)), first)
    state = jax.vmap(optimizer.init)(probes)
    known = ~np.isnan(train.labels)
    weight = known / known.mean(axis=0)  # each label counts alike, however many records know it
    update = jax.jit(partial(_update, optimizer))

    progress = Progress(rounds * each, "steps", "attention probe", parts=(batch, "ECG"))
    best: tuple[float, float, float] = (-math.inf, 0, 0)
    kept = first
    order = np.zeros(0, np.int64)
    for round_ in range(1, rounds + 1):
        for step in range(each):
            if len(order) < batch:
                order = rng.permutation(records)
            now, order = np.sort(order[:batch]), order[batch:]
            shown = train.available[now]
            y, w = np.where(known[now], train.labels[now], 0).astype(np.float32), weight[now].astype(np.float32)
            probes, state = update(probes, state, l2, train.tokens[now], shown, scale, y, w)
            progress.update((round_ - 1) * each + step + 1)
        logits = _all_logits(probes, validation.tokens, validation.available, scale)
        for v, strength in enumerate(L2_VALUES):
            reached = macro_auroc(validation.labels, logits[v]).value
            # A later round must be better; in one round the stronger of equals is taken.
            if reached > best[0] or (reached == best[0] and best[2] == round_):
                best = (reached, strength, round_)
                kept = jax.tree.map(lambda leaf, v=v: leaf[v], probes)
    progress.close()
    one = jax.tree.map(lambda leaf: leaf[None], kept)
    chances = jax.nn.sigmoid(_all_logits(one, test, test_available, scale)[0])
    chosen = {"l2": best[1], "epochs": round(best[2] * each * batch / records, 2)}
    return Prediction(chosen, best[0], np.asarray(chances, np.float64))


def _scale(train: TokenExamples, rng: np.random.Generator) -> Scale:
    some = np.sort(rng.permutation(len(train.labels))[:SCALED_BY])
    count, total, squares = 0, 0.0, 0.0
    for index in np.array_split(some, max(1, len(some) // BATCH)):  # few at a time: tokens are large
        tokens = train.tokens[index].astype(np.float64)[train.available[index]]  # [leads there, T, D]
        tokens = tokens.reshape(-1, tokens.shape[-1])
        count, total, squares = count + len(tokens), total + tokens.sum(0), squares + (tokens**2).sum(0)
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
    spread = np.where(
        spread <= 1e-3 * np.abs(mean) + 1e-12, np.inf, spread
    )  # float16's resolution: constant, so left out
    return Scale(jnp.asarray(mean, jnp.float32), jnp.asarray(spread, jnp.float32))


def _first(labels: np.ndarray, heads: int, width: int, seed: int) -> Probe:
    """A query that looks nearly evenly, so that learning starts from the mean, and a head that says each label's rate."""
    rate = np.nanmean(labels, axis=0)
    return {
        "query": 0.02 * jax.random.normal(jax.random.key(seed), (heads, width)),
        "weights": jnp.zeros((width, labels.shape[1])),
        "bias": jnp.asarray(np.log(rate / (1 - rate)), jnp.float32),
    }


def _logits(probe: Probe, x: jax.Array, shown: jax.Array) -> jax.Array:
    """Log-odds [B, C] from standardised tokens `x` [B, L, T, D] and `shown` [B, L]."""
    heads, width = probe["query"].shape
    attend = jnp.einsum("bltd,hd->bhlt", x, probe["query"]) / math.sqrt(width)
    attend = jax.nn.softmax(jnp.where(shown[:, None, :, None], attend, -jnp.inf), axis=(-2, -1))
    slices = x.reshape(*x.shape[:-1], heads, width // heads)
    gathered = jnp.einsum("bhlt,blthk->bhk", attend, slices).reshape(len(x), width)
    return gathered @ probe["weights"] + probe["bias"][None]


def _standard(tokens: jax.Array, scale: Scale) -> jax.Array:
    return (tokens.astype(jnp.float32) - scale.mean[None, None, None]) / scale.spread[None, None, None]


def _update(
    optimizer: optax.GradientTransformation,
    probes: Probe,
    state: optax.OptState,
    l2: jax.Array,
    tokens: jax.Array,
    shown: jax.Array,
    scale: Scale,
    y: jax.Array,
    weight: jax.Array,
) -> tuple[Probe, optax.OptState]:
    """One step of all V probes on one batch; `y` and `weight` [B, C], unknown labels weigh nothing."""
    x = _standard(tokens, scale)

    def loss(probe: Probe, strength: jax.Array) -> jax.Array:
        z = _logits(probe, x, shown)
        fit = jnp.sum(weight * (jax.nn.softplus(z) - y * z)) / len(y)
        return fit + 0.5 * strength * jnp.sum(probe["weights"] ** 2)

    def one(probe: Probe, state: optax.OptState, strength: jax.Array) -> tuple[Probe, optax.OptState]:
        change, state = optimizer.update(jax.grad(loss)(probe, strength), state, probe)
        return optax.apply_updates(probe, change), state

    return jax.vmap(one)(probes, state, l2)


@jax.jit
def _batch_logits(probes: Probe, tokens: jax.Array, shown: jax.Array, scale: Scale) -> jax.Array:
    x = _standard(tokens, scale)
    return jax.vmap(_logits, in_axes=(0, None, None))(probes, x, shown)


def _all_logits(probes: Probe, tokens: Rows, available: np.ndarray, scale: Scale) -> np.ndarray:
    """Log-odds of all records, [V, n, C]; one shape of batch, the last one filled up with its own last record."""
    out = []
    for start in range(0, len(tokens), BATCH):
        index = np.minimum(np.arange(start, start + BATCH), len(tokens) - 1)
        logits = np.asarray(_batch_logits(probes, tokens[index], available[index], scale))
        out.append(logits[:, : len(tokens) - start])
    return np.concatenate(out, axis=1)
