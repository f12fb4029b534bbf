"""How many recordings pretraining needs: nested subsets of them, then probes (configs/scaling.py)."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.errors import UserError
from lamae_jax.evaluate.figures import draw_curves
from lamae_jax.evaluate.outcomes import MODES, Settings
from lamae_jax.evaluate.report import MODES_ARE, SYSTEMS_ARE, Figure, heading, image, page, paragraph, protocol
from lamae_jax.evaluate.results import Judged, ResultSet, judge, write_predictions, write_results
from lamae_jax.evaluate.study.cells import predicted, pretrained, study_store
from lamae_jax.evaluate.study.curves import Point, best_on_validation, curve, curve_table, macro_over_all, systems_of
from lamae_jax.evaluate.summary import described_bootstrap, where
from lamae_jax.evaluate.task import check_not_pretrained, open_task, untrained
from lamae_jax.evaluate.tuning import TuneConfig
from lamae_jax.files import write_json
from lamae_jax.progress import say
from lamae_jax.train.pretrain import PretrainConfig


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
    """What configs/scaling.py says. Raises UserError."""

    pretrainings: tuple[Pretraining, ...]
    labels: str
    modes: tuple[str, ...]
    batch_size: int
    resamples: int
    seed: int
    icd10: Icd10Rules
    tuning: TuneConfig

    def __post_init__(self) -> None:
        if not self.labels:
            raise UserError("labels is empty: pass --config.labels=icd10:chapter_ix, ptbxl:super or csv:FILE")
        for mode in self.modes:
            if mode not in MODES:
                raise UserError(f"modes={','.join(self.modes)}: {mode or '(empty)'} must be one of {', '.join(MODES)}")


def scaling(config: ScalingConfig, workdir: Path) -> dict[str, Any]:
    """Write results.csv, predictions.npz, summary.json, report.html and the figure; returns the summary.

    Size 0 stands for the untrained model; all are probed with all labels.
    """
    began = time.monotonic()
    store = study_store(config.pretrainings[0].config, workdir)
    task = open_task(config.labels, store, config.icd10)
    settings = Settings(workdir / "features", config.batch_size, config.seed, config.tuning)
    points: list[Point] = []
    sets: list[ResultSet] = []

    def measure(model: Any, size: int, seed: int) -> None:
        judged: list[Judged] = []
        for mode in config.modes:
            readouts = ("attention",) if mode == "attention" else model.config.readouts
            readouts = readouts[:1] if mode == "finetune" else readouts
            found = predicted(workdir / "cells", mode, model, task, readouts, settings)
            for system in dict.fromkeys(outcome.system for outcome in found):
                mine = [judge(task, o, config.resamples, config.seed) for o in found if o.system == system]
                best = best_on_validation(mine)
                macro = macro_over_all(best, task.learnable, task.learnable)
                points.append(Point(system, mode, best.outcome.readout, size, seed, macro))
                judged.append(best)
        sets.append(ResultSet(task, judged, (size,)))

    models = {}
    for each in config.pretrainings:
        model = pretrained(each.config, store, workdir / "pretrain" / each.name)
        models[each.name] = model.sha256
        if each.seed not in {
            pretraining.seed for pretraining in config.pretrainings[: config.pretrainings.index(each)]
        }:
            measure(untrained(model, each.seed), 0, each.seed)
        check_not_pretrained(model, task.store, task.rows[task.part == "test"])
        assert model.pretraining_records is not None
        count = len(model.pretraining_records)
        say(f"{count} recordings, seed {each.seed}: {', '.join(config.modes)}")
        measure(model, count, each.seed)
    write_results(workdir / "results.csv", sets, ("n_pretrain",))
    write_predictions(workdir / "predictions.npz", task, [judged for each in sets for judged in each.judged])
    for mode in config.modes:
        curves = {system: curve(points, system, mode) for system in systems_of(points)}
        draw_curves(curves, f"{mode}, {task.name}", "recordings pretrained on", workdir / f"figures/scaling_{mode}.png")
    summary: dict[str, Any] = where(task) | {
        "points": [asdict(point) for point in points],
        "models": models,
        "labels": {"task": task.name, "names": list(task.names), **task.labels.notes},
        "bootstrap": described_bootstrap(task, sets[0].judged[0], config.resamples, config.seed),
        "seconds": round(time.monotonic() - began, 2),
    }
    write_json(workdir / "summary.json", summary)
    parts = [
        paragraph(SYSTEMS_ARE),
        protocol(task, summary["bootstrap"]),
        paragraph(
            "Subsets are of whole patients, each inside the next larger one; every pretraining takes the same number of "
            "steps and every model is evaluated with all labels. 0 recordings: the architecture untrained. A readout is chosen "
            "on validation."
        ),
    ]
    for mode in config.modes:
        parts += [heading(MODES_ARE[mode]), curve_table(points, mode, "recordings pretrained on")]
        parts.append(image(Figure(workdir / f"figures/scaling_{mode}.png", "Mean of the seeds, their range shaded")))
    page(workdir / "report.html", f"Pretraining on fewer recordings: {task.name}, {task.store.name}", parts)
    return summary
