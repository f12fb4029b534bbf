"""Pretraining, from stores on disk to a model folder.

How a run starts, in order of precedence: from the workdir's newest checkpoint; from the model folder `init`; from the seed.
A checkpoint that was made of a model (convert.py) has that model beside it, in ORIGIN.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lamae_jax import __version__
from lamae_jax.artifact.folder import Model, load_model, save_model
from lamae_jax.artifact.origin import described, provenance_of
from lamae_jax.data.loader import BatchSource, train_batches
from lamae_jax.data.splits import pretraining_record_keys
from lamae_jax.errors import NotFinite, Stopped, UserError
from lamae_jax.files import write_json
from lamae_jax.progress import clock, say
from lamae_jax.signal.contract import SignalContract
from lamae_jax.train import figures
from lamae_jax.train.checkpoint import Checkpoints, check_room
from lamae_jax.train.metrics import Metrics, seconds_so_far
from lamae_jax.train.processes import agreed, check_alike, naming, of_the_first, stop_requests, watched
from lamae_jax.train.records import Data, open_data
from lamae_jax.train.sharding import MeshConfig, batch_divisor, held_rows, make_mesh, replicated, to_devices
from lamae_jax.train.step import StepConfig, TrainState, compile_init, compile_step
from lamae_jax.train.validation import YARDSTICKS, Evaluation
from lamae_jax.train.watch import Watch

EVAL_RECORDS_AT_THE_END = 4096
ORIGIN = "origin"  # in the workdir


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run. `contract` is the signal that the model sees; the rest as configs/pretrain.py describes it."""

    step: StepConfig
    contract: SignalContract
    batch_size: int
    store: str
    folds: str
    fold_column: str
    limit: int
    workers: int
    simulated_patients: int
    mesh: MeshConfig
    init: str
    checkpoint_every: int
    checkpoint_keep: int
    eval_every: int
    eval_records: int
    log_every: int
    record_ids: bool
    config: dict[str, Any]

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers", "checkpoint_every", "eval_every", "eval_records", "log_every"):
            if getattr(self, name) < 1:
                field = name.replace("checkpoint_", "checkpoint.").replace("workers", "data.workers")
                raise UserError(f"{field}={getattr(self, name)}: must be at least 1")
        if self.limit < 0:
            raise UserError(f"data.limit={self.limit}: must be a number of records, or 0 for all")
        if self.step.accumulate and self.batch_size % self.step.accumulate:
            raise UserError(f"accumulate={self.step.accumulate}: does not divide batch_size={self.batch_size}")

    @property
    def steps(self) -> int:
        """The number of updates of the whole run."""
        return self.step.optimizer.steps


@dataclass(frozen=True)
class Run:
    """A pretraining under way: what its parts share."""

    config: PretrainConfig
    workdir: Path
    data: Data
    mesh: Mesh
    origin: Model | None  # the model that it started from
    init: Callable[[], TrainState]
    abstract: Any  # the state's shapes
    shardings: Any  # and where each of its arrays lies
    evaluation: Evaluation
    seconds: Callable[[], float]  # wall time of all parts of the run so far
    stop: Callable[[int], bool]  # whether SIGTERM has arrived, agreed among the processes
    watch: Watch

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What the parameters learn from, in words of artifact/origin.py."""
        records = {"training": self.data.train, "validation": self.data.validation}
        counts = {part: sum(map(len, rows)) for part, rows in records.items()}
        return provenance_of([described(store) for store in self.data.stores], counts, self.origin)


def pretrain(config: PretrainConfig, workdir: Path) -> dict[str, Any]:
    """Run or continue a pretraining; returns what `summary.json` holds.

    Raises UserError before any work for what can't run, NotFinite, and Stopped after SIGTERM.
    """
    begun = time.monotonic()
    done = workdir / "summary.json"
    summary = of_the_first(lambda: json.loads(done.read_text()) if done.exists() else None)
    if summary is not None:
        say(f"{workdir} holds this run, complete; nothing to do")
        return summary
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh)
    say(f"this run is in {workdir}")
    before = seconds_so_far(workdir)
    job = of_the_first(lambda: secrets.token_hex(4))
    watch = Watch(workdir / "processes", job, jax.process_index(), jax.process_count())
    with stop_requests() as stop, watch, naming(watch):
        origin = watched(watch, "reading the model to start from", lambda: open_origin(config, workdir))
        data = watched(watch, "opening the store", lambda: open_data(config, workdir))
        model = {"the model to start from (sha256)": origin.sha256 if origin else "none"}
        check_alike(lambda: model | {f"the store {store.name} (sha256)": store.hash for store in data.stores})
        watch.at("tracing the initialisation")
        init, abstract, shardings = compile_init(config.step, mesh)
        evaluation = Evaluation(config.step, config.contract.leads, data, mesh, shardings.params)
        run = Run(
            config, workdir, data, mesh, origin, init, abstract, shardings, evaluation,
            lambda: before + time.monotonic() - begun, stop, watch,
        )  # fmt: skip
        return finish(run, train(run))


def train(run: Run) -> TrainState:
    """The loop. Order within a step: update, evaluate, save, fetch the next batch; so a restart sees neither gap nor repeat."""
    config, workdir, seconds, at = run.config, run.workdir, run.seconds, run.watch.at
    with Checkpoints(workdir / "checkpoints", config.checkpoint_keep) as checkpoints:
        state, start = begin(run, checkpoints)
        if start == config.steps:
            return state
        check_room(workdir, run.abstract, config.checkpoint_keep, len(checkpoints.manager.all_steps()))
        held = held_rows(run.mesh, config.batch_size, run.mesh.local_devices)
        source = BatchSource(run.data.stores, run.data.train, config.batch_size, config.step.seed, held)
        writes = jax.process_index() == 0
        log = Metrics(workdir, start, config.steps, config.batch_size, config.log_every, writes)
        with log, train_batches(source, start, config.workers) as batches, last_good(checkpoints):
            at("loading the first batch")
            batch = to_devices(next(batches), run.mesh)
            say("compiling the train step and the evaluation")
            at("compiling the evaluation")
            run.evaluation.compile(state)
            at("compiling the train step")
            update = compile_step(config.step, run.mesh, run.shardings).lower(state, batch).compile()
            run.watch.meet("all have compiled")
            if start == 0:
                begun = run.watch.within("evaluating before step 1")
                log.evaluated(0, *run.evaluation(state, config.eval_records, begun), seconds())
            else:  # a kill before the next line must not lose the seconds of the parts before
                log.write(start, {"seconds": seconds()})
            for step in range(start + 1, config.steps + 1):
                at(f"computing step {step}")
                state, metrics = update(state, batch)
                log.add(step, metrics, seconds())
                last = run.stop(step) or step == config.steps
                measured = step % config.eval_every == 0 or step == config.steps
                if measured:
                    at(f"evaluating after step {step}")
                    log.flush(seconds())
                    part = run.watch.within(f"evaluating after step {step}")
                    log.evaluated(step, *run.evaluation(state, config.eval_records, part), seconds())
                if step % config.checkpoint_every == 0 or last:
                    at(f"saving step {step}")
                    log.flush(seconds())  # nothing that is not finite is ever saved
                    facts = {"stores": [store.hash for store in run.data.stores], "provenance": run.provenance}
                    at(f"saving step {step} with the others")
                    checkpoints.save(step, state, facts, log.latest_val if measured else {})
                if last:
                    break
                at(f"loading the batch of step {step + 1}")
                batch = to_devices(next(batches), run.mesh)
            log.flush(seconds())
        at("waiting until the last checkpoint is whole")
        checkpoints.wait()
    if step < config.steps:
        raise Stopped(f"by SIGTERM at step {step} of {config.steps}; it is saved, the same command goes on from there")
    return state


@contextmanager
def last_good(checkpoints: Checkpoints) -> Iterator[None]:
    """Let a NotFinite say what there is to go back to."""
    try:
        yield
    except NotFinite as error:
        kept = f"the checkpoint of step {checkpoints.latest} is kept" if checkpoints.latest else "no checkpoint yet"
        raise NotFinite(f"{error}; {kept}; try a lower learning_rate in a new workdir") from None


def open_origin(config: PretrainConfig, workdir: Path) -> Model | None:
    """The model that a run starts from: the one that its first checkpoint was made of, or `init`; None without either. Raises
    UserError unless it has the run's sizes and sees the same signal."""
    made_of = workdir / ORIGIN
    if not (made_of.exists() or config.init):
        return None
    model = load_model(made_of if made_of.exists() else config.init)
    check_origin(config, model, str(made_of) if made_of.exists() else f"init={config.init}")
    return model


def check_origin(config: PretrainConfig, model: Model, called: str) -> None:
    """Raise UserError where a model has not the run's sizes, or sees another signal."""
    theirs, ours = dataclasses.asdict(model.config), dataclasses.asdict(config.step.model)
    for name in ours:
        if theirs[name] != ours[name] and name not in ("dtype", "remat"):
            raise UserError(f"{called}: its model.{name} is {theirs[name]}, this run's is {ours[name]}")
    differences = config.contract.differences(model.contract, theirs="its", ours="this run's")
    if differences:
        raise UserError(f"{called}: another signal contract: {'; '.join(differences)}")
    if model.inputs != config.step.inputs:
        raise UserError(f"{called}: its inputs are {model.inputs}, this run's {config.step.inputs}")


def begin(run: Run, checkpoints: Checkpoints) -> tuple[TrainState, int]:
    """The state to go on from and its step."""
    config, shardings = run.config, run.shardings
    run.watch.at("looking for the newest checkpoint")
    latest = agreed("the newest checkpoint", lambda: checkpoints.latest, checkpoints.manager.reload)
    run.watch.at("initialising" if latest is None else f"reading the checkpoint of step {latest}")
    if latest is not None:
        if latest > config.steps:
            raise UserError(
                f"steps={config.steps}: the workdir's newest checkpoint is at step {latest}; use at least that"
            )
        state, facts = checkpoints.restore(latest, run.abstract, shardings)
        if facts["stores"] != [store.hash for store in run.data.stores]:
            raise UserError(
                f"data.store={config.store}: has changed since the checkpoint of step {latest}; use a new workdir"
            )
        say(f"resuming from step {latest}")
        return state, latest
    state = run.init()
    if run.origin is not None:
        params = jax.device_put(run.origin.params, shardings.params)
        ema = None if state.ema is None else jax.device_put(run.origin.params, shardings.ema)
        state = dataclasses.replace(state, params=params, ema=ema)
        say(f"starting from the model {run.origin.sha256[:12]}")
    return state, 0


def finish(run: Run, state: TrainState) -> dict[str, Any]:
    """Measure the final state on the validation fold, write model folder, figures and summary."""
    config, workdir, data, origin = run.config, run.workdir, run.data, run.origin
    at = run.watch.at
    at("measuring the final error")
    say("measuring the final error, drawing, writing the model")
    figures_of = run.evaluation.with_interval(
        state, EVAL_RECORDS_AT_THE_END, run.watch.within("measuring the final error")
    )
    at("collecting the parameters")
    params = state.params if state.ema is None else state.ema
    params = jax.device_get(jax.jit(lambda tree: tree, out_shardings=replicated(run.mesh))(params))
    ecg_seen = config.steps * config.batch_size
    summary: dict[str, Any] = figures_of | {
        "val_ratio_to_best_yardstick": figures_of["val_mse"]
        / min(figures_of[f"val_mse_{name}"] for name in YARDSTICKS),
        "val_records": min(sum(map(len, data.validation)), EVAL_RECORDS_AT_THE_END),
        "train_records": sum(map(len, data.train)),
        "steps": config.steps,
        "ecg_seen": ecg_seen,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
    }
    at("drawing and writing the model")
    if jax.process_index() == 0:
        provenance = {
            "version": __version__,
            "config": config.config,
            **run.provenance,
            "figures": {name: value for name, value in summary.items() if name.startswith("val_mse")},
        }
        keys = pretraining_record_keys(data.stores, data.train) if config.record_ids else None
        if keys is not None and origin is not None:  # what that model was trained on, this one has seen too
            seen = origin.pretraining_records
            keys = None if seen is None else np.union1d(keys, seen)
        save_model(workdir / "model", params, config.step.model, config.step.inputs, config.contract, provenance, keys)
        figures.reconstruction(workdir / "figures" / "reconstruction.png", config, data, params)
        figures.curve(workdir / "figures" / "curve.png", workdir / "metrics.jsonl", figures_of)
        elapsed = run.seconds()
        summary |= {"seconds": elapsed, "ecg_per_s": ecg_seen / elapsed}
        write_json(workdir / "summary.json", summary)
        report(summary, workdir)
    run.watch.meet("all have finished")  # JAX's farewell gives a slow one five minutes, and aborts
    return summary


def report(summary: dict[str, Any], workdir: Path) -> None:
    """The run in a few lines."""
    low, high = summary["val_mse_interval"]
    yardsticks = ", ".join(f"{name.replace('_', ' ')} {summary[f'val_mse_{name}']:.4f}" for name in YARDSTICKS)
    error = f"{summary['val_mse']:.4f} ({low:.4f} to {high:.4f})"
    say(f"validation error {error} on {summary['val_records']} records; without learning: {yardsticks}")
    say(f"{summary['ecg_seen']} ECGs in {clock(summary['seconds'])}; model, figures and summary are in {workdir}")


def check_batch(config: PretrainConfig, mesh: Mesh) -> None:
    """The batch must be divisible by the devices that split it, each microbatch too."""
    divisor = batch_divisor(mesh) * max(1, config.step.accumulate)
    if config.batch_size % divisor:
        raise UserError(
            f"batch_size={config.batch_size}: not divisible by {divisor} "
            f"(mesh.data x mesh.fsdp = {batch_divisor(mesh)} devices, accumulate={config.step.accumulate})"
        )
