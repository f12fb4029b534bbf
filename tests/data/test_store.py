"""The store as a reader sees it: what it answers, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from lamae_jax.data import shards
from lamae_jax.data.prepare import prepare
from lamae_jax.data.store import Store, open_stores
from lamae_jax.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 20 records in shards of 8 whose second record lacks lead V6."""
    folder = tmp_path_factory.mktemp("made")
    source = tiny.write_ptb_xl(folder / "source", 20)
    signal = tiny.signal_of(2)
    signal[11] = 0
    tiny.write_record(source / "records100/00000/00002_lr", signal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "RECORDS_PER_SHARD", 8)
        prepare(tiny.config(source, folder / "store"), folder / "run")
    return folder / "store"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    for name, data in tiny.contents(made).items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(data)
    return tmp_path / "copy"


def test_rows_come_in_the_order_asked_for_from_any_shard(made: Path) -> None:
    store = Store.open(made)
    rows = np.array([19, 0, 8, 7, 8])
    assert np.array_equal(store.read(rows), np.stack([tiny.signal_of(row + 1) for row in rows]))
    assert store.read(np.array([], int)).shape == (0, 12, 1000)
    with pytest.raises(IndexError):
        store.read(np.array([20]))


def test_a_flat_lead_is_unavailable_all_zero_and_flagged(made: Path) -> None:
    store = Store.open(made)
    assert store.available.shape == (20, 12) and store.available.sum() == 20 * 12 - 1
    assert not store.available[1, 11] and not store.read(np.array([1]))[0, 11].any()
    assert store.column("flags").tolist() == ["", "lead_flat", *[""] * 18]


def test_what_a_store_says_of_itself(made: Path) -> None:
    store = Store.open(made)
    assert (store.size, store.name, store.contract.fs, store.contract.samples) == (20, "ptb_xl", 100, 1000)
    assert (store.split.column, store.split.validation, store.split.test) == ("strat_fold", (9,), (10,))
    assert store.patients[:3].tolist() == ["1000", "1000", "1001"]
    assert store.folds.tolist() == [fold for fold in range(1, 11) for _ in range(2)]
    assert len(store.hash) == 64 and store.hash == Store.open(made).hash
    assert store.verify() == []
    with pytest.raises(UserError, match="no column 'weight'; there are record_id"):
        store.column("weight")


def test_a_source_without_patients_makes_each_record_its_own(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(made)
    columns = {"patient_id": np.array(["7", None, None], object), "record_id": np.array(["a", "b", "c"], object)}
    monkeypatch.setattr(store, "column", columns.__getitem__)
    assert store.patients.tolist() == ["7", "record b", "record c"]


def test_no_store_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder; make one with --config=configs/prepare.py"):
        Store.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no manifest.json"):
        Store.open(tmp_path)


def test_a_newer_format_and_a_damaged_manifest_are_one_line(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(UserError, match="format 2, this version reads 1"):
        Store.open(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="manifest.json is damaged"):
        Store.open(copy)
    del manifest["contract"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="manifest.json is damaged .'contract'."):
        Store.open(copy)


def test_a_shard_cut_short_is_an_error_and_not_a_crash(copy: Path) -> None:
    shard = copy / "shards" / "00001.npy"
    shard.write_bytes(shard.read_bytes()[:-10])
    store = Store.open(copy)
    assert len(store.read(np.array([8]))) == 1  # what is there can be read
    with pytest.raises(UserError, match="shards/00001.npy ends too soon; check it with verify_only"):
        store.read(np.array([15]))
    assert store.verify()[0].startswith("shards/00001.npy: sha256 is")


def test_a_shard_of_another_shape_or_none_at_all_is_one_line(copy: Path) -> None:
    np.save(copy / "shards" / "00000.npy", np.zeros((8, 12, 999), np.int16))
    (copy / "shards" / "00001.npy").unlink()
    with pytest.raises(UserError, match=r"shards/00000.npy holds int16 \(8, 12, 999\)"):
        Store.open(copy).read(np.array([0]))
    with pytest.raises(UserError, match="shards/00001.npy can't be read"):
        Store.open(copy).read(np.array([8]))


def test_stores_of_one_contract_open_together_others_are_refused_with_both_values(made: Path, tmp_path: Path) -> None:
    source = tiny.write_ptb_xl(tmp_path / "source", 2)
    prepare(tiny.config(source, tmp_path / "same"), tmp_path / "run")
    prepare(tiny.config(source, tmp_path / "slow", fs=50, allow_upsampling=True), tmp_path / "run")
    assert [store.size for store in open_stores(f"{made}, {tmp_path / 'same'}")] == [20, 2]
    with pytest.raises(UserError, match="one signal contract: fs: .*100.*50"):
        open_stores(f"{made},{tmp_path / 'slow'}")
    with pytest.raises(UserError, match="names no store"):
        open_stores(" ,")
