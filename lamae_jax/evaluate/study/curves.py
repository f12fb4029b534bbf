"""Macro AUROC along a size: what few labels and few recordings cost. Figures, tables and files of both studies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.evaluate import report
from lamae_jax.evaluate.figures import Subject, draw_calibration, draw_curves, draw_roc
from lamae_jax.evaluate.outcomes import Settings, chosen_readouts
from lamae_jax.evaluate.report import (
    MODES_ARE,
    SYSTEMS_ARE,
    between,
    heading,
    image,
    page,
    paragraph,
    ranked,
    table,
    without_figure,
)
from lamae_jax.evaluate.results import SYSTEMS, Judged, ResultSet, codes_of, write_predictions, write_results
from lamae_jax.evaluate.study.cells import StudyProtocol, predicted
from lamae_jax.evaluate.summary import described_bootstrap, described_labels, where
from lamae_jax.evaluate.task import Task
from lamae_jax.files import write_json


@dataclass(frozen=True)
class Point:
    """One model on one subset: `size` records (of labels or of pretraining), which `draw` of them, and its macro AUROC.

    `model` tells several models of one system apart, whose figures are never averaged. `by_record` and `by_patient`: 95 % around
    `macro`. `macro_codes`: the mean over codes alone, with its two intervals; None where nothing stands above codes.
    `chosen` on validation, with macro AUROC `validation` there; `seed` is of the model's parameters, None where not known.
    """

    system: str
    model: str
    seed: int | None
    mode: str
    readout: str
    size: int
    draw: int
    macro: float
    by_record: list[float]
    by_patient: list[float]
    macro_codes: float | None
    codes_by_record: list[float] | None
    codes_by_patient: list[float] | None
    validation: float
    chosen: dict[str, float]

    @property
    def drawn(self) -> float:
        """What curves show: the paper's figure, the mean over codes, where there is one."""
        return self.macro if self.macro_codes is None else self.macro_codes

    @property
    def drawn_interval(self) -> list[float]:
        """95 % by patient around it."""
        return self.by_patient if self.codes_by_patient is None else self.codes_by_patient


@dataclass(frozen=True)
class Words:
    """What tells the two studies apart in what they write: the figures' `file` prefix, further `columns` of results.csv, what
    `sizes` count, what is `shaded`, the page's `title` and what it says `about` the subsets."""

    file: str
    columns: tuple[str, ...]
    sizes: str
    shaded: str
    title: str
    about: str


class Asked(NamedTuple):
    """The `labels` [C] of the set, as indices, that every point is a mean over, and which of them are `codes` [C'] where there is
    more than codes."""

    labels: np.ndarray
    codes: np.ndarray | None


def measured(
    protocol: StudyProtocol,
    model: Model,
    task: Task,
    asked: Asked,
    size: int,
    draw: int,
    cells: Path,
    settings: Settings,
    name: str = "",
) -> tuple[list[Point], list[Judged]]:
    """One model on one subset: of each mode and system the readout that did best on validation, which alone is scored.

    `name`: what the points call the model.
    """
    points, judged = [], []
    for mode in protocol.modes:
        readouts = chosen_readouts(model.config, mode, "" if mode == "finetune" else "all")
        found = predicted(cells, mode, model, task, readouts, settings)
        for system in dict.fromkeys(outcome.system for outcome in found):
            mine = (outcome for outcome in found if outcome.system == system)
            best = protocol.judge(task, max(mine, key=lambda outcome: outcome.prediction.validation))
            points.append(point_of(best, task.learnable, asked, name, size, draw))
            judged.append(best)
    return points, judged


def point_of(judged: Judged, learned: np.ndarray, asked: Asked, name: str, size: int, draw: int) -> Point:
    """The figures of one outcome, of which the subset could teach the labels `learned`."""
    outcome = judged.outcome
    over_all = macro_over_all(judged, learned, asked.labels)
    over_codes = None if asked.codes is None else macro_over_all(judged, learned, asked.codes)
    codes, codes_by_record, codes_by_patient = over_codes or (None, None, None)
    return Point(
        outcome.system, name, outcome.seed, outcome.mode, outcome.readout, size, draw, *over_all, codes, codes_by_record,
        codes_by_patient, outcome.prediction.validation, outcome.prediction.chosen,
    )  # fmt: skip


def conclude(
    workdir: Path,
    words: Words,
    protocol: StudyProtocol,
    task: Task,
    points: Sequence[Point],
    sets: Sequence[ResultSet],
    predictions: Sequence[ResultSet],
    more: dict[str, Any],
) -> dict[str, Any]:
    """Write results.csv, predictions.npz, the figures, summary.json (with `more` in it) and report.html; returns the summary."""
    write_results(workdir / "results.csv", sets, words.columns)
    write_predictions(workdir / "predictions.npz", predictions, words.columns)
    asked = asked_of(task)
    without = [label for c, label in enumerate(task.labels.names) if c not in asked.labels]
    summary = where(task) | {
        "points": [asdict(point) for point in points],
        "labels": {"names": list(task.names), **described_labels(task, without)},
        # Of the task that they were judged with: a subset may have fewer labels than the whole.
        "bootstrap": described_bootstrap(sets[0].task, sets[0].judged[0], protocol.resamples, protocol.seed),
        **more,
    }
    write_json(workdir / "summary.json", summary)
    _report(workdir, words, protocol, task, points, predictions, summary)
    return summary


def _report(
    workdir: Path,
    words: Words,
    protocol: StudyProtocol,
    task: Task,
    points: Sequence[Point],
    predictions: Sequence[ResultSet],
    summary: dict[str, Any],
) -> None:
    """The figures and report.html; ROC and calibration are those of what did best on validation among the `predictions`."""
    parts = [paragraph(SYSTEMS_ARE), report.protocol(task, summary["bootstrap"]), paragraph(words.about)]
    parts += without_figure(summary["labels"]["undefined"])
    codes = asked_of(task).codes
    title, caption = task.name, f"{words.shaded}."
    if codes is not None:
        title += f", mean over {len(codes)} codes"
        caption += (
            f" Macro AUROC over the {len(codes)} codes alone, as in the paper's Figure 2, in table and figure; summary.json has "
            "it as macro_codes, and as macro what counts the chapter and blocks above them as labels, too."
        )
    for mode in protocol.modes:
        figure = workdir / f"figures/{words.file}_{mode}.png"
        draw_curves(curves_of(points, mode), f"{mode}, {title}", words.sizes, figure)
        parts += [heading(MODES_ARE[mode]), curve_table(points, mode, words.sizes), image(figure, caption)]
        every = [(each, judged) for each in predictions for judged in each.judged if judged.outcome.mode == mode]
        of, best = max(every, key=lambda found: found[1].outcome.prediction.validation)
        which = ", ".join(f"{name} {value}" for name, value in zip(words.columns, of.more, strict=True))
        called = f"{SYSTEMS[best.outcome.system]}, {best.outcome.readout}, {which}"
        for draw, kind, what in ((draw_roc, "roc", "ROC curves"), (draw_calibration, "calibration", "calibration")):
            figure = workdir / f"figures/{words.file}_{mode}_{kind}.png"
            draw(of.task, best, figure)
            parts.append(image(figure, f"Best on validation ({called}): {what}"))
    page(workdir / "report.html", f"{words.title} {task.name}, {task.store.name}", parts)


def macro_over_all(judged: Judged, learned: np.ndarray, asked: np.ndarray) -> tuple[float, list[float], list[float]]:
    """The macro AUROC over the labels `asked` [C], with 95 % by record and by patient. One that the subset did not show both
    signs of (not in `learned`, the labels of `judged`) counts as .5: else a smaller subset would be asked fewer questions."""
    mine = np.isin(learned, asked)
    if not mine.any():
        return 0.5, [0.5, 0.5], [0.5, 0.5]
    share = float(np.count_nonzero(mine) / len(asked))
    found = judged.among(mine)
    by_record, by_patient = ([with_chance(bound, share) for bound in each] for each in found.macro_intervals().values())
    return with_chance(found.macro, share), by_record, by_patient


def with_chance(mean: float, share: float) -> float:
    """A mean over a `share` of the labels as a mean over all, the others counting .5."""
    return share * mean + (1 - share) * 0.5


def asked_of(task: Task) -> Asked:
    """What every point of a study on the task is a mean over."""
    labels = scored(task)
    codes = labels[np.isin(labels, codes_of(task))]
    return Asked(labels, codes if 0 < len(codes) < len(labels) else None)


def scored(task: Task) -> np.ndarray:
    """The learnable labels that the test fold shows both signs of, [C']: the others have no figure at any size."""
    test = task.values("test")
    return task.learnable[(test == 1).any(axis=0) & (test == 0).any(axis=0)]


def by_subject(points: Sequence[Point], mode: str) -> dict[Subject, dict[int, list[Point]]]:
    """The points of each system, and of each of its models, by size in the order of the draws; in the paper's order."""
    mine = sorted((p for p in points if p.mode == mode), key=lambda p: (p.size, p.draw))
    subjects = sorted({(p.system, p.model) for p in mine}, key=lambda s: (list(SYSTEMS).index(s[0]), s[1]))
    found: dict[Subject, dict[int, list[Point]]] = {}
    for system, model in subjects:
        several = sum(other == system for other, _ in subjects) > 1
        by_size = found.setdefault((system, model if several else ""), {})
        for point in mine:
            if (point.system, point.model) == (system, model):
                by_size.setdefault(point.size, []).append(point)
    return found


def curves_of(points: Sequence[Point], mode: str) -> dict[Subject, dict[int, list[float]]]:
    """The figures `drawn`, as `by_subject`."""
    return {
        subject: {size: [point.drawn for point in each] for size, each in by_size.items()}
        for subject, by_size in by_subject(points, mode).items()
    }


def curve_table(points: Sequence[Point], mode: str, title: str) -> str:
    """A row a size, a column a system (or model of it): the mean of the draws and their range below (and how many, where some
    were left out), of a single draw its 95 % by patient."""
    subjects = by_subject(points, mode)
    most = max(len(each) for by_size in subjects.values() for each in by_size.values())
    rows = []
    for size in sorted({size for by_size in subjects.values() for size in by_size}):
        cells = [by_size.get(size, []) for by_size in subjects.values()]
        means = [float(np.mean([point.drawn for point in each])) if each else math.nan for each in cells]
        rows.append([f"{size:,}", *ranked(means, [_spread(each, most) for each in cells])])
    return table([title, *(f"{SYSTEMS[system]}\n{model}".rstrip() for system, model in subjects)], rows)


def _spread(draws: Sequence[Point], most: int) -> str:
    """What stands below the mean of some draws, of `most` at other sizes."""
    if len(draws) == 1:
        return between(draws[0].drawn_interval)
    if not draws:
        return ""
    figures = [point.drawn for point in draws]
    return between((min(figures), max(figures))) + (f", {len(draws)} draws" if len(draws) < most else "")
