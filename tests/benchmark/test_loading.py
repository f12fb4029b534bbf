"""The loader's benchmark: its store is a real one, and its figures say what they are said to say."""

from __future__ import annotations

import hashlib
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from lamae_jax.benchmark import loading
from lamae_jax.benchmark.stores import noise_store
from lamae_jax.data.loader import BatchSource, train_batches
from lamae_jax.data.splits import check_disjoint, train_rows, validation_rows
from lamae_jax.data.store import Store
from lamae_jax.model.presets import ModelConfig

MODEL = ModelConfig(
    width=16, heads=2, encoder_depth=1, latent_depth=1, decoder_width=16, decoder_heads=2, decoder_depth=1, patch=250
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return noise_store(tmp_path_factory.mktemp("noise") / "store", 200)


def test_a_noise_store_is_sound(store: Store) -> None:
    assert store.size == 200 and store.verify() == []
    waveforms = store.read(np.arange(200))
    assert waveforms.shape == (200, 12, 2500) and waveforms.std() > 100
    assert [hashlib.sha256(each.tobytes()).hexdigest() for each in waveforms] == store.column("sha256").tolist()
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "manifest.json",
        "records.parquet",
        "rejected.csv",
        "shards",
    ]
    check_disjoint([store], train=train_rows([store]), validation=validation_rows([store]))


def test_an_epoch_brings_every_record_of_a_noise_store_once(store: Store) -> None:
    rows = np.arange(192)
    with train_batches(BatchSource([store], [rows], 16, seed=0)) as batches:
        epoch = list(islice(batches, 12))
    assert {batch["counts"].shape for batch in epoch} == {(16, 12, 2500)}
    assert {batch["available"].shape for batch in epoch} == {(16, 12)} and all(b["available"].all() for b in epoch)
    seen = [hashlib.sha256(each.tobytes()).hexdigest() for batch in epoch for each in batch["counts"]]
    assert sorted(seen) == sorted(store.column("sha256")[rows])


def test_the_loader_has_rates_for_both_ways(store: Store) -> None:
    rates = loading.loading_rates(store, batch_size=16, rounds=1, seconds=0.01)
    assert list(rates) == ["host", "device"] and all(rate > 0 for rate in rates.values())


def test_a_rate_counts_calls_a_second() -> None:
    assert 5 < loading.per_second(lambda: time.sleep(0.05), 0.2) <= 20


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_a_slow_loader_stalls_the_step(store: Store, delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Store.read

    def slow(self: Store, rows: np.ndarray) -> np.ndarray:
        time.sleep(delay)
        return read(self, rows)

    monkeypatch.setattr(Store, "read", slow)
    share = loading.stall_share(store, MODEL, batch_size=4, rounds=1, seconds=0.5)
    assert 0 <= share["stall_share"] <= 1 and 0 <= share["blocked_share"] <= 1
    assert share["fed_ecg_per_s"] > 0 and share["fixed_ecg_per_s"] > 0
    if delay:
        assert share["fed_ecg_per_s"] < 4 / delay
        assert share["stall_share"] > 0.3 and share["blocked_share"] > 0.3


def test_the_whole_benchmark_leaves_no_store_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "RECORDS", 200)
    result = loading.loading(tmp_path / "run", [("nano", MODEL, 4), ("base", MODEL, 400), ("tiny", MODEL, 8)], 1, 0.01)
    assert result["records_per_s"]["host"] > 0
    first, failed, last = result["fed"]
    assert "batch_size" in failed.pop("error") and failed == {
        "preset": "base",
        "batch_size": 400,
    }  # more than there are records
    assert [(row["preset"], row["batch_size"]) for row in (first, last)] == [("nano", 4), ("tiny", 8)]
    assert all(0 <= row["stall_share"] <= 1 for row in (first, last))
    assert list((tmp_path / "run").iterdir()) == []
