"""The linear probe: one logistic regression a label on frozen features, its penalty chosen on validation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from lamae_jax.evaluate.logistic import Logistic, fit_path
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import Examples, Prediction

# From "almost free" to "almost nothing but the mean", whatever the number of records (see logistic.py).
L2_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


class Fitted(NamedTuple):
    """A logistic regression a label on standardised features, its strength `l2`, and macro AUROC on validation."""

    logistic: Logistic
    l2: float
    validation: float


def fit_linear(train: Examples, validation: Examples) -> Fitted:
    """Fit on train, choose one strength for all labels on validation (the stronger of equals). Features standardised on train."""
    path = fit_path(train.features, train.labels, L2_VALUES)
    reached = {l2: macro_auroc(validation.labels, fit.scores(validation.features)).value for l2, fit in path.items()}
    best = max(reached, key=lambda l2: (reached[l2], l2))
    return Fitted(path[best], best, reached[best])


def linear(train: Examples, validation: Examples, test: np.ndarray) -> Prediction:
    """What `fit_linear` predicts for `test` [n, F]."""
    logistic, l2, validation_auroc = fit_linear(train, validation)
    return Prediction({"l2": l2}, validation_auroc, expit(logistic.scores(test)))
