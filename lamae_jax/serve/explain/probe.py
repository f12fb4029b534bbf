"""What alterations of the signal cost, read by the model's own head, or by one linear probe fitted on recordings as they are.

Nothing is refitted and nothing chosen again, as it would be with a model in use. n records, L leads, C labels, F features,
A alterations, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.artifact.head import Head, logits
from lamae_jax.artifact.origin import as_store
from lamae_jax.evaluate.bootstrap import Interval, macro, percentile_interval, resampled_aurocs
from lamae_jax.evaluate.cache import cached_features
from lamae_jax.evaluate.features import fill_unavailable, standardise
from lamae_jax.evaluate.linear import linear
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.summary import split_of
from lamae_jax.evaluate.task import PARTS, Examples, Task
from lamae_jax.progress import say
from lamae_jax.serve.explain.altered import Alteration, Altered


@dataclass(frozen=True)
class Reading:
    """What head or probe makes of the same records under each alteration.

    `chances`: one [n, C] an alteration, from 0 to 1; `features` [n, F] of the first alteration, standardised: for a probe on the
    training records, for a head on the n.
    """

    chances: list[np.ndarray]
    features: np.ndarray


@dataclass(frozen=True)
class Cost:
    """AUROC under an alteration, and what is lost of the AUROC without it on the same resamples of patients (95 % intervals).

    `aurocs` and `lost_each` [C] a label with `intervals` and `lost_intervals` [C, 2], NaN where the records have one sign only;
    `macro` and `lost` their means.
    """

    name: str
    aurocs: np.ndarray
    intervals: np.ndarray
    macro: float
    interval: Interval
    lost_each: np.ndarray
    lost_intervals: np.ndarray
    lost: float
    lost_interval: Interval


def own_head(model: Model, task: Task, readout: str) -> Head | None:
    """The model's head where it knows all labels of the task and reads the `readout` asked for (empty: whichever it reads); not
    one that was fitted on this store by another split, which may know its test records."""
    head = model.head
    if head is None or not set(task.names) <= set(head.labels) or readout not in ("", head.readout):
        return None
    return None if fitted_here(head, task) and head.about.get("split") != split_of(task) else head


def fitted_here(head: Head, task: Task) -> bool:
    """Whether the head was fitted on the task's store, as far as it says on which."""
    store = as_store(head.about.get("store"))
    return store is not None and store["sha256"] == task.store.hash


def read_altered(
    model: Model,
    task: Task,
    reader: Head | str,
    rows: np.ndarray,
    alterations: Sequence[Alteration],
    features: Path,
    batch_size: int,
    seed: int,
) -> Reading:
    """Read the store's `rows` [n] under each alteration with a head that knows the task's labels, or with a probe of the readout
    `reader` fitted on the task's training records.

    `features`: the folder that keeps features, so that a run that was stopped goes on; `seed`: of the noise. Raises NotFinite
    for a feature that is not finite.
    """
    readout = reader if isinstance(reader, str) else reader.readout
    kept = model.config.readouts  # as the probe keeps them, so that both share the folder
    values, available = [], []
    for number, alteration in enumerate(alterations, 1):
        store = Altered(task.store, alteration, seed)
        label, few = f"{alteration.name} ({number} of {len(alterations)})", min(batch_size, len(rows))
        made = cached_features(features, model, store, rows, kept, few, label)
        values.append(made[readout][np.arange(len(rows))])
        available.append(store.available[rows])
    say(f"{len(alterations)} x {len(rows)} recordings read")
    if not isinstance(reader, str):
        return read_by_head(reader, task.names, values, available)
    stored = cached_features(features, model, task.store, task.rows, kept, batch_size, "recordings as they are")
    x = np.concatenate([stored[readout][np.arange(len(task.rows))], *values])
    train, validation = (np.pad(task.part == part, (0, len(x) - len(task.part))) for part in PARTS[:2])
    if readout == "encoder_concat":
        x = fill_unavailable(x, np.concatenate([task.store.available[task.rows], *available]), train)
    x = standardise(x, train)
    altered = x[len(task.rows) :]
    prediction = linear(
        Examples(x[train], task.values("train")), Examples(x[validation], task.values("validation")), altered
    )
    chances = np.split(prediction.chances, len(alterations))
    return Reading(chances, altered[: len(rows)])


def read_by_head(
    head: Head, names: Sequence[str], values: Sequence[np.ndarray], available: Sequence[np.ndarray]
) -> Reading:
    """What the head says of the labels `names` from A readouts `values` [n, D] or [n, L, D], with leads `available` [n, L]."""
    columns = [head.labels.index(name) for name in names]
    chances = [
        np.asarray(jax.nn.sigmoid(logits(head.arrays, jnp.asarray(some), jnp.asarray(there))))[:, columns]
        for some, there in zip(values, available, strict=True)
    ]
    first = values[0].reshape(len(values[0]), -1)
    return Reading(chances, standardise(first, np.ones(len(first), bool)))


def costs(
    labels: np.ndarray,
    patients: np.ndarray,
    names: Sequence[str],
    chances: Sequence[np.ndarray],
    resamples: int,
    seed: int,
) -> list[Cost]:
    """The cost of each alteration against the first of them; `labels` [n, C], `patients` [n]."""
    draws = resampled_aurocs(labels, chances, patients, resamples, seed)  # [A, R, C]
    means = macro(draws)  # [A, R]
    first = macro_auroc(labels, chances[0])
    found = []
    for name, some, of_labels, mean in zip(names, chances, draws, means, strict=True):
        here = macro_auroc(labels, some)
        found.append(
            Cost(
                name,
                here.per_label,
                np.array([percentile_interval(each) for each in of_labels.T]),
                here.value,
                percentile_interval(mean),
                first.per_label - here.per_label,
                np.array([percentile_interval(each) for each in (draws[0] - of_labels).T]),
                first.value - here.value,
                percentile_interval(means[0] - mean),
            )
        )
    return found
