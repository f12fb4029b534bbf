"""Loading: a shuffle that is a permutation, one global batch for any number of processes, the step as the whole state."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tiny

from lamae_jax.data.loader import BatchSource, eval_batches, feistel, train_batches
from lamae_jax.data.prepare import prepare
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """Two stores, of 20 and 14 records."""
    folder: Path = tmp_path_factory.mktemp("loader")
    for name, count in (("a", 20), ("b", 14)):
        prepare(tiny.config(tiny.write_ptb_xl(folder / f"source-{name}", count), folder / name), folder / "run")
    return [Store.open(folder / "a"), Store.open(folder / "b")]


@pytest.fixture
def rows(stores: list[Store]) -> list[np.ndarray]:
    return [np.arange(1, 20), np.arange(14)]  # 33 records


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 1000, 4097, 100_003])
def test_the_shuffle_is_a_permutation(n: int) -> None:
    order = feistel(np.arange(n, dtype=np.uint64), n, seed=3, epoch=0)
    assert np.array_equal(np.sort(order), np.arange(n))


def test_the_shuffle_changes_with_seed_and_epoch_and_looks_random() -> None:
    n = 10_000
    positions = np.arange(n, dtype=np.uint64)
    orders = [feistel(positions, n, seed, epoch).astype(float) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, order in enumerate(orders):
        assert abs(np.corrcoef(order, positions)[0, 1]) < 0.05
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.05
        assert all(np.mean(order == other) < 0.01 for other in orders[:i])
        assert abs(np.corrcoef(order, orders[i - 1])[0, 1]) < 0.05 or i == 0


def test_positions_can_be_asked_for_one_by_one() -> None:
    whole = feistel(np.arange(50, dtype=np.uint64), 50, seed=1, epoch=2)
    assert [int(feistel(np.array([i], np.uint64), 50, 1, 2)[0]) for i in range(50)] == whole.tolist()


def test_an_epoch_sees_each_record_at_most_once_and_drops_the_remainder(
    stores: list[Store], rows: list[np.ndarray]
) -> None:
    source = BatchSource(stores, rows, batch_size=8, seed=0)
    epochs = [np.concatenate([source.numbers(k) for k in range(4 * e, 4 * e + 4)]) for e in range(3)]
    assert all(len(set(epoch.tolist())) == 32 and epoch.max() < 33 for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])


def test_batches_hold_the_records_of_their_numbers_from_both_stores(
    stores: list[Store], rows: list[np.ndarray]
) -> None:
    source = BatchSource(stores, rows, batch_size=33, seed=0)
    batch, numbers = source[0], source.numbers(0)
    due = np.concatenate([stores[0].read(rows[0]), stores[1].read(rows[1])])[numbers]
    assert np.array_equal(batch["counts"], due) and batch["counts"].dtype == np.int16
    assert batch["available"].shape == (33, 12) and batch["available"].dtype == bool and batch["available"].all()


def shares(batch: int, processes: int) -> list[np.ndarray]:
    """Positions in a batch, dealt out so that nobody's lie side by side."""
    return [np.arange(index, batch, processes) for index in range(processes)]


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_global_batches_are_the_same_for_any_number_of_processes_wherever_their_rows_lie(
    stores: list[Store], rows: list[np.ndarray], processes: int
) -> None:
    one = BatchSource(stores, rows, 8, seed=5)
    for step in (0, 3, 4, 11):
        for held in shares(8, processes):
            part = BatchSource(stores, rows, 8, seed=5, held=held)
            assert np.array_equal(part.numbers(step), one.numbers(step)[held])
            assert np.array_equal(part[step]["counts"], one[step]["counts"][held])


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_run_resumes_from_the_step_number_alone(stores: list[Store], rows: list[np.ndarray], threads: int) -> None:
    source = BatchSource(stores, rows, 8, seed=0)
    with train_batches(source, 0, threads) as batches:
        whole = [batch["counts"] for batch in islice(batches, 10)]
    with train_batches(source, 7, threads) as batches:
        again = [batch["counts"] for batch in islice(batches, 3)]
    assert np.array_equal(np.stack(whole[7:]), np.stack(again))
    assert np.array_equal(whole[9], source[9]["counts"])


def test_closing_ends_the_threads(stores: list[Store], rows: list[np.ndarray]) -> None:
    before = set(threading.enumerate())
    batches = train_batches(BatchSource(stores, rows, 8, seed=0), 0, 2)
    next(batches)
    ours = set(threading.enumerate()) - before
    assert ours
    batches.close()
    for thread in ours:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in ours)


def test_an_error_in_reading_reaches_the_consumer(stores: list[Store]) -> None:
    source = BatchSource(stores[:1], [np.arange(20)], 8, seed=0)
    source.selection.rows = source.selection.rows + 1000
    with train_batches(source) as batches, pytest.raises(IndexError):
        next(batches)


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_every_record_once_in_order_in_equal_shapes(
    stores: list[Store], rows: list[np.ndarray], processes: int
) -> None:
    seen = []
    for held in shares(8, processes):
        with eval_batches(stores, rows, 8, held) as batches:
            seen.append(list(batches))
    assert {len(part) for part in seen} == {5}  # 33 records in batches of 8, as many for every process
    assert {batch["counts"].shape for part in seen for batch in part} == {(8 // processes, 12, 1000)}

    def joined(name: str) -> np.ndarray:
        whole = np.stack([np.stack([part[k][name] for part in seen], axis=1) for k in range(5)])
        return whole.reshape(40, *whole.shape[3:])

    weights = joined("weight")
    assert weights.dtype == np.float32 and weights.sum() == 33
    due = np.concatenate([stores[0].read(rows[0]), stores[1].read(rows[1])])
    assert np.array_equal(joined("counts")[weights == 1], due)


def test_impossible_batches_are_refused(stores: list[Store], rows: list[np.ndarray]) -> None:
    for size in (0, 34):
        with pytest.raises(UserError, match=f"batch_size: {size}; must be from 1 to the 33 training records"):
            BatchSource(stores, rows, size, seed=0)
    with pytest.raises(UserError, match="data.workers: -1"):
        train_batches(BatchSource(stores, rows, 8, seed=0), 0, -1)
