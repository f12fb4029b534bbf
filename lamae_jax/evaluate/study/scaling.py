"""How many recordings pretraining needs: nested subsets of them, then probes (configs/scaling.py)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamae_jax.artifact.folder import Model
from lamae_jax.data.labels import check_spec
from lamae_jax.evaluate.results import ResultSet
from lamae_jax.evaluate.study.cells import StudyProtocol, check_before, pretrained, study_store
from lamae_jax.evaluate.study.curves import Point, Words, asked_of, conclude, measured
from lamae_jax.evaluate.task import check_not_pretrained, open_task, untrained
from lamae_jax.progress import say
from lamae_jax.train.pretrain import PretrainConfig

WORDS = Words(
    "scaling",
    ("n_pretrain",),
    "recordings pretrained on",
    "Mean of the seeds, their range shaded",
    "Pretraining on fewer recordings:",
    "Subsets are of whole patients, each inside the next larger one; every pretraining takes the same number of steps and every "
    "model is evaluated with all labels. 0 recordings: the architecture untrained. A readout is chosen on validation. "
    "Below a mean stands the range of its seeds, below a single one its 95 % by patient.",
)


@dataclass(frozen=True)
class Pretraining:
    """One pretraining: on a nested subset of `size` records, from a `seed`."""

    size: int
    seed: int
    config: PretrainConfig

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.size or 'all'}-{self.seed}"


@dataclass(frozen=True)
class ScalingConfig:
    """What configs/scaling.py says: the `pretrainings`, and how their models are evaluated. Raises UserError."""

    pretrainings: tuple[Pretraining, ...]
    labels: str
    protocol: StudyProtocol

    def __post_init__(self) -> None:
        check_spec(self.labels)


def scaling(config: ScalingConfig, workdir: Path) -> dict[str, Any]:
    """Write results.csv, predictions.npz, summary.json, report.html and the figure; returns the summary.

    Size 0 stands for the untrained model; all are probed with all labels. Sizes that come to the same recordings are one.
    """
    began = time.monotonic()
    protocol = config.protocol
    store = study_store(config.pretrainings[0].config, workdir)
    task = open_task(config.labels, store, protocol.icd10)
    sizes = check_before([each.config for each in config.pretrainings], [task], store)
    distinct: dict[tuple[int, int], Pretraining] = {}
    for each, size in zip(config.pretrainings, sizes, strict=True):
        distinct.setdefault((size, each.seed), each)  # subsets are nested: as many records are the same records
    settings = protocol.settings(workdir / "features")
    points: list[Point] = []
    sets: list[ResultSet] = []

    def measure(model: Model, size: int, seed: int) -> None:
        say(f"{size} recordings, seed {seed}: {', '.join(protocol.modes)}")
        reached, judged = measured(protocol, model, task, asked_of(task), size, seed, workdir / "cells", settings)
        points.extend(reached)
        sets.append(ResultSet(task, judged, (size,)))

    models: dict[str, str] = {}
    for (size, seed), each in distinct.items():
        model = pretrained(each.config, store, workdir / "pretrain" / each.name)
        check_not_pretrained(model, task)
        models[each.name] = model.sha256
        if each.size == config.pretrainings[0].size:  # once a seed
            measure(untrained(model, seed), 0, seed)
        measure(model, size, seed)
    more = {"models": models, "seconds": round(time.monotonic() - began, 2)}
    return conclude(workdir, WORDS, protocol, task, points, sets, sets, more)
