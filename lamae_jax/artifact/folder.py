"""The model folder, written in one order and read in one way.

    params.safetensors        float32 parameters under their tree paths ("encoder/cls"); its bytes depend on the parameters alone
    pretraining_records.npy   sorted uint64, one a record that was trained on; may be left out
    head.safetensors          of a model that predicts labels (head.py)
    README.md                 the model card (card.py), for people
    config.json               format, model, inputs, contract, provenance, head, sizes and checksums of the others; written last

Reading needs no pickle, runs nothing, and needs nothing of the run that wrote it. Whatever is missing, unknown, misshapen,
altered or outside the folder is refused in one line.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save as safetensors_bytes

from lamae_jax.artifact.card import CARD, model_card
from lamae_jax.artifact.head import Head, read_head, write_head
from lamae_jax.artifact.reading import checked_bytes, from_fields, read_json, same_names, tensors, uint64_list
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file, write_bytes, write_json, write_npy, write_text
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import Params, init_params
from lamae_jax.model.presets import ModelConfig
from lamae_jax.signal.contract import SignalContract

FORMAT = 1
CONFIG, PARAMS, RECORDS = "config.json", "params.safetensors", "pretraining_records.npy"
# Fields that the first folders do not have, and what that means.
LATER = {"posterior": False}
LATER_OF_THE_FOLDER = {"params_bytes": None, "head": None}
FIELDS = (
    "format",
    "model",
    "inputs",
    "contract",
    "provenance",
    "params_sha256",
    "params_bytes",
    "pretraining_records",
    "pretraining_records_sha256",
    "head",
)
# Far beyond any model, near enough that a hostile folder cannot have tables of terabytes made while shapes are worked out.
MOST_TOKENS, WIDEST, DEEPEST = 10_000, 16_384, 1_000
MOST_RECORDS = 10**8  # in the list of what was pretrained on; archives hold some millions


@dataclass(frozen=True)
class Model:
    """A trained model and all that is needed to use it rightly.

    `params`: nested dict of float32 arrays. `sha256` names the parameters. `pretraining_records`: sorted uint64 keys
    (see data/splits.py), None where the one who trained it left them out.
    """

    params: Params
    config: ModelConfig
    inputs: InputConfig
    contract: SignalContract
    provenance: dict[str, Any]
    sha256: str
    pretraining_records: np.ndarray | None
    head: Head | None = None


def flatten(params: Params) -> dict[str, np.ndarray]:
    """The tree as a flat dict: path joined with "/", sorted, float32 on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    flat = {"/".join(str(step.key) for step in path): np.asarray(leaf, np.float32) for path, leaf in leaves}
    return {name: np.ascontiguousarray(flat[name]) for name in sorted(flat)}


def unflatten(flat: dict[str, np.ndarray]) -> Params:
    """The inverse of `flatten`."""
    tree: Params = {}
    for name, array in flat.items():
        *above, last = name.split("/")
        branch = tree
        for step in above:
            branch = branch.setdefault(step, {})
        branch[last] = array
    return tree


def save_model(
    folder: Path | str,
    params: Params,
    model: ModelConfig,
    inputs: InputConfig,
    contract: SignalContract,
    provenance: dict[str, Any],
    pretraining_records: np.ndarray | None,
    head: Head | None = None,
) -> str:
    """Write the folder, replacing a model that is there, and return the parameters' sha256.

    `provenance` is any JSON object. `pretraining_records` are sorted uint64 keys, or None to leave them out. `head` makes it
    one that predicts labels. Raises UserError where the head is not made for the model.
    A reader that comes in between finds no config.json and says so.
    """
    folder = Path(folder)
    if head is not None:
        head.check_fits(model)
    (folder / CONFIG).unlink(missing_ok=True)
    write_bytes(folder / PARAMS, safetensors_bytes(flatten(params)))
    if pretraining_records is None:
        (folder / RECORDS).unlink(missing_ok=True)
    else:
        write_npy(folder / RECORDS, np.sort(pretraining_records.astype(np.uint64)))
    sha256 = sha256_file(folder / PARAMS)
    config = {
        "format": FORMAT,
        "model": dataclasses.asdict(model),
        "inputs": dataclasses.asdict(inputs),
        "contract": contract.to_dict(),
        "provenance": provenance,
        "params_sha256": sha256,
        "params_bytes": (folder / PARAMS).stat().st_size,
        "pretraining_records": None if pretraining_records is None else len(pretraining_records),
        "pretraining_records_sha256": None if pretraining_records is None else sha256_file(folder / RECORDS),
        "head": write_head(folder, head),
    }
    write_text(folder / CARD, model_card(config))
    write_json(folder / CONFIG, config)
    return sha256


def load_model(folder: Path | str) -> Model:
    """Read a model folder. Raises UserError, one line, for anything that is not exactly as `save_model` wrote it."""
    folder = Path(folder)
    config = _read_config(folder)
    where = f"{folder / CONFIG}"
    inputs = from_fields(InputConfig, config["inputs"], f"{where}: inputs")
    if not isinstance(config["contract"], dict) or not isinstance(config["provenance"], dict):
        raise UserError(f"{where}: contract and provenance must be objects")
    contract = SignalContract.from_dict(config["contract"])
    model = _model_config(config["model"], contract, where)
    shapes = _shapes(model)
    size = 4 * sum(math.prod(shape) for shape in shapes.values())
    data = checked_bytes(folder / PARAMS, config["params_sha256"], config["params_bytes"], CONFIG, size)
    flat = tensors(folder / PARAMS, data)
    _check_shapes(folder / PARAMS, flat, shapes)
    records, count = None, config["pretraining_records"]
    if count is not None:
        if type(count) is not int or not 0 <= count <= MOST_RECORDS:
            raise UserError(
                f"{where}: pretraining_records={str(count)[:20]}: must be from 0 to {MOST_RECORDS}, or null"
            )
        data = checked_bytes(folder / RECORDS, config["pretraining_records_sha256"], None, CONFIG, 8 * count)
        records = uint64_list(folder / RECORDS, data, count)
    elif (folder / RECORDS).exists():
        raise UserError(f"{folder / RECORDS}: is there, but {CONFIG} says that it was left out; remove one of the two")
    head = read_head(folder, config["head"], model, CONFIG)
    sha256 = config["params_sha256"]
    return Model(unflatten(flat), model, inputs, contract, config["provenance"], sha256, records, head)


def _model_config(values: object, contract: SignalContract, where: str) -> ModelConfig:
    """The model's sizes, held against the contract and the bounds before anything is computed from them."""
    if isinstance(values, dict) and "samples" in values and "leads" in values:
        leads, samples = values["leads"], values["samples"]
        if (leads, samples) != (len(contract.leads), contract.samples):
            raise UserError(
                f"{where}: the model takes {str(leads)[:20]} leads of {str(samples)[:20]} samples, "
                f"its contract has {len(contract.leads)} of {contract.samples}"
            )
    model = from_fields(ModelConfig, values, f"{where}: model", LATER)
    depth = max(model.encoder_depth, model.latent_depth, model.decoder_depth)
    width = max(model.width, model.decoder_width)
    for name, value, most in (
        ("patches", model.patches, MOST_TOKENS),
        ("width", width, WIDEST),
        ("depth", depth, DEEPEST),
    ):
        if value > most:
            raise UserError(f"{where}: model: {name} {value}: {most} is the most that is read")
    return model


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"model={folder}: no such folder")
    if not path.is_file():
        raise UserError(
            f"model={folder}: has no {CONFIG}, so it is not a finished model folder (a run's is WORKDIR/model)"
        )
    config = read_json(path)
    if "format" not in config:
        raise UserError(
            f"model={folder}: its {CONFIG} names no format, so it is not a model folder (a run's is WORKDIR/model)"
        )
    if config["format"] != FORMAT:
        raise UserError(
            f"{path}: format {str(config['format'])[:20]}, this version reads {FORMAT}; install the one that wrote it"
        )
    config = LATER_OF_THE_FOLDER | config
    same_names(f"{path}", set(config), set(FIELDS))
    return config


@lru_cache(maxsize=16)
def _shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter under its path; nothing is allocated."""
    wanted = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    return {"/".join(str(s.key) for s in p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(wanted)}


def _check_shapes(path: Path, flat: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    same_names(str(path), set(flat), set(shapes))
    for name, shape in shapes.items():
        if flat[name].shape != shape or flat[name].dtype != np.float32:
            raise UserError(
                f"{path}: {name} is {flat[name].dtype} {flat[name].shape}, the model of {CONFIG} needs float32 {shape}"
            )
