"""What evaluation draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lamae_jax.evaluate.results import SYSTEMS, Judged
from lamae_jax.evaluate.statistics import calibration, roc_curve
from lamae_jax.evaluate.task import Task
from lamae_jax.signal.ecg_paper import save_figure

Subject = tuple[str, str]  # a system, and which of several models of it ("" where there is one)

RED = "#b3202c"
COLORS = {"lamae": RED, "lamae_e": "#e08a3c", "lamae_e_b": "#c9b037", "scratch": "0.45", "mmvm": "#4a7fb0", "ind_p": "#3f8f5a",
          "ind_s": "0.7"}  # fmt: skip
MARKERS = "o^sDvP"
NAMED = 8  # labels with a line of their own in a legend


def draw_probe(summary: dict[str, Any], path: Path) -> None:
    """The readouts' macro AUROC on the test fold, from the untrained model's dot to the model's, with intervals by patient."""
    names = list(summary["macro_auroc"])
    figure = Figure(figsize=(6.0, 0.9 + 0.55 * len(names)), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(reversed(names)):
        before, after = summary["macro_auroc_random"][name], summary["macro_auroc"][name]
        axes.plot([before, after], [y, y], color="0.9", linewidth=5, zorder=1)
        for value, key, color, text, who in (
            (before, "macro_auroc_interval_random", "0.55", "0.4", "untrained"),
            (after, "macro_auroc_interval", RED, "black", "this model"),
        ):
            axes.plot(summary[key][name]["by_patient"], [y, y], color=color, linewidth=1.5, zorder=2)
            axes.scatter([value], [y], color=color, zorder=3, label=who if y == 0 else None)
            # Those of the model above their dots, of the untrained one below: they may lie close together.
            up = who == "this model"
            axes.annotate(f"{value:.3f}", (value, y), xytext=(0, 6 if up else -6), textcoords="offset points",
                          va="bottom" if up else "top", ha="center", fontsize=8, color=text)  # fmt: skip
    axes.set_yticks(range(len(names)), names[::-1])
    axes.margins(x=0.1, y=0.3)
    axes.set_xlabel(
        f"macro AUROC with 95 % intervals by patient, test fold, {summary['labels']['task']}, "
        f"{summary['records']['test']} records",
        fontsize=8,
    )
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    save_figure(figure, path)


def draw_roc(task: Task, judged: Judged, path: Path) -> None:
    """Each label's ROC curve on the test fold; of many labels the best and worst are named, the others are grey."""
    labels, chances = task.values("test"), judged.outcome.prediction.chances
    order = np.argsort(-judged.aurocs)
    order = order[~np.isnan(judged.aurocs[order])]
    named = order if len(order) <= NAMED else np.concatenate([order[: NAMED // 2], order[-NAMED // 2 :]])
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    for c in order:
        known = ~np.isnan(labels[:, c])
        false_positive, true_positive = roc_curve(labels[known, c] == 1, chances[known, c])
        is_named = c in named
        axes.plot(
            false_positive,
            true_positive,
            color=None if is_named else "0.85",
            linewidth=1.4 if is_named else 0.7,
            zorder=3 if is_named else 1,
            label=f"{task.names[c]} {judged.aurocs[c]:.3f}" if is_named else None,
        )
    axes.set_xlabel("1 - specificity", fontsize=8)
    axes.set_ylabel("sensitivity", fontsize=8)
    axes.set_title(f"{task.name}, {judged.outcome.readout}: macro AUROC {judged.macro:.3f}", fontsize=9)
    _finish(axes)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    save_figure(figure, path)


def draw_calibration(task: Task, judged: Judged, path: Path) -> None:
    """Predicted chance against how often it came true, all labels pooled, over how many predictions there are a bin."""
    labels, chances = task.values("test"), judged.outcome.prediction.chances
    known = ~np.isnan(labels)
    found = calibration(labels[known] == 1, chances[known])
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color="0.8", linewidth=1)
    above.plot(found.predicted, found.observed, color=RED, marker="o", markersize=4, linewidth=1.4)
    above.set_ylabel("share that came true", fontsize=8)
    above.set_title(
        f"{task.name}, {judged.outcome.readout}: calibration error {found.error:.3f}, labels pooled", fontsize=9
    )
    bins = len(found.count)
    below.bar((np.arange(bins) + 0.5) / bins, found.count, width=0.9 / bins, color="0.7")
    below.set_yscale("log")
    below.set_ylabel("predictions", fontsize=8)
    below.set_xlabel("predicted chance", fontsize=8)
    for axes in (above, below):
        _finish(axes)
    save_figure(figure, path)


def draw_systems(systems: dict[str, Any], title: str, path: Path) -> None:
    """A line a system: the mean over seeds with its interval by patient, each seed a dot."""
    figure = Figure(figsize=(6.0, 1.0 + 0.34 * len(systems)), layout="constrained")
    axes = figure.subplots()
    for y, (system, of) in enumerate(reversed(systems.items())):
        color = COLORS[system]
        axes.plot(of["by_patient"], [y, y], color=color, linewidth=1.4)
        axes.scatter(of["each_seed"], [y] * len(of["each_seed"]), color=color, s=10, zorder=3)
        axes.scatter([of["macro_auroc"]], [y], color=color, marker="D", s=28, zorder=4)
        axes.annotate(
            f"{of['macro_auroc']:.3f}",
            (of["by_patient"][1], y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    names = [f"{SYSTEMS[system]}, {of['readout']}" for system, of in systems.items()]
    axes.set_yticks(range(len(names)), names[::-1])
    axes.margins(x=0.15, y=0.12)
    axes.set_xlabel("macro AUROC, test fold", fontsize=8)
    axes.set_title(title, fontsize=9)
    _finish(axes)
    save_figure(figure, path)


def draw_curves(curves: dict[Subject, dict[int, list[float]]], title: str, sizes: str, path: Path) -> None:
    """Macro AUROC along a size for each system: the mean, the range of draws or seeds shaded. Size 0 is a dashed line across.

    Further models of one system have its colour and another marker.
    """
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.subplots()
    before: list[str] = []
    for (system, model), by_size in curves.items():
        color, at, label = COLORS[system], [size for size in by_size if size], f"{SYSTEMS[system]} {model}".rstrip()
        marker = MARKERS[before.count(system) % len(MARKERS)]
        before.append(system)
        if 0 in by_size:
            axes.axhline(float(np.mean(by_size[0])), color=color, linewidth=1, linestyle="--", label=label)
        if at:
            axes.plot(at, [np.mean(by_size[n]) for n in at], color=color, marker=marker, markersize=4, label=label)
            low, high = ([bound(by_size[n]) for n in at] for bound in (min, max))
            axes.fill_between(at, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    ticks = sorted({size for by_size in curves.values() for size in by_size if size})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(sizes, fontsize=8)
    axes.set_ylabel("macro AUROC, test fold", fontsize=8)
    axes.set_title(title, fontsize=9)
    _finish(axes)
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    save_figure(figure, path)


def _finish(axes: Any) -> None:
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
