"""A head turns a readout into probabilities of named labels, and travels with its model."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from small_model import save_small

from lamae_jax.artifact.folder import load_model
from lamae_jax.artifact.head import Head, logits
from lamae_jax.errors import UserError

ABOUT = {"task": "ptbxl:super", "macro_auroc": [0.91234, 0.9, 0.92]}


def head(features: int = 16, readout: str = "la_mean") -> Head:
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=features).astype(np.float32) for name in ("mean", "scale", "fill")}
    kernel, bias = rng.normal(size=(features, 2)).astype(np.float32), np.array([0.5, -1], np.float32)
    return Head(readout, ("MI", "NORM"), kernel, bias, **vectors, about=ABOUT)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("model"), head=head())


def test_a_head_is_a_standardised_linear_layer() -> None:
    made, values = head(), np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)
    got = logits(made.arrays, jnp.asarray(values), jnp.ones((3, 12), bool))
    np.testing.assert_allclose(got, ((values - made.mean) * made.scale) @ made.kernel + made.bias, rtol=1e-5, atol=1e-5)


def test_a_lead_that_is_not_there_takes_the_fill() -> None:
    made = head(12 * 16, "encoder_concat")
    values, available = np.ones((2, 12, 16), np.float32), np.ones((2, 12), bool)
    available[1, 3] = False
    filled = values.copy()
    filled[1, 3] = made.fill.reshape(12, 16)[3]
    got = logits(made.arrays, jnp.asarray(values), jnp.asarray(available))
    np.testing.assert_allclose(got, logits(made.arrays, jnp.asarray(filled), jnp.ones((2, 12), bool)), rtol=1e-6)


def test_what_goes_in_comes_out_and_a_save_without_head_takes_it_away(saved: Path, tmp_path: Path) -> None:
    back = load_model(saved).head
    assert back is not None and (back.readout, back.labels, back.about) == ("la_mean", ("MI", "NORM"), ABOUT)
    for name, array in head().arrays.items():
        np.testing.assert_array_equal(back.arrays[name], array)
    save_small(save_small(tmp_path, head=head()))
    assert load_model(tmp_path).head is None and not (tmp_path / "head.safetensors").exists()


def test_the_card_names_the_labels_and_their_figures_with_intervals(saved: Path) -> None:
    card = (saved / "README.md").read_text()
    assert "MI, NORM" in card and "0.9123 (95 % interval 0.9000 to 0.9200)" in card


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": ("MI",)}, r"kernel is float32 \(16, 2\); with 1 labels finite float32 \(16, 1\)"),
        ({"labels": ("MI", "MI")}, "2 label names, 1 different"),
        ({"bias": np.array([0, np.nan], np.float32)}, "bias"),
        ({"mean": np.zeros(3, np.float32)}, "mean"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(head(), **change)


@pytest.mark.parametrize(
    "made, message",
    [(head(8), "takes 8 features, the model's la_mean has 16"), (head(readout="attention"), "readout=attention")],
)
def test_a_head_of_another_model_is_refused_before_anything_is_written(
    made: Head, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        save_small(tmp_path / "model", head=made)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda h: h.update(labels=["MI"]), "with 1 labels"),
        (lambda h: h.update(labels="MI"), "must be a list of names"),
        (lambda h: h.pop("readout"), "lacks readout"),
        (lambda h: h.update(readout="encoder_concat"), "takes 16 features, the model's encoder_concat has 192"),
        (lambda h: h.update(bytes=3), "config.json says 3"),
        (lambda h: h.update(sha256="0"), "altered or cut short"),
    ],
)
def test_a_damaged_head_is_one_line(change: object, message: str, saved: Path, tmp_path: Path) -> None:
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    change(config["head"])  # type: ignore[operator]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        load_model(tmp_path)
