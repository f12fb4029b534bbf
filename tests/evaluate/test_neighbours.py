"""k-NN: the nearest by cosine vote, the unknown have no vote, and k is validation's choice."""

import numpy as np
import pytest

from lamae_jax.evaluate.neighbours import K_VALUES, neighbours, votes
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import Examples


def made(records: int, seed: int) -> Examples:
    """Features of which some matter, and three labels, a fifth of them unknown."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(records, 12))
    y = (x[:, :3] + rng.normal(size=(records, 3)) > 0.4).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    return Examples(x, y)


def brute_force(train: Examples, query: np.ndarray, k: int, label: int) -> float:
    """One record's chance of one label, as the docstring says it."""
    cosines = [float(x @ query / np.sqrt(x @ x) / np.sqrt(query @ query)) for x in train.features]
    nearest = sorted(range(len(cosines)), key=lambda i: -cosines[i])[:k]
    voters = [i for i in nearest if not np.isnan(train.labels[i, label])]
    if not voters:
        return float(np.nanmean(train.labels[:, label]))
    weights = [np.exp(cosines[i] / 0.07) for i in voters]
    return float(np.average([train.labels[i, label] for i in voters], weights=weights))


def test_equals_brute_force_for_every_k() -> None:
    train, queries = made(300, 0), made(70, 1).features
    found = votes(train, queries, [1, 10, 300])
    for k, chances in found.items():
        expected = [[brute_force(train, query, k, c) for c in range(3)] for query in queries]
        np.testing.assert_allclose(chances, expected, atol=1e-12)


def test_many_queries_are_answered_in_blocks() -> None:
    train, queries = made(50, 0), made(600, 1).features
    whole = votes(train, queries, [10])[10]
    np.testing.assert_allclose(whole[[0, 255, 256, 599]], votes(train, queries[[0, 255, 256, 599]], [10])[10])


def test_lengths_do_not_matter_and_a_record_of_zeros_is_no_trouble() -> None:
    train, queries = made(80, 0), made(20, 1).features
    longer = Examples(train.features * np.arange(1, 81)[:, None], train.labels)
    np.testing.assert_allclose(votes(train, queries, [10])[10], votes(longer, 7 * queries, [10])[10], atol=1e-12)
    assert np.isfinite(votes(train, np.zeros((1, 12)), [10])[10]).all()


def test_k_is_the_best_on_validation() -> None:
    train, validation, test = made(400, 0), made(150, 1), made(90, 2).features
    found = neighbours(train, validation, test)
    reached = {k: macro_auroc(validation.labels, votes(train, validation.features, [k])[k]).value for k in K_VALUES}
    assert found.chosen["k"] == max(reached, key=lambda k: reached[k])
    assert found.validation == pytest.approx(max(reached.values()))
    np.testing.assert_array_equal(found.chances, votes(train, test, [int(found.chosen["k"])])[found.chosen["k"]])
    assert neighbours(Examples(*(each[:7] for each in train)), validation, test).chosen == {"k": 7}
