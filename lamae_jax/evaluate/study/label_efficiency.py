"""How many labels a model needs: nested subsets of the labelled records, the paper's Figure 2 (configs/label_efficiency.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamae_jax.artifact.folder import Model
from lamae_jax.data.labels import check_spec
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.results import Judged, ResultSet
from lamae_jax.evaluate.study.cells import StudyProtocol
from lamae_jax.evaluate.study.curves import Point, Words, conclude, measured
from lamae_jax.evaluate.task import Task, check_not_pretrained, open_model, open_task, untrained
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
    """Write results.csv, predictions.npz (largest subset), summary.json, report.html and a figure; returns the summary."""
    began = time.monotonic()
    protocol, store = config.protocol, Store.open(config.store)
    whole = open_task(config.labels, store, protocol.icd10)
    models = [open_model(spec, whole.store, protocol.seed) for spec in config.models]
    for model in models:
        check_not_pretrained(model, whole)
    settings = protocol.settings(Path(config.cache or workdir / "features"))
    subjects = _with_untrained(models, protocol.seed)
    points: list[Point] = []
    sets: list[ResultSet] = []
    for task, size, draw in _subsets(config, store, whole):
        judged: list[Judged] = []
        for number, model in enumerate(subjects, 1):
            say(f"{size} records, draw {draw}: model {number} of {len(subjects)}, {', '.join(protocol.modes)}")
            reached, best = measured(protocol, model, task, whole.learnable, size, draw, workdir / "cells", settings)
            points += reached
            judged += best
        sets.append(ResultSet(task, judged, (size, draw)))
    if not sets:
        asked = ",".join(map(str, config.sizes))
        raise UserError(f"sizes={asked}: no subset shows both signs of a label; ask for more records")
    words = Words(
        "labels",
        ("n_train", "draw"),
        "labelled training records",
        f"Mean of {config.draws} draws, their range shaded",
        "Label efficiency on",
        "Subsets are of whole patients, each inside the next larger one of its draw; validation and test stay whole. A system's "
        "readout is chosen on validation at each point. A label of which a subset does not show both signs counts as .5.",
    )
    more = {
        "models": {spec: model.sha256 for spec, model in zip(config.models, models, strict=True)},
        "seconds": round(time.monotonic() - began, 2),
    }
    return conclude(workdir, words, protocol, whole, points, sets, sets[0], more)


def _subsets(config: LabelEfficiencyConfig, store: Store, whole: Task) -> Iterator[tuple[Task, int, int]]:
    """Each subset as a task, with its number of records and draw; all records once and first, for their features serve all."""
    everything = whole.counts["train"]
    if any(size == 0 or size >= everything for size in config.sizes):
        yield whole, everything, 0
    for size in sorted({size for size in config.sizes if 0 < size < everything}, reverse=True):
        for draw in range(config.draws):
            try:
                yield open_task(config.labels, store, config.protocol.icd10, size, draw), size, draw
            except UserError as error:  # no label shows both signs among so few
                say(f"left out: {size} records, draw {draw}: {error}")


def _with_untrained(models: list[Model], seed: int) -> list[Model]:
    """The models, and each architecture untrained, once."""
    bare = {model.config: untrained(model, seed) for model in models}
    return [model for model in models if model.sha256] + list(bare.values())
