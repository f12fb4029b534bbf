"""From a command line to the frozen dataclasses that the rooms own; every mistake is one line.

A config file's `get_config(variant)` returns a ConfigDict in which every field is declared once. Here its fields are set
from the command line, checked, and handed to the rooms by name. Rooms are imported when they are needed: the processes that
prepare recordings import the program's main module and must not pay for JAX.
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
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from lamae_jax import __version__
from lamae_jax.errors import UserError

if TYPE_CHECKING:
    from lamae_jax.data.labels.report import LabelsConfig
    from lamae_jax.data.prepare import PrepareConfig
    from lamae_jax.evaluate.evaluation import EvaluationConfig
    from lamae_jax.train.pretrain import PretrainConfig

DEFAULT = "configs/pretrain.py"
# Fields of a pretraining that may be left empty; `resolve` says what they become.
FILLED_IN = ("learning_rate", "eval_every", "checkpoint.every", "signal.seconds")
# Fields of configs/finetune.py that say how a model is fine-tuned.
TUNING = ("steps", "batch_size", "learning_rate", "layer_decay", "weight_decay", "warmup", "drop_path", "eval_every")


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
        from lamae_jax.model.presets import PRESETS, SYSTEMS, independent

        if plain["learning_rate"] is None:
            preset = PRESETS[plain["variant"].split(",")[0]]
            plain["learning_rate"] = preset.learning_rate(plain["batch_size"])
        if plain["system"] not in SYSTEMS:
            raise UserError(f"system={plain['system']}: must be one of {', '.join(SYSTEMS)}")
        if plain["system"] != "lamae":
            model = plain["model"]
            model |= independent(model["encoder_depth"], model["latent_depth"])
            plain["mask"]["alpha_LA"] = 0.0
        if plain["signal"]["seconds"] is None:
            plain["signal"]["seconds"] = 10.0 if plain["data"]["store"] else 4.0
        if plain["eval_every"] is None:
            plain["eval_every"] = max(1, plain["steps"] // 10)
        if plain["checkpoint"]["every"] is None:
            plain["checkpoint"]["every"] = plain["eval_every"]
    return plain


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


def evaluation_config(c: dict[str, Any], task: str) -> EvaluationConfig:
    """What evaluate/evaluation.py takes, of task probe or finetune."""
    from lamae_jax.data.labels.icd10 import Icd10Rules
    from lamae_jax.evaluate.evaluation import EvaluationConfig
    from lamae_jax.evaluate.tuning import TuneConfig

    # A copy: what is read must still stand in the config that names the run's folder and is written there.
    c = dict(c)
    if task == "finetune":
        tuning = {name: c.pop(name) for name in TUNING} | {"seed": c["seed"]}
        c |= {"mode": "finetune", "batch_size": tuning["batch_size"], "cache": "", "tuning": TuneConfig(**tuning)}
    else:
        c["tuning"] = TuneConfig()
    return EvaluationConfig(icd10=Icd10Rules(**c.pop("icd10")), **c.pop("data"), **c)


def labels_config(c: dict[str, Any]) -> LabelsConfig:
    """What data/labels/report.py takes."""
    from lamae_jax.data.labels.icd10 import Icd10Rules
    from lamae_jax.data.labels.report import LabelsConfig

    return LabelsConfig(c["table"], c["data"]["store"], c["labels"], Icd10Rules(**c["icd10"]))


def pretrain_config(c: dict[str, Any]) -> PretrainConfig:
    """What train/pretrain.py takes; every combination that can't work is refused here, before any work."""
    from lamae_jax.model.inputs import InputConfig
    from lamae_jax.model.masking import MaskConfig
    from lamae_jax.model.presets import ModelConfig
    from lamae_jax.signal.contract import SignalContract
    from lamae_jax.train.alignment import AlignConfig
    from lamae_jax.train.optimizer import OptimizerConfig
    from lamae_jax.train.pretrain import PretrainConfig
    from lamae_jax.train.sharding import MeshConfig
    from lamae_jax.train.step import StepConfig

    signal = dict(c["signal"])
    inputs = InputConfig(normalisation=signal.pop("normalisation"))
    contract = SignalContract(**signal)
    align, mmvm = AlignConfig(**c["align"]), c["system"] == "mmvm"
    model = ModelConfig(
        leads=len(contract.leads),
        samples=contract.samples,
        posterior=mmvm and align.form == "mixture",
        dtype=c["dtype"],
        **c["model"],
    )
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
        align=align if mmvm else None,
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
