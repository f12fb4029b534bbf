"""The linear probe: one logistic regression a label on frozen features, its penalty chosen on validation."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from lamae_jax.evaluate.logistic import fit_path
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import Examples, Prediction

# From "almost free" to "almost nothing but the mean", whatever the number of records (see logistic.py).
L2_VALUES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


def linear(train: Examples, validation: Examples, test: np.ndarray) -> Prediction:
    """Fit on train, choose one strength for all labels on validation (the stronger of equals), predict `test` [n, F].

    Features are standardised on train.
    """
    path = fit_path(train.features, train.labels, L2_VALUES)
    reached = {l2: macro_auroc(validation.labels, fit.scores(validation.features)).value for l2, fit in path.items()}
    best = max(reached, key=lambda l2: (reached[l2], l2))
    return Prediction({"l2": best}, reached[best], expit(path[best].scores(test)))
