"""The regression reaches the optimum that scikit-learn reaches, for every label and strength at once."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lamae_jax.evaluate.logistic import fit_path

STRENGTHS = (1e-4, 1e-2, 1.0)


def problem(records: int, features: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated, centred features and labels that depend on them."""
    rng = np.random.default_rng(features)
    x = rng.normal(size=(records, 5)) @ rng.normal(size=(5, features)) + 0.3 * rng.normal(size=(records, features))
    x = (x - x.mean(0)) / x.std(0)
    y = x @ rng.normal(size=(features, labels)) / features + rng.logistic(size=(records, labels)) / 4 > 0.3
    return x, y.astype(float)


@pytest.mark.parametrize(("records", "features"), [(400, 20), (60, 150)])
def test_equals_scikit_learn(records: int, features: int) -> None:
    x, y = problem(records, features, 3)
    path = fit_path(x, y, STRENGTHS)
    for l2, fit in path.items():
        for c in range(y.shape[1]):
            other = LogisticRegression(C=1 / (l2 * records), tol=1e-12, solver="newton-cholesky", max_iter=500).fit(
                x, y[:, c]
            )
            np.testing.assert_allclose(fit.weights[:, c], other.coef_[0], atol=1e-5)
            np.testing.assert_allclose(fit.intercepts[c], other.intercept_[0], atol=1e-5)
            np.testing.assert_allclose(fit.scores(x)[:, c], other.decision_function(x), atol=1e-4)


def test_unknown_records_are_left_out_label_by_label() -> None:
    x, y = problem(300, 10, 2)
    holes = y.copy()
    holes[:120, 0] = np.nan
    both = fit_path(x, holes, STRENGTHS)
    alone = fit_path(x[120:], y[120:, :1], STRENGTHS)
    whole = fit_path(x, y[:, 1:], STRENGTHS)
    for l2 in STRENGTHS:
        np.testing.assert_allclose(both[l2].weights[:, 0], alone[l2].weights[:, 0], atol=1e-6)
        np.testing.assert_allclose(both[l2].weights[:, 1], whole[l2].weights[:, 0], atol=1e-6)


def test_separable_labels_constant_and_repeated_features_are_no_trouble() -> None:
    x, y = problem(200, 8, 1)
    x[:, 3], x[:, 4] = 0, x[:, 5]
    y[:, 0] = x[:, 0] > 0
    path = fit_path(x, y, (1e-5, 1e-3))
    assert path[1e-5].weights[3] == pytest.approx(0, abs=1e-9)
    assert path[1e-5].weights[4] == pytest.approx(path[1e-5].weights[5], abs=1e-4)
    assert ((path[1e-5].scores(x) > 0) == y).mean() > 0.99


def test_a_label_with_one_sign_is_refused() -> None:
    x, y = problem(50, 3, 2)
    y[:, 1] = 1
    with pytest.raises(ValueError, match="both signs"):
        fit_path(x, y, STRENGTHS)
