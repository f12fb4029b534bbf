"""Batches for training and evaluation. The step number is the whole state; no device appears here.

Batch k of the run is the same rows in the same order for any number of processes: the global batch is chosen first, then each
process reads the positions in it that its devices hold (train/sharding.py, `held_rows`), and no others. B records a global
batch, b of them here, L leads, S samples, n training rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import grain
import numpy as np

from lamae_jax.data.splits import Rows
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError

Batch = dict[str, np.ndarray]
READ_AHEAD = 4  # batches; grain's default of 500 would hold gigabytes


def mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: a bijection of uint64 that scatters nearby values."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def feistel(position: np.ndarray, n: int, seed: int, epoch: int) -> np.ndarray:
    """Where the positions (uint64, all below n) go in a random permutation of range(n), another for each seed and epoch.

    Four Feistel rounds permute the smallest power of four that holds n; a value that lands at n or beyond walks on along its
    cycle until it is back inside, which keeps the map a bijection of range(n). No table of size n is ever made.
    """
    half = np.uint64(max(1, (int(n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = mix(
        mix(np.array([seed % 2**64], np.uint64))
        + mix(np.array([epoch], np.uint64) + np.uint64(1 << 32))
        + np.arange(1, 5, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    )

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & mask
        for key in keys:
            left, right = right, left ^ (mix(right + key) & mask)
        return left << half | right

    out = once(np.asarray(position, np.uint64))
    while (outside := out >= n).any():
        out[outside] = once(out[outside])
    return out


class Selection:
    """Chosen rows of several stores, numbered 0 to n - 1 as one list; all that is held is one int64 a row."""

    def __init__(self, stores: Sequence[Store], rows: Rows):
        self.stores = list(stores)
        self.rows = np.concatenate([np.asarray(part, np.int64) for part in rows])
        self.ends = np.cumsum([len(part) for part in rows])

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, numbers: np.ndarray) -> Batch:
        """The records of these numbers [b]: counts int16 [b, L, S], available bool [b, L]."""
        rows = self.rows[numbers]
        if len(self.stores) == 1:
            return {"counts": self.stores[0].read(rows), "available": self.stores[0].available[rows]}
        owner = np.searchsorted(self.ends, numbers, side="right")
        contract = self.stores[0].contract
        counts = np.empty((len(rows), len(contract.leads), contract.samples), np.int16)
        available = np.empty((len(rows), len(contract.leads)), bool)
        for index, store in enumerate(self.stores):
            mine = owner == index
            counts[mine], available[mine] = store.read(rows[mine]), store.available[rows[mine]]
        return {"counts": counts, "available": available}


class BatchSource:
    """Item k is this process's part of training batch k: an endless, freshly permuted pass over the rows each epoch.

    What is left over at the end of an epoch (fewer rows than a batch) is dropped.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        rows: Rows,
        batch_size: int,
        seed: int,
        held: np.ndarray | None = None,
    ):
        """`held`: positions in a batch that this process reads, int [b]; None is all. Raises UserError for impossible batches."""
        self.selection = Selection(stores, rows)
        self.batch_size, self.seed = batch_size, seed
        self.held = np.arange(batch_size) if held is None else held
        if not 1 <= batch_size <= len(self.selection):
            raise UserError(f"batch_size: {batch_size}; must be from 1 to the {len(self.selection)} training records")

    def __len__(self) -> int:
        return 2**40  # endless, for all that a run can reach

    def numbers(self, k: int) -> np.ndarray:
        """Which of the n rows make this process's part of batch k, int [b]."""
        n = len(self.selection)
        epoch, place = divmod(k, n // self.batch_size)
        return feistel(place * self.batch_size + self.held, n, self.seed, epoch).astype(np.int64)

    def __getitem__(self, k: SupportsIndex) -> Batch:
        """counts int16 [b, L, S], available bool [b, L]."""
        return self.selection.read(self.numbers(int(k)))


class PaddedBatches:
    """Every row once, in order, in batches of one shape; the last is filled up with repeats that have weight 0."""

    def __init__(self, stores: Sequence[Store], rows: Rows, batch_size: int, held: np.ndarray | None = None):
        self.selection = Selection(stores, rows)
        self.batch_size = batch_size
        self.held = np.arange(batch_size) if held is None else held

    def __len__(self) -> int:
        return -(-len(self.selection) // self.batch_size)

    def __getitem__(self, k: SupportsIndex) -> Batch:
        """counts int16 [b, L, S], available bool [b, L], weight float32 [b] (1, or 0 for filling)."""
        numbers = int(k) * self.batch_size + self.held
        real = numbers < len(self.selection)
        # A repeat of a real record, and not zeros: nothing that is computed on it can be undefined.
        batch = self.selection.read(np.where(real, numbers, 0))
        return batch | {"weight": real.astype(np.float32)}


class Batches(Iterator[Batch]):
    """Batches read ahead by threads. Close it (or use `with`) before the program ends, so that its threads do."""

    def __init__(self, source: Any, start: int, threads: int):
        # Without threads grain reads in the caller and can't read ahead.
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=READ_AHEAD if threads else 0)
        self._iterator = iter(grain.MapDataset.source(source)[start:].to_iter_dataset(options))

    def __next__(self) -> Batch:
        return next(self._iterator)

    def close(self) -> None:
        """Stop the threads."""
        self._iterator.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def train_batches(source: BatchSource, start_step: int = 0, read_threads: int = 1) -> Batches:
    """Batches start_step, start_step + 1, ... without end; one thread is quickest, 0 reads in the caller."""
    if read_threads < 0:
        raise UserError(f"data.workers: {read_threads}; 0 or more read threads (1 is quickest)")
    return Batches(source, start_step, read_threads)


def eval_batches(stores: Sequence[Store], rows: Rows, batch_size: int, held: np.ndarray | None = None) -> Batches:
    """Every row once, in the order given, in equal shapes; `weight` [b] is 0 where the last batch is filled up.

    `held` as in BatchSource. Every process makes the same number of batches.
    """
    return Batches(PaddedBatches(stores, rows, batch_size, held), 0, 1)
