"""From many judged outcomes to the tables: one column a system, its readout chosen on validation, seeds averaged.

Two comparisons are made, for they can differ: at equal width (every system read as D features) and best against best (any
readout). S seeds, R resamples, C labels.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.evaluate.report import (
    MODES_ARE,
    SYSTEMS_ARE,
    between,
    heading,
    label_table,
    page,
    paragraph,
    ranked,
    small,
    table,
)
from lamae_jax.evaluate.results import SYSTEMS, Judged, difference
from lamae_jax.evaluate.task import Task

ORDER = tuple(SYSTEMS)
# The differences that pages show (summary.json has every pair): LAMAE less each, and what decides for its encoder.
PAIRS = (*(("lamae", other) for other in ORDER if other != "lamae"), ("lamae_e", "ind_p"))
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
    """A system less another on the same resamples: mean over seeds, both 95 % intervals, and the difference of each seed."""

    system: str
    other: str
    value: float
    by_record: list[float]
    by_patient: list[float]
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
    paired = len(one.seeds) == len(other.seeds)
    each = [a - b for a, b in zip(one.macros, other.macros, strict=True)] if paired else []
    return Versus(one.system, other.system, **difference(one.mean, other.mean), each_seed=each)


def differences(shown: Sequence[Column]) -> dict[str, Versus]:
    """Every pair of systems, the one that the paper has first less the other, by `lamae_less_ind_p` and so on."""
    return {f"{one.system}_less_{other.system}": versus(one, other) for one, other in itertools.combinations(shown, 2)}


def comparisons_of(equal_width: Any, best: Any) -> dict[str, str]:
    """The comparisons that a page shows, with their words: one alone where both come to the same."""
    if equal_width == best:
        return {"best": f"{COMPARISONS['best']}; at equal width it is the same"}
    return COMPARISONS


def system_rows(task: Task, shown: Sequence[Column]) -> str:
    """The paper's Tables 1 and 3: a row a label, a column a system, means over seeds, intervals by patient below."""
    titles = [f"{SYSTEMS[column.system]}\n{_read(column)}" for column in shown]
    return label_table(task, titles, [column.mean for column in shown])


def supervision_rows(task: Task, all_judged: Sequence[Judged]) -> str:
    """The paper's Table 4: LAMAE and LAMAE_E under a linear probe and fine-tuned, read at one width; "" unless both were."""
    by_mode = {mode: columns(all_judged, mode, equal_width=True) for mode in ("linear", "finetune")}
    if not all(by_mode.values()):
        return ""
    titles, means = [], []
    for mode, shown in by_mode.items():
        for column in shown:
            if column.system.startswith("lamae"):
                words = "linear probe" if mode == "linear" else "fine-tuned"
                titles.append(f"{SYSTEMS[column.system]}\n{words}\n{_read(column)}")
                means.append(column.mean)
    return label_table(task, titles, means) if means else ""


def versus_rows(found: Sequence[Versus]) -> str:
    """Differences as a table."""
    rows = [
        [
            f"{SYSTEMS[each.system]} less {SYSTEMS[each.other]}",
            f"{each.value:+.3f}",
            between(each.by_patient),
            between(each.by_record),
            ", ".join(f"{value:+.3f}" for value in each.each_seed) or "-",
        ]
        for each in found
    ]
    return table(["", "difference in macro AUROC", "95 % by patient", "95 % by record", "each seed"], rows)


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
        both = {each: {name: summary[mode][each] for name, summary in summaries.items()} for each in COMPARISONS}
        for comparison, words in comparisons_of(**both).items():
            by_set = both[comparison]
            systems = [system for system in SYSTEMS if any(system in found for found in by_set.values())]
            rows = []
            for name, found in by_set.items():
                mine = [found.get(system) for system in systems]
                below = [f"{each['readout']}\n{between(each['by_patient'])}" if each else "" for each in mine]
                rows.append(
                    [html.escape(name), *ranked([each["macro_auroc"] if each else np.nan for each in mine], below)]
                )
                codes = [each and each["over_codes"] for each in mine]
                if any(codes):
                    below = [between(each["by_patient"]) if each else "" for each in codes]
                    values = [each["macro_auroc"] if each else np.nan for each in codes]
                    rows.append([f"{html.escape(name)}, codes alone", *ranked(values, below)])
            parts += [
                heading(f"{MODES_ARE[mode]}: {words}"),
                table(["label set", *(SYSTEMS[system] for system in systems)], rows),
            ]
            less = {name: summary["differences"][mode][comparison] for name, summary in summaries.items()}
            pairs = [pair for pair in PAIRS if any("_less_".join(pair) in found for found in less.values())]
            if pairs:
                parts.append(paragraph("Differences, on the same resamples of the test patients:"))
                titles = [f"{SYSTEMS[one]} less\n{SYSTEMS[other]}" for one, other in pairs]
                parts.append(
                    table(
                        ["label set", *titles],
                        [[html.escape(name), *_less(found, pairs)] for name, found in less.items()],
                    )
                )
    page(path, f"Systems of the paper on {len(summaries)} label sets, {where}", parts)


def _less(found: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The cells of `pairs` among the differences of one label set."""
    mine = [found.get("_less_".join(pair)) for pair in pairs]
    return [f"{d['value']:+.3f}{small(between(d['by_patient']))}" if d else "-" for d in mine]


def _read(column: Column) -> str:
    return f"{column.readout}, {_seeds(len(column.seeds))}"


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number > 1 else ''}"
