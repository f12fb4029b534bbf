"""How a process joins its job, and how it is told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax

from lamae_jax.errors import UserError


def start_processes(named: bool) -> int:
    """Join the other processes of a job, where there are any; with several, the workdir must have been `named`.

    Returns this process's number, 0 for the first or only one. Under SLURM the runtime finds the others; elsewhere
    JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID say who they are.
    """
    several = int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in os.environ
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        count, index = (os.environ.get(name, "") for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise UserError(f"JAX_NUM_PROCESSES={count} JAX_PROCESS_ID={index}: must be n and a number below n")
        several = int(count) > 1
    if several and not named:
        raise UserError("--workdir: missing; several processes must be told the one folder that they share")
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        jax.distributed.initialize(os.environ["JAX_COORDINATOR_ADDRESS"], int(count), int(index))
    elif several:
        jax.distributed.initialize()
    return jax.process_index() if several else 0


@contextlib.contextmanager
def sigterm() -> Iterator[list[bool]]:
    """While open, SIGTERM makes the list non-empty instead of ending the process."""
    arrived: list[bool] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(True)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield arrived
    finally:
        signal.signal(signal.SIGTERM, previous)
