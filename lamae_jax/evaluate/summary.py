"""summary.json of an evaluation: macro figures with both intervals, and all that they depend on."""

from __future__ import annotations

from typing import Any

import numpy as np

from lamae_jax.evaluate.results import Judged, calibrated, difference, undefined
from lamae_jax.evaluate.task import Task


def summarise(
    task: Task, mode: str, judged: dict[str, Judged], yardsticks: dict[str, Judged], resamples: int, seed: int
) -> dict[str, Any]:
    """summary.json of a model (`judged` by readout) and of the same untrained, but for what the run itself adds."""
    first = next(iter(judged.values()))

    def each(what: Any) -> dict[str, Any]:
        """A figure of the model, and of the untrained one under the same name with `_random`."""
        name, of = what
        return {
            name: {r: of(j) for r, j in judged.items()},
            f"{name}_random": {r: of(j) for r, j in yardsticks.items()},
        }

    figures: dict[str, Any] = {}
    for what in (
        ("macro_auroc", lambda j: j.macro),
        ("macro_auroc_interval", lambda j: j.macro_intervals()),
        ("macro_auroc_validation", lambda j: j.outcome.prediction.validation),
        ("macro_auprc", lambda j: float(np.nanmean(j.auprcs))),
        ("calibration", lambda j: calibrated(task, j)),
        ("chosen", lambda j: j.outcome.prediction.chosen),
    ):
        figures |= each(what)
    return (
        figures
        | where(task)
        | {
            "difference": {} if judged is yardsticks else {r: difference(j, yardsticks[r]) for r, j in judged.items()},
            "mode": mode,
            "labels": described_labels(task, undefined(task, first)),
            "bootstrap": described_bootstrap(task, first, resamples, seed),
            "seed": seed,
        }
    )


def described_labels(task: Task, undefined: list[str]) -> dict[str, Any]:
    """The label set: how many have a figure, which have none, and what was counted when it was made."""
    scored = len(task.labels.names) - len(undefined)
    return {"task": task.name, "scored": scored, "undefined": undefined, **task.labels.notes}


def described_bootstrap(task: Task, judged: Judged, resamples: int, seed: int) -> dict[str, Any]:
    """How intervals were made, and which labels a resample left one-sided how often."""
    patients = task.store.patients[task.rows_of("test")]
    return {
        "resamples": resamples,
        "seed": seed,
        "level": 0.95,
        "by_record": "basic",
        "by_patient": "percentile",
        "patients": len(np.unique(patients.astype(str))),
        # Of so many resamples; the labels that never were one-sided are left out.
        "one_sided": {
            kind: {
                name: int(n)
                for name, n in zip(task.names, np.isnan(draws).sum(axis=0), strict=True)
                if 0 < n < resamples
            }
            for kind, draws in (("by_record", judged.by_record), ("by_patient", judged.by_patient))
        },
    }


def split_of(task: Task) -> dict[str, Any]:
    """Which records train, validate and test, as JSON can hold it."""
    split = task.store.split
    return {
        "column": split.column, "train": list(split.train), "validation": list(split.validation),
        "test": list(split.test), "rule": split.rule,
    }  # fmt: skip


def where(task: Task) -> dict[str, Any]:
    """On which records of which store by which rule."""
    return {
        "records": task.counts,
        "split": split_of(task),
        "store": {"folder": str(task.store.folder), "hash": task.store.hash, "source": task.store.name},
    }  # fmt: skip
