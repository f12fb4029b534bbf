"""Checkpoints: asynchronous orbax, the last n and the best kept, restored only onto given shapes and shardings.

The manager's traps are closed here: a metric that is not finite would be ranked best and delete the others; `save` of an old
step returns False in silence; a best-only policy deletes the latest.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from lamae_jax.errors import UserError

METRIC = "val_mse"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


def _metric(metrics: dict[str, float]) -> float:
    return metrics[METRIC]


def check_room(folder: Path, state: Any, keep: int, there: int) -> None:
    """Refuse a disk that cannot hold the checkpoints of `state`: `keep`, the best, and the one being written.

    Those that are `there` already need no more room; where there are more, the next one must still find its own.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    needed, free = (keep + 2 - min(there, keep + 1)) * size, shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"--workdir={folder}: {free / 1e6:.0f} MB are free, checkpoints of {size / 1e6:.0f} MB need {needed / 1e6:.0f}; "
            "make room, name another, or lower checkpoint.keep"
        )


class Checkpoints:
    """The checkpoints of one run, as a context: leaving it waits for the save under way and passes its error on.

    Without `keep` they are only read: nothing is made or removed, and the run may go on saving there.
    """

    def __init__(self, folder: Path, keep: int | None = None):
        self.folder = folder
        if keep is None:
            options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
        else:
            options = self._writing(keep)
        self.manager = ocp.CheckpointManager(folder.absolute(), options=options)

    @staticmethod
    def _writing(keep: int) -> ocp.CheckpointManagerOptions:
        if keep < 1:
            raise UserError(f"checkpoint.keep={keep}: must be at least 1")
        best = preservation_policy.BestN(
            get_metric_fn=_metric, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        return ocp.CheckpointManagerOptions(
            best_fn=_metric,
            best_mode="min",
            preservation_policy=preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._readable_errors():
                self.manager.close()
        except Exception:
            if error is None:  # what ended the run comes first
                raise

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        """Turn what the disk says, deep inside a failed save, into one line; anything else passes as it is."""
        try:
            yield
        except Exception as error:
            cause = re.search("|".join(os.strerror(number) for number in DISK_ERRORS), str(error))
            if cause is None:
                raise
            kept = "no whole one yet" if self.latest is None else f"the last whole one is of step {self.latest}"
            raise UserError(
                f"checkpoint in {self.folder}: {cause.group()}; {kept}; make room and give the same command again"
            ) from None

    @property
    def latest(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self.manager.latest_step()

    def save(self, step: int, state: Any, facts: dict[str, Any], metrics: dict[str, float]) -> None:
        """Begin to save; the state may be donated at once. `facts` is JSON that travels with it."""
        if self.latest is not None and step <= self.latest:
            return
        value = metrics[METRIC] if METRIC in metrics else math.inf
        ranked = {METRIC: value if math.isfinite(value) else 1e30}
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), facts=ocp.args.JsonSave(facts))
        with self._readable_errors():
            if not self.manager.save(step, args=items, metrics=ranked):
                raise OSError(f"checkpoint of step {step} was not written")

    def wait(self) -> None:
        """Until the save under way is on disk."""
        with self._readable_errors():
            self.manager.wait_until_finished()

    def restore(self, step: int, abstract: Any, shardings: Any) -> tuple[Any, dict[str, Any]]:
        """State and facts of a step, onto today's shapes and devices; any mismatch raises."""
        target = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), abstract, shardings
        )
        items = ocp.args.Composite(state=ocp.args.StandardRestore(target), facts=ocp.args.JsonRestore())
        restored = self.manager.restore(step, args=items)
        return restored["state"], restored["facts"]
