"""Features on disk: encoded once, found again by all that they depend on, made again where they are damaged."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_features import CONFIG, INPUTS, made_store

from lamae_jax.artifact.folder import Model
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate import cache
from lamae_jax.evaluate.cache import cached_features
from lamae_jax.evaluate.features import TOKENS, extract
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params
from lamae_jax.model.presets import READOUTS

ROWS = np.array([9, 2, 7, 0, 4])


@pytest.fixture(scope="module")
def model() -> Model:
    params = jax.jit(init_params, static_argnums=0)(CONFIG, jax.random.key(0))
    return Model(params, CONFIG, INPUTS, None, {}, "", None)  # type: ignore[arg-type]


@pytest.fixture
def store() -> Store:
    store = made_store(12)
    store.hash, store.record_ids = "a store", np.array([f"r{i}" for i in range(12)], object)  # type: ignore
    return store


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows that were encoded, call by call."""
    calls: list[list[int]] = []

    def counted(params, config, inputs, store, rows, *rest):  # type: ignore[no-untyped-def]
        calls.append(rows.tolist())
        return extract(params, config, inputs, store, rows, *rest)

    monkeypatch.setattr(cache, "extract", counted)
    return calls


def take(folder: Path, model: Model, store: Store, rows: np.ndarray, names: tuple[str, ...] = READOUTS) -> dict:
    stored = cached_features(folder, model, store, rows, names, 4, "model")
    return {name: values[np.arange(len(rows))] for name, values in stored.items()}


def test_what_is_kept_is_what_was_extracted_and_is_not_encoded_again(
    model: Model, store: Store, encoded: list, tmp_path: Path
) -> None:
    first = take(tmp_path, model, store, ROWS)
    direct = extract(model.params, CONFIG, INPUTS, store, np.sort(ROWS), READOUTS, 4, "model")
    for name in READOUTS:
        np.testing.assert_array_equal(first[name], direct[name][np.searchsorted(np.sort(ROWS), ROWS)])
    again = take(tmp_path, model, store, ROWS)
    assert len(encoded) == 1
    for name in READOUTS:
        np.testing.assert_array_equal(first[name], again[name])


def test_encoding_twice_gives_the_same_numbers(model: Model, store: Store, tmp_path: Path) -> None:
    one, other = take(tmp_path / "1", model, store, ROWS), take(tmp_path / "2", model, store, ROWS)
    for name in READOUTS:
        np.testing.assert_array_equal(one[name], other[name])


def test_other_records_are_added_to_those_that_are_there(
    model: Model, store: Store, encoded: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "PIECE", 2)
    take(tmp_path, model, store, ROWS)
    found = take(tmp_path, model, store, np.array([1, 9, 0, 11]))
    assert encoded == [[0, 2], [4, 7], [9], [1, 11]]
    expected = extract(model.params, CONFIG, INPUTS, store, np.array([1, 9, 0, 11]), READOUTS, 4, "model")
    for name in READOUTS:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_tokens_are_the_models_own_in_half_precision(model: Model, store: Store, tmp_path: Path) -> None:
    tokens = take(tmp_path, model, store, ROWS, (TOKENS,))[TOKENS]
    assert tokens.shape == (5, 12, 4, 16) and tokens.dtype == np.float16
    mean = take(tmp_path, model, store, ROWS)["la_mean"]
    shown = store.available[ROWS]
    by_hand = np.stack([tokens[i][shown[i]].astype(np.float32).mean(axis=(0, 1)) for i in range(5)])
    np.testing.assert_allclose(by_hand, mean, atol=2e-3)


@pytest.mark.parametrize("what", ["params", "inputs", "dtype", "store", "code"])
def test_whatever_features_depend_on_is_in_the_key(
    what: str, model: Model, store: Store, encoded: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(tmp_path, model, store, ROWS)
    if what == "params":
        model = dataclasses.replace(model, params=jax.tree.map(lambda leaf: leaf * 1.01, model.params))
    elif what == "inputs":
        model = dataclasses.replace(model, inputs=InputConfig(normalisation="lead"))
    elif what == "dtype":
        model = dataclasses.replace(model, config=dataclasses.replace(CONFIG, dtype="bfloat16"))
    elif what == "store":
        store.hash = "another store"  # type: ignore[misc]
    else:
        other = tmp_path / "features.py"
        other.write_text("encode otherwise")
        monkeypatch.setattr(cache.features_file, "__file__", str(other))
    take(tmp_path, model, store, ROWS)
    assert len(encoded) == 2


@pytest.mark.parametrize("damage", ["altered", "cut", "gone", "no json", "other ids"])
def test_a_damaged_file_is_made_again(
    damage: str, model: Model, store: Store, encoded: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = take(tmp_path, model, store, ROWS)
    (file,) = tmp_path.glob("*/*/la_mean.npy")
    if damage == "altered":
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "gone":
        file.unlink()
    elif damage == "no json":
        (file.parent / "piece.json").write_text("{")
    else:
        store.record_ids[9] = "someone else"
    after = take(tmp_path, model, store, ROWS)
    assert len(encoded) == 2 and "can't be used" in capsys.readouterr().out
    np.testing.assert_array_equal(before["la_mean"], after["la_mean"])
    take(tmp_path, model, store, ROWS)
    assert len(encoded) == 2


def test_features_that_vanish_while_they_are_read_are_no_other_records(
    model: Model, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(tmp_path, model, store, ROWS)
    write = cache._write_piece

    def and_lose_the_first(home: Path, *rest: Any) -> None:
        write(home, *rest)
        shutil.rmtree(min(home.glob("*/"), key=lambda piece: piece.stat().st_mtime))

    monkeypatch.setattr(cache, "_write_piece", and_lose_the_first)
    with pytest.raises(UserError, match="vanished or changed while they were read"):
        take(tmp_path, model, store, np.arange(12))


def test_rows_are_found_in_whatever_piece_holds_them() -> None:
    piece, place = cache.located([np.array([4, 7]), np.array([2])], np.array([7, 2, 5, 9, 4]))
    assert piece.tolist() == [0, 1, -1, -1, 0] and place.tolist() == [1, 0, -1, -1, 0]
    assert cache.located([], np.array([3]))[0].tolist() == [-1]
