"""Fine-tuning changes the encoder, later layers more; it learns what is in the signal and chooses on validation alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.artifact.folder import Model
from lamae_jax.artifact.head import Head
from lamae_jax.errors import UserError
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.tuning import Labelled, TuneConfig, draw_keep, fine_tune, layer_rates, predict
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import encode, init_params
from lamae_jax.model.presets import preset
from lamae_jax.signal.contract import SignalContract

CONFIG = preset("nano", width=16, decoder_width=16, encoder_depth=2, latent_depth=2, samples=200, patch=20)
QUICK = TuneConfig(steps=40, batch_size=16, learning_rate=5e-3, layer_decay=0.75, weight_decay=0.05, warmup=0.05, drop_path=0.1,
                   eval_every=10, seed=0)  # fmt: skip


class Memory:
    """A store's waveforms in memory: every other record is fast in V1; the label says which."""

    def __init__(self, records: int = 96):
        rng = np.random.default_rng(0)
        time = np.arange(200) / 100
        self.labels = (np.arange(records) % 2).astype(float)[:, None]
        rates = np.full((records, 12, 1), 3.0)
        rates[:, 6] = np.where(self.labels == 1, 6.0, 3.0)
        waves = np.sin(2 * np.pi * (rates * time + rng.random((records, 12, 1))))
        self.counts = (500 * waves + rng.normal(0, 50, waves.shape)).astype(np.int16)
        self.available = np.ones((records, 12), bool)
        self.contract = SignalContract(fs=100, seconds=2.0, band="none")

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.counts[rows]

    def task(self, rows: range) -> Labelled:
        chosen = np.arange(rows.start, rows.stop)
        return Labelled(self, chosen, self.labels[chosen])  # type: ignore[arg-type]


def silent(readout: str) -> Head:
    """A head that says nearly nothing."""
    features = CONFIG.width * (12 if readout == "encoder_concat" else 1)
    kernel = 0.01 * np.random.default_rng(0).standard_normal((features, 1)).astype(np.float32)
    nothing = np.zeros(features, np.float32)
    return Head(readout, ("fast",), kernel, np.zeros(1, np.float32), nothing, nothing + 1, nothing)


STORE = Memory()
TRAIN, VALIDATION, TEST = STORE.task(range(64)), STORE.task(range(64, 80)), STORE.task(range(80, 96))


@pytest.fixture(scope="module")
def model() -> Model:
    params = jax.jit(init_params, static_argnums=0)(CONFIG, jax.random.key(0))
    return Model(jax.device_get(params), CONFIG, InputConfig(), STORE.contract, {}, "", None)


def changes(before: Any, after: Any) -> dict[str, float]:
    """By how much each part moved, in root mean square; a stack's layers apart."""
    moved = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a, b: np.asarray(b) - a, before, after)):
        names = [key.key for key in path]
        if names[-1] == "kernel" and "layers" in names:
            for layer, change in enumerate(leaf):
                moved[f"{names[0]} {layer} {names[-2]}"] = float(np.sqrt(np.mean(change**2)))
        else:
            moved["/".join(names)] = float(np.sqrt(np.mean(leaf**2)))
    return moved


def test_it_learns_what_is_in_the_signal_and_changes_later_layers_more(model: Model) -> None:
    tuned = fine_tune(model, silent("la_mean"), QUICK, TRAIN, VALIDATION, "test")
    assert macro_auroc(TEST.labels, predict(tuned.model, TEST.store, TEST.rows, "test")).value > 0.9
    assert tuned.step in [step for step, _ in tuned.curve] and [step for step, _ in tuned.curve] == [0, 10, 20, 30, 40]
    assert max(value for _, value in tuned.curve) == dict(tuned.curve)[tuned.step] > 0.9
    moved = changes(model.params, tuned.model.params)
    stack = [moved[f"{part} {layer} mlp_in"] for part in ("encoder", "latent_attention") for layer in (0, 1)]
    assert 0 < stack[0] < stack[1] < stack[2] < stack[3]
    assert moved["decoder/head/kernel"] == moved["mask_token"] == moved["to_decoder/kernel"] == 0


def test_the_same_command_gives_the_same_model(model: Model) -> None:
    short = dataclasses.replace(QUICK, steps=2, eval_every=2)
    first, again = (
        fine_tune(model, silent("encoder_mean"), short, TRAIN, VALIDATION, "test").model.params for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_fewer_records_than_a_batch_are_all_in_every_step(model: Model) -> None:
    eight, head = STORE.task(range(8)), silent("encoder_mean")
    few = dataclasses.replace(QUICK, steps=2, eval_every=2, batch_size=8)
    more = dataclasses.replace(few, batch_size=32)
    found, due = (fine_tune(model, head, each, eight, VALIDATION, "test").model.params for each in (more, few))
    jax.tree.map(np.testing.assert_array_equal, found, due)


def test_read_at_the_encoder_latent_attention_neither_counts_nor_changes(model: Model) -> None:
    rates = layer_rates(CONFIG, model.params, "encoder_mean", 0.5)
    assert rates["latent_attention"]["cls"] == 0
    layers = rates["encoder"]["transformer"]["layers"]["mlp_in"]["kernel"].ravel()
    np.testing.assert_allclose(layers, [0.25, 0.5])
    short = dataclasses.replace(QUICK, steps=2, eval_every=2)
    tuned = fine_tune(model, silent("encoder_concat"), short, TRAIN, VALIDATION, "test").model.params
    moved = changes(model.params, tuned)
    assert moved["encoder 0 mlp_in"] > 0 and moved["latent_attention 1 mlp_in"] == 0


def test_rates_decay_by_the_layer(model: Model) -> None:
    rates = layer_rates(CONFIG, model.params, "la_cls", 0.5)
    of = {
        part: rates[part]["transformer"]["layers"]["mlp_in"]["kernel"].ravel()
        for part in ("encoder", "latent_attention")
    }
    np.testing.assert_allclose(np.concatenate(list(of.values())), [0.0625, 0.125, 0.25, 0.5])
    assert rates["encoder"]["patch_embedding"]["kernel"] == 0.5**5 and rates["latent_attention"]["cls"] == 0.5**3
    assert rates["latent_attention"]["transformer"]["norm"]["scale"] == 0.5


def test_stochastic_depth_skips_later_blocks_more_and_keeps_the_mean() -> None:
    keep = np.asarray(draw_keep(jax.random.key(0), 20_000, 5, 0.4))
    np.testing.assert_allclose((keep == 0).mean(axis=1), [0, 0.1, 0.2, 0.3, 0.4], atol=0.02)
    np.testing.assert_allclose(keep.mean(axis=1), 1, atol=0.02)
    assert draw_keep(jax.random.key(0), 8, 5, 0.0) is None


def test_a_record_that_skips_every_block_keeps_what_it_went_in_with(model: Model) -> None:
    """And nobody else notices."""
    x, available = jax.random.normal(jax.random.key(1), (3, 12, 200)), jnp.ones((3, 12), bool)
    run = jax.jit(encode, static_argnums=0)
    whole = run(CONFIG, model.params, x, available)
    skipped = run(CONFIG, model.params, x, available, jnp.ones((4, 3)).at[:, 1].set(0))
    others = np.array([0, 2])
    np.testing.assert_allclose(skipped.la_cls[others], whole.la_cls[others], atol=1e-5)
    assert np.abs(skipped.encoder[1] - whole.encoder[1]).max() > 0.1, "the encoder's blocks are skipped too"
    np.testing.assert_allclose(skipped.encoder[others], whole.encoder[others], atol=1e-5)
    cls = model.params["latent_attention"]["cls"]
    np.testing.assert_allclose(skipped.la_cls[1], (cls - cls.mean()) / np.sqrt(cls.var() + 1e-6), atol=1e-4)


@pytest.mark.parametrize(
    "field, message",
    [
        ({"layer_decay": 0.0}, "layer_decay=0: must be above 0"),
        ({"drop_path": 1.0}, "drop_path=1: must be at least 0 and below 1"),
        ({"eval_every": 0}, "eval_every=0: must be at least 1"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0: must be above 0"),
    ],
)
def test_impossible_values_are_refused(field: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(QUICK, **field)  # type: ignore[arg-type]
