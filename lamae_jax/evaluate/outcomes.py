"""What a model predicts for the test records in each mode; no mode is ever shown their labels.

Four modes: a logistic regression on frozen features (`linear`), the nearest training records (`knn`), a learned query over the
frozen tokens (`attention`), and training end to end (`finetune`). What is to be chosen is chosen on the validation fold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from lamae_jax.artifact.folder import Model
from lamae_jax.artifact.head import Head
from lamae_jax.data.splits import pretraining_record_keys
from lamae_jax.errors import UserError
from lamae_jax.evaluate.attention import TokenExamples, attention
from lamae_jax.evaluate.cache import cached_features
from lamae_jax.evaluate.features import TOKENS, fill_of, filled, standardisation
from lamae_jax.evaluate.linear import fit_linear
from lamae_jax.evaluate.logistic import Logistic
from lamae_jax.evaluate.neighbours import neighbours
from lamae_jax.evaluate.results import Outcome
from lamae_jax.evaluate.task import PARTS, Examples, Prediction, Task, system_of
from lamae_jax.evaluate.tuning import Labelled, TuneConfig, fine_tune, predict
from lamae_jax.model.presets import READOUTS, ModelConfig

MODES = ("linear", "attention", "knn", "finetune")


@dataclass(frozen=True)
class Settings:
    """`features`: the folder that keeps frozen features; `batch_size`: records encoded at once; `seed`: of the attention probe;
    `tuning`: how a model is fine-tuned, in that mode."""

    features: Path
    batch_size: int
    seed: int
    tuning: TuneConfig | None


def outcomes(mode: str, model: Model, task: Task, readouts: tuple[str, ...], settings: Settings) -> list[Outcome]:
    """One outcome a readout (of `attention`, which has its own, one)."""
    if mode == "attention":
        return [_attention(model, task, settings)]
    features = _features(model, task, readouts, settings)
    if mode == "finetune":
        return [_tuned(model, task, x, head, settings) for x, head in features]
    return [_frozen(mode, model, task, x, head) for x, head in features]


def chosen_readouts(model: ModelConfig, mode: str, readout: str) -> tuple[str, ...]:
    """The readouts to score: the one asked for, or with `all` those that this model can give. Raises UserError."""
    if mode == "attention":
        return ("attention",)
    if readout == "":
        return model.readouts[:1]
    if readout != "all":
        model.check_readout(readout)
        return (readout,)
    return tuple(name for name in READOUTS if not refusal(model, name))


def refusal(model: ModelConfig, readout: str) -> str:
    """Why a model cannot give a readout; empty where it can."""
    try:
        model.check_readout(readout)
    except UserError as error:
        return str(error)
    return ""


def pretraining_seed(model: Model) -> int | None:
    """The seed that the model folder says it was pretrained with."""
    match model.provenance:  # any JSON object
        case {"config": {"seed": int(seed)}}:
            return seed
    return None


def _frozen(mode: str, model: Model, task: Task, x: np.ndarray, head: Head) -> Outcome:
    train, validation, test = (task.part == part for part in PARTS)
    examples = Examples(x[train], task.values("train")), Examples(x[validation], task.values("validation"))
    with_head = None
    if mode == "linear":
        logistic, l2, reached = fit_linear(*examples)
        prediction = Prediction({"l2": l2}, reached, expit(logistic.scores(x[test])))
        with_head = dataclasses.replace(model, head=_under(head, logistic))
    else:
        prediction = neighbours(*examples, x[test])
    return _outcome(model, mode, head.readout, x.shape[1], prediction, with_head)


def _outcome(
    model: Model, mode: str, readout: str, features: int, prediction: Prediction, result: Model | None = None
) -> Outcome:
    return Outcome(system_of(model, readout), pretraining_seed(model), mode, readout, features, prediction, result)


def _features(
    model: Model, task: Task, readouts: tuple[str, ...], settings: Settings
) -> Iterator[tuple[np.ndarray, Head]]:
    """Standardised features [N, F] of the task's records for each readout, with a head of zeros that standardises so.

    One readout at a time: the widest of an archive fills a large machine's memory by itself.
    """
    kept = model.config.readouts  # all at once: another run may ask for the others
    title = system_of(model, readouts[0])
    features = cached_features(settings.features, model, task.store, task.rows, kept, settings.batch_size, title)
    train, available = task.part == "train", task.store.available[task.rows]
    for readout in readouts:
        x = features[readout][np.arange(len(task.rows))]
        fill = np.zeros(x[0].size)
        if readout == "encoder_concat":
            fill = fill_of(x, available, train)
            x = filled(x, available, train, fill)
        mean, scale = standardisation(x, train)
        x = (x.astype(np.float64) - mean) * scale
        labels = len(task.names)
        silent = (np.zeros((x.shape[1], labels)), np.zeros(labels))
        kernel, bias, mean, scale, fill = (array.astype(np.float32) for array in (*silent, mean, scale, fill))
        yield x, Head(readout, task.names, kernel, bias, mean, scale, fill)


def _under(head: Head, logistic: Logistic) -> Head:
    kernel, bias = logistic.weights.astype(np.float32), logistic.intercepts.astype(np.float32)
    return dataclasses.replace(head, kernel=kernel, bias=bias)


def _attention(model: Model, task: Task, settings: Settings) -> Outcome:
    title = system_of(model, "attention")
    features = cached_features(settings.features, model, task.store, task.rows, (TOKENS,), settings.batch_size, title)
    tokens, available = features[TOKENS], task.store.available[task.rows]
    train, validation, test = (np.flatnonzero(task.part == part) for part in PARTS)
    prediction = attention(
        TokenExamples(tokens.part(train), available[train], task.values("train")),
        TokenExamples(tokens.part(validation), available[validation], task.values("validation")),
        tokens.part(test),
        available[test],
        model.config.heads,
        settings.seed,
    )
    return _outcome(model, "attention", "attention", model.config.width, prediction)


def _tuned(model: Model, task: Task, x: np.ndarray, head: Head, settings: Settings) -> Outcome:
    examples = [Examples(x[task.part == part], task.values(part)) for part in PARTS[:2]]
    head = _under(head, fit_linear(*examples).logistic)
    tuning = settings.tuning
    assert tuning is not None
    if not model.sha256:  # nothing was learned yet that low rates would protect
        tuning = dataclasses.replace(tuning, layer_decay=1.0)
    title = f"{system_of(model, head.readout)} {head.readout}"
    train, validation = (Labelled(task.store, task.rows_of(part), task.values(part)) for part in PARTS[:2])
    tuned = fine_tune(model, head, tuning, train, validation, title)
    chances = expit(predict(tuned.model, task.store, task.rows_of("test"), title))
    seen = model.pretraining_records
    if seen is not None:  # what it was tuned on must not be tested on either
        seen = np.union1d(seen, pretraining_record_keys([task.store], [train.rows]))
    result = dataclasses.replace(tuned.model, pretraining_records=seen)
    prediction = Prediction({"step": float(tuned.step)}, dict(tuned.curve)[tuned.step], chances)
    return _outcome(model, "finetune", head.readout, x.shape[1], prediction, result)
