"""Embed a whole archive: a vector for each recording of a store or of a folder of WFDB records, in one file with their ids.

Safe to kill at any instant: what is embedded lies in parts/, each written whole; whoever runs next makes the missing ones and
joins them. N recordings, L leads, F features of the readout.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lamae_jax.artifact.folder import Model, load_model
from lamae_jax.data import shards
from lamae_jax.data.claim import fingerprint
from lamae_jax.data.loader import eval_batches
from lamae_jax.data.prepare import records_of
from lamae_jax.data.sources import Source, open_source
from lamae_jax.data.store import Store
from lamae_jax.errors import NotFinite, UserError, check_at_least_one
from lamae_jax.evaluate.features import features_program
from lamae_jax.files import write_csv, write_json, write_with
from lamae_jax.progress import Progress, clock, say
from lamae_jax.serve.functions import summary_readout
from lamae_jax.serve.recordings import check_store
from lamae_jax.train.sharding import sharing

STORE_PART = 1 << 16  # rows of a store in one part; a source's are those of a shard, whose work is shared out so
FORMATS = ("parquet", "npz")
COLUMNS = ("record_id", "row", "missing", "flags")


@dataclass(frozen=True)
class EmbedConfig:
    """What `configs/embed.py` says. Raises UserError for an empty or impossible field."""

    model: str
    store: str
    source: str
    readout: str
    format: str
    batch_size: int
    workers: int

    def __post_init__(self) -> None:
        if not self.model:
            raise UserError("model is empty: pass --config.model=DIR")
        if bool(self.store) == bool(self.source):
            both = "both are given" if self.store else "both are empty"
            raise UserError(f"data.store, source: {both}; pass --config.data.store=DIR or --config.source=DIR")
        if self.format not in FORMATS:
            raise UserError(f"format={self.format}: must be one of {', '.join(FORMATS)}")
        check_at_least_one(self, "batch_size", "workers")


@dataclass
class Part:
    """What is known of some consecutive recordings, in order."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    rejected: list[list[str]] = field(default_factory=list)  # path, record id, reason, detail
    listed: int = 0  # recordings dealt with, the rejected ones included


class Encoder:
    """Batches of counts to one readout, on all devices; one program, the last batch of a part is filled up and cut."""

    def __init__(self, model: Model, readout: str, batch_size: int):
        mesh = sharing(batch_size)
        self.program = features_program(model.config, model.inputs, (readout,), mesh)
        self.params = jax.device_put(model.params, NamedSharding(mesh, P()))
        self.readout, self.batch_size = readout, batch_size

    def __call__(self, batches: Iterable[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Features [b, F] of each batch {counts [b, L, S'], available [b, L]}; the device works one batch ahead."""
        before: tuple[jax.Array, np.ndarray] | None = None
        for batch in batches:
            counts, available = batch["counts"], batch["available"]
            filled = np.arange(self.batch_size) % len(counts)
            running = self.program(self.params, counts[filled], available[filled])[self.readout]
            if before is not None:
                yield self._take(*before)
            before = running, available
        if before is not None:
            yield self._take(*before)

    def _take(self, running: jax.Array, available: np.ndarray) -> np.ndarray:
        values = np.asarray(running)[: len(available)]
        if not np.isfinite(values).all():
            raise NotFinite(f"embed: {self.readout} is not finite; the parameters are of no use")
        if values.ndim == 3:  # a lead that is not there has no features
            values = np.where(available[..., None], values, np.nan)
        return values.reshape(len(values), -1)


def embed_archive(config: EmbedConfig, workdir: Path) -> dict[str, Any]:
    """Embed everything; returns what summary.json holds. Raises UserError before any encoding for what can't be embedded or
    was embedded here from another model or other recordings, after it where every recording was rejected.
    """
    begun = time.monotonic()
    model = load_model(config.model)
    readout = config.readout or summary_readout(model.config)
    model.config.check_readout(readout)
    origin: Store | Source = (
        Store.open(config.store) if config.store else open_source("wfdb", config.source, model.contract.fs)
    )
    if isinstance(origin, Store):
        check_store(origin, model.contract)
        total, size, what = origin.size, STORE_PART, origin.hash
    else:
        total, size, what = len(origin.entries), shards.RECORDS_PER_SHARD, fingerprint(origin)
    asked = {"model": model.sha256, "readout": readout, "of": what}
    finished = workdir / "summary.json"
    if finished.exists():
        theirs = json.loads(finished.read_text())
        compare(workdir, theirs, asked)
        say(f"{workdir} holds these embeddings, complete; nothing to do")
        return theirs
    say(f"embedding {total} recordings ({readout}, {jax.device_count()} x {jax.devices()[0].device_kind})")
    parts = workdir / "parts"
    claim(parts, asked)
    files = [parts / f"{k:05d}.npz" for k in range(-(-total // size))]
    todo = [k for k, file in enumerate(files) if not file.exists()]
    progress = Progress(
        total, "ECG", "embed", start=sum(min(size, total - k * size) for k in range(len(files)) if k not in todo)
    )
    encoder = Encoder(model, readout, config.batch_size)
    leads = model.contract.leads
    if isinstance(origin, Store):
        make_store_parts(origin, todo, files, encoder, leads, progress)
    else:
        recipe = shards.Recipe(origin, model.contract, "crop", allow_upsampling=True)
        make_source_parts(recipe, config.workers, todo, files, encoder, leads, progress)
    progress.close()
    # First what could not be used: where that is everything, it is all there is to tell.
    rejected = [line for part in files for line in told_of(part)[1]]
    write_csv(workdir / "rejected.csv", [["path", "record_id", "reason", "detail"], *rejected])
    refuse_all_rejected(config, rejected, total, workdir / "rejected.csv")
    facts = {"model": model.sha256, "readout": readout, "contract": model.contract.to_dict()}
    file = workdir / f"embeddings.{config.format}"
    (write_parquet if config.format == "parquet" else write_npz)(file, files, facts)
    seconds = time.monotonic() - begun
    summary = facts | {
        "file": file.name, "recordings": total - len(rejected), "rejected": len(rejected), "of": what,
        "seconds": round(seconds, 2),
    }  # fmt: skip
    write_json(workdir / "summary.json", summary)
    shutil.rmtree(parts)
    say(f"{file}: {total - len(rejected)} recordings, {len(rejected)} rejected, {clock(seconds)}")
    return summary


def claim(parts: Path, facts: dict[str, Any]) -> None:
    """Hold what was begun there to the same model and recordings: a folder can change while a run is interrupted."""
    record = parts / "of.json"
    if record.exists():
        compare(parts, json.loads(record.read_text()), facts)
    write_json(record, facts)


def compare(folder: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """Raise UserError with both values where what stands at the paths of the config is no longer what a folder was begun with."""
    for name, value in ours.items():
        if theirs[name] != value:
            called = "recordings" if name == "of" else name
            raise UserError(f"{folder}: begun with {called} {theirs[name]}, now it is {value}; name another --workdir")


def refuse_all_rejected(config: EmbedConfig, rejected: list[list[str]], total: int, listed: Path) -> None:
    """Raise UserError with the commonest reason where not one of `total` recordings could be used."""
    if len(rejected) < max(total, 1):
        return
    reason, times = Counter(line[2] for line in rejected).most_common(1)[0]
    raise UserError(
        f"source={config.source}: all {total} recordings were rejected, {times} of them for {reason}; {listed} says more of each"
    )


def make_store_parts(
    store: Store, todo: list[int], files: list[Path], encoder: Encoder, leads: tuple[str, ...], progress: Progress
) -> None:
    """The missing parts of a store."""
    flags, ids = store.column("flags"), store.record_ids
    done = progress.start
    for k in todo:
        rows = np.arange(k * STORE_PART, min(store.size, (k + 1) * STORE_PART))
        part = Part(listed=len(rows))
        part.columns = {
            "record_id": list(ids[rows]), "row": rows.tolist(),
            "missing": [missing(leads, there) for there in store.available[rows]], "flags": list(flags[rows]),
        }  # fmt: skip
        found = []
        with eval_batches([store], [rows], encoder.batch_size) as batches:
            for values in encoder(batches):
                found.append(values)
                done = min(done + len(values), progress.total)
                progress.update(done)
        write_part(files[k], part, np.concatenate(found)[: len(rows)])


def make_source_parts(
    recipe: shards.Recipe, workers: int, todo: list[int], files: list[Path], encoder: Encoder,
    leads: tuple[str, ...], progress: Progress,
) -> None:  # fmt: skip
    """The missing parts of a source: worker processes read and filter, the devices encode."""
    entries, total, done = recipe.source.entries, len(recipe.source.entries), progress.start
    with closing(shards.make_chunks(recipe, todo, workers)) as chunks:
        for k in todo:
            part, found = Part(), []
            mine = islice(chunks, len(shards.spans([k], total)))
            for values in encoder(batches_of(mine, part, entries, leads, encoder.batch_size)):
                found.append(values)
                progress.update(done + part.listed, rejected=str(len(part.rejected)))
            done += records_of(k, total)
            write_part(files[k], part, np.concatenate(found) if found else np.zeros((0, 0), np.float32))


def batches_of(
    chunks: Iterable[shards.Chunk], part: Part, entries: list[Any], leads: tuple[str, ...], size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of at most `size` from chunks as they come; what is known of their recordings is added to `part`."""
    counts: list[np.ndarray] = []
    available: list[np.ndarray] = []

    def batch(n: int) -> dict[str, np.ndarray]:
        whole = {"counts": np.stack(counts[:n]), "available": np.stack(available[:n])}
        del counts[:n], available[:n]
        return whole

    for chunk in chunks:
        for index, reason, detail in chunk.rejected:
            part.rejected.append([entries[index].path, entries[index].record_id, reason, detail])
        for values, (index, _, bits, flags, _) in zip(chunk.counts, chunk.stored, strict=True):
            there = (bits >> np.arange(len(leads)) & 1).astype(bool)
            counts.append(values)
            available.append(there)
            told = (entries[index].record_id, index, missing(leads, there), flags)
            for name, value in zip(COLUMNS, told, strict=True):
                part.columns[name].append(value)
        part.listed += chunk.records
        while len(counts) >= size:
            yield batch(size)
    if counts:
        yield batch(len(counts))


def missing(leads: tuple[str, ...], available: np.ndarray) -> str:
    """The leads that are not there, as text."""
    return " ".join(name for name, there in zip(leads, available, strict=True) if not there)


def write_part(path: Path, part: Part, values: np.ndarray) -> None:
    """One part, atomically; texts as one JSON text, so that nothing needs pickle."""
    told = json.dumps({"columns": part.columns, "rejected": part.rejected})
    write_with(path, lambda file: np.savez(file, told=np.array(told), embedding=values))


def told_of(path: Path) -> tuple[dict[str, list[Any]], list[list[str]]]:
    """Columns and rejected lines of a part, without reading its embeddings."""
    with np.load(path, allow_pickle=False) as part:
        told = json.loads(str(part["told"]))
        return told["columns"], told["rejected"]


def embeddings_of(path: Path) -> np.ndarray:
    """The embeddings [n, F] of a part; [0, 0] where all of it was rejected."""
    with np.load(path, allow_pickle=False) as part:
        return np.asarray(part["embedding"])


def write_parquet(path: Path, parts: list[Path], facts: dict[str, Any]) -> None:
    """One row a recording: the columns COLUMNS and `embedding`, a list of F float32; `facts` as the schema's metadata."""
    width = next((width for part in parts if (width := embeddings_of(part).shape[1])), 0)  # as a rule the first's
    kinds = {"record_id": pa.string(), "row": pa.int64(), "missing": pa.string(), "flags": pa.string()}
    schema = pa.schema([*kinds.items(), ("embedding", pa.list_(pa.float32(), width))])
    schema = schema.with_metadata({"lamae_jax": json.dumps(facts)})

    def fill(file: Any) -> None:
        with pq.ParquetWriter(file, schema) as writer:
            for part in parts:
                columns, _ = told_of(part)
                arrays = [pa.array(columns[name], kind) for name, kind in kinds.items()]
                arrays.append(
                    pa.FixedSizeListArray.from_arrays(pa.array(embeddings_of(part).reshape(-1), pa.float32()), width)
                )
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    write_with(path, fill)


def write_npz(path: Path, parts: list[Path], facts: dict[str, Any]) -> None:
    """The same as arrays: `record_id`, `row`, `missing`, `flags` [N], `embedding` [N, F], and `facts`, one JSON text."""
    told = [columns for columns, _ in map(told_of, parts)]
    arrays: dict[str, Any] = {
        name: np.array([value for columns in told for value in columns[name]]) for name in COLUMNS
    }
    values = [each for each in map(embeddings_of, parts) if len(each)]
    arrays["embedding"] = np.concatenate(values) if values else np.zeros((0, 0), np.float32)
    write_with(path, lambda file: np.savez(file, facts=np.array(json.dumps(facts)), **arrays))
