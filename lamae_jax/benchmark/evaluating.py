"""What evaluating costs once features are there: the linear probe's grid beside scikit-learn, label by label, and the intervals.

The problem is made: labels that follow from features by chance, from common to rare, since the cost hangs on sizes alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lamae_jax.benchmark.step import machine
from lamae_jax.errors import UserError, check_at_least_one
from lamae_jax.evaluate.bootstrap import resampled_aurocs
from lamae_jax.evaluate.linear import L2_VALUES
from lamae_jax.evaluate.logistic import fit_path
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.files import write_json
from lamae_jax.progress import say

COMPARED = 1e-3  # the strength that both fit
A_PATIENT = 5  # records
T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationCosts:
    """The probe's `records` to fit (and a fifth as many to score), `features` and `labels`; of the intervals `test_records`,
    `test_labels` and `resamples`. Raises UserError."""

    records: int
    features: int
    labels: int
    test_records: int
    test_labels: int
    resamples: int

    def __post_init__(self) -> None:
        check_at_least_one(self, "features", "labels", "test_labels", "resamples")
        for name, least in (("records", 500), ("test_records", 100)):  # both signs of the rarest label must be there
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: must be at least {least}")


def evaluation_costs(config: EvaluationCosts, workdir: Path) -> dict[str, Any]:
    """Measure both; write evaluation.json, print a line each, return what the file holds."""
    workdir.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(1), "probe": probe_costs(config), "intervals": interval_costs(config)}
    for name in ("evaluation.json", "summary.json"):
        write_json(workdir / name, result)
    return result


def probe_costs(config: EvaluationCosts) -> dict[str, Any]:
    """Seconds for all strengths and labels at once, and for one strength by scikit-learn, with the macro AUROC of either."""
    scored = config.records // 5
    x, y = made(config.records + scored, config.features, config.labels)
    train, test = slice(0, config.records), slice(config.records, None)
    path, ours = timed(lambda: fit_path(x[train], y[train], L2_VALUES))
    reached = macro_auroc(y[test], path[COMPARED].scores(x[test])).value
    costs = {
        "records": config.records, "features": config.features, "labels": config.labels, "strengths": len(L2_VALUES),
        "seconds": ours, "macro_auroc": reached,
    }  # fmt: skip
    sizes = f"{config.labels} labels, {config.records} records, {config.features} features"
    say(
        f"linear probe, {sizes}: {len(L2_VALUES)} strengths in {ours:.1f} s, macro AUROC {reached:.4f} at l2={COMPARED:g}"
    )
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        say("beside scikit-learn: not installed here (pip install scikit-learn)")
        return costs | {"scikit_learn": None}

    def one_by_one() -> np.ndarray:
        fits = [LogisticRegression(C=1 / (COMPARED * config.records), max_iter=1000) for _ in range(config.labels)]
        return np.stack([fit.fit(x[train], c).decision_function(x[test]) for fit, c in zip(fits, y[train].T)], axis=1)

    scores, theirs = timed(one_by_one)
    beside = macro_auroc(y[test], scores).value
    say(f"scikit-learn, label by label: 1 strength in {theirs:.1f} s, macro AUROC {beside:.4f}")
    return costs | {"scikit_learn": {"strengths": 1, "seconds": theirs, "macro_auroc": beside}}


def interval_costs(config: EvaluationCosts) -> dict[str, Any]:
    """Seconds for the resamples of the AUROC of every label, by record and by patient."""
    features = 16
    x, y = made(config.test_records, features, config.test_labels)
    scores = x @ np.random.default_rng(1).normal(size=(features, config.test_labels))
    patients = np.arange(config.test_records) // A_PATIENT
    _, by_record = timed(lambda: resampled_aurocs(y, [scores], None, config.resamples))
    _, by_patient = timed(lambda: resampled_aurocs(y, [scores], patients, config.resamples))
    sizes = f"{config.test_labels} labels, {config.test_records} records, {config.resamples} resamples"
    say(f"intervals, {sizes}: by record {by_record:.1f} s, by patient {by_patient:.1f} s")
    return {
        "records": config.test_records, "labels": config.test_labels, "resamples": config.resamples,
        "seconds": {"by_record": by_record, "by_patient": by_patient},
    }  # fmt: skip


def made(records: int, features: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, F] and labels [N, C], half of them features and half chance; the first in half of the records, the last in a
    fiftieth."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(records, features))
    x -= x.mean(axis=0)
    score = x @ rng.normal(size=(features, labels)) / np.sqrt(features) + rng.normal(size=(records, labels))
    shares = np.geomspace(0.5, 0.02, labels)
    limits = np.array([np.quantile(score[:, c], 1 - share) for c, share in enumerate(shares)])
    return x, (score > limits).astype(np.float64)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What `work` gives, and the seconds it took."""
    begun = time.perf_counter()
    done = work()
    return done, time.perf_counter() - begun
