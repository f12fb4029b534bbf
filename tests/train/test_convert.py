"""A training checkpoint becomes a model, and a model a checkpoint that a run goes on from."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import run

import lamae_jax
from lamae_jax.artifact.origin import entry
from lamae_jax.config import run_config
from lamae_jax.errors import UserError
from lamae_jax.train.convert import checkpoint_from_model, model_from_checkpoint, save
from lamae_jax.train.metrics import read_metrics


@pytest.fixture(scope="module")
def done(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert run(small_store, folder) == 0
    return folder


def test_the_last_checkpoint_is_the_model_and_earlier_ones_are_others(done: Path, tmp_path: Path) -> None:
    config, model = run_config(done), lamae_jax.load(done / "model")
    made = model_from_checkpoint(config, done)
    assert save(made, tmp_path / "model") == model.sha256
    reloaded = lamae_jax.load(tmp_path / "model").provenance
    assert reloaded["step"] == 6
    for field in ("stores", "records", "init"):  # the card names data and licence
        assert reloaded[field] == model.provenance[field]
    assert "CC BY 4.0" in (tmp_path / "model" / "README.md").read_text()
    assert save(model_from_checkpoint(config, done, 4), tmp_path / "earlier") != model.sha256
    with pytest.raises(UserError, match="no checkpoint of step 5; there are 4, 6"):
        model_from_checkpoint(config, done, 5)


def test_a_run_that_saves_meanwhile_is_only_read(done: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(done, workdir)
    (workdir / "checkpoints" / "8.orbax-checkpoint-tmp" / "state").mkdir(parents=True)  # the save under way
    before = sorted(workdir.rglob("*"))
    assert model_from_checkpoint(run_config(workdir), workdir).provenance["step"] == 6
    assert sorted(workdir.rglob("*")) == before


@pytest.mark.parametrize("name, first", [("adamw", 1), pytest.param("muon", 1 + 0.9 / 1.9, marks=pytest.mark.slow)])
def test_a_run_goes_on_at_the_rate_of_its_step(
    name: str, first: float, done: Path, small_store: Path, tmp_path: Path
) -> None:
    """With fresh moments Adam's first update of a bias, which does not decay, is as large as the rate, and beside Muon, where
    it looks ahead by Nesterov, `first` times that."""
    config, model = run_config(done), lamae_jax.load(done / "model")
    optimizer = dataclasses.replace(config.step.optimizer, name=name)
    config = dataclasses.replace(config, step=dataclasses.replace(config.step, optimizer=optimizer))
    checkpoint_from_model(config, model, tmp_path, step=4)
    assert run(small_store, tmp_path, optimizer__name=name, checkpoint__every=1) == 0
    logged = {
        line["step"]: line["learning_rate"] for line in read_metrics(tmp_path / "metrics.jsonl") if "grad_norm" in line
    }
    after = model_from_checkpoint(config, tmp_path, 5).params
    largest: dict[str, float] = {}
    for (path, new), old in zip(jax.tree.leaves_with_path(after), jax.tree.leaves(model.params)):
        leaf = path[-1].key
        largest[leaf] = max(largest.get(leaf, 0.0), np.abs(np.asarray(new) - old).max())
    assert largest["bias"] == pytest.approx(first * logged[5], rel=1e-3)
    assert largest["kernel"] > 0.1 * logged[5]


@pytest.mark.parametrize("seen", [[5, 2**63 + 1], None], ids=["known", "unknown"])
def test_a_run_goes_on_from_a_model_and_lists_what_that_had_seen(
    seen: list[int] | None, done: Path, small_store: Path, tmp_path: Path
) -> None:
    keys = None if seen is None else np.array(seen, np.uint64)
    config, original = run_config(done), lamae_jax.load(done / "model")
    elsewhere = {"stores": [entry("ward 3", "mimic_iv_ecg", "cd" * 32)]}
    model = dataclasses.replace(original, pretraining_records=keys, provenance=elsewhere)
    checkpoint_from_model(config, model, tmp_path, step=2)
    back = model_from_checkpoint(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, back.params, model.params)
    assert back.provenance["stores"] == elsewhere["stores"]
    under_way = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    under_way.mkdir()
    with pytest.raises(UserError, match="holds checkpoints already"):
        checkpoint_from_model(config, model, tmp_path, step=9)
    assert under_way.exists()  # a training that is saving there just now loses nothing
    assert run(small_store, tmp_path) == 0
    made = lamae_jax.load(tmp_path / "model")
    assert made.sha256 != model.sha256 == made.provenance["init"]
    assert [store["name"] for store in made.provenance["stores"]] == ["ptb_xl", "ward 3"]
    if keys is None:  # nobody knows, and the run's own records are not all
        assert made.pretraining_records is None
    else:
        np.testing.assert_array_equal(made.pretraining_records, np.union1d(original.pretraining_records, keys))


def test_a_checkpoint_from_before_provenance_knows_stores_by_hash_and_its_origin(
    done: Path, small_store: Path, tmp_path: Path
) -> None:
    config, original = run_config(done), lamae_jax.load(done / "model")
    elsewhere = {"stores": [entry("ward 3", "mimic_iv_ecg", "cd" * 32)]}
    checkpoint_from_model(config, dataclasses.replace(original, provenance=elsewhere), tmp_path, step=2)
    assert run(small_store, tmp_path) == 0
    for kept in (tmp_path / "checkpoints").glob("*/facts/metadata"):
        facts = json.loads(kept.read_text())
        del facts["provenance"]
        kept.write_text(json.dumps(facts))
    back = model_from_checkpoint(config, tmp_path).provenance
    assert [store["name"] for store in back["stores"]] == ["(name not recorded)", "ward 3"]
    assert back["stores"][0]["sha256"] == original.provenance["stores"][0]["sha256"]
    assert back["init"] == original.sha256


def test_another_folder_is_one_line(done: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name the folder of a pretraining"):
        run_config(tmp_path)
    with pytest.raises(UserError, match="there is none"):
        model_from_checkpoint(run_config(done), tmp_path / "mistyped")
    assert not list(tmp_path.iterdir())
