"""The command line and the config files: fields are set from text, by the type that they are declared with, and checked.

A config file's `get_config(variant)` returns a ConfigDict in which every field is declared once.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from lamae_jax import __version__
from lamae_jax.config import flat, resolve
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_files

DEFAULT = "configs/pretrain.py"
# Fields, or whole sections, that say how a run is computed and written, not what comes out; also those of a study's `pretrain`.
HOW = ("mesh", "checkpoint", "data.workers", "workers", "log_every", "cache")
# More of them, by task: elsewhere the field of that name does decide.
HOW_OF = {"embed": ("batch_size",)}


@dataclass(frozen=True)
class Command:
    """A command line, read: the task, its variant, the resolved config as plain values, the workdir if one was named."""

    task: str
    variant: str
    config: dict[str, Any]
    workdir: str | None

    @property
    def folder(self) -> Path:
        """Where the run goes: the workdir named, or one that follows from what decides its result, so that the same command
        resumes, on a machine of other cores and devices too."""
        if self.workdir is not None:
            return Path(self.workdir)
        deciding = {name: value for name, value in flat(self.config).items() if decides_result(self.task, name)}
        digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:8]
        name = "-".join([self.task, *self.variant.split(",")]).rstrip("-")
        return Path("runs") / f"{name}-{digest}"


def decides_result(task: str, field: str) -> bool:
    """Whether what comes out of a task depends on a field, by its full name (`pretrain.mesh.data`). A run may go on with the
    others changed."""
    name = field.removeprefix("pretrain.")
    how = HOW + (HOW_OF[task] if task in HOW_OF else ())
    return not any(name == each or name.startswith(f"{each}.") for each in how)


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


def load_config(file: str, variant: str = "") -> ConfigDict:
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


def no_variant(file: str, variant: str) -> None:
    """Raise UserError where a variant is asked of a config file that has none."""
    if variant:
        raise UserError(f"--config=configs/{Path(file).name}:{variant}: has no variants; leave {variant!r} out")


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


def facts(command: Command) -> dict[str, Any]:
    """What all processes of one job must have in common, to be called once the first has claimed the folder."""
    import jax

    record = command.folder / "config.json"
    for _ in range(20):  # a network disk may show another machine's new file late
        if record.exists():
            break
        time.sleep(0.5)
    return flat(command.config) | {
        "lamae_jax": __version__,
        "the code of lamae_jax (sha256)": sha256_files(sorted(Path(__file__).parent.rglob("*.py")))[:16],
        "jax": jax.__version__,
        "--workdir": str(command.folder.absolute()),
        "the folder in --workdir": hashlib.sha256(record.read_bytes()).hexdigest()[:16]
        if record.exists()
        else "not shared",
    }
