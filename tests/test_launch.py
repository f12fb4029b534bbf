"""launch/: every script shows what it would run, refuses what cannot be right, and treats exit codes as running.md says.

SLURM, gcloud and the training itself are played by small stand-ins on the PATH, so that nothing here takes long.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).resolve().parent.parent / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
FLAGS = ["--config=configs/pretrain.py:base", "--config.mesh.fsdp=8"]
# A training as far as the scripts can tell: says it began, and ends with $ENDS, or with 75 when SIGTERM comes.
TRAINING = r"""#!/usr/bin/env bash
if [ "$1" = -c ]; then echo 12345; exit; fi
trap 'exit 75' TERM
case $* in *configs/prepare.py*) exit ;; esac
for flag in "$@"; do case $flag in --workdir=*) workdir=${flag#*=} ;; esac; done
mkdir -p "$workdir"; echo "$$" > "$workdir/began-${JAX_PROCESS_ID:-0}"; echo began "$@"
ends=${ENDS:-0}
if [ "$ends" = never ] || [ "$ends" = one-dies -a "${JAX_PROCESS_ID:-0}" = 0 ]; then
    for _ in $(seq 6000); do sleep 0.1; done
fi
if [ "$ends" = one-dies ]; then sleep 0.3; kill -KILL $$; fi
if [ "$ends" = 0 ]; then echo '{"val_mse": 0.5}' > "$workdir/summary.json"; fi
exit "$ends"
"""
STAND_INS = {
    "training": TRAINING,
    "sbatch": "#!/usr/bin/env bash\nexec bash -s\n",
    "srun": '#!/usr/bin/env bash\nwhile [ "$1" != bash ]; do shift; done\nexec "$@"\n',
    "scontrol": '#!/usr/bin/env bash\necho scontrol "$@"\n',
    "nvidia-smi": "#!/usr/bin/env bash\nfor i in $(seq ${GPUS:-0}); do echo GPU $((i - 1)): a kind; done\n",
    "gcloud": '#!/usr/bin/env bash\nfor last in "$@"; do :; done\nexec bash -c "${last#--command=}"\n',
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to launch from, where the stand-ins are what is run."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in STAND_INS.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHON", "training")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name in ("IMAGE", "STORAGE", "CODE", "CORES", "ENDS", "GPUS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def launch(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(LAUNCH / script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound_and_of_no_particular_machine(script: Path) -> None:
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert not re.search(r"(?<![\w.])/(home|root|work|Users|tmp|opt|usr/local)/", text)
    assert f"launch/{script.name} [--dry-run]" in text, "no usage"
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    answer = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    "script, arguments, complaint",
    [
        ("slurm.sh", [], "NODES="),
        ("slurm.sh", ["0", "8", "--workdir=run"], "NODES=0"),
        ("slurm.sh", ["2", "--workdir=run"], "GPUS_PER_NODE=--workdir=run"),
        ("slurm.sh", ["2", "8", *FLAGS], "--workdir: missing"),
        ("slurm.sh", ["2", "8", "--workdir="], "--workdir: missing"),
        ("tpu_vm.sh", ["--workdir=/mnt/nfs/run"], "TPU_NAME=--workdir=/mnt/nfs/run"),
        ("tpu_vm.sh", ["pod", "--workdir=/mnt/nfs/run"], "ZONE=--workdir=/mnt/nfs/run"),
        ("tpu_vm.sh", ["pod", "us-west4-a", *FLAGS], "--workdir="),
        ("tpu_vm.sh", ["pod", "us-west4-a", "--workdir=gs://bucket/run"], "--workdir=gs://bucket/run"),
        ("gke.sh", ["--workdir=/mnt/nfs/run"], "CLUSTER=--workdir=/mnt/nfs/run"),
        ("gke.sh", ["tpus", "--workdir=/mnt/nfs/run"], "TPU_TYPE=--workdir=/mnt/nfs/run"),
        ("gke.sh", ["tpus", "v5litepod-16", "--workdir=run"], "--workdir=run"),
        ("gke.sh", ["tpus", "v5litepod-16", "--workdir=/mnt/nfs/run"], "IMAGE: missing"),
        ("slurm.sh", ["2", "8", "--workdir"], "--workdir: missing"),
        ("slurm.sh", ["2", "8", "--workdir", *FLAGS], "--workdir: missing"),
        ("tpu_vm.sh", ["pod", "us-west4-a", "--workdir", "run"], "--workdir=run"),
        ("gke.sh", ["tpus", "v5litepod-16", "--workdir", "run"], "--workdir=run"),
        ("local.sh", ["--config.mesh.fsdp=8"], "N=--config.mesh.fsdp=8"),
        ("prepare_array.sh", ["0", *FLAGS], "N=0"),
        ("prepare_array.sh", ["4"], "FLAGS: missing"),
        ("prepare_array.sh", ["4", *FLAGS, "--workdir=run"], "--workdir: "),
        ("prepare_array.sh", ["4", "--workdir", "run", *FLAGS], "--workdir: "),
        ("rehearsal.sh", ["base"], "base"),
        ("rehearsal.sh", ["--steps=3"], "--steps=3"),
    ],
)
def test_a_wrong_command_is_one_line_and_2(place: Path, script: str, arguments: list[str], complaint: str) -> None:
    for dry in ([], ["--dry-run"]):
        answer = launch(script, *dry, *arguments)
        assert answer.returncode == 2 and answer.stdout == ""
        assert answer.stderr.startswith(f"error: {complaint}") and answer.stderr.count("\n") == 1
        assert f"launch/{script} [--dry-run]" in answer.stderr
    assert {path.name for path in place.iterdir()} == {"tools"}


def settings(shown: str) -> list[str]:
    """What local.sh sets for the training."""
    words = shlex.split(shown)
    return words[words.index("env") + 1 : words.index("training")]


def test_local_takes_the_first_gpus_of_this_machine_or_else_virtual_devices(place: Path) -> None:
    shown = launch("local.sh", "--dry-run", "2", *FLAGS, GPUS="4").stdout
    assert settings(shown) == ["CUDA_VISIBLE_DEVICES=0,1"]
    assert shlex.split(shown)[-2:] == FLAGS
    shown = launch("local.sh", "--dry-run", "2", *FLAGS, XLA_FLAGS="").stdout
    assert settings(shown) == ["JAX_PLATFORMS=cpu", "XLA_FLAGS=--xla_force_host_platform_device_count=2"]
    answer = launch("local.sh", "--dry-run", "5", *FLAGS, GPUS="4")
    assert (answer.returncode, answer.stdout) == (2, "") and answer.stderr.startswith("error: N=5: ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("gpus", ["0", "8"])  # 0: a container may lack nvidia-smi
@pytest.mark.parametrize("given, taken", [("2,3", "2,3"), ("5,2,3", "5,2"), ("GPU-8f,MIG-1a", "GPU-8f,MIG-1a")])
def test_local_takes_the_first_of_the_gpus_that_it_is_given(place: Path, given: str, taken: str, gpus: str) -> None:
    shown = launch("local.sh", "--dry-run", "2", *FLAGS, CUDA_VISIBLE_DEVICES=given, GPUS=gpus).stdout
    assert settings(shown) == [f"CUDA_VISIBLE_DEVICES={taken}"]


def test_local_says_so_in_one_line_when_it_is_given_too_few_gpus(place: Path) -> None:
    answer = launch("local.sh", "3", *FLAGS, CUDA_VISIBLE_DEVICES="2,3", GPUS="8")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "error: N=3: CUDA_VISIBLE_DEVICES=2,3 gives fewer GPUs\n"


@pytest.mark.parametrize("none", ["", "-1"])
def test_local_takes_virtual_devices_when_it_is_given_no_gpu(place: Path, none: str) -> None:
    shown = launch("local.sh", "--dry-run", "2", *FLAGS, CUDA_VISIBLE_DEVICES=none, GPUS="8").stdout
    assert settings(shown)[0] == "JAX_PLATFORMS=cpu"


def test_an_array_that_fails_takes_its_merge_out_of_the_queue(place: Path) -> None:
    shown = launch("prepare_array.sh", "--dry-run", "4", *FLAGS).stdout.splitlines()
    array, merge = map(shlex.split, shown)
    assert "--array=0-3" in array and "--kill-on-invalid-dep=yes" not in array
    assert {"--dependency=afterok:ARRAY", "--kill-on-invalid-dep=yes"} <= set(merge)


@pytest.mark.parametrize(
    "script, where, shown",
    [
        ("slurm.sh", ["1", "8"], "[ -e /mnt/nfs/the\\ run/summary.json ]"),
        ("tpu_vm.sh", ["pod", "us-west4-a"], "lamae_jax.main"),
        ("gke.sh", ["tpus", "v5litepod-16"], "--workload=lamae-the-run"),
    ],
)
def test_a_workdir_is_one_word_or_two(place: Path, script: str, where: list[str], shown: str) -> None:
    one = launch(script, "--dry-run", *where, "--workdir=/mnt/nfs/the run", *FLAGS, IMAGE="image:1")
    two = launch(script, "--dry-run", *where, "--workdir", "/mnt/nfs/the run", *FLAGS, IMAGE="image:1")
    assert one.returncode == two.returncode == 0, two.stderr
    assert shown in one.stdout and shown in two.stdout


def test_slurm_shows_the_job_that_it_would_submit(place: Path) -> None:
    shown = launch("slurm.sh", "--dry-run", "4", "8", "--workdir=runs/the run", *FLAGS).stdout.splitlines()
    for option in ("nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "signal=TERM@120", "requeue"):
        assert f"#SBATCH --{option}" in shown
    step = next(line for line in shown if line.startswith("srun "))
    words = shlex.split(step)
    assert {"--kill-on-bad-exit=1", "--label", "--gpu-bind=none"} <= set(words)
    assert not any(word.startswith("--gpus-per-task") for word in words), "each process must see all GPUs of its node"
    task = shlex.split(words[words.index("-c") + 1].replace(";", " ; "))
    assert ["-m", "lamae_jax.main", "--workdir=runs/the run", *FLAGS] == task[task.index("-m") : task.index("-m") + 5]
    assert not (place / "runs").exists()


@pytest.mark.parametrize("ends, code, again", [("0", 0, False), ("75", 0, True), ("2", 2, False), ("4", 4, False)])
def test_slurm_queues_a_job_again_that_stopped_after_saving_and_no_other(
    place: Path, ends: str, code: int, again: bool
) -> None:
    answer = launch("slurm.sh", "1", "2", "--workdir=the run", *FLAGS, ENDS=ends)
    assert answer.returncode == code, answer.stderr
    assert ("scontrol requeue 7" in answer.stdout) == again


def until(condition: object, path: Path) -> None:
    for _ in range(200):
        if path.exists() and path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{condition} never came")


def test_slurm_sigterm_to_a_whole_step_lets_the_training_save(place: Path) -> None:
    # SLURM signals every process of a step: the shell around the training too.
    batch = launch("slurm.sh", "--dry-run", "1", "1", "--workdir=run").stdout
    (step,) = (line for line in batch.splitlines() if line.startswith("srun "))
    words = shlex.split(step.removesuffix("|| exit"))
    process = subprocess.Popen(words[words.index("bash") :], env=os.environ | {"ENDS": "never"}, start_new_session=True)
    until("the training", place / "run" / "began-0")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) == 0, "75 is no failure to srun"


def test_tpu_vm_runs_the_same_command_on_all_hosts(place: Path) -> None:
    shown = launch("tpu_vm.sh", "--dry-run", "pod", "us-west4-a", "--workdir=/mnt/nfs/run", *FLAGS).stdout
    words = shlex.split(shown)
    assert words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"]
    assert {"--zone=us-west4-a", "--worker=all"} <= set(words)
    assert f"-m lamae_jax.main --workdir=/mnt/nfs/run {' '.join(FLAGS)} >> pretrain.log" in words[-1]


@pytest.mark.parametrize("ends", ["0", "2", "75"])
def test_tpu_vm_passes_the_exit_code_on_and_leaves_a_log(place: Path, ends: str) -> None:
    answer = launch("tpu_vm.sh", "pod", "us-west4-a", f"--workdir={place}/run", CODE=str(place), ENDS=ends)
    assert answer.returncode == int(ends), answer.stderr
    assert "began" in (place / "pretrain.log").read_text()
    assert int((place / "pretrain.pid").read_text()) == int((place / "run" / "began-0").read_text())


def test_gke_goes_on_after_a_stop_or_a_death_but_not_after_a_mistake(place: Path) -> None:
    arguments = ["--dry-run", "tpus", "v5litepod-256", "--workdir=/mnt/nfs/Base_1", *FLAGS]
    words = shlex.split(launch("gke.sh", *arguments, IMAGE="image:1", STORAGE="nfs").stdout)
    assert words[:3] == ["xpk", "workload", "create"]
    assert {"--cluster=tpus", "--tpu-type=v5litepod-256", "--docker-image=image:1", "--storage=nfs"} <= set(words)
    assert {"--workload=lamae-base-1", "--restart-on-exit-codes=4,75"} <= set(words)
    assert words[-1] == f"--command=exec training -m lamae_jax.main --workdir=/mnt/nfs/Base_1 {' '.join(FLAGS)}"
    assert "--storage" not in launch("gke.sh", *arguments, IMAGE="image:1").stdout


@pytest.mark.parametrize(
    "folder, name",
    [
        ("Base_1", "lamae-base-1"),
        ("base (new).2/", "lamae-base-new-2"),
        ("base_", "lamae-base"),
        ("größe", "lamae-gr-e"),
        ("..", "lamae"),
        ("a" * 50, "lamae-" + "a" * 34),
        ("a" * 33 + "_b", "lamae-" + "a" * 33),
    ],
)
def test_gke_names_a_workload_as_kubernetes_allows(place: Path, folder: str, name: str) -> None:
    workdir = f"--workdir=/mnt/nfs/{folder}"
    words = shlex.split(launch("gke.sh", "--dry-run", "tpus", "v5litepod-16", workdir, IMAGE="image:1").stdout)
    assert [word for word in words if word.startswith("--workload=")] == [f"--workload={name}"]


def test_a_rehearsal_is_two_processes_alike_but_for_their_number(place: Path) -> None:
    shown = launch("rehearsal.sh", "--dry-run", "--workdir=the run", "--config.steps=3").stdout
    prepare, *processes = map(shlex.split, shown.splitlines())
    assert "--config=configs/prepare.py:simulated" in prepare and "--config.store=the run/store" in prepare
    first, second = processes
    assert {"JAX_PLATFORMS=cpu", "JAX_NUM_PROCESSES=2", "JAX_COORDINATOR_ADDRESS=127.0.0.1:12345"} <= set(first)
    assert any(word.endswith("--xla_force_host_platform_device_count=4") for word in first)
    assert {"--workdir=the run/run", "--config.data.store=the run/store"} <= set(first)
    assert first.index("--config.steps=3") > first.index("--config.steps=20"), "what is given must win"
    assert [(a, b) for a, b in zip(first, second, strict=True) if a != b] == [("JAX_PROCESS_ID=0", "JAX_PROCESS_ID=1")]
    own = launch("rehearsal.sh", "--dry-run", "--config.data.store=mine").stdout
    assert "prepare.py" not in own and own.count("--config.data.store=mine") == 2
    assert {path.name for path in place.iterdir()} == {"tools"}


@pytest.mark.parametrize("ends, code", [("0", 0), ("2", 2), ("one-dies", 137)])
def test_a_rehearsal_ends_with_the_first_code_that_is_not_0(
    place: Path, monkeypatch: pytest.MonkeyPatch, ends: str, code: int
) -> None:
    # A sleep that does not last: what is waited for is the other process, not the clock.
    (place / "tools" / "sleep").write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 0.01\n")
    (place / "tools" / "sleep").chmod(0o755)
    answer = launch("rehearsal.sh", "--workdir=the run", ENDS=ends)
    assert answer.returncode == code, answer.stderr
    assert ("val_mse" in answer.stdout) == (code == 0)
    assert "began" in (place / "the run" / "process-1.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_rehearsal_passes_a_stop_on_to_both(place: Path, number: int) -> None:
    process = subprocess.Popen(
        ["bash", str(LAUNCH / "rehearsal.sh"), "--workdir=run"],
        env=os.environ | {"ENDS": "never"},
        # Whoever runs the tests in the background hands down an ignored Ctrl-C, which no shell can trap.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for index in (0, 1):
        until(f"process {index}", place / "run" / "run" / f"began-{index}")
    process.send_signal(number)
    assert process.wait(timeout=30) == 75
    for index in (0, 1):
        pid = (place / "run" / "run" / f"began-{index}").read_text().strip()
        assert not Path("/proc", pid).exists()
