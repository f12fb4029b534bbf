"""Macro AUROC along a size: what few labels and few recordings cost. Figures, tables and files of both studies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lamae_jax.evaluate.report import ranked, table
from lamae_jax.evaluate.results import SYSTEMS, Judged


@dataclass(frozen=True)
class Point:
    """One model on one subset: `size` records (of labels or of pretraining), which `draw` of them, and its macro AUROC."""

    system: str
    mode: str
    readout: str
    size: int
    draw: int
    macro: float


def best_on_validation(all_judged: Sequence[Judged]) -> Judged:
    """Of one model's readouts the one that did best on validation, the first of equals."""
    return max(all_judged, key=lambda each: each.outcome.prediction.validation)


def macro_over_all(judged: Judged, learned: np.ndarray, asked: np.ndarray) -> float:
    """The macro AUROC over the labels `asked` [C], where one that the subset did not show both signs of (not in `learned`, the
    labels of `judged`) counts as .5, chance: else a smaller subset would be asked fewer questions."""
    by_label = dict(zip(learned.tolist(), judged.aurocs.tolist(), strict=True))
    return float(np.nanmean([by_label.get(c, 0.5) for c in asked.tolist()]))


def curve(points: Sequence[Point], system: str, mode: str) -> dict[int, list[float]]:
    """The macro AUROCs of a system by size, in the order of the draws."""
    found: dict[int, list[float]] = {}
    for point in sorted(points, key=lambda point: (point.size, point.draw)):
        if (point.system, point.mode) == (system, mode):
            found.setdefault(point.size, []).append(point.macro)
    return found


def systems_of(points: Sequence[Point]) -> list[str]:
    """The systems that were measured, in the paper's order."""
    return [system for system in SYSTEMS if any(point.system == system for point in points)]


def curve_table(points: Sequence[Point], mode: str, title: str) -> str:
    """A row a size, a column a system: the mean of the draws, their range below."""
    systems = systems_of([point for point in points if point.mode == mode])
    curves = {system: curve(points, system, mode) for system in systems}
    rows = []
    for size in sorted({point.size for point in points if point.mode == mode}):
        values = [curves[system].get(size, [float("nan")]) for system in systems]
        below = [f"{min(each):.3f} to {max(each):.3f}" if len(each) > 1 else "" for each in values]
        rows.append([f"{size:,}", *ranked([float(np.mean(each)) for each in values], below)])
    return table([title, *(SYSTEMS[system] for system in systems)], rows)
