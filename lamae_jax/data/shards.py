"""Making shards: the part of `prepare` that runs in worker processes, and the writing of one shard from what they return.

Nothing heavier than numpy and scipy is imported here: every worker imports this module. L leads, S samples a waveform.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from threadpoolctl import threadpool_limits

from lamae_jax.data.sources import Entry, Source, Unreadable
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file, write_with
from lamae_jax.signal.contract import SignalContract, SignalError, check_amplitude, condition, cut
from lamae_jax.signal.quality import is_quiet

RECORDS_PER_SHARD = 4096  # source records, rejected ones included: part of the store's format
CHUNK = 64  # source records a worker takes at a time: about 4 MB come back


@dataclass(frozen=True)
class Recipe:
    """What a worker must know to turn entries into waveforms."""

    source: Source
    contract: SignalContract
    long: str  # crop | windows
    allow_upsampling: bool


@dataclass
class Chunk:
    """What became of some consecutive entries; indices are places in `source.entries`."""

    records: int  # entries dealt with
    counts: list[np.ndarray] = field(default_factory=list)  # int16 [L, S] each
    stored: list[list[Any]] = field(default_factory=list)  # [index, window, available bits, flags, sha256] each
    rejected: list[list[Any]] = field(default_factory=list)  # [index, reason, detail] each


def make_chunk(recipe: Recipe, first: int, entries: Sequence[Entry]) -> Chunk:
    """Read and condition consecutive entries, the first of which has index `first`. What can't be used is rejected."""
    chunk = Chunk(len(entries))
    for index, entry in enumerate(entries, first):
        try:
            recording = recipe.source.read(entry)
            whole = condition(
                recording.signal,
                recording.fs,
                recording.leads,
                recording.units,
                recipe.contract,
                allow_upsampling=recipe.allow_upsampling,
            )
            pieces = cut(whole, recipe.contract, recipe.long)
            check_amplitude(pieces, whole.available, recording.units[0])
        except (Unreadable, SignalError) as error:
            chunk.rejected.append([index, error.reason, error.detail])
            continue
        except OSError as error:
            chunk.rejected.append([index, "io", error.strerror or type(error).__name__])
            continue
        except MemoryError:
            raise UserError(f"{entry.path}: does not fit into the memory; fewer workers need less") from None
        except Exception as error:
            # A defect of ours; without the record's name nobody could find it among 800,000.
            raise RuntimeError(f"{entry.path}: {type(error).__name__}: {error}") from error
        bits = int((whole.available.astype(np.int64) << np.arange(len(whole.available))).sum())
        for window, counts in enumerate(pieces):
            flags = (*whole.flags, "quiet") if is_quiet(counts[whole.available]) else whole.flags
            counts = np.ascontiguousarray(counts, "<i2")
            chunk.counts.append(counts)
            chunk.stored.append([index, window, bits, ",".join(flags), hashlib.sha256(counts.data).hexdigest()])
    return chunk


_recipe: Recipe | None = None  # a worker's own, set once when it starts, so that it doesn't travel with every chunk


def start_worker(recipe: Recipe) -> None:
    """Set a worker up, and see to it that it ends with its parent, even one killed by -9."""
    global _recipe
    _recipe = recipe
    threadpool_limits(1)  # there are as many processes as cores already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def work(first: int, entries: Sequence[Entry]) -> Chunk:
    """`make_chunk` in a worker."""
    assert _recipe is not None
    return make_chunk(_recipe, first, entries)


def spans(shards: Sequence[int], total: int) -> list[tuple[int, int]]:
    """The chunks (first, end) that make these shards of `total` entries, in order; no chunk crosses a shard."""
    found = []
    for shard in shards:
        end = min((shard + 1) * RECORDS_PER_SHARD, total)
        for first in range(shard * RECORDS_PER_SHARD, end, CHUNK):
            found.append((first, min(first + CHUNK, end)))
    return found


def make_chunks(recipe: Recipe, shards: Sequence[int], workers: int) -> Generator[Chunk, None, None]:
    """The chunks of these shards, in order, whatever the number of processes. Close the iterator to stop them.

    At most a few chunks a worker are in flight, so that memory stays small. Raises UserError when a worker is killed.
    """
    entries = recipe.source.entries
    todo = spans(shards, len(entries))
    if workers == 1 or len(todo) == 1:
        # One thread here as in the workers: sums in another order could differ in the last bit.
        with threadpool_limits(1):
            for first, end in todo:
                yield make_chunk(recipe, first, entries[first:end])
        return
    # spawn: forking a process that has started JAX's threads can hang.
    pool = ProcessPoolExecutor(min(workers, len(todo)), multiprocessing.get_context("spawn"), start_worker, (recipe,))
    try:
        flying: deque[Future[Chunk]] = deque()
        for first, end in todo:
            flying.append(pool.submit(work, first, entries[first:end]))
            if len(flying) > 3 * workers:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "prepare: a worker process was killed (out of memory?); the same command goes on "
            "from the last whole shard, fewer workers need less memory"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def write_shard(path: Path, shape: tuple[int, int], chunks: Iterator[Chunk]) -> dict[str, Any]:
    """Write a shard of waveforms of a shape (L, S), atomically, while its chunks come in: a shard is never whole in memory.

    Returns what is to be known about it: `sha256`, `records`, `stored` and `rejected` (as in Chunk).
    """
    stored: list[list[Any]] = []
    rejected: list[list[Any]] = []

    def header(file: BinaryIO) -> None:
        # numpy leaves room for the first dimension to grow, so that the header keeps its length.
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<i2", "fortran_order": False, "shape": (len(stored), *shape)}
        )

    def fill(file: BinaryIO) -> None:
        header(file)
        start = file.tell()
        for chunk in chunks:
            for counts in chunk.counts:
                file.write(counts.data)
            stored.extend(chunk.stored)
            rejected.extend(chunk.rejected)
        file.seek(0)
        header(file)
        assert file.tell() == start

    write_with(path, fill)
    return {
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
        "records": len(stored),
        "stored": stored,
        "rejected": rejected,
    }
