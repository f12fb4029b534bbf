"""report.html of an explanation, in one file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamae_jax.evaluate.report import between, heading, image, page, paragraph, table
from lamae_jax.serve.explain.probe import Cost

READ_BY = {
    "head": "Test records were altered in the signal, encoded again and read by the model's own head, as its predict does.",
    "probe": "A linear probe was fitted once on the training records as they are; test records were then altered in the signal, "
    "encoded again and read by it.",
}
LEFT_ASIDE = (
    " The model's own head was left aside: it has other labels or reads another readout, or was fitted on this store by another "
    "split and may know these records."
)
INTERVALS = (
    "Nothing was refitted. Intervals: 95 %, resamples of whole patients, differences on the same ones; they hold the luck of the "
    "test records, not that of pretraining."
)
ATTENTION = (
    "Attention of latent attention's CLS, computed by the model itself. What it attends to are tokens of the encoder, which have "
    "looked along their own lead already. Attention says where CLS reads, not what a prediction rests on: that is what taking "
    "leads away shows."
)
UNSEEN = (
    "A model that was pretrained without hiding whole leads (mask.hidden_leads) has never drawn one, and a lead drawn is a "
    "guess, not a recording."
)


def cohort_page(
    workdir: Path, summary: dict[str, Any], leads: Sequence[str], matrix: Sequence[Cost], without: Sequence[Cost],
    alone: Sequence[Cost],
) -> None:  # fmt: skip
    """The report of a cohort; its figures must have been drawn."""
    figures, explained = workdir / "figures", summary["explained"]
    parts = [
        paragraph(
            f"{summary['store']['source']}: {explained['records']} of {summary['records']['test']} test records, "
            f"{explained['patients']} patients, readout {summary['readout']}."
            + left_out(explained["left_out_for_a_missing_lead"])
        ),
        paragraph(f"{READ_BY[summary['read_by']]} {INTERVALS}" + (LEFT_ASIDE if summary["head_left_aside"] else "")),
        heading("What the model withstands"),
        image(figures / "robustness.png", "AUROC of each label under each alteration; shaded: what is lost"),
        cost_table(matrix),
        paragraph(
            "Noise is white, in each lead, so many decibels below the lead's own power, the same at every level but for its size."
        ),
    ]
    if without:
        parts += [
            heading("Which leads matter"),
            image(figures / "importance.png", "Attention, what is lost without a lead, and what it reaches alone"),
            importance_table(leads, summary["attention"], without, alone),
            *(paragraph(text) for text in rank_words(summary["attention"])),
            image(figures / "by_label.png", "The same for each label"),
        ]
        if summary["attention"]:
            parts.append(paragraph(ATTENTION))
    if summary["hidden"]:
        parts += [
            heading("Each lead drawn from the others"),
            image(figures / "hidden.png", f"Median and quartiles of {summary['hidden']['records']} records"),
            paragraph(UNSEEN),
        ]
    parts += [
        heading("The records on a plane"),
        image(figures / "map_pca.png", "First two principal components of the features"),
    ]
    if summary["map"]["umap"]:
        parts.append(
            image(figures / "map_umap.png", "UMAP of the features: neighbours are near, distances mean little")
        )
    page(workdir / "report.html", f"What the model looks at: {summary['store']['source']}", parts)


def record_page(workdir: Path, summary: dict[str, Any]) -> None:
    """The report of one record; its figures must have been drawn."""
    figures = workdir / "figures"
    parts = [paragraph(f"{summary['store']['source']}, patient {summary['patient']}, readout {summary['readout']}.")]
    if summary["attention"]:
        parts += [
            heading("Where the model looks"),
            image(figures / "attention_rollout.png", "The yellower, the more of CLS's attention (all layers, rollout)"),
            image(figures / "attention_last.png", "In the last layer"),
            attention_table(summary["attention"]),
            paragraph(ATTENTION),
        ]
    else:
        parts += [
            image(figures / "ecg.png", "The recording"),
            paragraph("This model has no latent attention, so there is no CLS that looks over leads."),
        ]
    if summary["chances"]:
        found = summary["chances"]
        present = ", ".join(found["present"]) or "none of the labels"
        by = "the model's own head on" if found["read_by"] == "head" else "a linear probe of"
        known = (
            PARTS_IN_WORDS[found["part"]] if found["part"] else "What the head was fitted on, the model's card says."
        )
        parts += [
            heading("What is predicted as leads are taken away"),
            image(figures / "chances.png", f"Chances by {by} {found['readout']}; red: rises, blue: falls"),
            paragraph(f"Recorded: {present}. {known}" + (LEFT_ASIDE if found["head_left_aside"] else "")),
        ]
    if summary["hidden"]:
        words = [
            f"{lead}: correlation {of['correlation']:.2f}, {of['rms_mv']:.2f} mV RMS apart"
            if of
            else f"{lead}: not recorded"
            for lead, of in summary["hidden"].items()
        ]
        parts += [
            heading("Leads drawn from the others"),
            image(
                figures / "hidden.png", "Left as recorded, in the middle what the model saw, right what it drew (blue)"
            ),
            paragraph("; ".join(words) + ". " + UNSEEN),
        ]
    page(workdir / "report.html", f"Record {summary['record']}", parts)


PARTS_IN_WORDS = {
    "test": "The record is in the test fold: what reads it was fitted without it.",
    "validation": "The record is in the validation fold, by which what reads it was chosen.",
    "train": "The record is one that what reads it was fitted on: its chances are too good.",
    "none": "The record has no known label of the task: what reads it was fitted without it.",
}


def cost_table(costs: Sequence[Cost]) -> str:
    """A row an alteration."""
    rows = [
        [
            html.escape(cost.name),
            f"{cost.macro:.3f}",
            between(cost.interval),
            signed(cost.lost, 3),
            between(cost.lost_interval),
        ]
        for cost in costs
    ]
    for row in rows[:1]:
        row[3:] = ["", ""]
    return table(["recordings", "macro AUROC", "95 % by patient", "lost", "95 % by patient"], rows)


def importance_table(
    leads: Sequence[str], attention: dict[str, Any], without: Sequence[Cost], alone: Sequence[Cost]
) -> str:
    """A row a lead."""
    columns = ["lead", *(["attention\nlast layer", "attention\nall layers"] if attention else [])]
    columns += ["lost without it\nmacro AUROC", "\n95 % by patient", "alone\nmacro AUROC", "\n95 % by patient"]
    rows = []
    for lead, one, other in zip(leads, without, alone, strict=True):
        shares = [f"{attention[kind][lead]:.1%}" for kind in ("last", "rollout")] if attention else []
        rows.append(
            [
                lead,
                *shares,
                signed(one.lost, 4),
                between(one.lost_interval),
                f"{other.macro:.3f}",
                between(other.interval),
            ]
        )
    return table(columns, rows)


def signed(value: float, digits: int) -> str:
    """A difference with its sign; what rounds to nothing has none below zero."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def attention_table(attention: dict[str, dict[str, float]]) -> str:
    """A column a lead."""
    leads = list(attention["last"])
    names = {"last": "last layer", "rollout": "all layers (rollout)"}
    rows = [[names[kind], *(f"{attention[kind][lead]:.1%}" for lead in leads)] for kind in names]
    return table(["share of attention", *leads], rows)


def rank_words(attention: dict[str, Any]) -> list[str]:
    """Attention against deletion, in one sentence; none where there is no attention."""
    found = attention.get("rank_correlation", {})
    known = {name: value for name, value in found.items() if value is not None}
    if not known:
        return []
    said = ", ".join(f"{name} {value:+.2f}" for name, value in known.items())
    return [
        f"Rank correlation over the {len(attention['last'])} leads of their share of attention with the AUROC lost without them "
        f"and with what they reach alone: {said}. What a lead alone carries is not lost where other leads carry it too: "
        "any two limb leads give the other four."
    ]


def left_out(records: int) -> str:
    """Which records were not used."""
    return f" {records} test records that lack a lead were left out." if records else ""
