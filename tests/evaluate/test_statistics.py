"""AUROC is exact, ties count half, and what is undefined is left out and listed."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lamae_jax.errors import NotFinite
from lamae_jax.evaluate.statistics import auroc, macro_auroc


@pytest.mark.parametrize("levels", [2, 5, 1000, None])
@pytest.mark.parametrize("records", [7, 300, 5000])
def test_agrees_with_scikit_learn_with_any_number_of_ties(records: int, levels: int | None) -> None:
    rng = np.random.default_rng(records)
    scores = rng.normal(size=records) if levels is None else rng.integers(levels, size=records) / 7
    positive = rng.random(records) < 0.3
    positive[:2] = True, False
    assert abs(auroc(positive, scores) - roc_auc_score(positive, scores)) < 1e-12


def test_is_the_share_of_pairs_in_the_right_order() -> None:
    positive, scores = np.array([1, 0, 1, 0, 0, 1], bool), np.array([0.5, 0.5, 2.0, -1.0, 3.0, 0.5])
    pairs = [
        (scores[p] > scores[n]) + (scores[p] == scores[n]) / 2
        for p, n in itertools.product(np.flatnonzero(positive), np.flatnonzero(~positive))
    ]
    assert auroc(positive, scores) == np.mean(pairs)


def test_ends_of_the_scale() -> None:
    positive = np.array([False, False, True])
    assert auroc(positive, np.array([1.0, 2.0, 3.0])) == 1
    assert auroc(positive, np.array([3.0, 2.0, 1.0])) == 0
    assert auroc(positive, np.zeros(3)) == 0.5


def test_only_the_order_of_scores_counts() -> None:
    rng = np.random.default_rng(1)
    positive, scores = rng.random(200) < 0.5, rng.normal(size=200)
    assert auroc(positive, scores) == auroc(positive, np.exp(3 * scores))
    assert auroc(positive, scores) == pytest.approx(1 - auroc(positive, -scores), abs=1e-15)


def test_no_figure_without_both_signs() -> None:
    assert np.isnan(auroc(np.ones(4, bool), np.arange(4.0)))
    assert np.isnan(auroc(np.zeros(0, bool), np.zeros(0)))


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NotFinite, match="1 of 3 scores"):
        auroc(np.array([True, False, True]), np.array([1.0, np.nan, 2.0]))


def test_macro_leaves_out_unknown_records_and_undefined_labels() -> None:
    rng = np.random.default_rng(2)
    labels, scores = (rng.random((100, 3)) < 0.4).astype(float), rng.normal(size=(100, 3))
    labels[:50, 0] = np.nan
    labels[:, 1] = 0
    result = macro_auroc(labels, scores)
    expected = [roc_auc_score(labels[50:, 0], scores[50:, 0]), roc_auc_score(labels[:, 2], scores[:, 2])]
    assert result.undefined == [1]
    np.testing.assert_allclose(result.per_label[[0, 2]], expected, rtol=0, atol=1e-12)
    assert result.value == pytest.approx(np.mean(expected), abs=1e-12)
    assert np.isnan(macro_auroc(labels[:, 1:2], scores[:, 1:2]).value)
