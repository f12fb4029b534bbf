"""Figures of merit, exact and without a model in sight.

Legend: N records, C labels. Labels are 1, 0 or NaN (unknown); a label whose known values are all alike has no AUROC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamae_jax.errors import NotFinite


def auroc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a positive record scores above a negative one, ties counting half.

    `positive` [N] is boolean, `scores` [N] any real numbers. Counted in integers (Mann-Whitney), so exact but for one division.
    NaN where only one sign occurs. Raises NotFinite where a score is not finite.
    """
    positive, scores = np.asarray(positive, bool), np.asarray(scores)
    if positive.shape != scores.shape or positive.ndim != 1:
        raise ValueError(f"labels {positive.shape} and scores {scores.shape} must be one vector each, equally long")
    if not np.isfinite(scores).all():
        raise NotFinite(f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are not finite")
    n_positive = int(np.count_nonzero(positive))
    n_negative = positive.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    values, place = np.unique(scores, return_inverse=True)
    at = np.bincount(place[positive], minlength=values.size)  # positives at each distinct score
    negatives = np.bincount(place[~positive], minlength=values.size)
    below = np.cumsum(negatives) - negatives  # negatives strictly below it
    twice = int(np.sum(at * (2 * below + negatives)))  # Python integers from here: no overflow, no rounding
    return twice / (2 * n_positive * n_negative)


@dataclass(frozen=True)
class MacroAUROC:
    """`value`: mean over the labels that have both signs (NaN where none has); `per_label` [C], NaN where undefined."""

    value: float
    per_label: np.ndarray

    @property
    def undefined(self) -> list[int]:
        """The labels left out of the mean."""
        return [int(c) for c in np.flatnonzero(np.isnan(self.per_label))]


def macro_auroc(labels: np.ndarray, scores: np.ndarray) -> MacroAUROC:
    """Each label's AUROC over the records where it is known, and their mean; `labels` and `scores` are [N, C]."""
    if labels.shape != scores.shape or labels.ndim != 2:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be [records, labels]")
    known = ~np.isnan(labels)
    per_label = np.array([auroc(labels[k, c] == 1, scores[k, c]) for c, k in enumerate(known.T)], float)
    defined = per_label[~np.isnan(per_label)]
    return MacroAUROC(float(defined.mean()) if defined.size else float("nan"), per_label)
