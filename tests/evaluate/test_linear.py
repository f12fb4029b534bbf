"""The linear probe: its strength is chosen on validation alone, and what it predicts is scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lamae_jax.evaluate.linear import L2_VALUES, linear
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import Examples


def made_examples(seed: int = 0) -> tuple[Examples, Examples, Examples]:
    """Standardised features and two labels that depend on them weakly; 120 train, 60 validation, 60 test records."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(240, 40))
    labels = (x @ rng.normal(size=(40, 2)) / 6 + rng.logistic(size=(240, 2)) > 0).astype(float)
    return tuple(Examples(x[part], labels[part]) for part in np.split(np.arange(240), [120, 180]))  # type: ignore


def test_the_strength_is_the_best_on_validation_and_the_score_is_scikit_learns() -> None:
    train, validation, test = made_examples()

    def by_hand(l2: float, part: Examples) -> float:
        aurocs = []
        for c in range(2):
            fit = LogisticRegression(C=1 / (l2 * 120), tol=1e-10, max_iter=5000).fit(train.features, train.labels[:, c])
            aurocs.append(roc_auc_score(part.labels[:, c], fit.decision_function(part.features)))
        return float(np.mean(aurocs))

    prediction = linear(train, validation, test.features)
    l2 = prediction.chosen["l2"]
    assert l2 == max(L2_VALUES, key=lambda l2: by_hand(l2, validation))
    assert prediction.validation == pytest.approx(by_hand(l2, validation), abs=1e-6)
    assert macro_auroc(test.labels, prediction.chances).value == pytest.approx(by_hand(l2, test), abs=1e-3)
    assert 0 < prediction.chances.min() < prediction.chances.max() < 1
    assert l2 not in (min(L2_VALUES), max(L2_VALUES))
