"""The cells of a study: models pretrained and predictions made, each kept when done and not made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.artifact.folder import Model, load_model
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.outcomes import MODES, Settings, outcomes
from lamae_jax.evaluate.results import Judged, Outcome, judge, load_outcomes, save_outcomes
from lamae_jax.evaluate.task import Task, check_contract, system_of
from lamae_jax.evaluate.tuning import TuneConfig
from lamae_jax.progress import say
from lamae_jax.train.pretrain import PretrainConfig, pretrain
from lamae_jax.train.records import simulated


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


def pretrained(config: PretrainConfig, store: Store, folder: Path) -> Model:
    """The model of a pretraining in `folder`, begun, continued or found complete there."""
    config = dataclasses.replace(config, store=str(store.folder))
    if not (folder / "summary.json").exists():
        say(f"pretraining {folder.name}")
        folder.mkdir(parents=True, exist_ok=True)
        pretrain(config, folder)
    model = load_model(folder / "model")
    check_contract(model, store)
    return model


def predicted(
    folder: Path, mode: str, model: Model, task: Task, readouts: tuple[str, ...], settings: Settings
) -> list[Outcome]:
    """`outcomes`, kept in a file of `folder` that is named by all that they follow from."""
    key: dict[str, Any] = {
        "model": model.sha256 or [dataclasses.asdict(model.config), model.provenance],
        "labels": task.name,
        "records": _digest(task.store.hash, task.rows, task.part, task.values("train"), task.values("validation")),
        "mode": mode,
        "readouts": {readout: system_of(model, readout) for readout in readouts},
        "seed": settings.seed,
        "tuning": dataclasses.asdict(settings.tuning) if mode == "finetune" else None,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"{name}.npz"
    found = load_outcomes(path, key)
    if found is None:
        found = outcomes(mode, model, task, readouts, settings)
        save_outcomes(path, found, key)
    return found


def _digest(*parts: str | np.ndarray) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
    return whole.hexdigest()
