"""From a source of recordings to a store. `prepare` can be killed at any instant and run again; it ends in the same bytes.

How: shards are written one after the other, each atomically, and after each a small file in parts/ says that it is whole and
what became of its records. Whoever runs next makes the shards without a part. When all parts are there the tables are
made from them, and last of all the manifest, whose presence means "complete".
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lamae_jax import __version__
from lamae_jax.data import shards, tables
from lamae_jax.data.claim import begin, clear, compare, fingerprint, locked, tidy
from lamae_jax.data.sources import Source, open_source
from lamae_jax.data.store import FORMAT, MANIFEST, REJECTED, TABLE, read_manifest, shard_file, verify
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file, write_json, write_text
from lamae_jax.progress import Progress, say
from lamae_jax.signal.contract import SignalContract


@dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, from where, to where and how. Raises UserError for values that can't be."""

    kind: str  # mimic_iv_ecg | ptb_xl | wfdb | arrays | simulated
    source: str  # folder of the recordings
    store: str  # folder of the store
    fs: int  # Hz
    seconds: float
    band: str  # highpass_0.5 | none
    workers: int  # processes
    max_bad_fraction: float  # of the listed records that have a file
    long: str = "crop"  # crop | windows: what becomes of recordings longer than `seconds`
    allow_upsampling: bool = False
    verify_only: bool = False
    shard: str = ""  # or "i/n": make only the shards k with k % n == i, for job arrays
    merge: bool = False  # make the tables of shards that jobs have made
    simulated_patients: int = 0
    seed: int = 0  # of the simulation
    # What the source is called, where patients and records of several stores are told apart; empty: its kind.
    name: str = ""

    def __post_init__(self) -> None:
        if not self.store:
            raise UserError("store: empty; --config.store=DIR says where the store goes")
        if not self.source and not self.verify_only and self.kind != "simulated":
            raise UserError("source: empty; --config.source=DIR says where the recordings are")
        if self.long not in ("crop", "windows"):
            raise UserError(f"long: {self.long!r}; crop or windows would be right")
        if self.workers < 1:
            raise UserError(f"workers: {self.workers}; 1 or more processes would be right")
        if not 0 <= self.max_bad_fraction <= 1:
            raise UserError(f"max_bad_fraction: {self.max_bad_fraction}; from 0 to 1 would be right")
        if self.shard and self.merge:
            raise UserError("shard and merge: both given; the jobs make shards first, merge comes after them")
        self.job()

    def contract(self) -> SignalContract:
        """The contract of the store's signals."""
        return SignalContract(fs=self.fs, seconds=self.seconds, band=self.band)

    def folder(self) -> str:
        """The folder of the recordings; simulated ones are written beside the store when none is given."""
        return self.source or f"{self.store.rstrip('/')}-recordings"

    def job(self) -> tuple[int, int]:
        """`shard` as two numbers (i, n)."""
        if not self.shard:
            return 0, 1
        index, slash, count = self.shard.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise UserError(f"shard: {self.shard!r}; i/n with i from 0 to n - 1, as in 0/8, would be right")
        return int(index), int(count)

    def identity(self) -> dict[str, Any]:
        """The fields that decide what a store holds."""
        names = ["kind", "name", "fs", "seconds", "band", "long", "allow_upsampling"]
        names += ["simulated_patients", "seed"] if self.kind == "simulated" else []
        return {name: getattr(self, name) for name in names}


def prepare(config: PrepareConfig, workdir: Path) -> dict[str, Any]:
    """Make the store (or a job's shards of it, or merge, or verify), write workdir/summary.json and return the summary.

    Raises UserError for another store in the way, too many unusable records, a full disk or an unwritable folder.
    """
    began = time.monotonic()
    store = Path(config.store)
    try:
        summary = check(store) if config.verify_only else build(config, store)
        summary = {"task": "prepare", "store": str(store)} | summary | {"seconds": round(time.monotonic() - began, 3)}
        write_json(workdir / "summary.json", summary)
    except OSError as error:
        raise UserError(f"{error.filename or store}: {error.strerror or error}") from None
    return summary


def check(store: Path) -> dict[str, Any]:
    """`verify_only`: compare all checksums. Raises UserError that names what is wrong."""
    problems = verify(store)
    for problem in problems[1:]:
        say(f"store {store}: {problem}")
    if problems:
        more = f" (and {len(problems) - 1} more, above)" if len(problems) > 1 else ""
        raise UserError(f"store {store}: {problems[0]}{more}; delete the store and prepare it again")
    manifest = read_manifest(store)
    say(f"store {store}: sound, {manifest['counts']['waveforms']} waveforms, all checksums hold")
    return {"verified": True} | summary_of(manifest)


def build(config: PrepareConfig, store: Path) -> dict[str, Any]:
    """Make what is missing of a store."""
    contract = config.contract()
    if (store / MANIFEST).exists():
        manifest = read_manifest(store)
        compare(store, manifest["config"], config.identity())
        if config.kind == "simulated" or not Path(config.folder()).is_dir():
            return already(store, manifest)  # whoever has the store may have deleted the recordings
    source = open_source(
        config.kind,
        config.folder(),
        config.fs,
        allow_upsampling=config.allow_upsampling,
        simulated_patients=config.simulated_patients,
        seed=config.seed,
        workers=config.workers,
    )
    if not source.entries:
        raise UserError(f"source {config.folder()}: no record found for {config.kind}")
    ours = config.identity() | {"split": f"{source.split.column}, {source.split.rule}", "entries": fingerprint(source)}
    store.mkdir(parents=True, exist_ok=True)
    with locked(store, shared=bool(config.shard)):
        if (store / MANIFEST).exists():
            manifest = read_manifest(store)
            compare(store, manifest["config"], ours)
            tidy(store)
            return already(store, manifest)
        begin(store, ours)
        if not config.shard:
            clear(store)  # jobs of an array don't: the temporary files may be each other's
        count = -(-len(source.entries) // shards.RECORDS_PER_SHARD)
        make_shards(config, contract, source, store, count)
        if config.shard:
            say(f"store {store}: shards {config.shard} are made; after all jobs, run with --config.merge=True")
            return {"source": source.name, "shard": config.shard, "shards": count}
        return summary_of(finish(config, contract, source, store, ours, count))


def already(store: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """There is nothing to do."""
    say(f"store {store}: complete already, {manifest['counts']['waveforms']} waveforms; delete it to prepare it anew")
    return summary_of(manifest)


def make_shards(config: PrepareConfig, contract: SignalContract, source: Source, store: Path, count: int) -> None:
    """Make the missing shards of this job."""
    job, jobs = config.job()
    total = len(source.entries)
    parts = {k: part for k in range(count) if (part := read_part(store, k)) is not None}
    todo = [k for k in range(count) if k not in parts and k % jobs == job]
    if config.merge and todo:
        raise UserError(
            f"store {store}: {len(todo)} of {count} shards are not there yet (the first is {todo[0]}); "
            f"run the jobs shard=i/n first, or prepare without merge to make them here"
        )
    mine = [k for k in range(count) if k % jobs == job]
    done = sum(records_of(k, total) for k in mine if k in parts)
    progress = Progress(sum(records_of(k, total) for k in mine), "records", "prepare", start=done)
    if done and todo:
        say(f"store {store}: {done} records are done, going on")
    bad = Counter(reason for part in parts.values() for _, reason, _ in part["rejected"])
    shape = (len(contract.leads), contract.samples)

    def watched(chunks: Iterator[shards.Chunk]) -> Iterator[shards.Chunk]:
        nonlocal done
        for chunk in chunks:
            done += chunk.records
            bad.update(reason for _, reason, _ in chunk.rejected)
            progress.update(done, rejected=str(bad.total()))
            yield chunk

    recipe = shards.Recipe(source, contract, config.long, config.allow_upsampling)
    with closing(shards.make_chunks(recipe, todo, config.workers)) as chunks:
        for k in todo:
            wanted = len(shards.spans([k], total))
            part = shards.write_shard(store / shard_file(k), shape, watched(islice(chunks, wanted)))
            write_text(part_file(store, k), json.dumps(part))
            # Surely too many already, whatever the rest is like: say so now and not after hours.
            refuse_bad(config, source, store, bad, count)
    progress.close()
    refuse_bad(config, source, store, bad, count)


def records_of(shard: int, total: int) -> int:
    """Source records of a shard."""
    return min(shards.RECORDS_PER_SHARD, total - shard * shards.RECORDS_PER_SHARD)


def part_file(store: Path, shard: int) -> Path:
    """The file that says that a shard is whole."""
    return store / "parts" / f"{shard:05d}.json"


def read_part(store: Path, shard: int) -> dict[str, Any] | None:
    """What became of a shard's records, or None when it has to be made."""
    try:
        part = json.loads(part_file(store, shard).read_bytes())
        size = (store / shard_file(shard)).stat().st_size
    except FileNotFoundError:
        return None
    return part if size == part["bytes"] else None


def refuse_bad(config: PrepareConfig, source: Source, store: Path, bad: Counter[str], count: int) -> None:
    """Raise UserError when more than max_bad_fraction of the records that have a file can't be used, leaving rejected.csv."""
    with_file = len(source.entries) - bad["absent"]
    unusable = bad.total() - bad["absent"]
    if unusable <= config.max_bad_fraction * with_file and with_file:
        return
    parts = [part for k in range(count) if (part := read_part(store, k)) is not None]
    tables.write_rejected(store, source.entries, parts)
    if not with_file:
        raise UserError(
            f"source {config.folder()}: none of the {len(source.entries)} listed records has a file; "
            f"see {store / REJECTED}"
        )
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(bad.items()) if reason != "absent")
    raise UserError(
        f"prepare: {unusable} of {with_file} records can't be used ({reasons}), more than max_bad_fraction "
        f"{config.max_bad_fraction:g}; see {store / REJECTED}"
    )


def finish(
    config: PrepareConfig, contract: SignalContract, source: Source, store: Path, ours: dict[str, Any], count: int
) -> dict[str, Any]:
    """All shards are there: write the tables, then the manifest."""
    parts = [read_part(store, k) for k in range(count)]
    whole = [part for part in parts if part is not None]
    assert len(whole) == count
    stored = [row for part in whole for row in part["stored"]]
    if not stored:
        tables.write_rejected(store, source.entries, whole)
        raise UserError(
            f"source {config.folder()}: none of {len(source.entries)} records can be used; see {store / REJECTED}"
        )
    tables.write_records(store, source.entries, whole)
    tables.write_rejected(store, source.entries, whole)
    labels = tables.write_labels(store, source, {source.entries[row[0]].record_id for row in stored})
    rejected = Counter(reason for part in whole for _, reason, _ in part["rejected"])
    flags = Counter(flag for row in stored for flag in row[3].split(",") if flag)
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "code_version": __version__,
        "source": config.name or source.name,
        "config": ours,
        "contract": contract.to_dict(),
        "split": asdict(source.split),
        "counts": {
            "listed": len(source.entries),
            "stored": len({row[0] for row in stored}),
            "waveforms": len(stored),
            "rejected": dict(sorted(rejected.items())),
            "flags": dict(sorted(flags.items())),
        },
        "unlisted": list(source.unlisted),
        "notes": dict(source.notes),
        "shards": [
            {"file": shard_file(k), "records": part["records"], "sha256": part["sha256"]}
            for k, part in enumerate(whole)
        ],
        "files": {name: sha256_file(store / name) for name in [TABLE, REJECTED, *labels]},
    }
    write_json(store / MANIFEST, manifest)
    tidy(store)
    counts = manifest["counts"]
    say(
        f"store {store}: {counts['waveforms']} waveforms of {counts['stored']} records, {rejected.total()} rejected, "
        f"{len(source.unlisted)} unlisted, split by {source.split.column}"
    )
    return manifest


def summary_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a run of prepare reports of a complete store."""
    return {name: manifest[name] for name in ("source", "notes", "unlisted")} | manifest["counts"]
