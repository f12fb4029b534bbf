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
    positive, scores = _vectors(positive, scores)
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


def auprc(positive: np.ndarray, scores: np.ndarray) -> float:
    """Average precision: the precision at each distinct score, weighted by the recall gained there (no interpolation).

    Arguments and errors as of `auroc`; NaN where only one sign occurs. A useless score earns about the share of positives.
    """
    positive, scores = _vectors(positive, scores)
    n_positive = int(np.count_nonzero(positive))
    if n_positive in (0, positive.size):
        return float("nan")
    values, place = np.unique(-scores, return_inverse=True)  # from the highest score down
    gained = np.bincount(place[positive], minlength=values.size)
    precision = np.cumsum(gained) / np.cumsum(np.bincount(place, minlength=values.size))
    return float(np.sum(gained * precision) / n_positive)


def roc_curve(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - specificity and sensitivity at every threshold, [G + 1] each, from (0, 0) to (1, 1); both signs must occur."""
    positive, scores = _vectors(positive, scores)
    values, place = np.unique(-scores, return_inverse=True)
    true, false = (
        np.append(0, np.cumsum(np.bincount(place[mine], minlength=values.size))) for mine in (positive, ~positive)
    )
    return false / false[-1], true / true[-1]


def _vectors(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positive, scores = np.asarray(positive, bool), np.asarray(scores)
    if positive.shape != scores.shape or positive.ndim != 1:
        raise ValueError(f"labels {positive.shape} and scores {scores.shape} must be one vector each, equally long")
    if not np.isfinite(scores).all():
        raise NotFinite(f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are not finite")
    return positive, scores


@dataclass(frozen=True)
class Calibration:
    """How far predicted chances are what comes true, in K bins of equal width from 0 to 1.

    `count` [K] predictions a bin, `predicted` [K] their mean chance, `observed` [K] the share that came true (both NaN in an
    empty bin). `brier`: mean squared difference of chance and outcome (Brier 1950). `error`: expected calibration error, the
    bins' |predicted - observed| weighted by their counts (Naeini et al. 2015).
    """

    count: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    brier: float
    error: float


def calibration(positive: np.ndarray, chances: np.ndarray, bins: int = 10) -> Calibration:
    """The calibration of `chances` [N], each from 0 to 1, for `positive` [N]; ValueError outside, NotFinite where not finite."""
    positive, chances = _vectors(positive, chances)
    if chances.size == 0 or chances.min() < 0 or chances.max() > 1:
        raise ValueError("chances must be from 0 to 1, and at least one")
    bin_of = np.minimum((chances * bins).astype(int), bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0: an empty bin
        predicted = np.bincount(bin_of, chances, bins) / count
        observed = np.bincount(bin_of, positive, bins) / count
    gap = np.abs(predicted - observed)[count > 0]
    error = float(np.sum(count[count > 0] * gap) / chances.size)
    return Calibration(count, predicted, observed, float(np.mean((chances - positive) ** 2)), error)


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
