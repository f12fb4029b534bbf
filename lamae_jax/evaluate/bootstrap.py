"""Bootstrap intervals of AUROCs: by record, to stand beside the literature, and by patient, to believe.

N records, C labels, R resamples, S systems scored on the same records. Labels are 1, 0 or NaN (unknown: left out of that label).

A resample is how often each record was drawn, so a resampled AUROC is an AUROC with whole-number weights. Records are sorted
once a label; whatever the resample, twice the number of pairs in the right order is then

    sum over positives i of p_i (below_i + upto_i)  -  p^2

where p_i is how often positive i was drawn, below_i and upto_i how many records were drawn with a lower score and with no
higher one, and p how many positives were (p^2 takes out the pairs of two positives). All are whole numbers, so ties count half
and the result is exact. Intervals: Davison and Hinkley, Bootstrap Methods and their Application (1997), sections
5.2 (basic) and 5.3 (percentile); clusters: section 3.8, whole patients drawn with replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from lamae_jax.errors import NotFinite
from lamae_jax.machine import cores

RESAMPLES = 1000
LEVEL = 0.95
# Resamples worked on together: their weights [N, BLOCK] should fit the processor's second cache.
BLOCK = 32

Interval = tuple[float, float]


def resampled_aurocs(
    labels: np.ndarray,
    systems: Sequence[np.ndarray],
    patients: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """The AUROC of every label of every system in every resample, [S, R, C]; NaN where a resample leaves a label one-sided.

    `labels` [N, C]; `systems`: scores [N, C] each; `patients` [N] are drawn whole where given, else records are drawn singly.
    The resamples depend on N (or the patients), their number and the seed alone, so that systems, in one call or in several,
    are compared on the same ones. Raises ValueError for shapes that differ and NotFinite for scores that are not finite.
    """
    for scores in systems:
        if scores.shape != labels.shape or labels.ndim != 2:
            raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be [records, labels]")
        if not np.isfinite(scores).all():
            raise NotFinite(f"{np.count_nonzero(~np.isfinite(scores))} of {scores.size} scores are not finite")
    records, count = labels.shape
    members = np.arange(records) if patients is None else np.unique(patients, return_inverse=True)[1]
    sorted_once = [[_Sorted.of(labels[:, c], scores[:, c]) for c in range(count)] for scores in systems]
    out = np.full((len(systems), resamples, count), np.nan)

    def work(first: int) -> None:
        block = slice(first, min(first + BLOCK, resamples))
        weights = _drawn(members, block.stop - first, np.random.default_rng([seed, first]))
        for s, each in enumerate(sorted_once):
            for c, label in enumerate(each):
                if label is not None:
                    out[s, block, c] = label.aurocs(weights)

    # The sparse product and numpy let other threads run, and every block has places of its own in `out`.
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(work, range(0, resamples, BLOCK)))
    return out


def _drawn(members: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each record was drawn, [N, R]: as often as its member (a patient, or itself); `members` [N] count from 0."""
    size = int(members.max()) + 1 if len(members) else 0
    draws = [np.bincount(rng.integers(size, size=size), minlength=size) for _ in range(resamples)]
    counts = np.stack(draws, axis=1)[members]
    # Sums of weights must stay exact: float32 holds whole numbers up to 2^24, and twice the sum is needed.
    exact = np.float32 if counts.sum(axis=0).max(initial=0) < 2**23 else np.float64
    return np.ascontiguousarray(counts, exact)


@dataclass(frozen=True)
class _Sorted:
    """One label's known records in the order of one system's scores, seen from its rarer sign: P records at G distinct scores.

    `steps` [2 G + 1, N] picks the records between each of those scores and the one before, those at it, and at the end the
    rest; `rarer` [P] are the records of the rarer sign, ascending, and `group` [P] says at which of the scores each stands.
    """

    steps: csr_array
    rarer: np.ndarray
    group: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray) -> _Sorted | None:
        """Of labels [N] and scores [N]; None where only one sign occurs."""
        known = np.flatnonzero(~np.isnan(labels))
        positive = labels[known] == 1
        if positive.all() or not positive.any():
            return None
        # Positives above negatives is negatives above positives on the scale turned round: the rarer sign is less work.
        turned = positive.mean() > 0.5
        rare, scale = (~positive, -scores[known]) if turned else (positive, scores[known])
        order = np.argsort(scale, kind="stable")
        at = order[rare[order]]
        distinct, group = np.unique(scale[at], return_inverse=True)
        ends = [np.searchsorted(scale[order], distinct, side) for side in ("left", "right")]
        edges = np.concatenate([[0], np.stack(ends, axis=1).ravel(), [len(order)]]).astype(np.int32)
        ones = np.ones(len(order), np.float32)
        steps = csr_array((ones, known[order].astype(np.int32), edges), shape=(len(edges) - 1, len(labels)))
        return cls(steps, known[at], group)

    def aurocs(self, weights: np.ndarray) -> np.ndarray:
        """The AUROC under each of the weights [N, R]."""
        sums = np.cumsum(
            self.steps @ weights, axis=0
        )  # [2 G + 1, R]: below the first score, up to it, below the second ...
        mine = weights[self.rarer]
        around = (sums[:-1:2] + sums[1::2])[self.group]
        twice = np.einsum("pr,pr->r", mine, around, dtype=np.float64)
        rare = mine.sum(axis=0, dtype=np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0: one sign was not drawn
            return (twice - rare**2) / (2 * rare * (sums[-1] - rare))


def macro(aurocs: np.ndarray) -> np.ndarray:
    """The mean over labels [..., C] -> [...], without those that are undefined (NaN); NaN where all are."""
    defined = ~np.isnan(aurocs)
    count = defined.sum(axis=-1)
    total = np.sum(aurocs, axis=-1, where=defined)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def percentile_interval(draws: np.ndarray) -> Interval:
    """Between the resampled values' own percentiles; `draws` [R], undefined ones left out; (NaN, NaN) where none is left."""
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return (float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (float(low), float(high))


def basic_interval(value: float, draws: np.ndarray) -> Interval:
    """As far below and above the `value` of all records as resamples fell above and below it; may reach beyond 0 and 1."""
    low, high = percentile_interval(draws)
    return (2 * value - high, 2 * value - low)
