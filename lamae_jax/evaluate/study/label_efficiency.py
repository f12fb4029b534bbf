"""How many labels a model needs: nested subsets of the labelled records, the paper's Figure 2 (configs/label_efficiency.py)."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamae_jax.artifact.folder import Model
from lamae_jax.data.labels import check_spec
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.outcomes import Settings
from lamae_jax.evaluate.results import ResultSet
from lamae_jax.evaluate.study.cells import StudyProtocol
from lamae_jax.evaluate.study.curves import Point, Words, asked_of, conclude, measured
from lamae_jax.evaluate.task import Task, check_not_pretrained, open_model, open_task, subset, untrained
from lamae_jax.progress import say


@dataclass(frozen=True)
class LabelEfficiencyConfig:
    """What configs/label_efficiency.py says; each of the `models` is measured untrained too. Raises UserError."""

    models: tuple[str, ...]
    store: str
    labels: str
    sizes: tuple[int, ...]
    draws: int
    cache: str
    protocol: StudyProtocol

    def __post_init__(self) -> None:
        for field, value in (("models", self.models), ("data.store", self.store)):
            if not value:
                raise UserError(f"{field} is empty: pass --config.{field}=...")
        check_spec(self.labels)
        if self.draws < 1:
            raise UserError(f"draws={self.draws}: must be at least 1")
        if min(self.sizes) < 0:
            raise UserError(f"sizes={','.join(map(str, self.sizes))}: must be numbers of records, 0 for all")


def label_efficiency(config: LabelEfficiencyConfig, workdir: Path) -> dict[str, Any]:
    """Write results.csv, predictions.npz (of the largest subset), summary.json, report.html and a figure; returns the summary."""
    began = time.monotonic()
    protocol = config.protocol
    whole = open_task(config.labels, Store.open(config.store), protocol.icd10)
    models = [open_model(spec, whole.store, protocol.seed) for spec in config.models]
    for model in models:
        check_not_pretrained(model, whole)
    features = Path(config.cache or workdir / "features")
    subjects = _with_untrained(dict(zip(_names(config.models), models, strict=True)), protocol.seed)
    asked = asked_of(whole)
    points: list[Point] = []
    sets: list[ResultSet] = []
    for task, size, draw in _subsets(config, whole):
        again = draw > 0 and task is whole
        drawn = dataclasses.replace(protocol, modes=_seeded(protocol)) if again else protocol
        settings = _of_draw(protocol.settings(features), draw)
        for name, model in subjects:
            say(f"{size} records, draw {draw}: {name}{'' if model.sha256 else ' untrained'}, {', '.join(drawn.modes)}")
            reached, best = measured(drawn, model, task, asked, size, draw, workdir / "cells", settings, name)
            points += reached
            sets.append(ResultSet(task, best, (name, size, task.counts["train"], draw)))
    if not sets:
        raise UserError(
            f"sizes={','.join(map(str, config.sizes))}: no subset shows both signs of a label; ask for more records"
        )
    words = Words(
        "labels",
        ("model", "size", "n_train", "draw"),
        "labelled training records",
        f"Mean of {config.draws} draws, their range shaded",
        "Label efficiency on",
        "Subsets are of whole patients, each inside the next larger one of its draw; validation and test stay whole. A system's "
        "readout is chosen on validation at each point. A label of which a subset does not show both signs counts as .5. Draws "
        "of all records differ by the seed of the training alone, where a mode has one. Below a mean stands the range of its "
        "draws, below a single draw its 95 % by patient.",
    )
    more = {
        "models": {spec: model.sha256 for spec, model in zip(config.models, models, strict=True)},
        "seconds": round(time.monotonic() - began, 2),
    }
    return conclude(workdir, words, protocol, whole, points, sets, [s for s in sets if s.task is sets[0].task], more)


def _subsets(config: LabelEfficiencyConfig, whole: Task) -> Iterator[tuple[Task, int, int]]:
    """Each subset as a task, with its number of records and draw; all records first, for their features serve all."""
    everything = whole.counts["train"]
    if any(size == 0 or size >= everything for size in config.sizes):
        for draw in range(config.draws if _seeded(config.protocol) else 1):
            yield whole, everything, draw
    for size in sorted({size for size in config.sizes if 0 < size < everything}, reverse=True):
        for draw in range(config.draws):
            try:
                yield subset(whole, size, draw), size, draw
            except UserError as error:  # no label shows both signs among so few
                say(f"left out: {size} records, draw {draw}: {error}")


def _seeded(protocol: StudyProtocol) -> tuple[str, ...]:
    """The modes that draw by chance: the order of the records, crops, first values. The others do the same in every draw."""
    return tuple(mode for mode in protocol.modes if mode in ("attention", "finetune"))


def _of_draw(settings: Settings, draw: int) -> Settings:
    """A draw trains with a seed of its own."""
    seed, tuning = settings.seed + draw, settings.tuning
    return dataclasses.replace(settings, seed=seed, tuning=tuning and dataclasses.replace(tuning, seed=seed))


def _names(specs: Sequence[str]) -> list[str]:
    """What to call the models: the folder of the run, or, where two runs' folders are called alike, all of what was given."""
    short = [Path(spec).parent.name if Path(spec).name == "model" else Path(spec).name for spec in specs]
    return [name if name and short.count(name) == 1 else spec for name, spec in zip(short, specs, strict=True)]


def _with_untrained(models: dict[str, Model], seed: int) -> list[tuple[str, Model]]:
    """The models, and each architecture with its inputs untrained, once, under the name of the first model that has them."""
    trained = [(name, model) for name, model in models.items() if model.sha256]
    bare: dict[object, tuple[str, Model]] = {}
    for name, model in models.items():
        bare.setdefault((model.config, model.inputs), (name, untrained(model, seed)))
    return trained + list(bare.values())
