"""report.html: results as a clinician reads them, in one file that needs nothing else.

Tables are in the paper's form: a row a label, a column a system, the best bold, the second italic, below them 95 % intervals by
patient.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.data.labels.icd10_tree import nested
from lamae_jax.data.labels.table import Labels
from lamae_jax.evaluate.results import SYSTEMS, Judged, calibrated, over_codes
from lamae_jax.evaluate.task import Task
from lamae_jax.files import write_text
from lamae_jax.progress import say

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
p { max-width: 68rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: right; vertical-align: top; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 15rem; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
small { color: #666; display: block; font-size: .78rem; }
figure { display: inline-block; margin: 1rem 1rem 0 0; } figure img { max-width: 100%; }
figcaption, .note { color: #555; font-size: .87rem; }
@media print { body { max-width: none; margin: 0; } .scroll { overflow: visible; } }
"""
LEVELS = ("chapter", "block", "3", "4", "5", "6", "7")  # of ICD-10, from the widest
MODES_ARE = {
    "linear": "Linear probe on frozen features",
    "attention": "Attention probe on frozen tokens",
    "knn": "Nearest neighbours of frozen features",
    "finetune": "Fine-tuned end to end",
}


def page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of HTML `parts` under a title, and say where it is."""
    text = html.escape(title)
    body = "\n".join([f"<h1>{text}</h1>", *parts])
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{text}</title>'
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>{body}</body></html>\n',
    )
    say(f"{path} is written")


def paragraph(text: str) -> str:
    """Plain text as a note."""
    return f'<p class="note">{html.escape(text)}</p>'


def heading(text: str) -> str:
    """A section's title."""
    return f"<h2>{html.escape(text)}</h2>"


def image(path: Path, caption: str) -> str:
    """An image file's bytes inside the page, and what stands below it."""
    data, text = base64.b64encode(path.read_bytes()).decode(), html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; column titles are plain text, of which a second line is small."""
    titles = (f"{html.escape(c.split(chr(10))[0])}{small(chr(10).join(c.split(chr(10))[1:]))}" for c in columns)
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def ranked(values: Sequence[float], below: Sequence[str], digits: int = 3) -> list[str]:
    """Cells of one row: the best bold, the second italic (all of equals, as they are written), what stands `below` small."""
    written = [None if math.isnan(value) else round(value, digits) for value in values]
    order = sorted({value for value in written if value is not None}, reverse=True)
    cells = []
    for value, text in zip(written, below, strict=True):
        if value is None:
            cells.append("-")
            continue
        shown = f"{value:.{digits}f}"
        if value == order[0]:
            shown = f"<b>{shown}</b>"
        elif value == order[1]:
            shown = f"<i>{shown}</i>"
        cells.append(shown + small(text))
    return cells


def column_of(judged: Judged) -> str:
    """How a column of a table is headed."""
    outcome = judged.outcome
    return f"{SYSTEMS.get(outcome.system, outcome.system)}\n{outcome.readout}, {outcome.n_features} features"


def macro_table(task: Task, all_judged: Sequence[Judged]) -> str:
    """A row a system and readout: macro AUROC with both intervals, average precision and calibration."""
    rows = []
    values = ranked([each.macro for each in all_judged], [""] * len(all_judged))
    for each, value in zip(all_judged, values, strict=True):
        intervals, well = each.macro_intervals(), calibrated(task, each)
        rows.append(
            [
                html.escape(column_of(each).replace("\n", ": ")),
                value,
                between(intervals["by_patient"]),
                between(intervals["by_record"]),
                f"{float(np.nanmean(each.auprcs)):.3f}",
                f"{well['error']:.3f}",
                f"{well['brier']:.3f}",
            ]
        )
    columns = ["system", "macro AUROC", "95 % by patient", "95 % by record", "average precision", "calibration error",
               "Brier score"]  # fmt: skip
    return table(columns, rows)


def label_table(task: Task, titles: Sequence[str], all_judged: Sequence[Judged]) -> str:
    """A row a label, codes of ICD-10 below their block and that below the chapter; then the macro mean, and that of codes alone.

    `titles`: of the columns, one for each of `all_judged`.
    """
    place = {int(c): i for i, c in enumerate(task.learnable)}
    test = task.labels.matrix[task.rows_of("test")]
    intervals = [each.intervals for each in all_judged]
    rows = []
    for c, cell in _label_cells(task.labels):
        i = place.get(c)
        values = [math.nan if i is None else float(each.aurocs[i]) for each in all_judged]
        below = ["" if i is None else between(each[i]) for each in intervals]
        rows.append([cell, str(np.count_nonzero(test[:, c] == 1)), *ranked(values, below)])
    below = [between(each.macro_intervals()["by_patient"]) for each in all_judged]
    rows.append(["<b>mean over labels</b>", "", *ranked([each.macro for each in all_judged], below)])
    codes = [found for each in all_judged if (found := over_codes(task, each))]
    if codes:
        below = [between(each["by_patient"]) for each in codes]
        rows.append(["<b>mean over codes</b>", "", *ranked([each["macro_auroc"] for each in codes], below)])
    return table(["label", "positive in test", *titles], rows)


def _label_cells(labels: Labels) -> list[tuple[int, str]]:
    """The labels' numbers and first cells: in the order of the set, those of ICD-10 as the tree has them, set in by level."""
    order, depths = list(range(len(labels.names))), {"": 0}
    if all(labels.levels):
        order.sort(key=lambda c: nested(labels.names[c]))
        depths = {level: depth for depth, level in enumerate(level for level in LEVELS if level in labels.levels)}
    cells = []
    for c in order:
        name, description, level = labels.names[c], labels.descriptions[c], labels.levels[c]
        below = small(("" if description == name else description) + (f", {level}" if level in LEVELS[:2] else ""))
        depth = depths[level]
        cell = html.escape(name) + below
        cells.append((c, f'<div style="margin-left: {depth}rem">{cell}</div>' if depth else cell))
    return cells


def without_figure(undefined: Sequence[str]) -> list[str]:
    """A note that names the labels without a figure, where there are any."""
    return [paragraph(f"Without a figure, as one sign does not occur: {', '.join(undefined)}.")] if undefined else []


def between(interval: Sequence[float]) -> str:
    """An interval in words."""
    low, high = interval
    return "" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


SYSTEMS_ARE = (
    "LAMAE is read at its latent attention; LAMAE_E (a) is the same model read at its encoder, LAMAE_E (b) one pretrained with "
    "alpha_LA = 0; Scratch is LAMAE untrained. In Ind_P and, untrained, Ind_S leads never meet; MMVM is Ind_P with a loss that "
    "pulls leads together."
)


def protocol(task: Task, bootstrap: dict[str, Any]) -> str:
    """On what and how it was measured."""
    split, counts = task.store.split, task.counts
    return paragraph(
        f"{task.name} on {task.store.name}: {counts['train']} records to learn from, {counts['validation']} to choose by, "
        f"{counts['test']} of {bootstrap['patients']} patients to test on, once. Split: {split.rule}. Intervals: "
        f"{bootstrap['resamples']} resamples of whole patients (percentile), and of records (basic) for comparison with the "
        "literature; they hold the luck of the test set, not that of pretraining."
    )


def write_report(workdir: Path, title: str, task: Task, all_judged: Sequence[Judged], summary: dict[str, Any]) -> None:
    """The report of one evaluation; its figures must have been drawn."""
    undefined = summary["labels"]["undefined"]
    best = summary["best_on_validation"]
    figures = [
        image(workdir / "figures" / "probe.png", "Each readout with the same architecture untrained beside it"),
        image(workdir / "figures" / "roc.png", f"ROC curves of {best}, the readout that did best on validation"),
        image(workdir / "figures" / "calibration.png", f"How often what {best} predicts comes true"),
    ]
    parts = [
        paragraph(f"{MODES_ARE[summary['mode']]}. The model beside it is the same architecture untrained."),
        paragraph(SYSTEMS_ARE),
        protocol(task, summary["bootstrap"]),
        heading("Over all labels"),
        macro_table(task, all_judged),
        heading("AUROC of each label"),
        label_table(task, list(map(column_of, all_judged)), all_judged),
    ]
    parts += without_figure(undefined)
    if summary["difference"]:
        parts.append(heading("What pretraining adds"))
        rows = [
            [name, f"{d['value']:+.3f}", between(d["by_patient"]), between(d["by_record"])]
            for name, d in summary["difference"].items()
        ]
        parts.append(table(["readout", "difference in macro AUROC", "95 % by patient", "95 % by record"], rows))
    parts += [heading("Figures"), *figures]
    page(workdir / "report.html", title, parts)


def small(text: str) -> str:
    """Plain text in small print below a cell's figure, line by line."""
    return "".join(f"<small>{html.escape(line)}</small>" for line in text.splitlines())
