"""The cells of a study: models pretrained and predictions made, each kept when done and not made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax import __version__
from lamae_jax.artifact.folder import Model, load_model
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.splits import pretraining_record_keys, split_stores, train_rows
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError, check_at_least_one
from lamae_jax.evaluate.outcomes import MODES, Settings, outcomes
from lamae_jax.evaluate.results import Judged, Outcome, judge, load_outcomes, save_outcomes
from lamae_jax.evaluate.task import Task, check_apart, check_contract, system_of
from lamae_jax.evaluate.tuning import TuneConfig
from lamae_jax.files import sha256_files
from lamae_jax.progress import say
from lamae_jax.train.pretrain import PretrainConfig, pretrain
from lamae_jax.train.records import simulated

# What predictions follow from: when one of these files changes, kept cells are made again. What reads recordings and labels is
# not among them (a key holds what it read), nor what judges, draws and reports.
PACKAGE = Path(__file__).parents[2]
COMPUTED_BY = (
    *sorted((PACKAGE / "model").glob("*.py")),
    PACKAGE / "artifact/head.py",
    PACKAGE / "data/loader.py",
    *(PACKAGE / f"train/{name}.py" for name in ("optimizer", "sharding", "step")),
    *(PACKAGE / f"evaluate/{name}.py" for name in (
        "attention", "cache", "features", "linear", "logistic", "neighbours", "outcomes", "statistics", "task", "tuning",
    )),
)  # fmt: skip
# Of what is imported here and now: a file that changes while a study runs does not change what the study computes.
CODE = sha256_files(COMPUTED_BY)


@dataclass(frozen=True)
class StudyProtocol:
    """How a study evaluates its models, in words of configs/probe.py and, for `tuning`, configs/finetune.py. Raises UserError."""

    modes: tuple[str, ...]
    batch_size: int
    resamples: int
    seed: int
    icd10: Icd10Rules
    tuning: TuneConfig

    def __post_init__(self) -> None:
        for mode in self.modes:
            if mode not in MODES:
                raise UserError(f"modes={','.join(self.modes)}: {mode or '(empty)'} must be one of {', '.join(MODES)}")
        check_at_least_one(self, "batch_size", "resamples")

    def settings(self, features: Path) -> Settings:
        """With a folder for features."""
        return Settings(features, self.batch_size, self.seed, self.tuning)

    def judge(self, task: Task, outcome: Outcome) -> Judged:
        """`judge` on this protocol's resamples."""
        return judge(task, outcome, self.resamples, self.seed)


def study_store(config: PretrainConfig, workdir: Path) -> Store:
    """The store that a study pretrains and evaluates on, simulated inside the workdir where none is named."""
    if config.store:
        return Store.open(config.store)
    say(
        "data.store is empty: the study is made on simulated ECGs (name a prepared store with --config.pretrain.data.store=DIR)"
    )
    return simulated(config, workdir)[0]


def check_before(configs: Sequence[PretrainConfig], tasks: Sequence[Task], store: Store) -> list[int]:
    """Raise UserError where a pretraining would see a test record of a task; returns how many records each will be on."""
    sizes = []
    for folds, limit, column in ((config.folds, config.limit, config.fold_column) for config in configs):
        (split,) = split_stores([store], column)
        rows = train_rows([split], folds, limit)
        for task in tasks:
            check_apart(pretraining_record_keys([split], rows), task, "would be")
        sizes.append(sum(map(len, rows)))
    return sizes


def pretrained(config: PretrainConfig, store: Store, folder: Path) -> Model:
    """The model of a pretraining in `folder`, begun, continued or found complete there. Raises UserError where that was on the
    store as it then was, and it has changed."""
    config = dataclasses.replace(config, store=str(store.folder))
    if not (folder / "summary.json").exists():
        say(f"pretraining {folder.name}")
        folder.mkdir(parents=True, exist_ok=True)
        pretrain(config, folder)
    model = load_model(folder / "model")
    stores = model.provenance.get("stores")
    if stores and stores[0]["sha256"] != store.hash:
        raise UserError(
            f"{folder}: pretrained on {store.folder} as it was before it was prepared anew; name another --workdir"
        )
    check_contract(model, store)
    return model


def predicted(
    folder: Path, mode: str, model: Model, task: Task, readouts: tuple[str, ...], settings: Settings
) -> list[Outcome]:
    """`outcomes`, kept in a file of `folder` that is named by all that they follow from."""
    key: dict[str, Any] = {
        "version": __version__,
        "code": CODE,
        "model": model.sha256 or [dataclasses.asdict(model.config), dataclasses.asdict(model.inputs), model.provenance],
        "labels": task.name,
        "records": _digest(task.store.hash, task.rows, task.part, task.values("train"), task.values("validation")),
        "mode": mode,
        "readouts": {readout: system_of(model, readout) for readout in readouts},
        "seed": settings.seed,
        "tuning": dataclasses.asdict(settings.tuning) if mode == "finetune" and settings.tuning else None,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}.npz"
    found = load_outcomes(path, key)
    if found is None:
        # Without the models, as they will be found again: a study that held all that it tuned would fill the memory.
        found = [dataclasses.replace(each, model=None) for each in outcomes(mode, model, task, readouts, settings)]
        save_outcomes(path, found, key)
    return found


def _digest(*parts: str | np.ndarray) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return whole.hexdigest()
