"""A job of two processes with four devices each, rehearsed for real: killed and resumed on one process, stopped, unlike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, command  # type: ignore[import-not-found]

from lamae_jax.train.metrics import read_metrics

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STEPS = {"steps": 12, "checkpoint.every": 4, "eval_every": 6, "batch_size": 8, "eval_records": 8}
MAIN = [sys.executable, "-m", "lamae_jax.main"]


def environment(devices: int) -> dict[str, str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
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


def losses(workdir: Path) -> dict[int, float]:
    return {
        line["step"]: line["train/loss"] for line in read_metrics(workdir / "metrics.jsonl") if "train/loss" in line
    }


def wait_for_step(workdir: Path, step: int, job: subprocess.Popen[str]) -> None:
    while not (workdir / "metrics.jsonl").exists() or step not in losses(workdir):
        assert job.poll() is None, job.communicate()[0]
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


def test_processes_that_were_started_unlike_all_end_with_the_field_named(small_store: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    jobs = []
    for index, rate in enumerate((1e-3, 2e-3)):
        line = [sys.executable, "-m", "lamae_jax.main", *command(small_store, tmp_path / "run", learning_rate=rate)]
        joined = environment(4) | {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }
        jobs.append(subprocess.Popen(line, cwd=ROOT, env=joined, stderr=subprocess.PIPE, text=True))
    for job in jobs:
        _, errors = job.communicate(timeout=120)
        assert job.returncode == 2, errors
        assert "error: learning_rate: process 0 has 0.001, process 1 has 0.002; start all processes alike" in errors
