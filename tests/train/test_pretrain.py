"""A whole pretraining: what it writes, how it goes on, how it ends early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small_run import command, parameters, run

import lamae_jax
from lamae_jax.config import run_config
from lamae_jax.main import main
from lamae_jax.train.step import init_state


@pytest.fixture(scope="module")
def finished(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert run(small_store, workdir) == 0
    return workdir


def lines_of(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_writes_what_a_run_promises(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["steps"] == 6
    assert summary["ecg_seen"] == 48
    assert summary["seconds"] > 0 and summary["ecg_per_s"] == pytest.approx(48 / summary["seconds"])
    for name in ("val_mse", "val_mse_record_mean", "val_mse_interpolation", "val_mse_einthoven"):
        assert np.isfinite(summary[name])
    low, high = summary["val_mse_interval"]
    assert low < summary["val_mse"] < high and f"{low:.4f} to {high:.4f}" in (finished / "model/README.md").read_text()
    assert json.loads((finished / "config.json").read_text())["learning_rate"] == 1.5e-3  # resolved
    for figure in ("reconstruction.png", "curve.png"):
        assert (finished / "figures" / figure).read_bytes().startswith(b"\x89PNG")
    assert list((finished / "tensorboard").glob("events*"))
    lines = lines_of(finished)
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "val/loss" in line] == [0, 3, 6]
    assert all(line["ecg_per_s"] > 0 for line in lines if "train/loss" in line)
    assert lines[-1]["val/loss"] == pytest.approx(summary["val_mse"], rel=1e-6)  # few validation records: the same ones


def test_keeps_the_newest_checkpoints_and_the_best(finished: Path) -> None:
    steps = sorted(int(path.name) for path in (finished / "checkpoints").iterdir() if path.name.isdigit())
    assert steps[-2:] == [4, 6]


def test_the_model_folder_stands_alone(finished: Path) -> None:
    model = lamae_jax.load(finished / "model")
    assert model.contract.fs == 100 and model.config.patches == 50
    assert model.provenance["stores"][0]["name"] == "ptb_xl"
    assert model.pretraining_records is not None and len(model.pretraining_records) == 32
    assert not [path for path in (finished / "model").iterdir() if path.suffix in (".pkl", ".py")]


def test_a_finished_run_is_left_as_it_is(finished: Path, small_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / "summary.json").read_bytes()
    assert run(small_store, finished) == 0
    assert "complete; nothing to do" in capsys.readouterr().out
    assert (finished / "summary.json").read_bytes() == before


def test_the_same_command_gives_the_same_bits(finished: Path, small_store: Path, tmp_path: Path) -> None:
    assert run(small_store, tmp_path / "again") == 0
    ours, theirs = (path / "model" / "params.safetensors" for path in (finished, tmp_path / "again"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_sigterm_saves_and_the_same_command_goes_on_bit_for_bit(
    finished: Path, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM arrives while the run is under way; it saves, exits 75, and ends with the uninterrupted run's bits."""
    workdir = tmp_path / "stopped"

    def stop_after_first_line() -> None:
        while not (workdir / "metrics.jsonl").exists() or '"step": 1,' not in (workdir / "metrics.jsonl").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_after_first_line)
    thread.start()
    assert run(small_store, workdir) == 75
    thread.join()
    assert "stopped: by SIGTERM at step" in capsys.readouterr().err
    assert not (workdir / "summary.json").exists()
    assert run(small_store, workdir) == 0
    assert "resuming from step" in capsys.readouterr().out
    for name, array in parameters(finished).items():
        np.testing.assert_array_equal(array, parameters(workdir)[name], err_msg=name)
    assert [line["step"] for line in lines_of(workdir) if "train/loss" in line] == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_not_finite_ends_with_3_and_keeps_the_last_good_checkpoint(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(small_store, tmp_path / "run", learning_rate=1e30, optimizer__warmup=0.5, checkpoint__every=1)
    assert code == 3
    error = capsys.readouterr().err
    assert error.startswith("error: step ") and ("nan" in error or "inf" in error)
    failed = int(error.split()[2].rstrip(":"))
    kept = [int(path.name) for path in (tmp_path / "run/checkpoints").iterdir() if path.name.isdigit()]
    assert kept and max(kept) < failed


def test_another_config_in_the_workdir_is_refused_with_both_values(
    finished: Path, small_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small_store, finished, mask__alpha_E=0.5) == 2
    assert "mask.alpha_E=0.75, this one has mask.alpha_E=0.5" in capsys.readouterr().err


def test_starts_from_another_model(finished: Path, small_store: Path, tmp_path: Path) -> None:
    """With a vanishing rate the model that comes out is the one that went in, and has seen what that one has seen."""
    changes = {"steps": 1, "learning_rate": 1e-30, "data__folds": "1,2"}
    assert run(small_store, tmp_path / "next", init=finished / "model", **changes) == 0
    for name, array in parameters(finished).items():
        np.testing.assert_allclose(array, parameters(tmp_path / "next")[name], atol=1e-6, err_msg=name)
    first, then = (lamae_jax.load(run / "model") for run in (finished, tmp_path / "next"))
    np.testing.assert_array_equal(then.pretraining_records, first.pretraining_records)
    assert then.provenance["init"] == first.sha256


def test_init_that_saw_another_signal_is_refused(
    finished: Path, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small_store, tmp_path / "next", init=finished / "model", signal__normalisation="lead") == 2
    assert "its inputs are InputConfig(normalisation='record'" in capsys.readouterr().err


def test_a_mistake_leaves_the_workdir_free_for_the_corrected_command(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for changes, words in ({"batch_size": 12}, "batch_size=12"), ({"data__store": "/nowhere"}, "/nowhere"):
        assert run(small_store, tmp_path / "run", **changes) == 2  # type: ignore[arg-type]
        error = capsys.readouterr().err
        assert words in error and "holds a run" not in error


def test_init_of_another_size_is_refused(
    finished: Path, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(small_store, tmp_path / "next", init=finished / "model", model__width=32)
    assert code == 2
    assert "model.width is 16, this run's is 32" in capsys.readouterr().err


def test_a_store_that_changed_is_not_resumed(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    store = tmp_path / "store"
    shutil.copytree(small_store, store)
    assert run(store, tmp_path / "run", learning_rate=1e30, optimizer__warmup=0.5, checkpoint__every=1) == 3
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps(manifest, indent=2))
    assert run(store, tmp_path / "run", learning_rate=1e30, optimizer__warmup=0.5, checkpoint__every=1) == 2
    assert "has changed since the checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"batch_size": 40}, "batch_size=40: more than the 32 training records"),
        ({"batch_size": 12}, "batch_size=12: not divisible by 8"),
        ({"accumulate": 2}, "batch_size=8: not divisible by 16"),
        ({"mesh__fsdp": 3}, "does not make up the 8 devices"),
        ({"data__store": "/nowhere/store"}, "/nowhere/store"),
        ({"data__folds": "9"}, "validation is never trained on"),
        ({"signal__fs": 250, "model__patch": 50}, "fs: the store has 100, the run wants 250"),
        ({"signal__band": "highpass_0.5"}, "band: the store has none, the run wants highpass_0.5"),
        ({"data__limit": -1}, "data.limit=-1"),
        ({"model__latent_depth": 0}, "mask.alpha_LA=0.1: must be 0"),
        ({"steps": 0}, "steps=0: must be at least 1"),
        ({"ema": 1.0}, "ema=1"),
        ({"target": "both"}, "target=both: must be one of raw, normalised"),
    ],
)
def test_what_can_t_be_trained_is_refused_in_one_line(
    changes: dict[str, object], words: str, small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small_store, tmp_path / "run", **changes) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_an_unwritable_workdir_is_one_line(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(small_store, tmp_path / "file" / "run") == 2
    error = capsys.readouterr().err
    assert "Not a directory" in error and error.count("\n") == 1


def test_a_disk_without_room_for_checkpoints_is_refused_at_once(
    small_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100_000))
    assert run(small_store, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "0 MB are free, checkpoints of" in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "config.json").exists()  # the folder is free for the corrected command


@pytest.mark.parametrize("newest, free, code", [(4, 1.0, 0), (4, 0.9, 2), (6, 0.0, 0)])
def test_going_on_needs_room_for_what_is_still_to_be_written(
    newest: int,
    free: float,
    code: int,
    finished: Path,
    small_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two whole checkpoints, the newest and the best, are replaced by the next ones; `free` is in checkpoints."""
    import shutil
    from types import SimpleNamespace

    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    (workdir / "summary.json").unlink()
    checkpoints = workdir / "checkpoints"
    if newest == 4:
        (checkpoints / "6").rename(checkpoints / "2")
    config = run_config(workdir)
    size = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(lambda: init_state(config.step)))
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free * size))
    assert run(small_store, workdir, checkpoint__keep=1) == code


def test_two_processes_in_one_workdir_are_refused(
    small_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(small_store, tmp_path / "run") == 2
    assert "another process is running there" in capsys.readouterr().err


def test_several_processes_without_a_workdir_are_refused(
    small_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    arguments = [flag for flag in command(small_store, Path("x")) if not flag.startswith("--workdir")]
    assert main(arguments) == 2
    assert "--workdir: missing" in capsys.readouterr().err


def test_with_nothing_but_itself_it_trains_on_simulated_ecgs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [flag for flag in command("", tmp_path / "run", data__simulated_patients=40) if "band" not in flag]
    assert main(arguments) == 0
    assert "training on simulated ECGs" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "params.safetensors").exists()


# A larger model than the others here, so that saving takes long enough to be hit.
TO_KILL: dict[str, object] = {"steps": 60, "checkpoint__every": 4, "eval_every": 20, "model__width": 128}


def start(store: Path, workdir: Path) -> subprocess.Popen[bytes]:
    """The run in a process of its own, on one device."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    arguments = [sys.executable, "-m", "lamae_jax.main", *command(store, workdir, **TO_KILL)]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def uninterrupted(small_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    process = start(small_store, workdir)
    assert process.wait(timeout=300) == 0, process.stderr and process.stderr.read().decode()
    return workdir


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_the_run_with_one_line_that_says_so(small_store: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for a disk that fills up meanwhile: the first checkpoint cannot be written."""
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000));"
    code = f"{limit} from lamae_jax.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = command(small_store, tmp_path / "run", **TO_KILL)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    # orbax's threads may speak too while they end, even on the same line; ours is there, once.
    assert done.stderr.count("error: checkpoint in") == 1
    assert "File too large; no whole one yet; make room" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("moments", [("save", "random"), ("random", "random"), ("random", "save")], ids="-".join)
def test_kill_9_at_any_moment_and_go_on_bit_for_bit(
    uninterrupted: Path, small_store: Path, tmp_path: Path, moments: tuple[str, str]
) -> None:
    """A real process, killed twice: at a random moment after it has trained a little, or while a checkpoint is being written."""
    rng = np.random.default_rng()
    workdir = tmp_path / "killed"
    metrics, checkpoints = workdir / "metrics.jsonl", workdir / "checkpoints"
    for moment in moments:
        begun = metrics.stat().st_size if metrics.exists() else 0
        process = start(small_store, workdir)
        while process.poll() is None:
            trained = metrics.exists() and metrics.stat().st_size > begun + 200
            saving = checkpoints.exists() and any("tmp" in path.name for path in checkpoints.iterdir())
            if moment == "save" and saving and trained:
                break
            if moment == "random" and trained:
                time.sleep(rng.uniform(0, 2))
                break
            time.sleep(0.001)
        process.kill()
        process.wait()
    final = start(small_store, workdir)
    _, error = final.communicate(timeout=300)
    assert final.returncode == 0, error.decode()
    ours, theirs = (path / "model" / "params.safetensors" for path in (workdir, uninterrupted))
    assert ours.read_bytes() == theirs.read_bytes()
    assert [line["step"] for line in lines_of(workdir) if "train/loss" in line] == list(range(1, 61))
