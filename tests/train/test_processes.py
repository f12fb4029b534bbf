"""Processes find each other, agree on what they read at the start, and are told which field differs, with both values.

What the other processes of a job say is played: two real ones are in test_two_processes.py.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import os
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from jax.experimental import multihost_utils

from lamae_jax import command
from lamae_jax.command import facts, read_command
from lamae_jax.data.store import Store
from lamae_jax.errors import Lost, UserError
from lamae_jax.train import pretrain, processes
from lamae_jax.train.processes import (
    agreed,
    compare,
    gather,
    lost,
    naming,
    of_the_first,
    start_processes,
    together,
    watched,
)
from lamae_jax.train.watch import Watch
from lamae_jax.workdir import claimed


def facts_in(workdir: Path, *flags: str) -> dict[str, object]:
    """What a process says of a pretraining in this workdir."""
    return facts(read_command(["--config=configs/pretrain.py:nano", f"--workdir={workdir}", *flags]))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A folder that process 0 has claimed."""
    with claimed(read_command(["--config=configs/pretrain.py:nano", f"--workdir={tmp_path / 'run'}"])) as folder:
        return folder


def test_processes_that_are_alike_pass(workdir: Path) -> None:
    compare([facts_in(workdir)] * 3)


def test_another_workdir_is_named_with_both(workdir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with claimed(read_command(["--config=configs/pretrain.py:nano", f"--workdir={other}"])):
        pass
    with pytest.raises(UserError, match=f"^--workdir: process 0 has {workdir}, process 1 has {other}; start all"):
        compare([facts_in(workdir), facts_in(other)])


def test_a_workdir_of_the_same_name_on_a_disk_of_ones_own_is_named(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = facts_in(workdir)
    (workdir / "config.json").unlink()
    monkeypatch.setattr("lamae_jax.command.time.sleep", lambda seconds: None)
    with pytest.raises(UserError, match="^the folder in --workdir: process 0 has .*, process 2 has not shared; start"):
        compare([ours, ours, facts_in(workdir)])


def test_another_store_is_named_by_its_folder_and_by_what_is_in_it(workdir: Path, small_store: Path) -> None:
    with pytest.raises(UserError, match="^data.store: process 0 has a, process 1 has b; start all"):
        compare([facts_in(workdir, f"--config.data.store={name}") for name in "ab"])
    store = Store.open(small_store)
    name = f"the store {store.name} (sha256)"
    with pytest.raises(UserError, match=f"the store .*: process 0 has {store.hash}, process 1 has 0; start all"):
        compare([{name: store.hash}, {name: "0"}])
    with pytest.raises(UserError, match=f"process 0 has {store.hash}, process 1 has nothing; start all"):
        compare([{name: store.hash}, {"the store of another name (sha256)": store.hash}])


def test_another_version_and_other_code_are_named(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = facts_in(workdir)
    (tmp_path / "lamae_jax").mkdir()
    (tmp_path / "lamae_jax/command.py").write_text("# another line\n")
    monkeypatch.setattr(command, "__file__", str(tmp_path / "lamae_jax/command.py"))
    with pytest.raises(
        UserError, match=r"^the code of lamae_jax \(sha256\): process 0 has \w+, process 1 has \w+; start"
    ):
        compare([ours, facts_in(workdir)])
    monkeypatch.setattr(command, "__version__", "0.0.1")
    with pytest.raises(UserError, match="^lamae_jax: process 0 has .*, process 1 has 0.0.1; start all"):
        compare([ours, facts_in(workdir)])


RESET = "UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:22428: Connection reset by peer"


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first of two processes."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)


def fails_with(error: Exception) -> Callable[[object], object]:
    """A collective in which another process is found to be gone."""

    def collective(value: object) -> object:
        raise error

    return collective


@pytest.mark.parametrize("error", [ValueError(RESET), jax.errors.JaxRuntimeError(RESET)], ids=lambda error: type(error))
def test_a_process_that_dies_during_start_up_is_one_line_in_the_others(
    error: Exception, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multihost_utils, "process_allgather", fails_with(error))
    with pytest.raises(Lost, match="^another process of this job died during start-up; its own output says why$"):
        together(lambda: None)


def test_an_error_of_ones_own_stays_what_it_is(two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multihost_utils, "process_allgather", fails_with(ValueError("shapes differ")))
    with pytest.raises(ValueError, match="^shapes differ$"):
        gather("text")
    with pytest.raises(UserError), naming(Watch(tmp_path, "today", 0, 2)):
        raise UserError("UNKNOWN: a field of that name")
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE"), naming(Watch(tmp_path, "today", 0, 2)):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


def test_what_the_transport_said_is_the_reason_where_all_live(
    two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches = [Watch(tmp_path, "today", index, 2, dead=0.1, beat=0.01) for index in (0, 1)]
    for watch in watches:
        watch._write()
    monkeypatch.setattr(multihost_utils, "process_allgather", fails_with(ValueError(RESET)))
    with (
        pytest.raises(Lost, match="^the processes of this job have lost each other: UNKNOWN: Gloo"),
        naming(watches[0]),
    ):
        gather("text")


def test_a_disk_that_is_away_when_another_is_lost_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(tmp_path, "today", 0, 2, dead=0.1, beat=0.01)

    def away(index: int) -> None:
        raise OSError("Stale file handle")

    monkeypatch.setattr(watch, "_read", away)
    assert watch.lost(ValueError(RESET)).startswith("the processes of this job have lost each other: UNKNOWN: Gloo")


def test_a_process_that_dies_at_its_work_is_not_said_to_wait(two: None, tmp_path: Path) -> None:
    watch = Watch(tmp_path, "today", 0, 2)

    def work() -> None:
        raise KeyError("a broken manifest")

    with pytest.raises(KeyError):
        watched(watch, "opening the store", work)
    assert watch.doing == "opening the store"


@pytest.mark.parametrize(
    "error", [ValueError(RESET), jax.errors.JaxRuntimeError(RESET), Lost(RESET)], ids=lambda error: type(error)
)
def test_where_there_is_a_watch_it_says_who_is_gone(error: Exception, two: None, tmp_path: Path) -> None:
    first, second = (Watch(tmp_path, "today", index, 2, dead=0.1, beat=0.01) for index in (0, 1))
    first._write()
    with pytest.raises(Lost, match="^process 1 of 2 died before it gave a sign of life; the same"), naming(first):
        raise error
    second._write()
    with pytest.raises(Lost, match="^the processes of this job have lost each other: UNKNOWN: Gloo"), naming(first):
        raise error


def test_a_process_alone_has_lost_nobody(tmp_path: Path) -> None:
    with pytest.raises(jax.errors.JaxRuntimeError), naming(Watch(tmp_path, "today", 0, 1)):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


def test_who_has_lost_another_leaves_with_4_and_without_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's farewell, run at exit, would wait for the one that is gone and then abort with 134."""
    at_exit: list[tuple[object, ...]] = []
    monkeypatch.setattr("atexit.register", lambda *call: at_exit.append(call))
    lost("a process alone has nobody to wait for")
    assert not at_exit
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    lost("another process died")
    assert at_exit == [(os._exit, 4)]


def test_the_watch_can_tell_who_works_from_who_waits(
    two: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "gather", lambda text: [text, text])
    watch = Watch(tmp_path, "today", 0, 2)
    assert watched(watch, "opening the store", lambda: watch.doing) == "opening the store"
    assert watch.doing == "waiting for the others: opening the store" and watch.gone_on == 2


@pytest.mark.parametrize("index", [0, 1])
def test_what_the_first_reads_counts_for_all(index: int, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second does not even look: on a network disk it may see another machine's file late."""
    said = [json.dumps({"val_mse": 0.5}), ""]
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(processes, "gather", lambda text: [*said[:index], text, *said[index + 1 :]])
    monkeypatch.setattr(processes, "together", lambda work: work())
    looked: list[int] = []
    assert of_the_first(lambda: looked.append(index) or {"val_mse": 0.5}) == {"val_mse": 0.5}
    assert looked == [0][index:]


def test_processes_look_again_until_they_see_the_same(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = iter([None, 4, 6])
    monkeypatch.setattr(processes, "gather", lambda text: ["6", text])
    monkeypatch.setattr("lamae_jax.train.processes.time.sleep", lambda seconds: None)
    monkeypatch.setattr(processes, "LATE", 3)  # agreed at the last look
    looks: list[None] = []
    assert agreed("the newest checkpoint", lambda: next(ours), lambda: looks.append(None)) == 6
    assert len(looks) == 2


def test_what_processes_never_see_alike_is_named_with_both(two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gather", lambda text: ["6", "6", text])
    monkeypatch.setattr("lamae_jax.train.processes.time.sleep", lambda seconds: None)
    with pytest.raises(
        UserError, match="^the newest checkpoint: process 0 sees 6, process 2 sees 4 in the workdir; give"
    ):
        agreed("the newest checkpoint", lambda: 4, lambda: None)


def test_a_run_that_the_first_sees_complete_is_complete_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain, "of_the_first", lambda work: {"val_mse": 0.5})
    config: Any = None  # is not looked at
    assert pretrain.pretrain(config, tmp_path) == {"val_mse": 0.5}


def test_a_run_goes_on_from_the_checkpoint_that_all_agree_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "agreed", lambda what, see, again: 7)
    run: Any = SimpleNamespace(config=SimpleNamespace(steps=6), shardings=None, watch=Watch(tmp_path, "today", 0, 1))
    checkpoints: Any = SimpleNamespace(latest=4, manager=SimpleNamespace(reload=None))
    with pytest.raises(UserError, match="^steps=6: the workdir's newest checkpoint is at step 7"):
        pretrain.begin(run, checkpoints)


TPU = {"packages": {"libtpu"}, "devices": {"/dev/accel*": ["/dev/accel0"]}}
VFIO = {"packages": {"libtpu"}, "devices": {"/dev/vfio/[0-9]*": ["/dev/vfio/0"]}}
SLURM = {"environment": {"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node[1-4]"}}
INDEXED = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}


def place(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str] | None = None,
    packages: set[str] | None = None,
    devices: dict[str, list[str]] | None = None,
) -> list[tuple[object, ...]]:
    """A machine of that kind; returns the calls of jax.distributed.initialize, each by its arguments."""
    for name in list(os.environ):
        if name.startswith(
            ("SLURM_", "JAX_COORDINATOR", "JAX_NUM_P", "JAX_PROCESS_ID", "KUBERNETES_", "JOB_COMPLETION")
        ):
            monkeypatch.delenv(name)
    for name, value in (environment or {}).items():
        monkeypatch.setenv(name, value)
    calls: list[tuple[object, ...]] = []

    def find_spec(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None) if name in (packages or ()) else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(glob, "glob", lambda pattern: (devices or {}).get(pattern, []))
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(processes, "use_cores", lambda records: None)
    return calls


@pytest.mark.parametrize(
    "machine, joins",
    [
        pytest.param(TPU, True, id="a Cloud TPU host"),
        pytest.param(VFIO, True, id="a newer Cloud TPU host"),
        pytest.param({"packages": {"libtpu"}}, False, id="libtpu installed where no TPU is"),
        pytest.param(TPU | {"packages": set()}, False, id="a TPU without libtpu"),
        pytest.param(SLURM, True, id="a SLURM step of four tasks"),
        pytest.param(
            {"environment": SLURM["environment"] | {"SLURM_NTASKS": "1"}}, False, id="a SLURM step of one task"
        ),
        pytest.param({"environment": {"SLURM_NTASKS": "4"}}, False, id="a SLURM allocation outside a step"),
        pytest.param({"environment": INDEXED, "packages": {"kubernetes"}}, True, id="an indexed Kubernetes job"),
        pytest.param({"environment": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}}, False, id="another Kubernetes pod"),
        pytest.param({}, False, id="a laptop"),
    ],
)
def test_where_the_runtime_knows_the_other_processes_it_is_left_to_find_them(
    machine: dict[str, object], joins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = place(monkeypatch, **machine)  # type: ignore[arg-type]
    assert start_processes(named=True) == 0
    assert calls == ([()] if joins else [])


def test_elsewhere_three_variables_say_who_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They come before what the runtime would find, on a SLURM cluster, say."""
    variables = {"JAX_COORDINATOR_ADDRESS": "host:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    calls = place(monkeypatch, SLURM["environment"] | variables)
    start_processes(named=True)
    assert calls == [("host:1234", 2, 1)]


def test_an_indexed_kubernetes_job_without_the_package_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = place(monkeypatch, INDEXED)
    with pytest.raises(
        UserError, match="^JOB_COMPLETION_INDEX: .* the package `kubernetes` is missing; install it, or set"
    ):
        start_processes(named=True)
    assert not calls


def test_several_processes_that_the_runtime_found_need_a_workdir_by_name(
    two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(monkeypatch, **SLURM)
    with pytest.raises(UserError, match="^--workdir: missing; several processes"):
        start_processes(named=False)
