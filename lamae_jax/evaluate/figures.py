"""What evaluation draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lamae_jax.signal.paper import save_figure


def draw_probe(summary: dict[str, Any], path: Path) -> None:
    """The readouts' macro AUROC on the test fold, from the random initialisation's dot to the model's."""
    names = list(summary["macro_auroc"])
    figure = Figure(figsize=(6.0, 0.9 + 0.42 * len(names)), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(reversed(names)):
        before, after = summary["macro_auroc_random"][name], summary["macro_auroc"][name]
        axes.plot([before, after], [y, y], color="0.8", linewidth=3, zorder=1)
        axes.scatter([before], [y], color="0.55", zorder=2, label="random initialisation" if y == 0 else None)
        axes.scatter([after], [y], color="#b3202c", zorder=3, label="this model" if y == 0 else None)
        # Each figure stands on the outer side of its dot.
        for value, other, color in ((after, before, "black"), (before, after, "0.4")):
            to_the_right = value > other or (value == other and color == "black")
            offset, side = ((7, 0), "left") if to_the_right else ((-7, 0), "right")
            axes.annotate(
                f"{value:.3f}",
                (value, y),
                xytext=offset,
                textcoords="offset points",
                va="center",
                ha=side,
                fontsize=8,
                color=color,
            )
    axes.set_yticks(range(len(names)), names[::-1])
    axes.margins(x=0.25, y=0.3)
    axes.set_xlabel(
        f"macro AUROC, test fold, {summary['labels']['task']}, {summary['records']['test']} records", fontsize=8
    )
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8, frameon=False)
    save_figure(figure, path)
