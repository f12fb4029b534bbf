"""What a test fold says of predictions: figures with intervals, and the files that every evaluation writes.

    results.csv       a line a system, readout and label; the interval is the one by patient
    predictions.npz   record_ids [n], patient_ids [n], label_names [C], labels [n, C]; of each prediction systems, seeds (-1: not
                      known), modes, readouts [S] and scores [S, n, C]

How figures come about: Prediction (chances for the test records, made without their labels) -> Outcome (whose: system, seed,
mode, readout) -> Judged (what the test labels say of it, with resamples) -> ResultSet (all that is judged on one task).

n test records, C learnable labels, S predictions, R resamples.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.evaluate.bootstrap import basic_interval, macro, percentile_interval, resampled_aurocs
from lamae_jax.evaluate.statistics import auprc, calibration, macro_auroc
from lamae_jax.evaluate.task import Prediction, Task
from lamae_jax.files import write_csv, write_with

COLUMNS = (
    "system", "seed", "mode", "readout", "n_features", "label_set", "label", "description", "hierarchy_level",
    "n_train_pos", "n_test_pos", "n_test", "auroc", "auroc_low", "auroc_high", "auprc",
)  # fmt: skip


# The systems of the paper as results and as readers know them, in the order of its tables.
SYSTEMS = {
    "lamae": "LAMAE",
    "lamae_e": "LAMAE_E (a)",
    "lamae_e_b": "LAMAE_E (b)",
    "scratch": "Scratch",
    "mmvm": "MMVM",
    "ind_p": "Ind_P",
    "ind_s": "Ind_S",
}


@dataclass(frozen=True)
class Outcome:
    """One system's prediction from one readout of `n_features`; `seed` is of its parameters, None where not known."""

    system: str
    seed: int | None
    mode: str
    readout: str
    n_features: int
    prediction: Prediction
    model: Model | None = None  # with the head that predicted, where it is one; not kept in files of outcomes


@dataclass(frozen=True)
class Judged:
    """What the test fold says of one outcome: per label [C] (NaN where one-sided), and so in each resample [R, C]."""

    outcome: Outcome
    aurocs: np.ndarray
    auprcs: np.ndarray
    by_record: np.ndarray
    by_patient: np.ndarray

    @property
    def intervals(self) -> np.ndarray:
        """95 % intervals of the labels, by patient (percentile), [C, 2]."""
        return np.array([percentile_interval(each) for each in self.by_patient.T])

    @property
    def macro(self) -> float:
        """Mean AUROC over the labels with both signs."""
        return float(macro(self.aurocs))

    def macro_intervals(self) -> dict[str, list[float]]:
        """95 % intervals of the macro AUROC, by record (basic) and by patient (percentile)."""
        return both_intervals(self.macro, macro(self.by_record), macro(self.by_patient))

    def among(self, labels: np.ndarray) -> Judged:
        """The same of some of the labels, [C] bool."""
        fields = ("aurocs", "auprcs", "by_record", "by_patient")
        return dataclasses.replace(self, **{name: getattr(self, name)[..., labels] for name in fields})


class ResultSet(NamedTuple):
    """What was judged on one task, and what stands in further columns of its lines."""

    task: Task
    judged: Sequence[Judged]
    more: Sequence[Any] = ()


def judge(task: Task, outcome: Outcome, resamples: int, seed: int) -> Judged:
    """Score one outcome on the test fold, once. Outcomes judged with the same task, resamples and seed are paired."""
    labels, chances = task.values("test"), outcome.prediction.chances
    patients = task.store.patients[task.rows_of("test")].astype(str)
    found = macro_auroc(labels, chances).per_label
    known = ~np.isnan(labels)
    precision = [auprc(labels[k, c] == 1, chances[k, c]) for c, k in enumerate(known.T)]
    by_record, by_patient = (
        resampled_aurocs(labels, [chances], clusters, resamples, seed)[0] for clusters in (None, patients)
    )
    return Judged(outcome, found, np.array(precision), by_record, by_patient)


def both_intervals(value: float, by_record: np.ndarray, by_patient: np.ndarray) -> dict[str, list[float]]:
    """The two 95 % intervals of a `value` that resamples gave as `by_record` and `by_patient` [R]."""
    return {"by_record": list(basic_interval(value, by_record)), "by_patient": list(percentile_interval(by_patient))}


def difference(one: Judged, other: Judged) -> dict[str, Any]:
    """Macro AUROC of `one` less that of `other`, both judged on the same resamples, with both intervals."""
    value = one.macro - other.macro
    draws = (macro(one.by_record) - macro(other.by_record), macro(one.by_patient) - macro(other.by_patient))
    return {"value": value, **both_intervals(value, *draws)}


def codes_of(task: Task) -> np.ndarray:
    """Which of all the set's labels are codes, not the chapter or a block above them, as indices [C']; without levels all."""
    return np.flatnonzero([level not in ("chapter", "block") for level in task.labels.levels])


def only_codes(task: Task, judged: Judged) -> Judged | None:
    """An outcome by its codes alone, as in the paper's Figure 2; None where the set has nothing above its codes, or no code with
    both signs."""
    codes = codes_of(task)
    if len(codes) == len(task.labels.names):
        return None
    found = judged.among(np.isin(task.learnable, codes))
    return None if np.isnan(found.macro) else found


def over_codes(task: Task, judged: Judged) -> dict[str, Any] | None:
    """The macro AUROC over codes alone with both its intervals, where `only_codes` finds some."""
    found = only_codes(task, judged)
    return None if found is None else {"macro_auroc": found.macro, **found.macro_intervals()}


def undefined(task: Task, judged: Judged) -> list[str]:
    """The labels without a figure: one sign is missing among the training records (not learned) or the test records."""
    defined = {task.names[c] for c in np.flatnonzero(~np.isnan(judged.aurocs))}
    return [name for name in task.labels.names if name not in defined]


def calibrated(task: Task, judged: Judged) -> dict[str, float]:
    """Brier score and expected calibration error, means over the labels that have an AUROC."""
    labels, chances = task.values("test"), judged.outcome.prediction.chances
    each = [
        calibration(labels[known, c] == 1, chances[known, c])
        for c, known in enumerate(~np.isnan(labels).T)
        if not np.isnan(judged.aurocs[c])
    ]
    return {"brier": float(np.mean([c.brier for c in each])), "error": float(np.mean([c.error for c in each]))}


def save_outcomes(path: Path, outcomes: Sequence[Outcome], key: dict[str, Any]) -> None:
    """Keep outcomes in a file that `load_outcomes` reads for the same `key` (a JSON object of all that they follow from)."""
    facts = [
        {"system": o.system, "seed": o.seed, "mode": o.mode, "readout": o.readout, "n_features": o.n_features,
         "chosen": o.prediction.chosen, "validation": o.prediction.validation}
        for o in outcomes
    ]  # fmt: skip
    chances = np.stack([o.prediction.chances for o in outcomes])
    text = json.dumps({"key": key, "outcomes": facts})
    write_with(path, lambda file: np.savez_compressed(file, allow_pickle=False, about=np.array(text), chances=chances))


def load_outcomes(path: Path, key: dict[str, Any]) -> list[Outcome] | None:
    """The outcomes in a file; None where there is none, or one made with another key."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            about, chances = json.loads(str(saved["about"])), saved["chances"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if about["key"] != json.loads(json.dumps(key)):
        return None
    found = []
    for o, values in zip(about["outcomes"], chances, strict=True):
        prediction = Prediction(o.pop("chosen"), o.pop("validation"), values)
        found.append(Outcome(**o, prediction=prediction))
    return found


def write_results(path: Path, sets: Sequence[ResultSet], more: Sequence[str] = ()) -> None:
    """results.csv: every label of each set, no figures where it could not be learned or scored; at the end columns `more`."""
    lines: list[list[object]] = [[*COLUMNS, *more]]
    for task, all_judged, values in sets:
        place = {int(c): i for i, c in enumerate(task.learnable)}
        train, test = (task.labels.matrix[task.rows_of(part)] for part in ("train", "test"))
        counts = [(train == 1).sum(axis=0), (test == 1).sum(axis=0), (~np.isnan(test)).sum(axis=0)]
        for judged in all_judged:
            o, intervals = judged.outcome, judged.intervals
            who = [o.system, "" if o.seed is None else o.seed, o.mode, o.readout, o.n_features]
            for c, label in enumerate(task.labels.names):
                figures = [np.nan] * 4
                if c in place and not np.isnan(judged.aurocs[place[c]]):
                    i = place[c]
                    figures = [judged.aurocs[i], *intervals[i], judged.auprcs[i]]
                what = [task.name, label, task.labels.descriptions[c], task.labels.levels[c]]
                shown = ["" if np.isnan(value) else f"{value:.6f}" for value in figures]
                lines.append([*who, *what, *(count[c] for count in counts), *shown, *values])
    write_csv(path, lines)


def write_predictions(path: Path, sets: Sequence[ResultSet], more: Sequence[str] = ()) -> None:
    """predictions.npz, readable without pickle: the chances that the figures were computed from, labels NaN where unknown.

    All sets are of one task; what stands in the further columns `more` of their lines stands here under the same names, [S].
    """
    task = sets[0].task
    rows = task.rows_of("test")
    outcomes = [judged.outcome for each in sets for judged in each.judged]
    further = {name: [each.more[k] for each in sets for _ in each.judged] for k, name in enumerate(more)}
    arrays = {
        "record_ids": task.store.record_ids[rows].astype(str),
        "patient_ids": task.store.patients[rows].astype(str),
        "label_names": np.array(task.names),
        "labels": task.values("test"),
        "systems": np.array([o.system for o in outcomes]),
        "seeds": np.array([-1 if o.seed is None else o.seed for o in outcomes]),
        "modes": np.array([o.mode for o in outcomes]),
        "readouts": np.array([o.readout for o in outcomes]),
        **{name: np.array(values) for name, values in further.items()},
        "scores": np.stack([o.prediction.chances for o in outcomes]),
    }
    write_with(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))
