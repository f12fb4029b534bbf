"""From a training checkpoint to a model, and from a model to a checkpoint that a run goes on from.

from lamae_jax.config import run_config
config = run_config("runs/NAME")
save(model_from_checkpoint(config, "runs/NAME"), "model-so-far")
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from lamae_jax import __version__
from lamae_jax.artifact.folder import Model, save_model
from lamae_jax.artifact.origin import entry, provenance_of
from lamae_jax.data.store import open_stores
from lamae_jax.errors import UserError
from lamae_jax.train.checkpoint import Checkpoints
from lamae_jax.train.optimizer import begin_at
from lamae_jax.train.pretrain import ORIGIN, PretrainConfig, check_origin, open_origin
from lamae_jax.train.step import init_state


def model_from_checkpoint(config: PretrainConfig, workdir: Path | str, step: int | None = None) -> Model:
    """The model of a run's checkpoint, the newest or that of `step`; of a run with `ema` the averaged parameters.

    It knows the run's stores; its pretraining records are left out: a run writes them when it ends. Raises UserError where there
    is no such checkpoint.
    """
    with Checkpoints(_folder(workdir)) as checkpoints:  # the run may be writing there
        steps = sorted(checkpoints.manager.all_steps())
        if not steps or (step is not None and step not in steps):
            there = f"there are {', '.join(map(str, steps))}" if steps else "there is none"
            raise UserError(f"{workdir}: no checkpoint{'' if step is None else f' of step {step}'}; {there}")
        step = steps[-1] if step is None else step
        abstract = jax.eval_shape(lambda: init_state(config.step))
        state, facts = checkpoints.restore(step, abstract, _here(abstract))
    params = jax.device_get(state.params if state.ema is None else state.ema)
    learned_from = facts.get("provenance")
    if learned_from is None:  # checkpoints from before they had it know their stores by hash alone
        stores = [entry("(name not recorded)", "", each) for each in facts["stores"]]
        learned_from = provenance_of(stores, {}, open_origin(config, Path(workdir)))
    provenance: dict[str, Any] = {"version": __version__, "config": config.config, "step": step, **learned_from}
    return Model(params, config.step.model, config.step.inputs, config.contract, provenance, "", None)


def checkpoint_from_model(config: PretrainConfig, model: Model, workdir: Path | str, step: int = 0) -> None:
    """Write a checkpoint of `step` that holds the model's parameters and a fresh optimiser; the run in `workdir` goes on from
    there. Beside it goes the model itself, since what it was trained on, the run's own model has seen too.

    Raises UserError where the model is not of the run's sizes and signal, or the folder holds checkpoints.
    """
    check_origin(config, model, "model")
    folder = _folder(workdir)
    if folder.exists() and any(folder.iterdir()):  # even one that is being written: opening the folder would remove it
        raise UserError(f"{workdir}: holds checkpoints already; name another folder")
    state = jax.jit(lambda: init_state(config.step))()
    changed = {"params": model.params, "step": state.step + step, "opt_state": begin_at(state.opt_state, step)}
    if state.ema is not None:
        changed["ema"] = model.params
    state = dataclasses.replace(state, **{name: jax.device_put(value) for name, value in changed.items()})
    facts = {"stores": [store.hash for store in open_stores(config.store)], "provenance": provenance_of([], {}, model)}
    with Checkpoints(folder, config.checkpoint_keep) as checkpoints:
        save(model, Path(workdir) / ORIGIN)  # first: a checkpoint without it would hide what was seen
        checkpoints.save(step, state, facts, {})
        checkpoints.wait()


def save(model: Model, folder: Path | str) -> str:
    """Write a model as a folder; returns the parameters' sha256."""
    return save_model(
        folder,
        model.params,
        model.config,
        model.inputs,
        model.contract,
        model.provenance,
        model.pretraining_records,
        model.head,
    )


def _folder(workdir: Path | str) -> Path:
    return Path(workdir) / "checkpoints"


def _here(abstract: Any) -> Any:
    """Everything on this process's first device."""
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda _: place, abstract)
