"""How many labels a model needs: nested subsets of the labelled records, the paper's Figure 2 (configs/label_efficiency.py)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lamae_jax.artifact.folder import Model
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.figures import draw_curves
from lamae_jax.evaluate.outcomes import MODES, Settings
from lamae_jax.evaluate.report import MODES_ARE, SYSTEMS_ARE, Figure, heading, image, page, paragraph, protocol
from lamae_jax.evaluate.results import Judged, ResultSet, judge, write_predictions, write_results
from lamae_jax.evaluate.study.cells import predicted
from lamae_jax.evaluate.study.curves import Point, best_on_validation, curve, curve_table, macro_over_all, systems_of
from lamae_jax.evaluate.summary import described_bootstrap, where
from lamae_jax.evaluate.task import Task, check_not_pretrained, open_model, open_task, system_of, untrained
from lamae_jax.evaluate.tuning import TuneConfig
from lamae_jax.files import write_json
from lamae_jax.progress import say


@dataclass(frozen=True)
class LabelEfficiencyConfig:
    """What configs/label_efficiency.py says; each of the `models` is measured untrained too. Raises UserError."""

    models: tuple[str, ...]
    store: str
    labels: str
    modes: tuple[str, ...]
    sizes: tuple[int, ...]
    draws: int
    batch_size: int
    resamples: int
    seed: int
    cache: str
    icd10: Icd10Rules
    tuning: TuneConfig

    def __post_init__(self) -> None:
        for field, value in (("models", self.models), ("data.store", self.store), ("labels", self.labels)):
            if not value:
                raise UserError(f"{field} is empty: pass --config.{field}=...")
        for mode in self.modes:
            if mode not in MODES:
                raise UserError(f"modes={','.join(self.modes)}: {mode or '(empty)'} must be one of {', '.join(MODES)}")
        if self.draws < 1:
            raise UserError(f"draws={self.draws}: must be at least 1")
        if min(self.sizes) < 0:
            raise UserError(f"sizes={','.join(map(str, self.sizes))}: must be numbers of records, 0 for all")


def label_efficiency(config: LabelEfficiencyConfig, workdir: Path) -> dict[str, Any]:
    """Write results.csv, predictions.npz (largest subset), summary.json, report.html and a figure; returns the summary."""
    began = time.monotonic()
    store = Store.open(config.store)
    whole = open_task(config.labels, store, config.icd10)
    models = [open_model(spec, whole.store, config.seed) for spec in config.models]
    for model in filter(lambda model: model.sha256, models):
        check_not_pretrained(model, whole.store, whole.rows[whole.part == "test"])
    settings = Settings(Path(config.cache or workdir / "features"), config.batch_size, config.seed, config.tuning)
    points: list[Point] = []
    sets: list[ResultSet] = []
    for task, size, draw in _subsets(config, store, whole):
        judged: list[Judged] = []
        for model in _with_untrained(models, config.seed):
            for mode in config.modes:
                readouts = ("attention",) if mode == "attention" else model.config.readouts
                readouts = readouts[:1] if mode == "finetune" else readouts
                say(f"{size} records, draw {draw}: {mode}, {system_of(model, readouts[0])}")
                found = predicted(workdir / "cells", mode, model, task, readouts, settings)
                for system in dict.fromkeys(outcome.system for outcome in found):
                    mine = [judge(task, o, config.resamples, config.seed) for o in found if o.system == system]
                    best = best_on_validation(mine)
                    macro = macro_over_all(best, task.learnable, whole.learnable)
                    points.append(Point(system, mode, best.outcome.readout, size, draw, macro))
                    judged.append(best)
        sets.append(ResultSet(task, judged, (size, draw)))
    if not sets:
        raise UserError(
            f"sizes={','.join(map(str, config.sizes))}: no subset shows both signs of a label; ask for more records"
        )
    write_results(workdir / "results.csv", sets, ("n_train", "draw"))
    write_predictions(workdir / "predictions.npz", sets[0].task, sets[0].judged)
    for mode in config.modes:
        curves = {system: curve(points, system, mode) for system in systems_of(points)}
        draw_curves(
            curves, f"{mode}, {whole.name}", "labelled training records", workdir / f"figures/labels_{mode}.png"
        )
    summary = where(whole) | {
        "points": [asdict(point) for point in points],
        "models": {spec: model.sha256 for spec, model in zip(config.models, models, strict=True)},
        "labels": {"task": whole.name, "names": list(whole.names), **whole.labels.notes},
        "bootstrap": described_bootstrap(whole, sets[0].judged[0], config.resamples, config.seed),
        "seconds": round(time.monotonic() - began, 2),
    }
    write_json(workdir / "summary.json", summary)
    _report(config, whole, points, summary, workdir)
    return summary


def _subsets(config: LabelEfficiencyConfig, store: Store, whole: Task) -> Iterator[tuple[Task, int, int]]:
    """Each subset as a task, with its number of records and draw; all records once and first, for their features serve all."""
    everything = whole.counts["train"]
    if any(size == 0 or size >= everything for size in config.sizes):
        yield whole, everything, 0
    for size in sorted({size for size in config.sizes if 0 < size < everything}, reverse=True):
        for draw in range(config.draws):
            try:
                yield open_task(config.labels, store, config.icd10, size, draw), size, draw
            except UserError as error:  # no label shows both signs among so few
                say(f"left out: {size} records, draw {draw}: {error}")


def _with_untrained(models: list[Model], seed: int) -> list[Model]:
    """The models, and each architecture untrained, once."""
    bare = {model.config: untrained(model, seed) for model in models}
    return [model for model in models if model.sha256] + list(bare.values())


def _report(
    config: LabelEfficiencyConfig, task: Task, points: list[Point], summary: dict[str, Any], workdir: Path
) -> None:
    parts = [
        paragraph(SYSTEMS_ARE),
        protocol(task, summary["bootstrap"]),
        paragraph(
            "Subsets are of whole patients, each inside the next larger one of its draw; validation and test stay whole. A "
            "system's readout is chosen on validation at each point. A label of which a subset does not show both signs "
            "counts as .5."
        ),
    ]
    for mode in config.modes:
        parts += [heading(MODES_ARE[mode]), curve_table(points, mode, "training records")]
        figure = workdir / f"figures/labels_{mode}.png"
        parts.append(image(Figure(figure, f"Mean of {config.draws} draws, their range shaded")))
    page(workdir / "report.html", f"Label efficiency on {task.name}, {task.store.name}", parts)
