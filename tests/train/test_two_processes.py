"""A job of two processes with four devices each, rehearsed for real: killed and resumed on one process, stopped, unlike."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_run import SMALL, command

from lamae_jax.train.metrics import read_metrics

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STEPS = {"steps": 12, "checkpoint.every": 4, "eval_every": 6, "batch_size": 8, "eval_records": 8}
MAIN = [sys.executable, "-m", "lamae_jax.main"]


def environment(devices: int) -> dict[str, str]:
    flags = (
        f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"  # as tests/conftest.py
    )
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHON": sys.executable}


def flags(store: Path, **changes: object) -> list[str]:
    fields = SMALL | STEPS | {"data.store": store} | {k.replace("__", "."): v for k, v in changes.items()}
    return [f"--config.{name}={value}" for name, value in fields.items()]


def rehearse(folder: Path, store: Path, **changes: object) -> subprocess.Popen[str]:
    """Two processes with four devices each, by the script that everybody uses, in a session of their own."""
    line = [str(ROOT / "launch/rehearsal.sh"), f"--workdir={folder}", *flags(store, **changes)]
    return subprocess.Popen(
        line, cwd=ROOT, env=environment(4), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def join(*lines: list[str]) -> list[subprocess.Popen[str]]:
    """Two processes with four devices each: of one command, or each of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = environment(4) | {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    return [
        subprocess.Popen(
            line, cwd=ROOT, env=joined | {"JAX_PROCESS_ID": str(index)}, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for index, line in enumerate([lines[0], lines[-1]])
    ]  # fmt: skip


def losses(workdir: Path) -> dict[int, float]:
    return {
        line["step"]: line["train/loss"] for line in read_metrics(workdir / "metrics.jsonl") if "train/loss" in line
    }


def wait_for_step(workdir: Path, step: int, job: subprocess.Popen[str]) -> None:
    while not (workdir / "metrics.jsonl").exists() or step not in losses(workdir):
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)


def test_killed_on_two_processes_resumed_on_one_with_two_devices_the_losses_go_on(
    small_store: Path, tmp_path: Path
) -> None:
    job = rehearse(tmp_path, small_store, mesh__fsdp=2, mesh__tensor=2)
    wait_for_step(tmp_path / "run", 9, job)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    saved = [int(path.name) for path in (tmp_path / "run/checkpoints").iterdir() if path.name.isdigit()]
    assert saved and max(saved) < 12

    resumed = flags(small_store)
    line = [*MAIN, "--config=configs/pretrain.py:nano,hz100", f"--workdir={tmp_path / 'run'}", *resumed]
    done = subprocess.run(line, cwd=ROOT, env=environment(2), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"resuming from step {max(saved)}" in done.stdout

    alone = [*MAIN, "--config=configs/pretrain.py:nano,hz100", f"--workdir={tmp_path / 'alone'}", *resumed]
    assert subprocess.run(alone, cwd=ROOT, env=environment(1), capture_output=True).returncode == 0
    ours, theirs = losses(tmp_path / "run"), losses(tmp_path / "alone")
    assert sorted(ours) == sorted(theirs) == list(range(1, 13))
    np.testing.assert_allclose([ours[s] for s in sorted(ours)], [theirs[s] for s in sorted(theirs)], rtol=1e-4)


# A training on a mesh of 8 whose devices stand in another order than the processes: ORDER SHAPE FLAGS...
ORDERED = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh
from lamae_jax.main import main
from lamae_jax.train import pretrain
from lamae_jax.train.sharding import AXES

order, shape = map(json.loads, sys.argv[1:3])
pretrain.make_mesh = lambda config: Mesh(np.array(jax.devices())[order].reshape(shape), AXES)
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    "order, shape",
    [([0, 1, 4, 5, 7, 6, 3, 2], [1, 8, 1]), ([0, 4, 1, 2, 5, 6, 3, 7], [2, 2, 2])],
    ids=["a ring through both hosts", "tensor across hosts"],
)
def test_where_the_devices_of_a_host_stand_in_the_mesh_changes_neither_losses_nor_errors(
    small_store: Path, tmp_path: Path, order: list[int], shape: list[int]
) -> None:
    def line(name: str, program: list[str]) -> list[str]:
        # Ten validation records: a batch of 64 is mostly filling, which must not be taken for records.
        return [sys.executable, *program, *command(small_store, tmp_path / name, steps=3)]

    alone = subprocess.run(line("alone", MAIN[1:]), cwd=ROOT, env=environment(1), capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    jobs = join(line("two", ["-c", ORDERED, str(order), str(shape)]))
    for job in jobs:
        _, errors = job.communicate(timeout=300)
        assert job.returncode == 0, errors
    for name in ("train/loss", "val/loss"):
        one, two = (
            [each[name] for each in read_metrics(tmp_path / folder / "metrics.jsonl") if name in each]
            for folder in ("alone", "two")
        )
        assert one
        np.testing.assert_allclose(two, one, rtol=1e-4)


def test_sigterm_stops_both_at_one_step_and_the_same_line_goes_on(small_store: Path, tmp_path: Path) -> None:
    job = rehearse(tmp_path, small_store, steps=100_000, checkpoint__every=100_000, eval_every=100_000)
    wait_for_step(tmp_path / "run", 3, job)
    # To the second process alone: the first must hear of it.
    second = subprocess.run(["pgrep", "-P", str(job.pid)], capture_output=True, text=True).stdout.split()
    [target] = [pid for pid in second if b"JAX_PROCESS_ID=1" in Path(f"/proc/{pid}/environ").read_bytes()]
    os.kill(int(target), signal.SIGTERM)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 75, output
    assert "stopped: by SIGTERM at step" in output
    step = int(output.split("by SIGTERM at step ")[1].split()[0])
    assert f"by SIGTERM at step {step} of" in (tmp_path / "process-1.log").read_text()
    assert (tmp_path / "run/checkpoints" / str(step)).is_dir()


@pytest.mark.parametrize(
    "dies, code, line",
    [
        (1, 4, "error: process 1 of 2 died while"),
        (0, -signal.SIGABRT, "This most likely indicates that another task died"),
    ],
    ids=["process 1: named by the other", "process 0: the runtime ends the other"],
)
def test_a_process_that_is_killed_ends_the_other(
    small_store: Path, tmp_path: Path, dies: int, code: int, line: str
) -> None:
    endless = {"steps": 100_000, "checkpoint__every": 100_000, "eval_every": 100_000}
    jobs = join([*MAIN, *command(small_store, tmp_path / "run", **endless)])
    wait_for_step(tmp_path / "run", 3, jobs[1 - dies])
    jobs[dies].kill()
    _, errors = jobs[1 - dies].communicate(timeout=200)
    assert jobs[1 - dies].returncode == code and line in errors


# A training in which one function of the second process, MODULE NAME, ends it on the spot: MODULE NAME FLAGS...
DIES = """
import importlib, os, sys
from lamae_jax.main import main

if os.environ["JAX_PROCESS_ID"] == "1":
    setattr(importlib.import_module(sys.argv[1]), sys.argv[2], lambda *arguments: os._exit(9))
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    "function, line",
    [
        (["lamae_jax.command", "facts"], "another process of this job died during start-up; its own output says why"),
        (
            ["lamae_jax.train.pretrain", "open_data"],
            "process 1 of 2 died while",
        ),
    ],
    ids=["before there is a watch", "under the watch"],
)
def test_a_process_that_dies_during_start_up_ends_the_other_with_one_line(
    small_store: Path, tmp_path: Path, function: list[str], line: str
) -> None:
    jobs = join([sys.executable, "-c", DIES, *function, *command(small_store, tmp_path / "run")])
    _, errors = jobs[0].communicate(timeout=200)
    assert jobs[0].returncode == 4, errors
    assert f"error: {line}" in errors and "Traceback" not in errors and "*** Check failure" not in errors


def test_processes_that_were_started_unlike_all_end_with_the_field_named(small_store: Path, tmp_path: Path) -> None:
    lines = [command(small_store, tmp_path / "run", learning_rate=rate) for rate in (1e-3, 2e-3)]
    jobs = join(*([*MAIN, *line] for line in lines))
    for job in jobs:
        _, errors = job.communicate(timeout=120)
        assert job.returncode == 2, errors
        assert "error: learning_rate: process 0 has 0.001, process 1 has 0.002; start all processes alike" in errors
