"""The linear probe: what a logistic regression can read from frozen features, beside what it reads from an untrained model's.

Features are standardised on the training fold, one regression a label; the strength of the penalty is chosen, a label set and
readout, on the validation fold; the test fold is scored once. N records, C labels, F features.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lamae_jax.artifact.folder import Model, load_model
from lamae_jax.data.labels import load_labels, split_for
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.labels.table import Labels
from lamae_jax.data.splits import check_disjoint, test_rows, text_hashes, train_rows, validation_rows
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.features import extract, fill_unavailable, standardise
from lamae_jax.evaluate.figures import draw_probe
from lamae_jax.evaluate.logistic import fit_path
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.files import write_json, write_text
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params
from lamae_jax.model.presets import READOUTS, ModelConfig, preset
from lamae_jax.progress import say

# From "almost free" to "almost nothing but the mean", whatever the number of records (see logistic.py).
L2_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
RANDOM = "random:"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class ProbeConfig:
    """What `configs/probe.py` says. Raises UserError for an empty or impossible field.

    `model`: a model folder, or `random:PRESET`; `store`: a prepared store; `labels`: see data/labels; `readout`: `all` or one of
    READOUTS; `batch_size`: records encoded at once; `seed`: of the randomly initialised model; `icd10`: for its labels.
    """

    model: str
    store: str
    labels: str
    readout: str
    batch_size: int
    seed: int
    icd10: Icd10Rules = Icd10Rules()

    def __post_init__(self) -> None:
        for field, value, example in (
            ("model", self.model, "DIR or random:nano"),
            ("data.store", self.store, "DIR"),
            ("labels", self.labels, "icd10:chapter_ix, ptbxl:super or csv:FILE"),
        ):
            if not value:
                raise UserError(f"{field} is empty: pass --config.{field}={example}")
        if self.readout not in ("all", *READOUTS):
            raise UserError(f"readout={self.readout}: must be all or one of {', '.join(READOUTS)}")
        if self.batch_size < 1:
            raise UserError(f"batch_size={self.batch_size}: must be at least 1")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must be from 0 to {2**32 - 1}")


@dataclass(frozen=True)
class Records:
    """The records of the task: `rows` [N] in the store, `labels` [N, C], `part` [N] (one of PARTS), `available` [N, L]."""

    rows: np.ndarray
    labels: np.ndarray
    part: np.ndarray
    available: np.ndarray


@dataclass(frozen=True)
class Score:
    """One readout's result: the chosen strength, validation's macro AUROC there, test's macro AUROC and each label's [C]."""

    l2: float
    validation: float
    test: float
    per_label: np.ndarray


def probe(config: ProbeConfig, workdir: Path) -> dict[str, Any]:
    """Run the probe; writes summary.json, results.csv and figures/probe.png into `workdir` and returns the summary.

    Raises UserError before any encoding for whatever can't be probed, a test record that was pretrained on included.
    """
    began = time.monotonic()
    store = split_for(config.labels, Store.open(config.store), config.icd10)
    model = open_model(config.model, store, config.seed)
    check_contract(model, store)
    names = chosen_readouts(model.config, config.readout)
    labels = load_labels(config.labels, store, config.icd10)
    records = select_records(store, labels)
    is_random = config.model.startswith(RANDOM)
    test = records.rows[records.part == "test"]
    checked = "not needed: the model is untrained" if is_random else check_not_pretrained(model, store, test)
    learnable = learnable_labels(labels, records)
    records = dataclasses.replace(records, labels=records.labels[:, learnable])
    counts = {part: int(np.count_nonzero(records.part == part)) for part in PARTS}
    sizes = ", ".join(f"{count} {part}" for part, count in counts.items())
    say(f"probe {config.labels}: {len(learnable)} of {len(labels.names)} labels, records: {sizes}")

    trained = score_model(model, store, records, names, config.batch_size, "random model" if is_random else "model")
    untrained = trained  # a random model is its own yardstick
    if not is_random:
        random = dataclasses.replace(model, params=random_params(model.config, config.seed))
        untrained = score_model(random, store, records, names, config.batch_size, "random model")
    for name in names:
        say(f"{name}: macro AUROC {trained[name].test:.4f}, random initialisation {untrained[name].test:.4f}")

    scored = learnable[~np.isnan(trained[names[0]].per_label)]
    undefined = [name for c, name in enumerate(labels.names) if c not in scored]
    summary = {
        "macro_auroc": {name: trained[name].test for name in names},
        "macro_auroc_random": {name: untrained[name].test for name in names},
        "macro_auroc_validation": {name: trained[name].validation for name in names},
        "macro_auroc_validation_random": {name: untrained[name].validation for name in names},
        "l2": {name: trained[name].l2 for name in names},
        "l2_random": {name: untrained[name].l2 for name in names},
        "l2_grid": list(L2_VALUES),
        "records": counts,
        "labels": {"task": config.labels, "scored": len(scored), "undefined": undefined, **labels.notes},
        "split": {
            name: list(value) if isinstance(value, tuple) else value for name, value in vars(store.split).items()
        },
        "model": {"folder": config.model, "sha256": model.sha256},
        "store": {"folder": config.store, "hash": store.hash, "source": store.name},
        "pretraining_check": checked,
        "seconds": round(time.monotonic() - began, 2),
    }
    write_text(workdir / "results.csv", results_table(labels, learnable, records, trained, untrained))
    draw_probe(summary, workdir / "figures" / "probe.png")
    write_json(workdir / "summary.json", summary)
    return summary


def open_model(spec: str, store: Store, seed: int) -> Model:
    """The model folder `spec`, or for `random:PRESET` that preset untrained, of the store's contract with patches of 200 ms."""
    if not spec.startswith(RANDOM):
        return load_model(spec)
    contract = store.contract
    config = preset(
        spec.removeprefix(RANDOM), leads=len(contract.leads), samples=contract.samples, patch=contract.fs // 5
    )
    return Model(
        random_params(config, seed), config, InputConfig(), contract, {"initialised": seed}, "", np.zeros(0, np.uint64)
    )


def random_params(config: ModelConfig, seed: int) -> dict[str, Any]:
    """Parameters drawn as pretraining draws its first ones."""
    return jax.jit(init_params, static_argnums=0)(config, jax.random.key(seed))


def check_contract(model: Model, store: Store) -> None:
    """Raise UserError naming each field in which the store's contract is not the model's; stored records may be longer."""
    ours, theirs = model.contract, store.contract
    if theirs.seconds >= ours.seconds:
        theirs = dataclasses.replace(theirs, seconds=ours.seconds)
    found = ours.differences(theirs, theirs="store", ours="model")
    if found:
        raise UserError(f"model and store differ in their signal contract: {'; '.join(found)}")


def chosen_readouts(config: ModelConfig, readout: str) -> tuple[str, ...]:
    """The readouts to score: the one asked for, or with `all` those that this model can give. Raises UserError."""
    if readout != "all":
        config.check_readout(readout)
        return (readout,)
    names = []
    for name in READOUTS:
        try:
            config.check_readout(name)
            names.append(name)
        except UserError as refusal:
            say(f"left out: {refusal}")
    return tuple(names)


def select_records(store: Store, labels: Labels) -> Records:
    """The records of the three parts that the labels keep, part by part. UserError for an empty part or shared patients."""
    parts = dict(zip(PARTS, (train_rows([store]), validation_rows([store]), test_rows([store])), strict=True))
    check_disjoint([store], **parts)
    kept = {part: rows[labels.keep[rows]] for part, (rows,) in parts.items()}
    for part, rows in kept.items():
        if not len(rows):
            raise UserError(
                f"labels: none of the {len(parts[part][0])} {part} records of {store.folder} has a known label"
            )
    chosen = np.concatenate(list(kept.values()))
    part_of = np.repeat(list(kept), [len(each) for each in kept.values()])
    return Records(chosen, labels.matrix[chosen], part_of, store.available[chosen])


def check_not_pretrained(model: Model, store: Store, test: np.ndarray) -> str:
    """Raise UserError naming the test records that the model was pretrained on; returns what the summary says of the check."""
    if model.pretraining_records is None:
        say(
            "the model folder doesn't list its pretraining records: whether the test fold was among them can't be checked"
        )
        return "not possible: the model folder has no pretraining_records.npy"
    ids = store.record_ids[test].astype(str)
    seen = sorted(set(ids[np.isin(text_hashes(store.name, ids), model.pretraining_records)].tolist()))
    if seen:
        more = f" and {len(seen) - 10} more" if len(seen) > 10 else ""
        raise UserError(
            f"{len(seen)} of {len(set(ids.tolist()))} test records were pretrained on: {', '.join(seen[:10])}{more}; "
            "pretrain on other folds (data.folds=train)"
        )
    return f"passed: none of {len(set(ids.tolist()))} test records was pretrained on"


def learnable_labels(labels: Labels, records: Records) -> np.ndarray:
    """The labels [C'] with both signs among the training records; UserError unless one of them can be chosen and scored by."""
    both = {}
    for part in PARTS:
        values = records.labels[records.part == part]
        both[part] = (values == 1).any(axis=0) & (values == 0).any(axis=0)
    for part in PARTS[1:]:
        if not np.any(both["train"] & both[part]):
            raise UserError(
                f"labels: not one of {', '.join(labels.names[:5])}{' ...' if len(labels.names) > 5 else ''} "
                f"has both 1 and 0 among the train and the {part} records"
            )
    return np.flatnonzero(both["train"])


def score_model(
    model: Model, store: Store, records: Records, names: tuple[str, ...], batch_size: int, label: str
) -> dict[str, Score]:
    """Encode the records once and score each readout."""
    features = extract(model.params, model.config, model.inputs, store, records.rows, names, batch_size, label)
    train = records.part == "train"
    scores = {}
    for name in names:
        values = features.pop(name)
        if name == "encoder_concat":
            values = fill_unavailable(values, records.available, train)
        scores[name] = score_features(standardise(values, train), records)
    return scores


def score_features(features: np.ndarray, records: Records) -> Score:
    """Fit on train, choose the strength on validation (the stronger of equals), score test once. `features` [N, F]."""
    train, validation, test = (records.part == part for part in PARTS)
    path = fit_path(features[train], records.labels[train], L2_VALUES)
    chosen = {
        l2: macro_auroc(records.labels[validation], fit.scores(features[validation])).value for l2, fit in path.items()
    }
    best = max(chosen, key=lambda l2: (chosen[l2], l2))
    result = macro_auroc(records.labels[test], path[best].scores(features[test]))
    return Score(best, chosen[best], result.value, result.per_label)


def results_table(
    labels: Labels, learnable: np.ndarray, records: Records, trained: dict[str, Score], untrained: dict[str, Score]
) -> str:
    """results.csv: a line a readout and label; labels that could not be learned stand there without a figure."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        [
            "readout",
            "label",
            "description",
            "auroc",
            "auroc_random",
            "l2",
            "l2_random",
            *(f"{what}_{part}" for part in PARTS for what in ("known", "positive")),
        ]
    )
    place = {int(c): i for i, c in enumerate(learnable)}
    for name, score in trained.items():
        for c, label in enumerate(labels.names):
            shown = [_figure(s[name].per_label[place[c]]) if c in place else "" for s in (trained, untrained)]
            values = labels.matrix[records.rows, c]
            counts = []
            for part in PARTS:
                mine = values[records.part == part]
                counts += [int(np.count_nonzero(~np.isnan(mine))), int(np.count_nonzero(mine == 1))]
            table.writerow([name, label, labels.descriptions[c], *shown, score.l2, untrained[name].l2, *counts])
    return out.getvalue()


def _figure(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"
