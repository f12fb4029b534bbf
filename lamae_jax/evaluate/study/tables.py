"""From many judged outcomes to the tables: one column a system, its readout chosen on validation, seeds averaged.

Two comparisons are made, for they can differ: at equal width (every system read as D features) and best against best (any
readout). S seeds, R resamples, C labels.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.evaluate.bootstrap import percentile_interval
from lamae_jax.evaluate.report import MODES_ARE, SYSTEMS_ARE, between, heading, page, paragraph, ranked, small, table
from lamae_jax.evaluate.results import SYSTEMS, Judged

ORDER = tuple(SYSTEMS)
COMPARISONS = {"equal_width": "at equal width", "best": "best against best"}


@dataclass(frozen=True)
class Column:
    """A system in one comparison: its judged outcomes, one a seed, of the readout that did best on validation."""

    system: str
    readout: str
    seeds: tuple[Judged, ...]

    @property
    def mean(self) -> Judged:
        """The mean over seeds: figures and, resample by resample, draws."""
        first, stack = self.seeds[0], lambda name: np.stack([getattr(each, name) for each in self.seeds]).mean(axis=0)
        fields = ("aurocs", "auprcs", "draws", "by_record", "by_patient")
        return dataclasses.replace(first, **{name: stack(name) for name in fields})

    @property
    def macros(self) -> list[float]:
        """The macro AUROC of each seed."""
        return [each.macro for each in self.seeds]


@dataclass(frozen=True)
class Versus:
    """A system against another on the same resamples: means over seeds, 95 % by patient, and the difference of each seed."""

    system: str
    other: str
    value: float
    interval: list[float]
    each_seed: list[float]


def columns(all_judged: Sequence[Judged], mode: str, equal_width: bool) -> list[Column]:
    """A column a system in the paper's order; the readout with the best mean validation figure (the first of equals).

    With `equal_width` only readouts as wide as the narrowest are considered.
    """
    mine = [each for each in all_judged if each.outcome.mode == mode]
    narrowest = min((each.outcome.n_features for each in mine), default=0)
    found = []
    for system in ORDER:
        by_readout: dict[str, list[Judged]] = {}
        for each in mine:
            if each.outcome.system == system and (not equal_width or each.outcome.n_features == narrowest):
                by_readout.setdefault(each.outcome.readout, []).append(each)
        if by_readout:
            readout = max(
                by_readout, key=lambda r: float(np.mean([j.outcome.prediction.validation for j in by_readout[r]]))
            )
            found.append(Column(system, readout, tuple(by_readout[readout])))
    return found


def versus(one: Column, other: Column) -> Versus:
    """The difference of two systems; where they have seeds of the same number these are paired."""
    draws = one.mean.by_patient - other.mean.by_patient
    value = float(np.mean(one.macros) - np.mean(other.macros))
    paired = len(one.seeds) == len(other.seeds)
    each = [a - b for a, b in zip(one.macros, other.macros, strict=True)] if paired else []
    return Versus(one.system, other.system, value, list(percentile_interval(draws)), each)


def label_rows(names: Sequence[str], described: Sequence[str], shown: Sequence[Column]) -> str:
    """The paper's table: a row a label, a column a system, means over seeds, intervals by patient below."""
    means = [column.mean for column in shown]
    intervals = [mean.intervals for mean in means]
    rows = []
    for c, (name, description) in enumerate(zip(names, described, strict=True)):
        values = [float(mean.aurocs[c]) for mean in means]
        rows.append(
            [
                f"{html.escape(name)}<small>{html.escape(description)}</small>",
                *ranked(values, [between(each[c]) for each in intervals]),
            ]
        )
    below = [between(mean.macro_intervals()["by_patient"]) for mean in means]
    rows.append(["<b>mean over labels</b>", *ranked([float(np.mean(column.macros)) for column in shown], below)])
    titles = [f"{SYSTEMS[column.system]}\n{column.readout}, {_seeds(len(column.seeds))}" for column in shown]
    return table(["label", *titles], rows)


def versus_rows(found: Sequence[Versus]) -> str:
    """Differences as a table."""
    rows = [
        [
            f"{SYSTEMS[each.system]} less {SYSTEMS[each.other]}",
            f"{each.value:+.3f}",
            between(each.interval),
            ", ".join(f"{value:+.3f}" for value in each.each_seed) or "-",
        ]
        for each in found
    ]
    return table(["", "difference in macro AUROC", "95 % by patient", "each seed"], rows)


def caution(seeds: int) -> str:
    """What the number of seeds, of the system with fewest, lets one claim."""
    if seeds >= 3:
        return paragraph("Intervals hold the luck of the test set; how far seeds lie apart stands beside them.")
    return paragraph(
        f"{_seeds(seeds).capitalize()} of pretraining for some or all systems: the intervals hold the luck of the test set "
        "alone. A claim that one system is better needs three seeds, whose spread must be small beside the difference."
    )


def write_overview(summaries: dict[str, dict[str, Any]], modes: Sequence[str], where: str, path: Path) -> None:
    """One page over several label sets, from their summaries: a row a set, a column a system."""
    parts = [
        paragraph(SYSTEMS_ARE),
        paragraph("The tables of each label set, its curves and its records are in its own folder."),
    ]
    for mode in modes:
        for comparison, words in COMPARISONS.items():
            by_set = {name: summary[mode][comparison] for name, summary in summaries.items()}
            systems = [system for system in SYSTEMS if any(system in found for found in by_set.values())]
            others = [system for system in systems if system != "lamae"]
            rows, differences = [], []
            for name, found in by_set.items():
                mine = [found.get(system) for system in systems]
                below = [f"{each['readout']}\n{between(each['by_patient'])}" if each else "" for each in mine]
                rows.append(
                    [html.escape(name), *ranked([each["macro_auroc"] if each else np.nan for each in mine], below)]
                )
                less = [found[system]["lamae_less_this"] if system in found else None for system in others]
                differences.append(
                    [
                        html.escape(name),
                        *(f"{d['value']:+.3f}{small(between(d['interval']))}" if d else "-" for d in less),
                    ]
                )
            parts += [
                heading(f"{MODES_ARE[mode]}: {words}"),
                table(["label set", *(SYSTEMS[system] for system in systems)], rows),
            ]
            if "lamae" in systems:
                parts.append(paragraph("LAMAE less each system, on the same resamples of the test patients:"))
                parts.append(table(["label set", *(SYSTEMS[system] for system in others)], differences))
    page(path, f"Systems of the paper on {len(summaries)} label sets, {where}", parts)


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number > 1 else ''}"
