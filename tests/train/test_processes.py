"""Processes that were not started alike are told which field differs, with both values."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamae_jax import command
from lamae_jax.command import facts, read_command
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.train.processes import compare
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
