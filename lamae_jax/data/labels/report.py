"""Task `labels`: which labels a setting gives and how many records have each, before any model is trained.

With a table of diagnoses alone the records of training, validation and test are those of the whole table; with a store they are
those whose waveform is in it, which is what a probe sees.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamae_jax.data.labels import check_spec, load_labels, split_for
from lamae_jax.data.labels.diagnoses import REASONS, Diagnoses, diagnosis_table, icd10_labels, read_diagnoses
from lamae_jax.data.labels.icd10 import PUBLISHED_ROWS, Icd10Rules, row_counts
from lamae_jax.data.labels.icd10_tree import description_of
from lamae_jax.data.labels.table import Labels
from lamae_jax.data.sources import Split
from lamae_jax.data.splits import check_disjoint, on_two_sides
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file, write_csv, write_json, write_text
from lamae_jax.progress import say

PARTS = ("train", "validation", "test")
SHOWN = 15  # labels printed; labels.csv has all
NAMED = 20  # studies and codes that the report names of each kind


COLUMNS = ["label", "level", "description", "rows", "train", "val", "test"]


@dataclass(frozen=True)
class LabelsConfig:
    """What `configs/labels.py` says. Raises UserError for an empty or impossible field.

    `table`: a file records_w_diag_icd10.csv, or `store`: a prepared store; `labels`: see data/labels; `icd10`: for its labels.
    """

    table: str
    store: str
    labels: str
    icd10: Icd10Rules

    def __post_init__(self) -> None:
        if not (self.table or self.store):
            raise UserError("table and data.store are empty: pass --config.table=CSV or --config.data.store=DIR")
        if self.table and self.store:
            raise UserError(f"table={self.table} and data.store={self.store}: only one of them can be read; drop one")
        check_spec(self.labels)
        if self.table and not self.labels.startswith("icd10:"):
            raise UserError(f"table={self.table}: labels={self.labels} needs a store; pass --config.data.store=DIR")


@dataclass(frozen=True)
class Counts:
    """C labels: `rows` and, a part, `positive` (records that have it), int64 [C]; `records` of each part."""

    names: tuple[str, ...]
    levels: tuple[str, ...]
    descriptions: tuple[str, ...]
    rows: np.ndarray
    positive: dict[str, np.ndarray]
    records: dict[str, int]
    split: Split


def report_labels(config: LabelsConfig, workdir: Path) -> dict[str, Any]:
    """Count the labels; writes labels.csv, report.txt and summary.json into `workdir` and returns the summary."""
    diagnoses = None
    kind, _, label_set = config.labels.partition(":")
    if config.table:
        source: dict[str, Any] = {"table": config.table}
        path = Path(config.table)
        diagnoses = read_diagnoses(path, config.icd10.fold_column)
        source["sha256"] = sha256_file(path)
        counts, notes = count_in_table(diagnoses, label_set, config.icd10), diagnoses.counts()
    else:
        store = split_for(config.labels, Store.open(config.store), config.icd10)
        source = {"store": config.store, "hash": store.hash}
        if kind == "icd10":
            diagnoses = read_diagnoses(diagnosis_table(store), config.icd10.fold_column)
            labels = icd10_labels(diagnoses, label_set, store, config.icd10)
            rows = row_counts(diagnoses.labels(label_set, config.icd10).members)
        else:
            labels = load_labels(config.labels, store)
            rows = np.count_nonzero(labels.matrix[labels.keep] == 1, axis=0)
        counts, notes = count_in_store(store, labels, rows), labels.notes
    summary: dict[str, Any] = {
        "labels": config.labels,
        "number": len(counts.names),
        "levels": dict(Counter(filter(None, counts.levels))),
        "records": counts.records,
        "split": dataclasses.asdict(counts.split),
        "counts": notes,
        **source,
    }
    if diagnoses is not None:
        summary |= {
            "icd10": dataclasses.asdict(config.icd10),
            "unusable": {reason: len(studies) for reason, studies in diagnoses.unusable.items()},
            "repaired": diagnoses.repairs(),
            "dropped": dict(list(diagnoses.dropped().items())[:NAMED]),
        }
    write_csv(workdir / "labels.csv", [COLUMNS, *table_rows(counts)])
    write_text(workdir / "report.txt", report_text(config, counts, notes, diagnoses))
    write_json(workdir / "summary.json", summary)
    say(short_table(config.labels, counts))
    say(f"all of them in {workdir / 'labels.csv'}, what became of the rows in {workdir / 'report.txt'}")
    return summary


def count_in_table(diagnoses: Diagnoses, label_set: str, rules: Icd10Rules) -> Counts:
    """The labels among all studies of the table. Raises UserError naming patients who are in two parts."""
    patients = np.array(diagnoses.patients, object)
    clashes = on_two_sides({part: {("", each) for each in patients[diagnoses.in_folds(part)]} for part in PARTS})
    if clashes:
        more = f" and {len(clashes) - 10} more" if len(clashes) > 10 else ""
        raise UserError(
            f"icd10.fold_column={rules.fold_column}: patients on two sides of the split: {', '.join(clashes[:10])}{more}; "
            "correct the table, or take the other fold column"
        )
    chosen = diagnoses.labels(label_set, rules)
    return Counts(
        chosen.names,
        chosen.levels,
        tuple(description_of(name) for name in chosen.names),
        row_counts(chosen.members),
        {part: row_counts(chosen.members, diagnoses.part(part)) for part in PARTS},
        {part: int(np.count_nonzero(diagnoses.part(part))) for part in PARTS},
        diagnoses.split,
    )


def count_in_store(store: Store, labels: Labels, rows: np.ndarray) -> Counts:
    """The labels among the stored records that they keep. Raises UserError naming patients who are in two parts."""
    inside = {part: np.isin(store.folds, getattr(store.split, part)) for part in PARTS}
    check_disjoint([store], **{part: [np.flatnonzero(where)] for part, where in inside.items()})
    kept = {part: where & labels.keep for part, where in inside.items()}
    return Counts(
        labels.names,
        labels.levels,
        labels.descriptions,
        rows,
        {part: np.count_nonzero(labels.matrix[where] == 1, axis=0) for part, where in kept.items()},
        {part: int(np.count_nonzero(where)) for part, where in kept.items()},
        store.split,
    )


def table_rows(counts: Counts) -> list[list[str]]:
    """A label a row: name, level, description, rows, and the records of train, validation and test that have it."""
    return [
        [name, counts.levels[c], counts.descriptions[c], str(counts.rows[c])]
        + [str(counts.positive[part][c]) for part in PARTS]
        for c, name in enumerate(counts.names)
    ]


def short_table(spec: str, counts: Counts) -> str:
    """What is printed: how many labels and records, and the first labels."""
    levels = Counter(filter(None, counts.levels))
    by_level = ", ".join(f"{number} {_level(level)}" for level, number in levels.items())
    sizes = ", ".join(f"{number} {part}" for part, number in counts.records.items())
    lines = [f"labels {spec}: {len(counts.names)}{f' ({by_level})' if by_level else ''}; records: {sizes}"]
    lines.append(f"{'label':<10}{'rows':>9}{'train':>9}{'val':>9}{'test':>9}  description")
    for name, _, words, *numbers in table_rows(counts)[:SHOWN]:
        lines.append(f"{name:<10}{''.join(f'{number:>9}' for number in numbers)}  {words[:60]}".rstrip())
    if len(counts.names) > SHOWN:
        lines.append(f"... and {len(counts.names) - SHOWN} more")
    return "\n".join(lines)


def report_text(config: LabelsConfig, counts: Counts, notes: dict[str, int], diagnoses: Diagnoses | None) -> str:
    """report.txt: what became of rows and codes, and by which split the records are counted."""
    lines = [f"labels {config.labels} of {config.table or config.store}: {len(counts.names)}", ""]
    lines += [f"{name.replace('_', ' ')}: {number}" for name, number in notes.items()]
    lines += ["", f"split: {counts.split.rule}"]
    lines += [f"{part}: {number} records" for part, number in counts.records.items()]
    if diagnoses is None:
        return "\n".join(lines) + "\n"
    if diagnoses.rows == PUBLISHED_ROWS:
        lines += ["", "published table: its numbers of labels at min_count 2000 hold"]
    lines += ["", "unusable rows, by study" if diagnoses.unusable else "no unusable row"]
    for reason, studies in diagnoses.unusable.items():
        lines.append(f"  {reason} ({REASONS[reason]}): {len(studies)}: {_named(studies)}")
    repairs = diagnoses.repairs()
    lines += ["", "repaired codes" if repairs else "no code had to be repaired"]
    lines += [f"  {what}: {number}" for what, number in repairs.items()]
    dropped = diagnoses.dropped()
    lines += ["", "dropped codes, not of ICD-10-CM's shape; their rows stay" if dropped else "no code was dropped"]
    if dropped:
        lines.append(f"  {_named([f'{code!r} {number}' for code, number in dropped.items()])}")
    return "\n".join(lines) + "\n"


def _level(level: str) -> str:
    return level if level in ("chapter", "block") else f"of {level} characters"


def _named(things: list[str]) -> str:
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return ", ".join(thing[:60] for thing in things[:NAMED]) + more
