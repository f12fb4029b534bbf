"""What is evaluated: a model, the records of a label set in three parts, and the guards between them.

N records, L leads, C labels that can be learned (both signs among the training records).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from lamae_jax.artifact.folder import Model, load_model
from lamae_jax.data.labels import load_labels, split_for
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.labels.table import Labels
from lamae_jax.data.splits import (
    check_disjoint,
    limited,
    name_hint,
    test_rows,
    text_hashes,
    train_rows,
    validation_rows,
)
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import first_params
from lamae_jax.model.presets import preset
from lamae_jax.progress import say

RANDOM = "random:"
PARTS = ("train", "validation", "test")


class Examples(NamedTuple):
    """Records to learn from or to choose by: `features` [n, F] and `labels` [n, C] of 1, 0 or NaN."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What a mode says of the test records, made without their labels.

    `chosen`: the settings that did best on validation, `validation` its macro AUROC there; `chances` [n_test, C] from 0 to 1.
    """

    chosen: dict[str, float]
    validation: float
    chances: np.ndarray


@dataclass(frozen=True)
class Task:
    """A label set on a store: `rows` [N] in the store, `part` [N] (one of PARTS), all of the set's `labels`, and which C of
    them can be learned, `learnable` [C]."""

    name: str
    store: Store
    labels: Labels
    rows: np.ndarray
    part: np.ndarray
    learnable: np.ndarray

    def rows_of(self, part: str) -> np.ndarray:
        """The rows of a part's records, [n]."""
        return self.rows[self.part == part]

    def values(self, part: str) -> np.ndarray:
        """The learnable labels of a part's records, [n, C]."""
        return self.labels.matrix[self.rows_of(part)][:, self.learnable]

    @property
    def names(self) -> tuple[str, ...]:
        """The C learnable labels."""
        return tuple(self.labels.names[c] for c in self.learnable)

    @property
    def counts(self) -> dict[str, int]:
        """Records a part."""
        return {part: int(np.count_nonzero(self.part == part)) for part in PARTS}


def open_task(spec: str, store: Store, icd10: Icd10Rules, limit: int = 0) -> Task:
    """The records of the three parts that the labels `spec` keep, part by part; `icd10`: rules of such labels.

    With `limit` the training part is a `subset`. Raises UserError for an empty part, shared patients, or labels of which none
    can be learned, chosen by and scored.
    """
    store = split_for(spec, store, icd10)
    labels = load_labels(spec, store, icd10)
    parts = dict(zip(PARTS, (train_rows([store]), validation_rows([store]), test_rows([store])), strict=True))
    check_disjoint([store], **parts)
    kept = {part: rows[labels.keep[rows]] for part, (rows,) in parts.items()}
    for part, rows in kept.items():
        if not len(rows):
            raise UserError(
                f"labels: none of the {len(parts[part][0])} {part} records of {store.folder} has a known label"
            )
    task = _task(spec, store, labels, kept)
    return subset(task, limit) if limit else task


def subset(task: Task, limit: int, draw: int = 0) -> Task:
    """The task with a nested subset of whole patients of at most `limit` training records, another for each `draw`.

    Store and labels are the task's own: many subsets cost no more memory and no more open files. Raises UserError for labels of
    which none can be learned, chosen by and scored.
    """
    kept = {part: task.rows_of(part) for part in PARTS}
    (kept["train"],) = limited([task.store], [kept["train"]], limit, draw)
    return _task(task.name, task.store, task.labels, kept)


def _task(name: str, store: Store, labels: Labels, kept: dict[str, np.ndarray]) -> Task:
    rows = np.concatenate(list(kept.values()))
    part_of = np.repeat(list(kept), [len(each) for each in kept.values()])
    return Task(name, store, labels, rows, part_of, _learnable(labels, kept))


def _learnable(labels: Labels, parts: dict[str, np.ndarray]) -> np.ndarray:
    """The labels [C] with both signs among the training records; UserError unless one of them can be chosen and scored by."""
    both = {}
    for part, rows in parts.items():
        values = labels.matrix[rows]
        both[part] = (values == 1).any(axis=0) & (values == 0).any(axis=0)
    for part in PARTS[1:]:
        if not np.any(both["train"] & both[part]):
            raise UserError(
                f"labels: not one of {', '.join(labels.names[:5])}{' ...' if len(labels.names) > 5 else ''} "
                f"has both 1 and 0 among the train and the {part} records"
            )
    return np.flatnonzero(both["train"])


def open_model(spec: str, store: Store, seed: int) -> Model:
    """The model folder `spec`, or for `random:PRESET` that preset untrained, of the store's contract with patches of 200 ms.

    Raises UserError where model and store do not see the same signal.
    """
    if spec.startswith(RANDOM):
        contract = store.contract
        config = preset(
            spec.removeprefix(RANDOM), leads=len(contract.leads), samples=contract.samples, patch=contract.fs // 5
        )
        return untrained(Model({}, config, InputConfig(), contract, {}, "", None), seed)
    model = load_model(spec)
    check_contract(model, store)
    return model


def untrained(model: Model, seed: int) -> Model:
    """The same architecture with exactly the parameters that pretraining with this seed starts from; its sha256 is empty."""
    params = jax.jit(first_params, static_argnums=0)(model.config, seed)
    nothing = np.zeros(0, np.uint64)
    return dataclasses.replace(
        model, params=params, provenance={"config": {"seed": seed}}, sha256="", pretraining_records=nothing
    )


def check_contract(model: Model, store: Store) -> None:
    """Raise UserError naming each field in which the store's contract is not the model's; stored records may be longer."""
    found = model.contract.differences_from_stored(store.contract)
    if found:
        raise UserError(f"model and store differ in their signal contract: {'; '.join(found)}")


def check_not_pretrained(model: Model, task: Task) -> str:
    """Raise UserError naming the test records that the model was pretrained on; returns what a summary says of it."""
    if not model.sha256:
        return "not needed: the model is untrained"
    if model.pretraining_records is None:
        say(
            "the model folder doesn't list its pretraining records: whether the test fold was among them can't be checked"
        )
        return "not possible: the model folder has no pretraining_records.npy"
    return check_apart(model.pretraining_records, task, "were")


def check_apart(pretraining_records: np.ndarray, task: Task, when: str) -> str:
    """The same of the keys of records that `were` pretrained on, or (`when`) `would be`."""
    store = task.store
    ids = store.record_ids[task.rows_of("test")].astype(str)
    seen = sorted(set(ids[np.isin(text_hashes(store.name, ids), pretraining_records)].tolist()))
    if seen:
        more = f" and {len(seen) - 10} more" if len(seen) > 10 else ""
        raise UserError(
            f"{len(seen)} of {len(set(ids.tolist()))} test records {when} pretrained on: {', '.join(seen[:10])}{more}; "
            f"pretrain on other folds (data.folds=train of column data.fold_column={store.split.column}){name_hint(store.name)}"
        )
    return f"passed: none of {len(set(ids.tolist()))} test records was pretrained on"


def system_of(model: Model, readout: str) -> str:
    """How results name what is read from a model (docs/evaluating.md), by what its folder says of its pretraining."""
    pretraining = model.provenance.get("config", {})  # any JSON object may stand there
    pretraining = pretraining if isinstance(pretraining, dict) else {}
    if not model.config.latent_depth:
        return "ind_s" if not model.sha256 else "mmvm" if pretraining.get("system") == "mmvm" else "ind_p"
    if not model.sha256:
        return "scratch"
    mask = pretraining.get("mask")
    if isinstance(mask, dict) and mask.get("alpha_LA") == 0:
        return "lamae_e_b"
    return "lamae_e" if readout.startswith("encoder") else "lamae"
