"""Which records a run trains and validates on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.data.splits import Rows, check_disjoint, split_stores, train_rows, validation_rows
from lamae_jax.data.store import Store, open_stores
from lamae_jax.errors import UserError
from lamae_jax.progress import say

if TYPE_CHECKING:
    from lamae_jax.train.pretrain import PretrainConfig


@dataclass(frozen=True)
class Data:
    """The stores of a run and the rows that it trains and validates on."""

    stores: list[Store]
    train: Rows
    validation: Rows


def open_data(config: PretrainConfig, workdir: Path) -> Data:
    """Open the stores, or simulate and prepare one; split by patient; refuse what can't be trained on."""
    if config.store:
        try:
            stores = open_stores(config.store)
        except UserError as error:
            raise UserError(f"data.store={config.store}: {error}") from None
    else:
        say("data.store is empty: training on simulated ECGs (name a prepared store with --config.data.store=DIR)")
        stores = simulated(config, workdir)
    stores = split_stores(stores, config.fold_column)
    problems = config.contract.differences_from_stored(stores[0].contract, "the store has", "the run wants")
    if problems:
        raise UserError(f"data.store={stores[0].folder}: {'; '.join(problems)}")
    data = Data(stores, train_rows(stores, config.folds, config.limit), validation_rows(stores))
    check_disjoint(stores, train=data.train, validation=data.validation)
    if sum(map(len, data.train)) < config.batch_size:
        raise UserError(f"batch_size={config.batch_size}: more than the {sum(map(len, data.train))} training records")
    say(f"{sum(map(len, data.train))} training and {sum(map(len, data.validation))} validation records")
    return data


def simulated(config: PretrainConfig, workdir: Path) -> list[Store]:
    """A store of simulated ECGs inside the workdir, made the way a real one is."""
    folder = workdir / "simulated"
    if jax.process_count() > 1:
        raise UserError("data.store: empty; several processes need a prepared store that all of them can read")
    prepare(
        PrepareConfig(
            kind="simulated",
            source=str(folder / "source"),
            store=str(folder / "store"),
            fs=config.contract.fs,
            seconds=max(10.0, config.contract.seconds),  # as long as they are simulated: crops vary
            band=config.contract.band,
            workers=2,
            max_bad_fraction=0.02,
            simulated_patients=config.simulated_patients,
            seed=config.step.seed,
        ),
        folder,
    )
    return open_stores(str(folder / "store"))


def spread(rows: Rows, records: int) -> Rows:
    """At most so many rows, evenly over each store's."""
    total = sum(map(len, rows))
    if total <= records:
        return rows
    chosen = np.linspace(0, total - 1, records).round().astype(int)
    ends = np.cumsum([len(part) for part in rows])
    starts = ends - [len(part) for part in rows]
    return [part[chosen[(chosen >= a) & (chosen < b)] - a] for part, a, b in zip(rows, starts, ends, strict=True)]
