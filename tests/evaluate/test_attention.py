"""The attention probe finds what a mean over tokens hides, and looks at nothing that is not there."""

import jax
import numpy as np
import pytest

from lamae_jax.evaluate import attention as attention_file
from lamae_jax.evaluate.attention import TokenExamples, attention
from lamae_jax.evaluate.linear import linear
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import Examples

LEADS, PATCHES, WIDTH = 3, 8, 8
PARTS = np.split(np.arange(700), [400, 550])


def planted(seed: int = 0, records: int = 700) -> TokenExamples:
    """One marked token a record carries the label in its second half; every other token carries what undoes it in the mean."""
    rng = np.random.default_rng(seed)
    y = (rng.random((records, 1)) < 0.4).astype(float)
    tokens = rng.normal(size=(records, LEADS, PATCHES, WIDTH))
    lead, time = rng.integers(LEADS, size=records), rng.integers(PATCHES, size=records)
    here = np.arange(records), lead, time
    tokens[..., 5] = rng.normal(size=tokens.shape[:3])
    tokens[(*here, 0)] = 6  # the mark
    tokens[(*here, 5)] = 2 * (2 * y[:, 0] - 1)
    tokens[..., 5] -= tokens[..., 5].mean(axis=(1, 2), keepdims=True)
    return TokenExamples(tokens.astype(np.float16), np.ones((records, LEADS), bool), y)


def part(examples: TokenExamples, index: np.ndarray) -> TokenExamples:
    return TokenExamples(*(each[index] for each in examples))


def run(examples: TokenExamples, seed: int = 0) -> attention_file.Prediction:
    train, validation, test = (part(examples, index) for index in PARTS)
    return attention(train, validation, test.tokens, test.available, heads=2, seed=seed)


def test_learns_a_signal_that_the_mean_hides() -> None:
    examples = planted()
    found = run(examples)
    y = examples.labels[PARTS[2]]
    assert macro_auroc(y, found.chances).value > 0.9
    mean = examples.tokens.astype(float).mean(axis=(1, 2))
    by_mean = linear(*(Examples(mean[i], examples.labels[i]) for i in PARTS[:2]), mean[PARTS[2]])
    assert macro_auroc(y, by_mean.chances).value < 0.6
    assert found.chosen["l2"] in attention_file.L2_VALUES and found.chosen["epochs"] > 0
    assert found.chances.min() >= 0 and found.chances.max() <= 1 and found.chances.shape == (150, 1)


def test_the_same_seed_gives_the_same_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_file, "EPOCHS", 2)
    monkeypatch.setattr(attention_file, "FEWEST_STEPS", 20)
    examples = planted()
    np.testing.assert_array_equal(run(examples).chances, run(examples).chances)
    assert not np.array_equal(run(examples).chances, run(examples, seed=1).chances)


def test_tokens_of_leads_that_are_not_there_and_unknown_labels_count_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention_file, "EPOCHS", 2)
    monkeypatch.setattr(attention_file, "FEWEST_STEPS", 20)
    examples = planted()
    examples.available[::3, 1] = False
    labels = np.concatenate([examples.labels, examples.labels], axis=1)
    labels[:300, 1] = np.nan
    before = run(examples._replace(labels=labels))
    assert np.isfinite(before.chances).all()
    tokens = examples.tokens.copy()
    tokens[::3, 1] = 1000
    np.testing.assert_array_equal(before.chances, run(examples._replace(labels=labels, tokens=tokens)).chances)
    tokens[5, 0] = 1000  # a training record that is there
    assert not np.array_equal(before.chances, run(examples._replace(labels=labels, tokens=tokens)).chances)


def test_a_query_that_looks_evenly_gathers_the_mean() -> None:
    rng = np.random.default_rng(0)
    x, shown = rng.normal(size=(4, LEADS, PATCHES, WIDTH)).astype(np.float32), np.ones((4, LEADS), bool)
    shown[0, 2] = shown[1, 0] = False
    probe = {"query": np.zeros((2, WIDTH)), "weights": np.eye(WIDTH), "bias": np.zeros(WIDTH)}
    found = attention_file._logits(jax.tree.map(jax.numpy.asarray, probe), x, shown)
    np.testing.assert_allclose(found, [x[i][shown[i]].mean(axis=(0, 1)) for i in range(4)], atol=1e-6)
