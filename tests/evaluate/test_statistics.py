"""AUROC is exact, ties count half, and what is undefined is left out and listed."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from lamae_jax.errors import NotFinite
from lamae_jax.evaluate.statistics import auprc, auroc, calibration, macro_auroc


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


@pytest.mark.parametrize("levels", [2, 5, 1000, None])
@pytest.mark.parametrize("records", [7, 300, 5000])
def test_average_precision_agrees_with_scikit_learn_with_any_number_of_ties(records: int, levels: int | None) -> None:
    rng = np.random.default_rng(records)
    scores = rng.normal(size=records) if levels is None else rng.integers(levels, size=records) / 7
    positive = rng.random(records) < 0.3
    positive[:2] = True, False
    assert abs(auprc(positive, scores) - average_precision_score(positive, scores)) < 1e-12


def test_average_precision_worked_by_hand_and_undefined_with_one_sign() -> None:
    # From the top: + (1/1), - , then a tie of + and - (2/4).
    assert auprc(np.array([1, 0, 1, 0], bool), np.array([4.0, 3.0, 1.0, 1.0])) == 0.5 * 1 + 0.5 * 0.5
    assert np.isnan(auprc(np.ones(3, bool), np.arange(3.0))) and np.isnan(auprc(np.zeros(3, bool), np.arange(3.0)))


def test_calibration_worked_by_hand() -> None:
    chances = np.array([0.0, 0.1, 0.2, 0.9, 0.95, 1.0])
    positive = np.array([0, 0, 1, 1, 0, 1], bool)
    found = calibration(positive, chances, bins=4)
    np.testing.assert_array_equal(found.count, [3, 0, 0, 3])
    np.testing.assert_allclose(found.predicted, [0.1, np.nan, np.nan, 0.95])
    np.testing.assert_allclose(found.observed, [1 / 3, np.nan, np.nan, 2 / 3])
    assert found.error == pytest.approx((abs(0.1 - 1 / 3) + abs(0.95 - 2 / 3)) / 2)
    assert found.brier == pytest.approx(brier_score_loss(positive, chances))


def test_chances_that_come_true_as_often_as_they_say_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    chances = rng.random(200_000)
    found = calibration(rng.random(200_000) < chances, chances)
    assert found.error < 0.005
    assert calibration(rng.random(200_000) < chances**2, chances).error > 0.1
    with pytest.raises(ValueError, match="from 0 to 1"):
        calibration(np.array([True]), np.array([1.5]))
