"""Bootstraps: a resample's figure is that of the records it drew, and intervals hold as often as they say."""

import numpy as np
import pytest

from lamae_jax.errors import NotFinite
from lamae_jax.evaluate.bootstrap import basic_interval, macro, percentile_interval, resampled_aurocs
from lamae_jax.evaluate.statistics import auroc, macro_auroc


def made(records: int, labels: int, levels: int | None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of all prevalences, a tenth of them unknown, and scores that know something; `levels`: how many distinct ones."""
    rng = np.random.default_rng(seed)
    y = (rng.random((records, labels)) < np.linspace(0.03, 0.97, labels)).astype(float)
    scores = rng.normal(size=y.shape) + y
    if levels is not None:
        scores = np.round(scores * levels / 6) / 7
    y[rng.random(y.shape) < 0.1] = np.nan
    return y, scores


def drawn(members: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """The records of each resample, literally: as the module's docstring defines them."""
    names = np.unique(members)
    rows = []
    for resample in range(resamples):
        block = np.random.default_rng([seed, 32 * (resample // 32)])
        for _ in range(resample % 32 + 1):
            picked = names[block.integers(len(names), size=len(names))]
        rows.append(np.concatenate([np.flatnonzero(members == name) for name in picked]))
    return rows


@pytest.mark.parametrize("levels", [None, 5, 1])
@pytest.mark.parametrize("clustered", [False, True])
def test_a_resampled_auroc_is_the_auroc_of_the_records_drawn(levels: int | None, clustered: bool) -> None:
    y, scores = made(150, 7, levels)
    patients = np.random.default_rng(1).integers(40, size=150) if clustered else None
    found = resampled_aurocs(y, [scores], patients, resamples=40, seed=3)[0]
    members = np.arange(150) if patients is None else patients
    for r, rows in enumerate(drawn(members, 40, 3)):
        expected = macro_auroc(y[rows], scores[rows]).per_label
        np.testing.assert_allclose(found[r], expected, rtol=0, atol=1e-12)


def test_systems_meet_the_same_resamples_together_or_apart() -> None:
    y, scores = made(120, 4, None)
    other = scores + np.random.default_rng(5).normal(size=scores.shape)
    both = resampled_aurocs(y, [scores, other], resamples=50, seed=1)
    np.testing.assert_array_equal(both[1], resampled_aurocs(y, [other], resamples=50, seed=1)[0])
    np.testing.assert_array_equal(both[:, :20], resampled_aurocs(y, [scores, other], resamples=20, seed=1))
    assert not np.array_equal(both[0], resampled_aurocs(y, [scores], resamples=50, seed=2)[0])


def test_the_difference_of_a_system_to_itself_has_no_width_and_pairing_narrows() -> None:
    y, scores = made(300, 3, None)
    near = scores + 0.1 * np.random.default_rng(5).normal(size=scores.shape)
    same, one, other = macro(resampled_aurocs(y, [scores, scores, near], resamples=300))
    assert percentile_interval(same - one) == (0, 0)
    apart = np.random.default_rng(0).permutation(other)
    assert np.std(one - other) < 0.3 * np.std(one - apart)


def test_a_label_that_a_resample_leaves_one_sided_is_left_out_of_that_mean() -> None:
    y, scores = made(60, 3, None)
    y[:, 0] = 0
    y[7, 0] = 1  # not drawn in (1 - 1/60)^60 = 36 % of resamples
    y[:, 1] = 1  # never has both signs
    y[:, 2] = np.arange(60) % 2
    found = resampled_aurocs(y, [scores], resamples=500)[0]
    missing = np.isnan(found)
    assert 0.3 < missing[:, 0].mean() < 0.43 and missing[:, 1].all() and not missing[:, 2].any()
    means = macro(found)
    np.testing.assert_array_equal(means[missing[:, 0]], found[missing[:, 0], 2])
    np.testing.assert_allclose(means[~missing[:, 0]], found[~missing[:, 0]][:, [0, 2]].mean(1))
    assert np.isnan(macro(found[:, :2])[missing[:, 0]]).all()


def test_intervals_of_known_draws() -> None:
    draws = np.concatenate([np.arange(101) / 100, [np.nan]])
    assert percentile_interval(draws) == pytest.approx((0.025, 0.975))
    assert basic_interval(0.4, draws) == pytest.approx((2 * 0.4 - 0.975, 2 * 0.4 - 0.025))
    assert np.isnan(percentile_interval(np.full(5, np.nan))).all()


def test_scores_that_are_not_finite_are_refused() -> None:
    y, scores = made(20, 2, None)
    scores[3, 1] = np.inf
    with pytest.raises(NotFinite, match="1 of 40 scores"):
        resampled_aurocs(y, [scores])


def clustered_data(rng: np.random.Generator, patients: int, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patients whose label never changes and whose `each` records score nearly alike; the truth is P(N(1.2, 2) > 0) = .802."""
    sign = rng.random(patients) < 0.4
    level = rng.normal(size=patients) * 0.98 + 1.2 * sign
    scores = np.repeat(level, each) + np.sqrt(1 - 0.98**2) * rng.normal(size=patients * each)
    labels = np.repeat(sign, each).astype(float)
    return labels[:, None], scores[:, None], np.repeat(np.arange(patients), each)


def coverage(each: int, trials: int) -> tuple[float, float]:
    """How often the basic interval by record and the percentile interval by patient hold the truth."""
    rng = np.random.default_rng(0)
    truth, inside = 0.80193, np.zeros(2)
    for _ in range(trials):
        y, scores, patients = clustered_data(rng, 120, each)
        low, high = basic_interval(auroc(y[:, 0] == 1, scores[:, 0]), resampled_aurocs(y, [scores], None, 300)[0, :, 0])
        inside[0] += low < truth < high
        low, high = percentile_interval(resampled_aurocs(y, [scores], patients, 300)[0, :, 0])
        inside[1] += low < truth < high
    return inside[0] / trials, inside[1] / trials


def test_both_cover_where_every_record_is_its_own_patient() -> None:
    by_record, by_patient = coverage(each=1, trials=200)
    # A proportion of 200 at .95 has a standard error of .015; nominal coverage is reached for many records only.
    assert 0.91 < by_record < 0.985 and 0.91 < by_patient < 0.985


def test_with_several_records_a_patient_only_the_bootstrap_by_patient_covers() -> None:
    by_record, by_patient = coverage(each=6, trials=200)
    assert 0.91 < by_patient < 0.985
    assert by_record < 0.7
