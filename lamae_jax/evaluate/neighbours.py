"""The k-NN probe: what a record's nearest training records say of it; nothing is fitted.

Nearness is the cosine of standardised features. The k nearest vote with weight exp(cosine / .07), the form in which frozen
features are commonly judged (Wu et al. 2018; Caron et al. 2021, appendix).
"""

from __future__ import annotations

import numpy as np

from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import Examples, Prediction

K_VALUES = (10, 20, 50, 100, 200)
TEMPERATURE = 0.07
QUERIES = 256  # records asked about at once: votes [256, 200, C] stay small


def neighbours(train: Examples, validation: Examples, test: np.ndarray) -> Prediction:
    """Choose k on validation (the larger of equals; those above the number of training records are left out), predict `test`."""
    sizes = [k for k in K_VALUES if k <= len(train.labels)] or [len(train.labels)]
    reached = {
        k: macro_auroc(validation.labels, chances).value
        for k, chances in votes(train, validation.features, sizes).items()
    }
    best = max(reached, key=lambda k: (reached[k], k))
    return Prediction({"k": best}, reached[best], votes(train, test, [best])[best])


def votes(train: Examples, queries: np.ndarray, sizes: list[int]) -> dict[int, np.ndarray]:
    """For each k of `sizes` (none above the training records) the weighted share of 1 among the k nearest, [n, C].

    A neighbour of which a label is unknown has no vote on it; where none votes, the training records' rate stands.
    `queries` [n, F].
    """
    reference = _unit(train.features)
    known = ~np.isnan(train.labels)
    positive = train.labels == 1
    rate = positive.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    out = {k: np.empty((len(queries), train.labels.shape[1])) for k in sizes}
    for first in range(0, len(queries), QUERIES):
        cosine = _unit(queries[first : first + QUERIES]) @ reference.T
        nearest = np.argpartition(-cosine, max(sizes) - 1, axis=1)[:, : max(sizes)]
        cosine = np.take_along_axis(cosine, nearest, axis=1)
        order = np.argsort(-cosine, axis=1, kind="stable")
        nearest, cosine = np.take_along_axis(nearest, order, axis=1), np.take_along_axis(cosine, order, axis=1)
        weight = np.exp((cosine - cosine[:, :1]) / TEMPERATURE)  # a common factor, lest the exponential grow
        for k in sizes:
            some, mine = nearest[:, :k], weight[:, :k]
            said = np.einsum("qk,qkc->qc", mine, positive[some])
            cast = np.einsum("qk,qkc->qc", mine, known[some])
            out[k][first : first + QUERIES] = np.where(cast > 0, said / np.where(cast > 0, cast, 1), rate)
    return {k: np.clip(chances, 0, 1) for k, chances in out.items()}  # rounding alone can leave [0, 1]


def _unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1)
