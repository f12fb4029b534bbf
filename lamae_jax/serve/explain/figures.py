"""What explanations draw, each figure as PNG and as SVG. n records, L leads, C labels, A alterations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from lamae_jax.serve.explain.probe import Cost
from lamae_jax.signal.ecg_paper import save_figure, save_vector

RED, BLUE, GREY = "#b3202c", "#0057d9", "0.6"
LOSS = LinearSegmentedColormap.from_list("loss", ["#ffffff", "#f6d5cd", "#e08a6f", RED])
GAIN_OR_LOSS = LinearSegmentedColormap.from_list("gain or loss", [BLUE, "#ffffff", "#f6d5cd", "#e08a6f", RED])
WORSE_OR_BETTER = LinearSegmentedColormap.from_list(
    "worse or better", [BLUE, "#ffffff", "#fdeab0", "#f5b800", "#a86d00"]
)
SHARE = LinearSegmentedColormap.from_list("share", ["#ffffff", "#fdeab0", "#f5b800", "#a86d00"])
SMALL = 8


def save_both(figure: Figure, path: Path) -> None:
    """Write `path` (.png), and the same as .svg beside it."""
    save_figure(figure, path)
    save_vector(figure, path.with_suffix(".svg"))


def draw_importance(
    leads: Sequence[str],
    last: np.ndarray,
    rollout: np.ndarray,
    removed: Sequence[Cost],
    alone: Sequence[Cost],
    whole: Cost,
    path: Path,
) -> None:
    """A row a lead: what CLS gives it of its attention (`last`, `rollout` [L]), what is lost without it, what it reaches alone.

    `last` and `rollout` may be empty, for models without a CLS that looks over leads.
    """
    figure = Figure(figsize=(9.0, 0.9 + 0.27 * len(leads)), layout="constrained")
    panels = figure.subplots(1, 3 if len(last) else 2, sharey=True)
    y = np.arange(len(leads))[::-1]
    if len(last):
        axes, *panels = panels
        axes.barh(y, 100 * rollout, height=0.6, color="#f5b800", label="all layers (rollout)")
        axes.scatter(100 * last, y, color="black", s=14, zorder=3, label="last layer")
        axes.axvline(100 / len(leads), color="0.5", linewidth=0.8, linestyle=":")
        axes.set_xlabel("share of CLS's attention, %", fontsize=SMALL)
        axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    axes, other = panels
    for cost, at in zip(removed, y, strict=True):
        axes.plot(cost.lost_interval, [at, at], color=RED, linewidth=1.2)
        axes.scatter([cost.lost], [at], color=RED, s=18, zorder=3)
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("macro AUROC lost without it", fontsize=SMALL)
    for cost, at in zip(alone, y, strict=True):
        other.plot(cost.interval, [at, at], color=BLUE, linewidth=1.2)
        other.scatter([cost.macro], [at], color=BLUE, s=18, zorder=3)
    other.axvline(whole.macro, color="black", linewidth=0.8, linestyle="--")
    other.axvspan(*whole.interval, color="0.9", linewidth=0, zorder=0)
    other.set_xlabel("macro AUROC with it alone (dashed: all leads)", fontsize=SMALL)
    for each in figure.axes:
        each.set_yticks(y, leads)
        _finish(each)
    save_both(figure, path)


def draw_matrix(costs: Sequence[Cost], labels: Sequence[str], path: Path) -> None:
    """The robustness matrix: a row an alteration, a column a label, AUROC written, what is lost of it shaded."""
    values = np.array([[cost.macro, *cost.aurocs] for cost in costs])
    lost = np.array([[cost.lost, *cost.lost_each] for cost in costs])
    figure = Figure(figsize=(2.6 + 0.72 * values.shape[1], 1.1 + 0.3 * len(costs)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(lost, cmap=LOSS, vmin=0, vmax=0.2, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "-" if np.isnan(value) else f"{value:.3f}"
        color = "white" if lost[row, column] > 0.15 else "black"
        weight = "bold" if column == 0 else "normal"
        axes.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=color, weight=weight)
    axes.set_xticks(range(values.shape[1]), ["mean", *labels], fontsize=SMALL)
    axes.set_yticks(range(len(costs)), [cost.name for cost in costs], fontsize=SMALL)
    axes.xaxis.tick_top()
    _bare(axes)
    bar = figure.colorbar(image, ax=axes, extend="max", shrink=0.8, pad=0.02)
    bar.set_label("AUROC lost", fontsize=SMALL)
    bar.ax.tick_params(labelsize=7)
    save_both(figure, path)


def draw_by_label(
    leads: Sequence[str],
    labels: Sequence[str],
    shares: np.ndarray,
    removed: Sequence[Cost],
    alone: Sequence[Cost],
    path: Path,
) -> None:
    """Leads against labels: attention where the label is present (`shares` [C, L], may be empty), lost without, with it alone."""
    lost = np.array([cost.lost_each for cost in removed]).T  # [C, L]
    single = np.array([cost.aurocs for cost in alone]).T
    parts = [
        # White is an even share's half, nothing lost, and chance: colours say on which side of it a figure is.
        (
            100 * shares,
            SHARE,
            (50 / len(leads), 200 / len(leads)),
            "share of attention (rollout) where the label is present, %",
        ),
        (1000 * lost, GAIN_OR_LOSS, (-13, 40), "AUROC lost without the lead, thousandths (blue: gained)"),
        (100 * single, WORSE_OR_BETTER, (35, 95), "AUROC with the lead alone, hundredths (blue: below chance)"),
    ]
    parts = parts if len(shares) else parts[1:]
    figure = Figure(
        figsize=(1.6 + 0.5 * len(leads), 0.4 + len(parts) * (0.75 + 0.24 * len(labels))), layout="constrained"
    )
    panels = np.atleast_1d(figure.subplots(len(parts), 1))
    for axes, (values, colours, (low, high), title) in zip(panels, parts, strict=True):
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isnan(value):
                continue
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            value = np.round(value) + 0.0  # no -0
            axes.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
        axes.set_title(title, fontsize=SMALL, loc="left")
        axes.set_xticks(range(len(leads)), leads, fontsize=SMALL)
        axes.set_yticks(range(len(labels)), labels, fontsize=SMALL)
        _bare(axes)
    save_both(figure, path)


def draw_map(
    points: np.ndarray, labels: np.ndarray, names: Sequence[str], axes_named: tuple[str, str], path: Path
) -> None:
    """Records as dots `points` [n, 2], a panel a label: red where `labels` [n, C] is 1."""
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.0 * columns, 2.9 * rows), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for c, axes in enumerate(panels):
        if c >= len(names):
            axes.set_axis_off()
            continue
        present = labels[:, c] == 1
        axes.scatter(*points[~present].T, s=4, color="0.78", linewidths=0)
        axes.scatter(*points[present].T, s=5, color=RED, alpha=0.6, linewidths=0)
        axes.set_title(f"{names[c]}, {np.count_nonzero(present)} records", fontsize=SMALL)
        axes.set_xlabel(axes_named[0], fontsize=7)
        axes.set_ylabel(axes_named[1], fontsize=7)
        axes.set_xticks([])
        axes.set_yticks([])
        _bare(axes)
    save_both(figure, path)


def draw_hidden_leads(leads: Sequence[str], correlations: Sequence[np.ndarray], path: Path) -> None:
    """How like each lead, hidden, was what the model drew of it: quartiles of the correlations [n] over records."""
    figure = Figure(figsize=(5.2, 2.6), layout="constrained")
    axes = figure.subplots()
    low, middle, high = np.array([np.quantile(each, [0.25, 0.5, 0.75]) for each in correlations]).T
    x = np.arange(len(leads))
    axes.vlines(x, low, high, color=BLUE, linewidth=2)
    axes.scatter(x, middle, color=BLUE, s=22, zorder=3)
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.set_ylim(min(-0.1, low.min() - 0.05), 1)
    axes.set_xticks(x, leads)
    axes.set_ylabel("correlation with the recorded lead", fontsize=SMALL)
    _finish(axes)
    save_both(figure, path)


def draw_chances(names: Sequence[str], labels: Sequence[str], chances: np.ndarray, path: Path) -> None:
    """One recording: what is predicted of it (`chances` [A, C], the first as it was recorded) as each lead is taken away."""
    figure = Figure(figsize=(2.2 + 0.72 * len(labels), 1.0 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    change = chances - chances[:1]
    axes.imshow(change, cmap="RdBu_r", vmin=-0.5, vmax=0.5, aspect="auto")
    for (row, column), value in np.ndenumerate(chances):
        weight = "bold" if row == 0 else "normal"
        color = "white" if abs(change[row, column]) > 0.35 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=SMALL, weight=weight, color=color)
    axes.set_xticks(range(len(labels)), labels, fontsize=SMALL)
    axes.set_yticks(range(len(names)), names, fontsize=SMALL)
    axes.xaxis.tick_top()
    _bare(axes)
    save_both(figure, path)


def _finish(axes: Axes) -> None:
    axes.tick_params(labelsize=SMALL)
    axes.spines[["top", "right"]].set_visible(False)


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
