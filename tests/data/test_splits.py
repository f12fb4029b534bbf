"""Splits: by patient, nested when limited, never overlapping in silence."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tiny

from lamae_jax.data import splits
from lamae_jax.data.prepare import prepare
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """60 records of 30 patients; folds 1 to 10 with 6 records each."""
    folder = tmp_path_factory.mktemp("splits")
    prepare(tiny.config(tiny.write_ptb_xl(folder / "source", 60), folder / "store"), folder / "run")
    return Store.open(folder / "store")


def folds_of(store: Store, rows: list[np.ndarray]) -> list[int]:
    return sorted(set(store.folds[rows[0]].tolist()))


def test_folds_go_where_the_source_says(store: Store) -> None:
    assert folds_of(store, splits.train_rows([store])) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert folds_of(store, splits.validation_rows([store])) == [9]
    assert folds_of(store, splits.test_rows([store])) == [10]
    assert folds_of(store, splits.train_rows([store], "all")) == [1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert folds_of(store, splits.train_rows([store], "2, 5")) == [2, 5]


def test_validation_is_never_trained_on(store: Store) -> None:
    with pytest.raises(UserError, match="data.folds: 8,9 holds 9, the validation fold"):
        splits.train_rows([store], "8,9")
    with pytest.raises(UserError, match="no record .* is in '77'; its folds .strat_fold. are .1, 2"):
        splits.train_rows([store], "77")
    with pytest.raises(UserError, match="data.folds: 'trian'; train, all or numbers"):
        splits.train_rows([store], "trian")


def test_a_limit_takes_whole_patients_and_smaller_subsets_lie_inside_larger_ones(store: Store) -> None:
    everything = splits.train_rows([store])[0]
    before: set[int] = set()
    for limit in (1, 4, 7, 20, 1000):
        rows = splits.train_rows([store], limit=limit)[0]
        assert before <= set(rows.tolist()) <= set(everything.tolist())
        assert len(rows) == min(max(limit // 2 * 2, 2), len(everything))  # two records a patient, at least one patient
        patients = store.patients[rows].tolist()
        assert all(patients.count(patient) == 2 for patient in patients)
        before = set(rows.tolist())
    with pytest.raises(UserError, match="data.limit: -1"):
        splits.train_rows([store], limit=-1)


def test_a_limited_subset_does_not_follow_the_order_of_the_table(store: Store) -> None:
    rows = splits.train_rows([store], limit=20)[0]
    assert len(set(folds_of(store, [rows]))) > 3 and rows.tolist() != splits.train_rows([store])[0][:20].tolist()


def test_a_limit_counts_over_all_stores_together(store: Store) -> None:
    rows = splits.train_rows([store, store], limit=12)  # one source twice: a patient has four records
    assert [len(part) for part in rows] == [6, 6] and np.array_equal(*rows)


def test_a_patient_on_two_sides_stops_the_run_by_name(store: Store) -> None:
    train, validation, test = splits.train_rows([store]), splits.validation_rows([store]), splits.test_rows([store])
    splits.check_disjoint([store], train=train, validation=validation, test=test)
    leaked = [np.append(validation[0], train[0][:1])]
    with pytest.raises(UserError, match=r"two sides of the split: 1000 \(train and validation\); columns strat_fold"):
        splits.check_disjoint([store], train=train, validation=leaked, test=test)


def test_equal_ids_in_two_stores_of_one_name_are_taken_for_one_patient_and_the_way_out_is_said(store: Store) -> None:
    nobody, somebody = np.zeros(0, np.int64), splits.train_rows([store])[0][:1]
    parts = {"train": [somebody, nobody], "validation": [nobody, somebody]}
    with pytest.raises(
        UserError, match="two sides .* another source called ptb_xl, prepare it with a --config.name of its own"
    ):
        splits.check_disjoint([store, store], **parts)
    elsewhere = Store.open(store.folder)
    elsewhere.name = "hospital_b"
    splits.check_disjoint([store, elsewhere], **parts)
    with pytest.raises(UserError, match=r"columns strat_fold$"):  # in a store alone the name is not to blame
        splits.check_disjoint([store], train=[somebody], validation=[somebody])


def test_keys_of_the_pretraining_set_can_be_recomputed_from_source_and_id(store: Store) -> None:
    keys = splits.pretraining_record_keys([store], [np.array([5, 2, 9])])
    due = sorted(
        int.from_bytes(hashlib.sha256(f"ptb_xl/{record}".encode()).digest()[:8], "big") for record in (6, 3, 10)
    )
    assert keys.dtype == np.uint64 and keys.tolist() == due


def test_a_split_without_records_is_one_line(tmp_path: Path) -> None:
    prepare(tiny.config(tiny.write_ptb_xl(tmp_path / "source", 4), tmp_path / "store"), tmp_path / "run")
    with pytest.raises(UserError, match=r"no validation record \(strat_fold in \[9\]\)"):
        splits.validation_rows([Store.open(tmp_path / "store")])


def test_another_column_of_folds_gives_other_training_records(mimic_store: Path) -> None:
    store = Store.open(mimic_store)
    ids = {}
    for column in ("", "strat_fold"):
        (split,) = splits.split_stores([store], column)
        ids[column] = set(split.record_ids[splits.train_rows([split])[0]])
    assert ids[""] - ids["strat_fold"] == {"103"} and not ids["strat_fold"] - ids[""]
    with pytest.raises(UserError, match="no column 'fold_2'"):
        splits.split_stores([store], "fold_2")[0].folds  # noqa: B018
