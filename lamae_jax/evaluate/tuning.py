"""Fine-tuning: the encoder itself learns a task's labels, started from a pretrained model or from an untrained one.

AdamW with layer-wise rates (later layers change more, Clark et al. 2020), warm-up and cosine, stochastic depth; the parameters
with the best macro AUROC on validation are kept. It starts under the linear probe's head (Kumar et al. 2022: under a new one the
first steps would distort what was pretrained). B records, L leads, S samples, D width, F features, C labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lamae_jax.artifact.folder import Model
from lamae_jax.artifact.head import Head, logits
from lamae_jax.data.loader import BatchSource, train_batches
from lamae_jax.data.store import Store
from lamae_jax.errors import NotFinite, UserError, check_at_least_one
from lamae_jax.evaluate.features import extract
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.model.inputs import crop, model_input, random_start
from lamae_jax.model.lamae import Params, encode
from lamae_jax.model.presets import ModelConfig
from lamae_jax.model.readouts import readout
from lamae_jax.progress import Progress
from lamae_jax.train.optimizer import OptimizerConfig, make_optimizer
from lamae_jax.train.sharding import batch_sharding, replicated, sharing, to_devices
from lamae_jax.train.step import accumulated, microbatches

Trainable = dict[str, Any]  # "model": the model's parameters, "head": kernel [F, C] and bias [C]


@dataclass(frozen=True)
class TuneConfig:
    """How a model is fine-tuned. Raises UserError for impossible values.

    `batch_size`: records a step, all of them where there are fewer; `layer_decay`: what a layer's rate is of the next one's, the
    head having `learning_rate`; `drop_path`: the chance with which a record skips the last block, falling to 0 for the first;
    `eval_every`: steps between two looks at validation.
    """

    steps: int
    batch_size: int
    learning_rate: float
    layer_decay: float
    weight_decay: float
    warmup: float
    drop_path: float
    eval_every: int
    seed: int

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"layer_decay={self.layer_decay:g}: must be above 0 and at most 1 (all layers alike)")
        if not 0 <= self.drop_path < 1:
            raise UserError(f"drop_path={self.drop_path:g}: must be at least 0 and below 1")
        check_at_least_one(self, "batch_size", "eval_every")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must be from 0 to {2**32 - 1}")
        self.optimizer  # noqa: B018  (checks the rest)

    @property
    def optimizer(self) -> OptimizerConfig:
        """The optimiser of the head; `layer_rates` says what share of its updates the layers take."""
        return OptimizerConfig(
            self.steps, self.learning_rate, weight_decay=self.weight_decay, b2=0.999, warmup=self.warmup
        )


@dataclass(frozen=True)
class Labelled:
    """What is learned from which records: `rows` [N] of the store, `labels` [N, C] (1, 0, NaN = unknown)."""

    store: Store
    rows: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Tuned:
    """The model that was best on validation, with its head, at which step, and macro AUROC there at each look: (step, value)."""

    model: Model
    step: int
    curve: list[tuple[int, float]]


def layers_of(config: ModelConfig, name: str) -> int:
    """Blocks between the input and the readout `name`: latent attention's count where it is read."""
    return config.encoder_depth + (config.latent_depth if name.startswith("la_") else 0)


def layer_rates(config: ModelConfig, params: Params, name: str, decay: float) -> Params:
    """For each parameter of the model what share of the head's rate it learns with; 0 where the readout does not reach.

    With n blocks up to the readout, block i (from 1) learns with decay^(n + 1 - i), what comes before the first with
    decay^(n + 1), the final norm of a stack as its last block. Stacked layers get one number a layer.
    """
    blocks = layers_of(config, name)

    def rate(path: tuple[Any, ...], leaf: jax.Array) -> np.ndarray:
        names = [key.key for key in path]
        if names[0] not in ("encoder", "latent_attention", "posterior") or (
            names[0] == "latent_attention" and not name.startswith("la_")
        ):
            return np.zeros((), np.float32)
        before = config.encoder_depth if names[0] == "latent_attention" else 0
        depth = config.latent_depth if names[0] == "latent_attention" else config.encoder_depth
        if "layers" in names:
            numbers = before + 1 + np.arange(depth)
            shares = decay ** (blocks + 1.0 - numbers)
            return shares.reshape(-1, *[1] * (leaf.ndim - 1)).astype(np.float32)
        last = "transformer" in names or names[0] == "posterior"  # else embeddings and CLS tokens
        return np.asarray(decay ** (blocks + 1.0 - (before + depth if last else before)), np.float32)

    return jax.tree_util.tree_map_with_path(rate, params)


def draw_keep(key: jax.Array, records: int, blocks: int, drop_path: float) -> jax.Array | None:
    """Stochastic depth's masks `[blocks, B]`: 0 with a chance that rises to `drop_path` at the last block, else 1 / (1 - it)."""
    if not drop_path:
        return None
    stays = 1 - jnp.linspace(0, drop_path, blocks)[:, None] if blocks > 1 else jnp.full((1, 1), 1 - drop_path)
    return jax.random.bernoulli(key, jnp.broadcast_to(stays, (blocks, records))) / stays


def make_step(model: Model, head: Head, config: TuneConfig, mesh: Any) -> Callable[..., Any]:
    """A jitted update `(trainable, opt_state, step, batch) -> (trainable, opt_state, loss)`; `batch["labels"]` is `[B, C]`."""
    blocks, shape = model.config.encoder_depth + model.config.latent_depth, model.config
    rates = layer_rates(shape, model.params, head.readout, config.layer_decay)

    def update(trainable: Trainable, opt_state: Any, step: jax.Array, batch: dict[str, jax.Array]) -> Any:
        for_crop, for_keep = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), step + 1))
        records = len(batch["counts"])
        start = random_start(for_crop, records, batch["counts"].shape[-1], shape.samples)
        x, _ = model_input(crop(batch["counts"], shape.samples, start), batch["available"], model.inputs)
        keep = draw_keep(for_keep, records, blocks, config.drop_path)
        known = ~jnp.isnan(batch["labels"])
        total = jnp.maximum(known.sum(), 1)

        def loss_of(trainable: Trainable, part: tuple[Any, ...]) -> jax.Array:
            x, available, labels, known, keep = part
            tokens = encode(shape, trainable["model"], x, available, None if keep is None else keep.T)
            values = readout(tokens, head.readout, available).astype(jnp.float32)
            z = logits({**head.arrays, **trainable["head"]}, values, available)
            losses = optax.sigmoid_binary_cross_entropy(z, jnp.where(known, labels, 0))
            return jnp.sum(jnp.where(known, losses, 0)) / total

        whole = (x, batch["available"], batch["labels"], known, None if keep is None else keep.T)
        parts = microbatches(records, shape.width, mesh)
        loss, gradient = accumulated(jax.value_and_grad(loss_of), trainable, whole, parts)
        updates, opt_state = make_optimizer(config.optimizer).update(gradient, opt_state, trainable)
        shares = {"model": rates, "head": jax.tree.map(lambda _: 1.0, trainable["head"])}
        updates = jax.tree.map(lambda change, share: change * jnp.broadcast_to(share, change.shape), updates, shares)
        return optax.apply_updates(trainable, updates), opt_state, loss

    whole, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        update, in_shardings=(whole, whole, whole, split), out_shardings=(whole, whole, whole), donate_argnums=(0, 1)
    )


def fine_tune(model: Model, head: Head, config: TuneConfig, train: Labelled, validation: Labelled, title: str) -> Tuned:
    """Fine-tune a model under a `head` (evaluate/linear.py finds one); returns what was best on validation, the earlier of
    equals, the start included.

    Fewer training records than a batch holds are one batch, every step. Raises NotFinite where the loss is not finite.
    """
    config = dataclasses.replace(config, batch_size=min(config.batch_size, len(train.rows)))
    mesh = sharing(config.batch_size)
    update = make_step(model, head, config, mesh)
    start = {"model": model.params, "head": {"kernel": head.kernel, "bias": head.bias}}
    trainable = jax.device_put(jax.tree.map(np.array, start), replicated(mesh))  # a copy, as the step takes it over
    opt_state = jax.jit(make_optimizer(config.optimizer).init, out_shardings=replicated(mesh))(trainable)
    source = BatchSource([train.store], [train.rows], config.batch_size, config.seed)

    def reached(now: Model) -> float:
        return macro_auroc(validation.labels, predict(now, validation.store, validation.rows, title)).value

    best = dataclasses.replace(model, head=head)
    curve = [(0, reached(best))]
    progress = Progress(config.steps, "steps", title)
    with train_batches(source) as batches:
        for step in range(1, config.steps + 1):
            batch = next(batches) | {"labels": train.labels[source.numbers(step - 1)].astype(np.float32)}
            trainable, opt_state, loss = update(trainable, opt_state, np.int32(step - 1), to_devices(batch, mesh))
            if step % config.eval_every == 0 or step == config.steps:
                if not np.isfinite(float(loss)):
                    raise NotFinite(f"fine-tuning: the loss is {float(loss)} at step {step}; try a lower learning_rate")
                here = jax.device_get(trainable)
                now = dataclasses.replace(model, params=here["model"], head=dataclasses.replace(head, **here["head"]))
                value = reached(now)
                if value > max(value for _, value in curve):
                    best = now
                curve.append((step, value))
            progress.update(step)
    progress.close()
    return Tuned(best, max(curve, key=lambda point: (point[1], -point[0]))[0], curve)


def predict(model: Model, store: Store, rows: np.ndarray, title: str, batch_size: int = 64) -> np.ndarray:
    """Log odds `[N, C]` that the model's head gives to the store's `rows` [N], nothing dropped."""
    assert model.head is not None
    name = model.head.readout
    values = extract(model.params, model.config, model.inputs, store, rows, (name,), batch_size, title)[name]
    return np.asarray(logits(model.head.arrays, jnp.asarray(values), store.available[rows]), np.float64)
