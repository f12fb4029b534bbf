"""Cost against size: large stores that take no room, opened in a process of their own, and steps of several shapes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lamae_jax.benchmark import growth
from lamae_jax.benchmark.stores import opening_costs_of_fresh_process, own_memory_mb, sparse_store
from lamae_jax.data.loader import BatchSource
from lamae_jax.data.splits import check_disjoint, train_rows, validation_rows
from lamae_jax.data.store import Store
from lamae_jax.model.presets import ModelConfig

SMALL = {
    "width": 16,
    "heads": 2,
    "encoder_depth": 1,
    "latent_depth": 1,
    "decoder_width": 16,
    "decoder_heads": 2,
    "decoder_depth": 1,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """20,000 records in five shards, the last one shorter."""
    return sparse_store(tmp_path_factory.mktemp("sparse") / "store", 20_000)


def test_a_sparse_store_takes_no_room_for_its_signals(store: Store) -> None:
    files = [path.stat() for path in store.folder.rglob("*") if path.is_file()]
    assert sum(file.st_size for file in files) > 20_000 * 60_000
    assert sum(file.st_blocks * 512 for file in files) < 5e6


def test_a_sparse_store_is_sound(tmp_path: Path) -> None:
    store = sparse_store(tmp_path / "store", 5_000)  # a whole shard and a shorter one
    assert [shard["records"] for shard in store.manifest["shards"]] == [4096, 904]
    assert store.verify() == []
    assert np.load(store.folder / "shards/00001.npy", mmap_mode="r").shape == (904, 12, 2500)
    assert not store.read(np.array([0, 4095, 4096, 4999])).any() and store.available.all()


def test_the_permutation_of_a_sparse_store_covers_it(store: Store) -> None:
    rows = train_rows([store])
    check_disjoint([store], train=rows, validation=validation_rows([store]))
    n = len(rows[0])
    assert 0.75 * 20_000 < n < 0.85 * 20_000
    source = BatchSource([store], rows, 128, seed=0)
    epoch = np.concatenate([source.numbers(k) for k in range(n // 128)])
    assert len(np.unique(epoch)) == len(epoch) > n - 128 and epoch.max() < n
    assert source[n // 128 - 1]["counts"].shape == (128, 12, 2500)


def test_memory_is_what_this_process_has_made() -> None:
    before = own_memory_mb()
    held = np.ones(50_000_000, np.uint8)
    assert 45 < own_memory_mb() - before < 70 and held.all()


def test_opening_is_measured_in_a_process_of_its_own(store: Store) -> None:
    held = np.ones(400_000_000, np.uint8)  # of this process, none of the new one's business
    costs = opening_costs_of_fresh_process(store.folder, batch_size=128, batches=3)
    assert all(value > 0 for value in costs.values())
    assert costs["train_records"] == len(train_rows([store])[0])
    assert costs["memory_before_mb"] < own_memory_mb() - held.nbytes / 2e6
    assert costs["memory_read_mb"] < costs["peak_mb"] and costs["memory_read_mb"] < 500


@pytest.mark.slow
def test_a_store_as_large_as_mimic_s_is_read_in_little_memory(tmp_path: Path) -> None:
    store = sparse_store(tmp_path / "store", 800_000)
    costs = opening_costs_of_fresh_process(store.folder, batch_size=128, batches=20)
    assert costs["train_records"] == len(train_rows([store])[0]) > 600_000
    assert costs["memory_read_mb"] < 500  # it was 331; the signals are 48 GB


@pytest.mark.slow
def test_a_run_writes_what_it_found_and_leaves_no_store_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "STEPS", (growth.BASE | {"batch": 4, "patch": 250},))
    monkeypatch.setattr(growth, "preset", lambda name, **sizes: ModelConfig(**SMALL, **sizes))
    monkeypatch.setattr(growth, "BATCHES", 3)
    result = growth.growth(growth.GrowthConfig("300", 1, 0.01), tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == ["growth.json", "summary.json"]
    assert json.loads((tmp_path / "run" / "growth.json").read_text()) == result
    assert [row["records"] for row in result["stores"]] == [300]
    assert [row["batch"] for row in result["steps"]] == [4]
    assert all(row["flops_per_s"] == row["flops"] * row["ecg_per_s"] > 0 for row in result["steps"])
    assert "us" in capsys.readouterr().out


def test_every_shape_of_the_table_is_a_model_that_can_be_made() -> None:
    for shape in growth.STEPS:
        assert growth.model_of(shape).patches == growth.FS * shape["seconds"] // shape["patch"]
        assert sum(shape[name] != growth.BASE[name] for name in growth.BASE) <= 1
