"""Frozen features: the model's readouts, record by record, whatever the batch, the padding and the leads that are there."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.data.store import Store
from lamae_jax.errors import NotFinite
from lamae_jax.evaluate.features import extract, features_program, fill_unavailable, standardise
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import encode, init_params
from lamae_jax.model.presets import READOUTS, preset
from lamae_jax.model.readouts import readout
from lamae_jax.signal.contract import SignalContract
from lamae_jax.train.sharding import sharing

CONFIG = preset("nano", width=16, decoder_width=16, encoder_depth=1, latent_depth=1, samples=200, patch=50)
INPUTS = InputConfig()


@dataclass
class MemoryStore:
    """What the loader asks of a store."""

    counts: np.ndarray
    available: np.ndarray
    contract: SignalContract

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.counts[rows]


def made_store(records: int, seconds: float = 2.0) -> Store:
    rng = np.random.default_rng(0)
    contract = SignalContract(fs=100, seconds=seconds)
    counts = rng.integers(-900, 900, (records, 12, contract.samples)).astype(np.int16)
    available = rng.random((records, 12)) < 0.8
    available[:, 1] = True
    counts[~available] = 0
    return MemoryStore(counts, available, contract)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def params() -> dict:
    return jax.jit(init_params, static_argnums=0)(CONFIG, jax.random.key(0))


def features(params: dict, store: Store, rows: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    return extract(params, CONFIG, INPUTS, store, rows, READOUTS, batch_size, "model")


def test_rows_come_in_the_order_asked_for_and_neither_batch_nor_padding_shows(params: dict) -> None:
    store = made_store(11)
    rows = np.array([7, 0, 10, 3, 5, 2, 9])
    whole = features(params, store, np.arange(11), 4)
    for batch_size in (3, 4):
        some = features(params, store, rows, batch_size)
        assert {name: values.shape for name, values in some.items()} == {
            "la_cls": (7, 16), "la_mean": (7, 16), "encoder_mean": (7, 16), "encoder_concat": (7, 12, 16),
        }  # fmt: skip
        for name in READOUTS:
            np.testing.assert_allclose(some[name], whole[name][rows], atol=1e-5)


def test_all_batches_share_one_compilation(params: dict) -> None:
    store = made_store(7)
    program = features_program(CONFIG, INPUTS, READOUTS, sharing(2))
    before = program._cache_size()
    features(params, store, np.arange(7), 2)
    assert program._cache_size() == before + 1


def test_devices_share_out_a_batch_and_change_no_feature(params: dict) -> None:
    store = made_store(16)
    assert (sharing(8).size, sharing(3).size, sharing(12).size) == (8, 3, 6)
    alone, shared = (features(params, store, np.arange(16), batch_size) for batch_size in (1, 8))
    for name in READOUTS:
        np.testing.assert_allclose(shared[name], alone[name], atol=1e-5)


def test_longer_records_are_cut_to_their_middle(params: dict) -> None:
    long = made_store(4, seconds=5.0)
    middle = MemoryStore(long.counts[..., 150:350], long.available, SignalContract(fs=100, seconds=2.0))  # type: ignore
    for name, values in features(params, long, np.arange(4), 3).items():
        np.testing.assert_allclose(values, features(params, middle, np.arange(4), 3)[name], atol=1e-6)  # type: ignore


def test_what_lies_in_an_unavailable_lead_has_no_influence(params: dict) -> None:
    store = made_store(6)
    before = features(params, store, np.arange(6), 3)
    store.counts[~store.available] = 3000  # type: ignore[attr-defined]
    after = features(params, store, np.arange(6), 3)
    for name in READOUTS:
        np.testing.assert_array_equal(before[name], after[name])


def test_features_are_the_models_own_readouts(params: dict) -> None:
    store = made_store(2)
    millivolts = jnp.asarray(store.read(np.arange(2)), jnp.float32) / 1000
    shown = jnp.asarray(store.available)[..., None]
    x = jnp.where(shown, millivolts - millivolts.mean(-1, keepdims=True), 0)
    x = x / jnp.sqrt(jnp.sum(x**2, (1, 2), keepdims=True) / (200 * shown.sum(1, keepdims=True)))
    tokens = jax.jit(encode, static_argnums=0)(CONFIG, params, x, jnp.asarray(store.available))
    got = features(params, store, np.arange(2), 3)
    for name in READOUTS:
        np.testing.assert_allclose(got[name], readout(tokens, name, jnp.asarray(store.available)), atol=1e-4)


def test_parameters_that_are_not_finite_stop_the_run(params: dict) -> None:
    broken = jax.tree.map(lambda leaf: leaf * np.nan, params)
    with pytest.raises(NotFinite, match="la_cls is not finite for 3 of 3 records"):
        features(broken, made_store(3), np.arange(3), 3)


def test_an_unavailable_lead_takes_the_training_mean() -> None:
    concat = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    available = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]], bool)
    filled = fill_unavailable(concat, available, np.array([True, True, False, False])).reshape(4, 3, 2)
    np.testing.assert_array_equal(filled[available[:, :2].nonzero()], concat[available[:, :2].nonzero()])
    np.testing.assert_array_equal(filled[2, 0], (concat[0, 0] + concat[1, 0]) / 2)
    np.testing.assert_array_equal(filled[1, 1], concat[0, 1])  # records 2 and 3 have it, and are not for training
    np.testing.assert_array_equal(filled[:, 2], 0)  # no training record has it: of no use to the probe


def test_standardising_looks_at_training_records_alone() -> None:
    rng = np.random.default_rng(0)
    x, train = rng.normal(3, 2, (50, 4)).astype(np.float32), np.arange(50) < 30
    x[:, 3] = 7
    scaled = standardise(x, train)
    np.testing.assert_allclose(scaled[train][:, :3].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[train][:, :3].std(0), 1, atol=1e-6)
    np.testing.assert_array_equal(scaled[:, 3], 0)
    x[~train] *= 100
    np.testing.assert_array_equal(standardise(x, train)[train], scaled[train])
