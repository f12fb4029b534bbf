"""From many judged outcomes to the tables: one column a system, its readout chosen on validation, seeds averaged.

Three comparisons are made, for they can differ: read as in the paper (latent attention at its CLS token), at equal width (every
system read as D features) and best against best (any readout). S seeds, R resamples, C labels.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.evaluate.report import (
    MODES_ARE,
    SYSTEMS_ARE,
    between,
    heading,
    image,
    label_table,
    page,
    paragraph,
    ranked,
    small,
    table,
)
from lamae_jax.evaluate.results import SYSTEMS, Judged, Outcome, difference, only_codes
from lamae_jax.evaluate.task import Task

ORDER = tuple(SYSTEMS)
# The differences that pages show (summary.json has every pair): LAMAE less each, and what decides for its encoder.
PAIRS = (*(("lamae", other) for other in ORDER if other != "lamae"), ("lamae_e", "ind_p"))
COMPARISONS = {"paper": "read as in the paper", "equal_width": "at equal width", "best": "best against best"}
LEADS_APART = ("lamae_e", "mmvm", "ind_p", "ind_s")  # systems without latent attention, or read before it


@dataclass(frozen=True)
class Column:
    """A system in one comparison: its judged outcomes, one a seed, of the readout that did best on validation."""

    system: str
    readout: str
    seeds: tuple[Judged, ...]

    @cached_property
    def mean(self) -> Judged:
        """The mean over seeds: figures and, resample by resample, draws."""
        first, stack = self.seeds[0], lambda name: np.stack([getattr(each, name) for each in self.seeds]).mean(axis=0)
        fields = ("aurocs", "auprcs", "by_record", "by_patient")
        return dataclasses.replace(first, **{name: stack(name) for name in fields})

    @property
    def macros(self) -> list[float]:
        """The macro AUROC of each seed."""
        return [each.macro for each in self.seeds]


@dataclass(frozen=True)
class Versus:
    """A system less another on the same resamples: mean over seeds, both 95 % intervals, and the difference of each seed.

    `over_codes`: the same over codes alone (`value` and intervals), where the label set has more than codes.
    """

    system: str
    other: str
    value: float
    by_record: list[float]
    by_patient: list[float]
    each_seed: list[float]
    over_codes: dict[str, Any] | None


def columns(all_judged: Sequence[Judged], mode: str, comparison: str) -> list[Column]:
    """A column a system in the paper's order; of the readouts that the comparison admits the one with the best mean validation
    figure (the first of equals)."""
    mine = [each for each in all_judged if each.outcome.mode == mode]
    narrowest = min((each.outcome.n_features for each in mine), default=0)
    found = []
    for system in ORDER:
        by_readout: dict[str, list[Judged]] = {}
        for each in mine:
            if each.outcome.system == system and admitted(each.outcome, comparison, narrowest):
                by_readout.setdefault(each.outcome.readout, []).append(each)
        if by_readout:
            readout = max(
                by_readout, key=lambda r: float(np.mean([j.outcome.prediction.validation for j in by_readout[r]]))
            )
            found.append(Column(system, readout, tuple(by_readout[readout])))
    return found


def admitted(outcome: Outcome, comparison: str, narrowest: int) -> bool:
    """Whether a comparison considers an outcome's readout: the paper's alone, those as wide as the narrowest, or any."""
    if comparison == "paper":
        return outcome.readout == ("encoder_mean" if outcome.system in LEADS_APART else "la_cls")
    return comparison == "best" or outcome.n_features == narrowest


def versus(task: Task, one: Column, other: Column) -> Versus:
    """The difference of two systems; where they have seeds of the same number these are paired."""
    paired = len(one.seeds) == len(other.seeds)
    each = [a - b for a, b in zip(one.macros, other.macros, strict=True)] if paired else []
    ours, theirs = only_codes(task, one.mean), only_codes(task, other.mean)
    codes = difference(ours, theirs) if ours and theirs else None
    return Versus(one.system, other.system, **difference(one.mean, other.mean), each_seed=each, over_codes=codes)


def differences(task: Task, shown: Sequence[Column]) -> dict[str, Versus]:
    """Every pair of systems, the one that the paper has first less the other, by `lamae_less_ind_p` and so on."""
    pairs = itertools.combinations(shown, 2)
    return {f"{one.system}_less_{other.system}": versus(task, one, other) for one, other in pairs}


def comparisons_of(found: dict[str, Any]) -> dict[str, str]:
    """The comparisons that a page shows, with their words, of those that there are: one alone where some come to the same."""
    shown: dict[str, str] = {}
    for name in reversed([name for name in COMPARISONS if found.get(name)]):
        same = next((other for other in shown if found[other] == found[name]), None)
        if same:
            shown[same] += f"; {COMPARISONS[name]} it is the same"
        else:
            shown[name] = COMPARISONS[name]
    return dict(reversed(shown.items()))


def system_rows(task: Task, shown: Sequence[Column]) -> str:
    """The paper's Tables 1 and 3: a row a label, a column a system, means over seeds, intervals by patient below."""
    titles = [f"{SYSTEMS[column.system]}\n{_read(column)}" for column in shown]
    return label_table(task, titles, [column.mean for column in shown])


def supervision_rows(task: Task, all_judged: Sequence[Judged]) -> str:
    """The paper's Table 4: LAMAE and LAMAE_E under a linear probe and fine-tuned, read at one width; "" unless both were."""
    by_mode = {mode: columns(all_judged, mode, "equal_width") for mode in ("linear", "finetune")}
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
    """Differences as a table; those over codes alone below each."""
    rows = []
    for each in found:
        name = f"{SYSTEMS[each.system]} less {SYSTEMS[each.other]}"
        seeds = ", ".join(f"{value:+.3f}" for value in each.each_seed) or "-"
        rows.append([name, f"{each.value:+.3f}", between(each.by_patient), between(each.by_record), seeds])
        if each.over_codes:
            codes = each.over_codes
            intervals = (between(codes["by_patient"]), between(codes["by_record"]))
            rows.append([f"{name}, codes alone", f"{codes['value']:+.3f}", *intervals, "-"])
    return table(["", "difference in macro AUROC", "95 % by patient", "95 % by record", "each seed"], rows)


def caution(seeds: int) -> str:
    """What the number of seeds, of the system with fewest, lets one claim."""
    if seeds >= 3:
        return paragraph("Intervals hold the luck of the test set; how far seeds lie apart stands beside them.")
    return paragraph(
        f"{_seeds(seeds).capitalize()} of pretraining for some or all systems: the intervals hold the luck of the test set "
        "alone. A claim that one system is better needs three seeds, whose spread must be small beside the difference."
    )


def write_overview(
    summaries: dict[str, dict[str, Any]], folders: dict[str, Path], modes: Sequence[str], where: str, path: Path
) -> None:
    """One page over several label sets, from their summaries and the figures in their folders: a row a set, a column a system."""
    parts = [
        paragraph(SYSTEMS_ARE),
        paragraph("The tables of each label set, its curves and its records are in its own folder."),
    ]
    for mode in modes:
        found = {
            each: {name: summary[mode][each] for name, summary in summaries.items() if summary[mode][each]}
            for each in COMPARISONS
        }
        for comparison, words in comparisons_of(found).items():
            by_set = found[comparison]
            systems = [system for system in SYSTEMS if any(system in figures for figures in by_set.values())]
            rows = []
            for name, figures in by_set.items():
                mine = [figures.get(system) for system in systems]
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
            parts += [image(folders[name] / f"figures/{mode}_{comparison}.png", html.escape(name)) for name in by_set]
    page(path, f"Systems of the paper on {len(summaries)} label sets, {where}", parts)


def _less(found: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """The cells of `pairs` among the differences of one label set."""
    mine = [found.get("_less_".join(pair)) for pair in pairs]
    return [f"{d['value']:+.3f}{small(between(d['by_patient']))}" if d else "-" for d in mine]


def _read(column: Column) -> str:
    """How a column's figures came about: the readout, how many seeds, and of fine-tuning the step that each kept."""
    words = f"{column.readout}, {_seeds(len(column.seeds))}"
    steps = [each.outcome.prediction.chosen.get("step") for each in column.seeds]
    kept = [f"{step:.0f}" for step in steps if step is not None]
    return f"{words}, step {', '.join(kept)}" if kept else words


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number > 1 else ''}"
