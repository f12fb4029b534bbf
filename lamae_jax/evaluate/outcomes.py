"""What a model predicts for the test records in each mode; no mode is ever shown their labels.

Four modes: a logistic regression on frozen features (`linear`), the nearest training records (`knn`), a learned query over the
frozen tokens (`attention`), and training end to end (`finetune`). What is to be chosen is chosen on the validation fold.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit

from lamae_jax.artifact.folder import Model
from lamae_jax.evaluate.attention import TokenExamples, attention
from lamae_jax.evaluate.cache import cached_features
from lamae_jax.evaluate.features import TOKENS, fill_unavailable, standardise
from lamae_jax.evaluate.linear import linear
from lamae_jax.evaluate.neighbours import neighbours
from lamae_jax.evaluate.results import Outcome
from lamae_jax.evaluate.task import PARTS, Examples, Prediction, Task, system_of
from lamae_jax.evaluate.tuning import Labelled, TuneConfig, features_of_readout, fine_tune, predict

MODES = ("linear", "attention", "knn", "finetune")


@dataclass(frozen=True)
class Settings:
    """`features`: the folder that keeps frozen features; `batch_size`: records encoded at once; `seed`: of the attention probe;
    `tuning`: how a model is fine-tuned."""

    features: Path
    batch_size: int
    seed: int
    tuning: TuneConfig


def outcomes(mode: str, model: Model, task: Task, readouts: tuple[str, ...], settings: Settings) -> list[Outcome]:
    """One outcome a readout (of `attention`, which has its own, one)."""
    if mode == "finetune":
        return [_tuned(model, task, readout, settings) for readout in readouts]
    if mode == "attention":
        return [_attention(model, task, settings)]
    return _frozen(mode, model, task, readouts, settings)


def pretraining_seed(model: Model) -> int | None:
    """The seed that the model folder says it was pretrained with."""
    match model.provenance:  # any JSON object
        case {"config": {"seed": int(seed)}}:
            return seed
    return None


def _frozen(mode: str, model: Model, task: Task, readouts: tuple[str, ...], settings: Settings) -> list[Outcome]:
    kept = model.config.readouts  # all at once: another run may ask for the others
    title = system_of(model, readouts[0])
    features = cached_features(settings.features, model, task.store, task.rows, kept, settings.batch_size, title)
    train, validation, test = (task.part == part for part in PARTS)
    available = task.store.available[task.rows]
    fit = linear if mode == "linear" else neighbours
    found = []
    for readout in readouts:
        x = features[readout][np.arange(len(task.rows))]
        if readout == "encoder_concat":
            x = fill_unavailable(x, available, train)
        x = standardise(x, train)
        prediction = fit(
            Examples(x[train], task.values("train")), Examples(x[validation], task.values("validation")), x[test]
        )
        found.append(Outcome(system_of(model, readout), pretraining_seed(model), mode, readout, x.shape[1], prediction))
    return found


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
    return Outcome(title, pretraining_seed(model), "attention", "attention", model.config.width, prediction)


def _tuned(model: Model, task: Task, readout: str, settings: Settings) -> Outcome:
    parts = {part: Labelled(task.store, task.rows[task.part == part], task.values(part)) for part in PARTS[:2]}
    title = f"{system_of(model, readout)} {readout}"
    tuning = settings.tuning
    if not model.sha256:  # nothing was learned yet that low rates would protect
        tuning = dataclasses.replace(tuning, layer_decay=1.0)
    tuned = fine_tune(model, readout, tuning, parts["train"], parts["validation"], title)
    rows = task.rows[task.part == "test"]
    chances = expit(predict(model, readout, tuned.trainable, task.store, rows, title))
    chosen = {"step": float(tuned.step)}
    prediction = Prediction(chosen, dict(tuned.curve)[tuned.step], chances)
    width = features_of_readout(model.config, readout)
    return Outcome(system_of(model, readout), pretraining_seed(model), "finetune", readout, width, prediction)
