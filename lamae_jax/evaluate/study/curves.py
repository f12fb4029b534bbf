"""Macro AUROC along a size: what few labels and few recordings cost. Figures, tables and files of both studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.evaluate import report
from lamae_jax.evaluate.figures import Subject, draw_curves
from lamae_jax.evaluate.outcomes import Settings, chosen_readouts
from lamae_jax.evaluate.report import MODES_ARE, SYSTEMS_ARE, heading, image, page, paragraph, ranked, table
from lamae_jax.evaluate.results import SYSTEMS, Judged, ResultSet, write_predictions, write_results
from lamae_jax.evaluate.study.cells import StudyProtocol, predicted
from lamae_jax.evaluate.summary import described_bootstrap, where
from lamae_jax.evaluate.task import Task
from lamae_jax.files import write_json


@dataclass(frozen=True)
class Point:
    """One model on one subset: `size` records (of labels or of pretraining), which `draw` of them, and its macro AUROC.

    `model` tells several models of one system apart, whose figures are never averaged.
    """

    system: str
    model: str
    mode: str
    readout: str
    size: int
    draw: int
    macro: float


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


def measured(
    protocol: StudyProtocol,
    model: Model,
    task: Task,
    asked: np.ndarray,
    size: int,
    draw: int,
    cells: Path,
    settings: Settings,
    name: str = "",
) -> tuple[list[Point], list[Judged]]:
    """One model on one subset: of each mode and system the readout that did best on validation, which alone is scored.

    `asked`: the labels that count, see `macro_over_all`; `name`: what the points call the model.
    """
    points, judged = [], []
    for mode in protocol.modes:
        readouts = chosen_readouts(model.config, mode, "" if mode == "finetune" else "all")
        found = predicted(cells, mode, model, task, readouts, settings)
        for system in dict.fromkeys(outcome.system for outcome in found):
            mine = (outcome for outcome in found if outcome.system == system)
            best = protocol.judge(task, max(mine, key=lambda outcome: outcome.prediction.validation))
            macro = macro_over_all(best, task.learnable, asked)
            points.append(Point(system, name, mode, best.outcome.readout, size, draw, macro))
            judged.append(best)
    return points, judged


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
    summary = where(task) | {
        "points": [asdict(point) for point in points],
        "labels": {"task": task.name, "names": list(task.names), **task.labels.notes},
        # Of the task that they were judged with: a subset may have fewer labels than the whole.
        "bootstrap": described_bootstrap(sets[0].task, sets[0].judged[0], protocol.resamples, protocol.seed),
        **more,
    }
    write_json(workdir / "summary.json", summary)
    parts = [paragraph(SYSTEMS_ARE), report.protocol(task, summary["bootstrap"]), paragraph(words.about)]
    for mode in protocol.modes:
        curves = curves_of(points, mode)
        figure = workdir / f"figures/{words.file}_{mode}.png"
        draw_curves(curves, f"{mode}, {task.name}", words.sizes, figure)
        parts += [heading(MODES_ARE[mode]), curve_table(points, mode, words.sizes), image(figure, words.shaded)]
    page(workdir / "report.html", f"{words.title} {task.name}, {task.store.name}", parts)
    return summary


def macro_over_all(judged: Judged, learned: np.ndarray, asked: np.ndarray) -> float:
    """The macro AUROC over the labels `asked` [C], where one that the subset did not show both signs of (not in `learned`, the
    labels of `judged`) counts as .5, chance: else a smaller subset would be asked fewer questions."""
    by_label = dict(zip(learned.tolist(), judged.aurocs.tolist(), strict=True))
    return float(np.nanmean([by_label.get(c, 0.5) for c in asked.tolist()]))


def scored(task: Task) -> np.ndarray:
    """The learnable labels that the test fold shows both signs of, [C']: the others have no figure at any size."""
    test = task.values("test")
    return task.learnable[(test == 1).any(axis=0) & (test == 0).any(axis=0)]


def curves_of(points: Sequence[Point], mode: str) -> dict[Subject, dict[int, list[float]]]:
    """The macro AUROCs of each system, and of each of its models, by size in the order of the draws; in the paper's order."""
    mine = sorted((p for p in points if p.mode == mode), key=lambda p: (p.size, p.draw))
    subjects = sorted({(p.system, p.model) for p in mine}, key=lambda s: (list(SYSTEMS).index(s[0]), s[1]))
    found: dict[Subject, dict[int, list[float]]] = {}
    for system, model in subjects:
        several = sum(other == system for other, _ in subjects) > 1
        by_size = found.setdefault((system, model if several else ""), {})
        for point in mine:
            if (point.system, point.model) == (system, model):
                by_size.setdefault(point.size, []).append(point.macro)
    return found


def curve_table(points: Sequence[Point], mode: str, title: str) -> str:
    """A row a size, a column a system (or model of it): the mean of the draws, their range below."""
    curves = curves_of(points, mode)
    rows = []
    for size in sorted({size for by_size in curves.values() for size in by_size}):
        values = [by_size.get(size, [float("nan")]) for by_size in curves.values()]
        below = [f"{min(each):.3f} to {max(each):.3f}" if len(each) > 1 else "" for each in values]
        rows.append([f"{size:,}", *ranked([float(np.mean(each)) for each in values], below)])
    return table([title, *(f"{SYSTEMS[system]}\n{model}".rstrip() for system, model in curves)], rows)
