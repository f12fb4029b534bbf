"""Probes: what can be read from a model's frozen features, beside what can be read from the same model untrained.

Three modes: a logistic regression (`linear`), the nearest training records (`knn`), a learned query over the model's tokens
(`attention`). Whatever is to be chosen is chosen on the validation fold; the modes are never shown the test fold's labels, and
the test fold is scored once. N records, C labels, F features.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.attention import TokenExamples, attention
from lamae_jax.evaluate.cache import cached_features
from lamae_jax.evaluate.features import TOKENS, fill_unavailable, standardise
from lamae_jax.evaluate.figures import draw_calibration, draw_probe, draw_roc
from lamae_jax.evaluate.linear import linear
from lamae_jax.evaluate.neighbours import neighbours
from lamae_jax.evaluate.results import Judged, Outcome, calibrated, difference, judge, write_predictions, write_results
from lamae_jax.evaluate.task import (
    PARTS,
    RANDOM,
    Examples,
    Task,
    check_not_pretrained,
    open_model,
    open_task,
    system_names,
    untrained_params,
)
from lamae_jax.files import write_json
from lamae_jax.model.presets import READOUTS, ModelConfig
from lamae_jax.progress import say

MODES = ("linear", "attention", "knn")


@dataclass(frozen=True)
class ProbeConfig:
    """What `configs/probe.py` says. Raises UserError for an empty or impossible field.

    `model`: a model folder, or `random:PRESET`; `store`: a prepared store; `labels`: see data/labels; `mode`: one of MODES;
    `readout`: `all` or one of READOUTS (`all` where the mode is attention); `batch_size`: records encoded at once; `resamples`
    of each bootstrap; `seed`: of the untrained model, the bootstraps and the attention probe; `cache`: a folder, or empty.
    """

    model: str
    store: str
    labels: str
    mode: str
    readout: str
    batch_size: int
    resamples: int
    seed: int
    cache: str

    def __post_init__(self) -> None:
        for field, value, example in (
            ("model", self.model, "DIR or random:nano"),
            ("data.store", self.store, "DIR"),
            ("labels", self.labels, "ptbxl:super or csv:FILE"),
        ):
            if not value:
                raise UserError(f"{field} is empty: pass --config.{field}={example}")
        if self.mode not in MODES:
            raise UserError(f"mode={self.mode}: must be one of {', '.join(MODES)}")
        if self.readout not in ("all", *READOUTS):
            raise UserError(f"readout={self.readout}: must be all or one of {', '.join(READOUTS)}")
        if self.mode == "attention" and self.readout != "all":
            raise UserError(f"readout={self.readout}: mode=attention reads the tokens themselves; leave readout out")
        for name in ("batch_size", "resamples"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must be from 0 to {2**32 - 1}")


def probe(config: ProbeConfig, workdir: Path) -> dict[str, Any]:
    """Run the probe; writes results.csv, predictions.npz, summary.json and figures/ into `workdir`, returns the summary.

    Raises UserError before any encoding for whatever can't be probed, a test record that was pretrained on included.
    """
    began = time.monotonic()
    store = Store.open(config.store)
    model = open_model(config.model, store, config.seed)
    readouts = chosen_readouts(model.config, config)
    task = open_task(config.labels, store)
    untrained = config.model.startswith(RANDOM)
    test = task.rows[task.part == "test"]
    checked = "not needed: the model is untrained" if untrained else check_not_pretrained(model, store, test)
    sizes = ", ".join(f"{count} {part}" for part, count in task.counts.items())
    say(f"probe {config.labels}: {len(task.learnable)} of {len(task.labels.names)} labels, records: {sizes}")

    pretrained_name, untrained_name = system_names(model.config)
    random = model if untrained else dataclasses.replace(model, params=untrained_params(model.config, config.seed))
    with features_folder(config, workdir) as folder:
        scratch = predict(config, random, task, readouts, folder, untrained_name, config.seed)
        trained = scratch  # an untrained model is its own yardstick
        if not untrained:
            trained = predict(config, model, task, readouts, folder, pretrained_name, pretraining_seed(model))
    say(f"{config.resamples} resamples by record and by patient")
    judged = {o.readout: judge(task, o, config.resamples, config.seed) for o in trained}
    yardsticks = judged if untrained else {o.readout: judge(task, o, config.resamples, config.seed) for o in scratch}
    for name, each in judged.items():
        low, high = each.macro_intervals()["by_patient"]
        say(f"{name}: macro AUROC {each.macro:.4f} ({low:.4f} to {high:.4f}), untrained {yardsticks[name].macro:.4f}")

    best = max(judged.values(), key=lambda each: each.outcome.prediction.validation)
    summary = summarise(config, task, model, judged, yardsticks) | {
        "best_on_validation": best.outcome.readout,
        "pretraining_check": checked,
        "seconds": round(time.monotonic() - began, 2),
    }
    both = [*judged.values()] if untrained else [*judged.values(), *yardsticks.values()]
    write_results(workdir / "results.csv", task, both)
    write_predictions(workdir / "predictions.npz", task, both)
    draw_probe(summary, workdir / "figures" / "probe.png")
    draw_roc(task, best, workdir / "figures" / "roc.png")
    draw_calibration(task, best, workdir / "figures" / "calibration.png")
    write_json(workdir / "summary.json", summary)
    return summary


def chosen_readouts(model: ModelConfig, config: ProbeConfig) -> tuple[str, ...]:
    """The readouts to score: the one asked for, or with `all` those that this model can give. Raises UserError."""
    if config.mode == "attention":
        return ("attention",)
    if config.readout != "all":
        model.check_readout(config.readout)
        return (config.readout,)
    names = []
    for name in READOUTS:
        try:
            model.check_readout(name)
            names.append(name)
        except UserError as refusal:
            say(f"left out: {refusal}")
    return tuple(names)


def pretraining_seed(model: Model) -> int | None:
    """The seed that the model folder says it was pretrained with."""
    match model.provenance:  # any JSON object
        case {"config": {"seed": int(seed)}}:
            return seed
    return None


@contextmanager
def features_folder(config: ProbeConfig, workdir: Path) -> Iterator[Path]:
    """Where features are kept; without `cache` a folder that goes when the probe is done."""
    if config.cache:
        yield Path(config.cache)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="features-", dir=workdir) as folder:
        yield Path(folder)


def predict(
    config: ProbeConfig,
    model: Model,
    task: Task,
    readouts: tuple[str, ...],
    folder: Path,
    system: str,
    seed: int | None,
) -> list[Outcome]:
    """What one model predicts for the test records, from each readout; it never sees their labels."""
    kept = (TOKENS,) if config.mode == "attention" else model.config.readouts
    features = cached_features(folder, model, task.store, task.rows, kept, config.batch_size, system)
    train, validation, test = (np.flatnonzero(task.part == part) for part in PARTS)
    labels = {"train": task.values("train"), "validation": task.values("validation")}
    available = task.store.available[task.rows]
    width = model.config.width
    outcomes = []
    for readout in readouts:
        if config.mode == "attention":
            tokens = features[TOKENS]
            prediction = attention(
                TokenExamples(tokens.part(train), available[train], labels["train"]),
                TokenExamples(tokens.part(validation), available[validation], labels["validation"]),
                tokens.part(test),
                available[test],
                model.config.heads,
                config.seed,
            )
        else:
            x = features[readout][np.arange(len(task.rows))]
            if readout == "encoder_concat":
                x = fill_unavailable(x, available, task.part == "train")
            x = standardise(x, task.part == "train")
            width = x.shape[1]
            fit = linear if config.mode == "linear" else neighbours
            prediction = fit(
                Examples(x[train], labels["train"]), Examples(x[validation], labels["validation"]), x[test]
            )
        outcomes.append(Outcome(system, seed, config.mode, readout, width, prediction))
    return outcomes


def summarise(
    config: ProbeConfig, task: Task, model: Model, judged: dict[str, Judged], yardsticks: dict[str, Judged]
) -> dict[str, Any]:
    """summary.json, but for what the run itself adds."""
    split = task.store.split
    first = next(iter(judged.values()))
    undefined = set(task.labels.names) - {task.names[c] for c in np.flatnonzero(~np.isnan(first.aurocs))}
    patients = task.store.patients[task.rows[task.part == "test"]]

    def each(what: Any) -> dict[str, Any]:
        """A figure of the model, and of the untrained one under the same name with `_random`."""
        name, of = what
        return {
            name: {r: of(j) for r, j in judged.items()},
            f"{name}_random": {r: of(j) for r, j in yardsticks.items()},
        }

    figures: dict[str, Any] = {}
    for what in (
        ("macro_auroc", lambda j: j.macro),
        ("macro_auroc_interval", lambda j: j.macro_intervals()),
        ("macro_auroc_validation", lambda j: j.outcome.prediction.validation),
        ("macro_auprc", lambda j: float(np.nanmean(j.auprcs))),
        ("calibration", lambda j: calibrated(task, j)),
        ("chosen", lambda j: j.outcome.prediction.chosen),
    ):
        figures |= each(what)
    return figures | {
        "difference": {} if judged is yardsticks else {r: difference(j, yardsticks[r]) for r, j in judged.items()},
        "mode": config.mode,
        "records": task.counts,
        "labels": {
            "task": config.labels,
            "scored": len(task.labels.names) - len(undefined),
            "undefined": [name for name in task.labels.names if name in undefined],
            **task.labels.notes,
        },
        "bootstrap": {
            "resamples": config.resamples,
            "seed": config.seed,
            "level": 0.95,
            "by_record": "basic",
            "by_patient": "percentile",
            "patients": len(np.unique(patients.astype(str))),
            # Of so many resamples; the labels that never were one-sided are left out.
            "one_sided": {
                kind: {name: int(n) for name, n in zip(task.names, counts, strict=True) if 0 < n < config.resamples}
                for kind, counts in first.one_sided.items()
            },
        },
        "seed": config.seed,
        "split": {
            "column": split.column, "train": list(split.train), "validation": list(split.validation),
            "test": list(split.test), "rule": split.rule,
        },
        "model": {"folder": config.model, "sha256": model.sha256, "seed": first.outcome.seed},
        "store": {"folder": config.store, "hash": task.store.hash, "source": task.store.name},
    }  # fmt: skip
