"""From a command line to the frozen dataclasses that the rooms own; every mistake is one line.

A config file's `get_config(variant)` returns a ConfigDict in which every field is declared once. Here its fields are set
from the command line, checked, and handed to the rooms by name. Rooms are imported when they are needed: the processes that
prepare recordings import the program's main module and must not pay for JAX.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import hashlib
import importlib.util
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from lamae_jax import __version__
from lamae_jax.errors import UserError
from lamae_jax.files import write_json

if TYPE_CHECKING:
    from lamae_jax.data.prepare import PrepareConfig
    from lamae_jax.evaluate.probe import ProbeConfig
    from lamae_jax.train.pretrain import PretrainConfig

DEFAULT = "configs/pretrain.py"
# A run may go on with these changed: they decide how it is computed and written, not what comes out.
MAY_CHANGE = ("mesh.", "data.workers", "checkpoint.", "log_every", "workers", "cache")
# What a claimed folder holds before its run has made anything.
OWN = (".lock", "config.json")
# Fields of a pretraining that may be left empty; `resolve` says what they become.
FILLED_IN = ("learning_rate", "eval_every", "checkpoint.every", "signal.seconds")


@dataclass(frozen=True)
class Command:
    """A command line, read: the task, its variant, the resolved config as plain values, the workdir if one was named."""

    task: str
    variant: str
    config: dict[str, Any]
    workdir: str | None

    @property
    def folder(self) -> Path:
        """Where the run goes: the workdir named, or one that follows from the config, so that the same command resumes."""
        if self.workdir is not None:
            return Path(self.workdir)
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode()).hexdigest()[:8]
        name = "-".join([self.task, *self.variant.split(",")]).rstrip("-")
        return Path("runs") / f"{name}-{digest}"


def read_command(arguments: list[str]) -> Command:
    """Read `--config=FILE[:VARIANT] [--config.FIELD=VALUE ...] [--workdir=DIR]`, in any order. Raises UserError."""
    given: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--") or name == "--":
            raise UserError(f"{argument}: not understood; fields are set with --config.FIELD=VALUE")
        if not (name in ("--config", "--workdir") or name.startswith("--config.")):
            raise UserError(f"{name}: no such flag; there are --config, --config.FIELD, --workdir, --help, --version")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"{name}: a value is missing; write {name}=VALUE")
            value = rest.pop(0)
        given[name] = value
    file, _, variant = given.pop("--config", DEFAULT).partition(":")
    workdir = given.pop("--workdir", None)
    if workdir == "":
        raise UserError("--workdir=: must name a folder; leave it out for one named after the config")
    config = load_config(file, variant)
    for name, text in given.items():
        set_field(config, name.removeprefix("--config."), text)
    plain = resolve(config)
    return Command(plain.pop("task"), plain.pop("variant"), plain, workdir)


def load_config(file: str, variant: str) -> ConfigDict:
    """Run the `get_config` of a config file."""
    path = Path(file)
    if not path.is_file():
        near = sorted(str(other) for other in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(near)}" if near else ""
        raise UserError(f"--config={file}: no such file{hint}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={file}: not a Python file; a config file ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config(variant)
        missing = [name for name in ("task", "variant") if name not in config]
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--config={file}: {type(error).__name__} while it was read: {error}") from None
    if missing:
        raise UserError(f"--config={file}: its config declares no `{missing[0]}`; compare with {DEFAULT}")
    return config.lock()


def fields_of(config: ConfigDict, above: str = "") -> dict[str, tuple[ConfigDict, str]]:
    """Every leaf's full name, and where it lives."""
    found: dict[str, tuple[ConfigDict, str]] = {}
    for name in config:
        value = config.get_ref(name).get()
        if isinstance(value, ConfigDict):
            found |= fields_of(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = (config, name)
    return found


def set_field(config: ConfigDict, field: str, text: str) -> None:
    """Set one field from its text, by the type that it is declared with."""
    fields = fields_of(config)
    if field not in fields or field in ("task", "variant"):
        near = difflib.get_close_matches(field, fields, 1, 0.5)
        near = near or [name for name in fields if name.rsplit(".", 1)[-1] == field.rsplit(".", 1)[-1]][:1]
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(fields))}"
        raise UserError(f"--config.{field}={text}: no such field{hint}")
    owner, name = fields[field]
    kind = owner.get_ref(name).get_type()
    try:
        value = parse(text, kind)
    except ValueError:
        right = {int: "a whole number like 1000", float: "a finite number like 1.5e-3", bool: "true or false"}[kind]
        raise UserError(f"{field}={text}: must be {right}") from None
    with owner.unlocked():
        owner[name] = value


def parse(text: str, kind: type) -> Any:
    """The value of a text. Raises ValueError."""
    if kind is str:
        return text
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if text.lower() not in words:
            raise ValueError
        return words[text.lower()]
    if text == "":
        return None
    value = kind(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def resolve(config: ConfigDict) -> dict[str, Any]:
    """Plain values, with what was left empty filled in, so that config.json says all that the run used."""
    plain: dict[str, Any] = config.to_dict()
    for field, value in flat(plain).items():
        if value is None and not (plain["task"] == "pretrain" and field in FILLED_IN):
            raise UserError(f"{field}=: must not be empty")
    if plain["task"] == "pretrain":
        from lamae_jax.model.presets import PRESETS

        if plain["learning_rate"] is None:
            preset = PRESETS[plain["variant"].split(",")[0]]
            plain["learning_rate"] = preset.learning_rate(plain["batch_size"])
        if plain["signal"]["seconds"] is None:
            plain["signal"]["seconds"] = 10.0 if plain["data"]["store"] else 4.0
        if plain["eval_every"] is None:
            plain["eval_every"] = max(1, plain["steps"] // 10)
        if plain["checkpoint"]["every"] is None:
            plain["checkpoint"]["every"] = plain["eval_every"]
    return plain


@contextmanager
def claimed(command: Command, process: int = 0) -> Iterator[Path]:
    """The run's folder, for this run alone while open; refused where it holds another config or another run is at work.

    Of the processes of one job the first, `process` 0, claims it for all. A mistake that stops a run before it has made
    anything leaves the folder free for the corrected command.
    """
    folder = command.folder
    if process:
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    record = {"task": command.task, "variant": command.variant, **command.config}
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--workdir={folder}: another process is running there; wait for it, or name another"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a file system without locks
                raise
        compare(folder, record)
        fresh = not (folder / "config.json").exists()
        write_json(folder / "config.json", record)
        try:
            yield folder
        except UserError:
            if fresh and not any(path.is_file() and path.name not in OWN for path in folder.rglob("*")):
                (folder / "config.json").unlink()
            raise


def facts(command: Command) -> dict[str, Any]:
    """What all processes of one job must have in common, to be called once the first has claimed the folder."""
    import jax

    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    record = command.folder / "config.json"
    for _ in range(20):  # a network disk may show another machine's new file late
        if record.exists():
            break
        time.sleep(0.5)
    return flat(command.config) | {
        "lamae_jax": __version__,
        "the code of lamae_jax (sha256)": code.hexdigest()[:16],
        "jax": jax.__version__,
        "--workdir": str(command.folder.absolute()),
        "the folder in --workdir": hashlib.sha256(record.read_bytes()).hexdigest()[:16]
        if record.exists()
        else "not shared",
    }


def compare(folder: Path, ours: dict[str, Any]) -> None:
    """Refuse a folder that holds a run of another config."""
    path = folder / "config.json"
    if not path.exists():
        return
    try:
        theirs = flat(json.loads(path.read_text()))
    except ValueError:
        raise UserError(
            f"{path}: damaged; remove it to claim the folder for this config, or name another --workdir"
        ) from None
    mine = flat(ours)
    for name in sorted(theirs.keys() | mine.keys()):
        if name.startswith(MAY_CHANGE):
            continue
        old, new = (values[name] if name in values else "absent" for values in (theirs, mine))
        if old != new:
            raise UserError(
                f"--workdir={folder}: holds a run with {name}={old}, this one has {name}={new}; name another"
            )


def flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values under their full names."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


def prepare_config(c: dict[str, Any], variant: str) -> PrepareConfig:
    """What data/prepare.py takes."""
    from lamae_jax.data.prepare import PrepareConfig

    return PrepareConfig(kind=variant, **c)


def probe_config(c: dict[str, Any]) -> ProbeConfig:
    """What evaluate/probe.py takes."""
    from lamae_jax.evaluate.probe import ProbeConfig

    data = c.pop("data")
    return ProbeConfig(store=data["store"], **c)


def pretrain_config(c: dict[str, Any]) -> PretrainConfig:
    """What train/pretrain.py takes; every combination that can't work is refused here, before any work."""
    from lamae_jax.model.inputs import InputConfig
    from lamae_jax.model.masking import MaskConfig
    from lamae_jax.model.presets import ModelConfig
    from lamae_jax.signal.contract import SignalContract
    from lamae_jax.train.optimizer import OptimizerConfig
    from lamae_jax.train.pretrain import PretrainConfig
    from lamae_jax.train.sharding import MeshConfig
    from lamae_jax.train.step import StepConfig

    signal = dict(c["signal"])
    inputs = InputConfig(normalisation=signal.pop("normalisation"))
    contract = SignalContract(**signal)
    model = ModelConfig(leads=len(contract.leads), samples=contract.samples, dtype=c["dtype"], **c["model"])
    optimizer = OptimizerConfig(steps=c["steps"], learning_rate=c["learning_rate"], **c["optimizer"])
    step = StepConfig(
        model=model,
        inputs=inputs,
        masks=MaskConfig(**c["mask"]),
        optimizer=optimizer,
        seed=c["seed"],
        target=c["target"],
        accumulate=c["accumulate"],
        ema=c["ema"],
        decode_leads=c["decode_leads"],
    )
    return PretrainConfig(
        step=step,
        contract=contract,
        batch_size=c["batch_size"],
        **c["data"],
        mesh=MeshConfig(**c["mesh"]),
        init=c["init"],
        checkpoint_every=c["checkpoint"]["every"],
        checkpoint_keep=c["checkpoint"]["keep"],
        eval_every=c["eval_every"],
        eval_records=c["eval_records"],
        log_every=c["log_every"],
        record_ids=c["record_ids"],
        config=c,
    )
