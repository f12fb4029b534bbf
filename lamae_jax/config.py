"""From a config to the frozen dataclasses that the rooms own; every mistake is one line.

Rooms are imported when they are needed: the processes that prepare recordings import the program's main module and must not
pay for JAX.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ml_collections import ConfigDict

from lamae_jax.errors import UserError

if TYPE_CHECKING:
    from lamae_jax.data.labels.report import LabelsConfig
    from lamae_jax.data.prepare import PrepareConfig
    from lamae_jax.evaluate.evaluation import EvaluationConfig
    from lamae_jax.evaluate.study.cells import StudyProtocol
    from lamae_jax.evaluate.study.label_efficiency import LabelEfficiencyConfig
    from lamae_jax.evaluate.study.scaling import ScalingConfig
    from lamae_jax.evaluate.study.systems import StudyConfig
    from lamae_jax.serve.archive import EmbedConfig
    from lamae_jax.serve.explain.task import ExplainConfig
    from lamae_jax.train.pretrain import PretrainConfig

N = TypeVar("N", int, float)

# Fields of a pretraining that may be left empty; `resolve` says what they become.
FILLED_IN = ("learning_rate", "eval_every", "checkpoint.every", "signal.seconds")
# Fields of configs/finetune.py that say how a model is fine-tuned.
TUNING = ("steps", "batch_size", "learning_rate", "layer_decay", "weight_decay", "warmup", "drop_path", "eval_every")


def resolve(config: ConfigDict) -> dict[str, Any]:
    """Plain values, with what was left empty filled in, so that config.json says all that the run used."""
    plain: dict[str, Any] = config.to_dict()
    pretrains = plain["task"] == "pretrain" or "pretrain" in plain
    for field, value in flat(plain).items():
        if value is None and not (pretrains and field.removeprefix("pretrain.") in FILLED_IN):
            raise UserError(f"{field}=: must not be empty")
    if plain["task"] == "pretrain":
        resolve_pretraining(plain)
    return plain


def resolve_pretraining(plain: dict[str, Any]) -> None:
    """Fill in what a pretraining leaves to its preset, its system or its length."""
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
        c |= {"mode": "finetune", "batch_size": tuning["batch_size"], "tuning": TuneConfig(**tuning)}
    else:
        c["tuning"] = None
    return EvaluationConfig(icd10=Icd10Rules(**c.pop("icd10")), **c.pop("data"), **c)


def study_config(c: dict[str, Any]) -> StudyConfig:
    """What evaluate/study/systems.py takes: every system with its seeds, MMVM with every beta."""
    from lamae_jax.evaluate.study.systems import Pretraining, StudyConfig

    recipe, pretrainings = c["pretrain"], []
    asked = [word.partition(":") for word in words(c, "systems")]
    once(c, "systems", [system for system, _, _ in asked])
    for system, colon, seeds in asked:
        word = system + colon + seeds
        if system not in STUDIED:
            raise UserError(f"systems={c['systems']}: {system or '(empty)'} must be one of {', '.join(STUDIED)}")
        if not (seeds.isdecimal() and int(seeds)) and word != system:
            raise UserError(f"systems={c['systems']}: {word} must be {system} or {system}:SEEDS, such as {system}:3")
        if system == "lamae" and not (recipe["mask"]["alpha_LA"] and recipe["model"]["latent_depth"]):
            raise UserError(
                f"pretrain.mask.alpha_LA={recipe['mask']['alpha_LA']:g}, pretrain.model.latent_depth="
                f"{recipe['model']['latent_depth']}: systems=lamae needs both above 0; lamae_e_b is the one without the first, "
                "independent the one without the second"
            )
        for seed in range(recipe["seed"], recipe["seed"] + int(seeds or 1)):
            for beta in numbers(c, "betas", float) if system == "mmvm" else [0.0]:
                changes: dict[str, Any] = {"system": STUDIED[system], "seed": seed}
                changes |= {"mask.alpha_LA": 0.0} if system == "lamae_e_b" else {}
                changes |= {"align.beta": beta} if system == "mmvm" else {}
                pretrainings.append(Pretraining(system, seed, beta, pretraining_of(c, changes)))
    return StudyConfig(tuple(pretrainings), tuple(words(c, "labels")), study_protocol(c))


def scaling_config(c: dict[str, Any]) -> ScalingConfig:
    """What evaluate/study/scaling.py takes."""
    from lamae_jax.evaluate.study.scaling import Pretraining, ScalingConfig

    first = c["pretrain"]["seed"]
    pretrainings = [
        Pretraining(size, seed, pretraining_of(c, {"data.limit": size, "seed": seed}))
        for size in numbers(c, "sizes", int)
        for seed in range(first, first + at_least_one(c, "seeds"))
    ]
    return ScalingConfig(tuple(pretrainings), c["labels"], study_protocol(c))


def label_efficiency_config(c: dict[str, Any]) -> LabelEfficiencyConfig:
    """What evaluate/study/label_efficiency.py takes."""
    from lamae_jax.evaluate.study.label_efficiency import LabelEfficiencyConfig

    models, sizes = tuple(filter(None, words(c, "models"))), tuple(numbers(c, "sizes", int))
    store, labels = c["data"]["store"], c["labels"]
    return LabelEfficiencyConfig(models, store, labels, sizes, c["draws"], c["cache"], study_protocol(c))


# The pretrainings of a study, and what configs/pretrain.py calls them.
STUDIED = {"lamae": "lamae", "lamae_e_b": "lamae", "mmvm": "mmvm", "independent": "independent"}


def study_protocol(c: dict[str, Any]) -> StudyProtocol:
    """What all studies take."""
    from lamae_jax.data.labels.icd10 import Icd10Rules
    from lamae_jax.evaluate.study.cells import StudyProtocol
    from lamae_jax.evaluate.tuning import TuneConfig

    icd10, tuning = Icd10Rules(**c["icd10"]), TuneConfig(**c["tuning"], seed=c["seed"])
    return StudyProtocol(tuple(words(c, "modes")), c["batch_size"], c["resamples"], c["seed"], icd10, tuning)


def pretraining_of(c: dict[str, Any], changes: dict[str, Any]) -> PretrainConfig:
    """A study's own pretraining recipe with some fields changed, resolved and checked."""
    plain = copy.deepcopy(c["pretrain"])
    for field, value in changes.items():
        *above, name = field.split(".")
        owner = plain
        for each in above:
            owner = owner[each]
        owner[name] = value
    resolve_pretraining(plain)
    return pretrain_config({name: value for name, value in plain.items() if name not in ("task", "variant")})


def words(c: dict[str, Any], field: str) -> list[str]:
    """The parts of a comma-separated field. Raises UserError where one stands twice."""
    parts = [part.strip() for part in c[field].split(",")]
    once(c, field, parts)
    return parts


def once(c: dict[str, Any], field: str, parts: list[Any]) -> None:
    """Raise UserError where a part of a comma-separated field stands twice: it would count twice."""
    twice = next((part for part in parts if part != "" and parts.count(part) > 1), None)
    if twice is not None:
        raise UserError(f"{field}={c[field]}: {twice} stands there twice")


def numbers(c: dict[str, Any], field: str, kind: type[N]) -> list[N]:
    """The numbers of a comma-separated field. Raises UserError."""
    parts = words(c, field)
    try:
        found = [kind(part) for part in parts]
    except ValueError:
        raise UserError(f"{field}={c[field]}: must be numbers, comma-separated") from None
    once(c, field, found)
    return found


def at_least_one(c: dict[str, Any], field: str) -> int:
    """A number that must not be below 1. Raises UserError."""
    if c[field] < 1:
        raise UserError(f"{field}={c[field]}: must be at least 1")
    return int(c[field])


def embed_config(c: dict[str, Any]) -> EmbedConfig:
    """What serve/archive.py takes."""
    from lamae_jax.serve.archive import EmbedConfig

    return EmbedConfig(store=c["data"]["store"], **{name: value for name, value in c.items() if name != "data"})


def explain_config(c: dict[str, Any]) -> ExplainConfig:
    """What serve/explain/task.py takes."""
    from lamae_jax.data.labels.icd10 import Icd10Rules
    from lamae_jax.serve.explain.task import ExplainConfig

    c = dict(c)  # a copy, as in `evaluation_config`
    return ExplainConfig(icd10=Icd10Rules(**c.pop("icd10")), **c.pop("data"), **c)


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


def run_config(workdir: Path | str) -> PretrainConfig:
    """The config of a pretraining from its folder. Raises UserError where there is none that this version understands."""
    path = Path(workdir) / "config.json"
    try:
        plain = json.loads(path.read_text())
        if plain.pop("task") != "pretrain":
            raise UserError(f"{path}: is of another task than pretrain")
        del plain["variant"]
        return pretrain_config(plain)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the folder of a pretraining") from None
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the config of a pretraining of this version ({error})") from None
