"""How the processes of one job find each other, check that they were started alike, and are told to stop together."""

from __future__ import annotations

import atexit
import contextlib
import glob
import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from lamae_jax.errors import Lost, UserError
from lamae_jax.machine import cores
from lamae_jax.progress import hush
from lamae_jax.train.watch import Watch, patience

T = TypeVar("T")

# With these begins what the transport says when another process is gone; JAX passes it on as one of two exceptions.
STATUS = (
    "UNKNOWN: ", "UNAVAILABLE: ", "INTERNAL: ", "ABORTED: ", "CANCELLED: ", "DEADLINE_EXCEEDED: ", "FAILED_PRECONDITION: ",
    "DATA_LOSS: ",
)  # fmt: skip
LATE = 70  # s; a network disk may show another machine's files a minute late


def start_processes(named: bool, batch_size: int = 1) -> int:
    """Join the other processes of a job, where there are any; with several, the workdir must have been `named`.

    A process alone on a CPU takes its cores for devices, among which a batch of `batch_size` is split (`use_cores`).
    Returns this process's number, 0 for the first or only one. On Cloud TPU, under SLURM and in an indexed Kubernetes job the
    runtime finds the others; elsewhere JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID say who
    they are. Raises UserError. To be called before anything is computed.
    """
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        count, index = (os.environ.get(name, "") for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
        if not (count.isdecimal() and index.isdecimal() and int(index) < int(count)):
            raise UserError(f"JAX_NUM_PROCESSES={count} JAX_PROCESS_ID={index}: must be n and a number below n")
        check_named(named, int(count))
        jax.distributed.initialize(os.environ["JAX_COORDINATOR_ADDRESS"], int(count), int(index))
    elif on_a_cluster():
        jax.distributed.initialize()
        check_named(named, jax.process_count())
    else:
        use_cores(batch_size)
        return 0
    if jax.process_index():
        hush()
    return jax.process_index()


def use_cores(records: int) -> None:
    """Where a CPU computes, make a device of each core: as many as divide `records` and leave each of them at least four.

    One program a core, each of one thread, waits for the others once a step; one program of many threads within every
    operation. Measured in docs/speed.md. Left alone where XLA_FLAGS or JAX_NUM_CPU_DEVICES ask for a number of devices, or
    where JAX has begun to compute.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    devices = max(n for n in range(1, cores() + 1) if n == 1 or (records % n == 0 and records // n >= 4))
    with contextlib.suppress(RuntimeError):  # JAX has begun
        jax.config.update("jax_num_cpu_devices", devices)


def check_named(named: bool, processes: int) -> None:
    """Raise UserError where several processes were not told the one workdir that they share."""
    if processes > 1 and not named:
        raise UserError("--workdir: missing; several processes must be told the one folder that they share")


def on_a_cluster() -> bool:
    """Whether the runtime can find the other processes by itself. Raises UserError where a package for that is missing."""
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_STEP_NODELIST" in os.environ:
        return True
    if importlib.util.find_spec("libtpu") and (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")):
        return True
    if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ:
        if importlib.util.find_spec("kubernetes") is None:
            raise UserError(
                "JOB_COMPLETION_INDEX: this is an indexed Kubernetes job, but the package `kubernetes` is missing; install "
                "it, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
            )
        return True
    return False


def gather(text: str) -> list[str]:
    """Every process's text, in the order of the processes; one that hangs ends the others after 16 minutes.

    Raises Lost where one is gone: `naming` says which, once there is a watch.
    """
    if jax.process_count() == 1:
        return [text]
    raw = np.frombuffer(text.encode(), np.uint8)
    try:
        with patience():
            sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(raw))))
            # One more than the longest, so that no array is empty.
            rows = multihost_utils.process_allgather(np.pad(raw, (0, int(sizes.max()) - len(raw) + 1)))
    except Exception as error:
        if not of_the_transport(error):
            raise
        raise lost("another process of this job died during start-up; its own output says why") from error
    return [np.asarray(row[:size], np.uint8).tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def together(work: Callable[[], T]) -> T:
    """Do `work` in every process; a mistake found by one is raised in all, so that none waits for one that has gone."""
    if jax.process_count() == 1:
        return work()
    result, problem = None, ""
    try:
        result = work()
    except UserError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot read or write {error.filename or ''}: {error.strerror or error}"
    for index, text in enumerate(gather(problem)):
        if text:
            raise UserError(f"process {index}: {text}")
    return result  # type: ignore[return-value]  # no problem: work returned it


def of_the_first(work: Callable[[], T]) -> T:
    """What `work` finds in process 0, in every process; JSON. A network disk may show another machine's files late."""
    if jax.process_count() == 1:
        return work()
    found = together(lambda: json.dumps(work()) if jax.process_index() == 0 else "")
    return json.loads(gather(found)[0])


def agreed(what: str, see: Callable[[], T], again: Callable[[], None]) -> T:
    """What all processes see (JSON), once it is the same; before another look `again` is called. Raises UserError in all where
    they never agree."""
    for look in range(LATE):
        if look:
            time.sleep(1)
            again()
        seen = [json.loads(text) for text in gather(json.dumps(see()))]
        if all(each == seen[0] for each in seen):
            return seen[0]
    index, other = next((index, each) for index, each in enumerate(seen) if each != seen[0])
    raise UserError(
        f"{what}: process 0 sees {seen[0]}, process {index} sees {other} in the workdir; give the same command again when "
        "the disk shows all of them the same"
    )


def of_the_transport(error: Exception) -> bool:
    """Whether an error is what a collective says when another process is gone."""
    kind = isinstance(error, jax.errors.JaxRuntimeError) or type(error) is ValueError
    return kind and str(error).startswith(STATUS)  # and not RESOURCE_EXHAUSTED, say: that is this process's own


def lost(problem: str) -> Lost:
    """The error of a process that has lost another. It will leave without JAX's farewell, which waits for all processes and
    aborts this one where they do not come."""
    if jax.distributed.is_initialized():
        atexit.register(os._exit, Lost.exit_code)
    return Lost(problem)


@contextlib.contextmanager
def naming(watch: Watch) -> Iterator[None]:
    """Where a collective fails in here, `watch` ends this process and names the one that is gone; if it finds none, Lost."""
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1 or not (isinstance(error, Lost) or of_the_transport(error)):
            raise
        cause = error.__cause__ if isinstance(error, Lost) else error
        raise lost(watch.lost(cause or error)) from None


def watched(watch: Watch, doing: str, work: Callable[[], T]) -> T:
    """`together`, where `watch` can tell who is at work and who waits."""

    def seen() -> T:
        watch.at(doing)
        try:
            found = work()
        except (UserError, OSError):  # what `together` tells the others; with anything else this process is gone
            watch.at(f"waiting for the others: {doing}")
            raise
        watch.at(f"waiting for the others: {doing}")
        return found

    return together(seen)


def check_alike(facts: Callable[[], dict[str, Any]]) -> None:
    """Raise UserError, the same in all processes, where one's `facts` differ from the first's: field and both values.

    A single process does not collect any.
    """
    if jax.process_count() == 1:
        return
    compare([json.loads(text) for text in gather(json.dumps(facts()))])


def compare(facts: list[dict[str, Any]]) -> None:
    """Raise UserError for the first fact in which a process, they come in order, differs from process 0."""
    first, *others = facts
    for index, theirs in enumerate(others, 1):
        for name in first:
            value = theirs[name] if name in theirs else "nothing"
            if value != first[name]:
                raise UserError(
                    f"{name}: process 0 has {first[name]}, process {index} has {value}; start all processes alike"
                )


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """While open, SIGTERM to any process makes `reached(step)` true in every process, at one step that all agree on.

    Every process must ask at every step.
    """
    if jax.process_count() > 1:  # the runtime catches the signal and spreads it
        yield multihost_utils.reached_preemption_sync_point
        return
    arrived: list[bool] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(True)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda step: bool(arrived)
    finally:
        signal.signal(signal.SIGTERM, previous)
