"""From command line to dataclasses: every field is declared once and read once; every mistake is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from lamae_jax import config
from lamae_jax.command import Command, decides_result, fields_of, load_config, read_command
from lamae_jax.config import flat
from lamae_jax.errors import UserError
from lamae_jax.main import main
from lamae_jax.workdir import claimed, compare

PRETRAIN = "--config=configs/pretrain.py"


class Watched(dict):  # type: ignore[type-arg]
    """A dict that notes which keys are read, also by `**`."""

    def __init__(self, values: dict[str, object], seen: list[str], above: str = ""):
        super().__init__({k: Watched(v, seen, f"{above}{k}.") if isinstance(v, dict) else v for k, v in values.items()})
        self.seen, self.above = seen, above

    def __getitem__(self, key: str) -> object:
        value = super().__getitem__(key)
        if not isinstance(value, dict):
            self.seen.append(f"{self.above}{key}")
        return value

    def __iter__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204  (with it, `**` goes through __getitem__)
        return super().__iter__()

    def keys(self):  # type: ignore[no-untyped-def,override]  # noqa: ANN201
        return list(super().keys())


def test_every_key_of_the_pretraining_config_is_read_once() -> None:
    values = read_command([PRETRAIN]).config
    seen: list[str] = []
    watched = Watched(values, seen)
    built = config.pretrain_config(watched)
    missing = set(flat(values)) - set(seen)
    # `signal` is copied as a whole before it is read.
    assert {name for name in missing if not name.startswith("signal.")} == set()
    assert built.batch_size == 16 and built.contract.fs == 250 and built.step.model.patches == 20


def test_a_key_too_many_or_too_few_fails() -> None:
    values = read_command([PRETRAIN]).config
    for change in ({"model": values["model"] | {"colour": 1}}, {"mask": {"mode": "block", "tint": 2}}):
        with pytest.raises(TypeError):
            config.pretrain_config(values | change)


def test_presets_and_rates_follow_the_variant() -> None:
    small = read_command([f"{PRETRAIN}:small,hz100"]).config
    assert (small["model"]["width"], small["model"]["patch"], small["signal"]["fs"]) == (384, 20, 100)
    assert small["learning_rate"] == pytest.approx(1.5e-4)
    doubled = read_command([f"{PRETRAIN}:small", "--config.batch_size=512"]).config
    assert doubled["learning_rate"] == pytest.approx(3e-4)
    assert read_command([f"{PRETRAIN}:small", "--config.learning_rate=2e-3"]).config["learning_rate"] == 2e-3


def test_evaluation_and_checkpoints_follow_the_steps() -> None:
    c = read_command([PRETRAIN, "--config.steps=5000"]).config
    assert c["eval_every"] == c["checkpoint"]["every"] == 500


def test_simulated_ecgs_are_seen_for_four_seconds_and_a_store_s_for_ten() -> None:
    assert read_command([PRETRAIN]).config["signal"]["seconds"] == 4
    assert read_command([PRETRAIN, "--config.data.store=DIR"]).config["signal"]["seconds"] == 10
    assert read_command([PRETRAIN, "--config.signal.seconds=8"]).config["signal"]["seconds"] == 8


def test_flags_in_any_order_and_with_a_space() -> None:
    c = read_command(["--workdir", "w", "--config.steps", "7", PRETRAIN, "--config.data.store=a=b"])
    assert c.config["steps"] == 7 and c.workdir == "w" and c.config["data"]["store"] == "a=b"


def test_without_a_workdir_the_folder_follows_from_the_config() -> None:
    one, same, other = (read_command([f"{PRETRAIN}:nano,hz100", f"--config.seed={seed}"]).folder for seed in (1, 1, 2))
    assert one == same != other
    assert one.parent == Path("runs") and one.name.startswith("pretrain-nano-hz100-")
    assert len(one.name.rsplit("-", 1)[1]) == 8
    assert read_command([PRETRAIN, "--workdir=w"]).folder == Path("w")


@pytest.mark.parametrize(
    "task, fields",
    [
        ("pretrain", "mesh.data=4 mesh.fsdp=2 data.workers=3 checkpoint.every=7 checkpoint.keep=5 log_every=9"),
        ("study", "pretrain.mesh.data=4 pretrain.data.workers=3 pretrain.checkpoint.keep=5 pretrain.log_every=9"),
        ("scaling", "pretrain.mesh.tensor=2 pretrain.checkpoint.every=7"),
        ("prepare:wfdb", "workers=77"),
        ("embed", "workers=77 batch_size=5"),
        ("probe", "cache=elsewhere"),
        ("label_efficiency", "cache=elsewhere"),
    ],
)
def test_on_other_cores_devices_or_disks_the_same_command_finds_its_run_again(task: str, fields: str) -> None:
    name, _, variant = task.partition(":")
    config_file = f"--config=configs/{name}.py" + (f":{variant}" if variant else "")
    here = read_command([config_file]).folder
    for field in fields.split():
        assert read_command([config_file, f"--config.{field}"]).folder == here, field


@pytest.mark.parametrize(
    "task, field",
    [
        ("pretrain", "batch_size=8"),
        ("finetune", "batch_size=8"),
        ("study", "pretrain.batch_size=8"),
        ("study", "pretrain.data.limit=8"),
        ("pretrain", "eval_every=7"),
        ("embed", "format=npz"),
    ],
)
def test_what_decides_the_result_decides_the_folder(task: str, field: str) -> None:
    config_file = f"--config=configs/{task}.py"
    assert read_command([config_file, f"--config.{field}"]).folder != read_command([config_file]).folder


def test_a_field_that_only_begins_like_one_of_speed_decides_the_result() -> None:
    assert not decides_result("prepare", "workers")
    for name in (
        "workers_foo",
        "meshes.data",
        "mesh_shape",
        "cached",
        "data.workers_foo",
        "data.cache",
        "a.pretrain.cache",
    ):
        assert decides_result("pretrain", name), name


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config.stepz=3"], "--config.stepz=3: no such field; did you mean steps?"),
        (["--config.mask.alphaE=.5"], "did you mean mask.alpha_E?"),
        (["--config.alpha_E=.5"], "did you mean mask.alpha_E?"),
        (["--config.task=probe"], "no such field"),
        (["--config.steps=1e3"], "steps=1e3: must be a whole number like 1000"),
        (["--config.steps=2.5"], "steps=2.5: must be a whole number"),
        (["--config.steps="], "steps=: must not be empty"),
        (["--config.mask.alpha_E=nan"], "mask.alpha_E=nan: must be a finite number"),
        (["--config.mask.alpha_E=half"], "mask.alpha_E=half: must be a finite number"),
        (["--config.model.qk_norm=maybe"], "model.qk_norm=maybe: must be true or false"),
        (["--config.seed"], "--config.seed: a value is missing"),
        (["--confg=x"], "--confg: no such flag"),
        (["steps=3"], "steps=3: not understood"),
        (["--workdir="], "--workdir=: must name a folder"),
        (["--config=configs/pretrian.py"], "no such file; there are"),
        (["--config=configs/pretrain.py:smal"], "no variant smal; did you mean small?"),
        (["--config=configs/pretrain.py:nano,hz10"], "no variant hz10; did you mean hz100?"),
        (["--config=configs/prepare.py"], "no source"),
        (["--config=configs/prepare.py:ptbxl"], "did you mean ptb_xl?"),
        (["--config=configs/probe.py:x"], "has no variants"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1


def test_a_config_file_that_fails_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, words in (
        ("1/0", "ZeroDivisionError"),
        ("def get_config(variant): return {'a': 1}", "declares no `task`"),
    ):
        (tmp_path / "mine.py").write_text(text)
        assert main([f"--config={tmp_path}/mine.py"]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_help_and_version_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "--config=configs/TASK.py" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lamae_jax 0.")


def test_a_workdir_keeps_its_config_but_may_be_run_another_way(tmp_path: Path) -> None:
    def command(**changes: object) -> Command:
        return Command("pretrain", "nano", {"steps": 3, "mesh": {"data": -1}} | changes, str(tmp_path / "w"))

    with claimed(command()):
        pass
    with claimed(command(mesh={"data": 4})) as folder:
        assert json.loads((folder / "config.json").read_text())["mesh"] == {"data": 4}
    with pytest.raises(UserError, match="steps=3, this one has steps=4"), claimed(command(steps=4)):
        pass


def test_a_study_goes_on_with_its_pretrainings_on_another_mesh(tmp_path: Path) -> None:
    def command(field: str) -> Command:
        return read_command(["--config=configs/study.py", f"--workdir={tmp_path}", f"--config.{field}"])

    with claimed(command("pretrain.mesh.data=-1")):
        pass
    with claimed(command("pretrain.mesh.data=4")), pytest.raises(UserError, match="pretrain.steps=600, .*=601"):
        compare(tmp_path, {"task": "study", "variant": "simulated", **command("pretrain.steps=601").config})


def test_reading_a_probes_config_leaves_it_whole_so_that_another_store_gets_another_folder() -> None:
    probe = ["--config=configs/probe.py", "--config.model=random:nano", "--config.labels=ptbxl:super"]
    one, other = (read_command([*probe, f"--config.data.store={store}"]) for store in ("a", "b"))
    for command in (one, other):
        config.evaluation_config(command.config, "probe")
    assert one.config["data"] == {"store": "a", "limit": 0}  # this is what config.json records
    assert one.folder != other.folder


def test_a_mistake_before_anything_is_made_leaves_the_folder_free(tmp_path: Path) -> None:
    def command(steps: int) -> Command:
        return Command("pretrain", "nano", {"steps": steps}, str(tmp_path / "w"))

    with pytest.raises(UserError, match="no such store"), claimed(command(3)):
        raise UserError("no such store")
    with pytest.raises(UserError, match="disk is full"), claimed(command(4)) as folder:
        with claimed(command(4), process=1) as same:  # the other processes of a job come in with the first
            assert same == folder
        (folder / "metrics.jsonl").write_text("{}")
        raise UserError("disk is full")
    with pytest.raises(UserError, match="steps=4, this one has steps=3"), claimed(command(3)):
        pass


@pytest.mark.parametrize("file", sorted(Path("configs").glob("*.py")), ids=str)
def test_config_files_say_how_they_are_run_and_explain_their_fields(file: Path) -> None:
    variant = {"prepare": "wfdb"}.get(file.stem, "")
    loaded = load_config(str(file), variant)
    assert loaded.task == file.stem
    text = file.read_text()
    assert f"python -m lamae_jax.main --config=configs/{file.name}" in text.split('"""')[1]
    # Fields taken over from another config file are explained there.
    named = re.findall(r"configs/(\w+\.py)", text)
    explained = "".join((file.parent / other).read_text() for other in {file.name, *named})
    for name in fields_of(loaded):
        last = name.rsplit(".", 1)[-1]
        assert last in explained or ".model." in f".{name}", name
