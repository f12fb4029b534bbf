"""The model folder, written in one order and read in one way.

    params.safetensors        float32 parameters under their tree paths ("encoder/cls"); its bytes depend on the parameters alone
    pretraining_records.npy   sorted uint64, one a record that was trained on; may be left out
    config.json               format, model, inputs, contract, provenance and the checksums of the other two; written last

Reading needs no pickle and nothing of the run that wrote it. Whatever is missing, unknown, misshapen or altered is refused
in one line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as read_safetensors
from safetensors.numpy import save as safetensors_bytes

from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file, write_bytes, write_json, write_npy
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import Params, init_params
from lamae_jax.model.presets import ModelConfig
from lamae_jax.signal.contract import SignalContract

FORMAT = 1
CONFIG, PARAMS, RECORDS = "config.json", "params.safetensors", "pretraining_records.npy"
LATER = {"posterior": False}  # fields of the model that the first folders do not have, and what that means
FIELDS = (
    "format",
    "model",
    "inputs",
    "contract",
    "provenance",
    "params_sha256",
    "pretraining_records",
    "pretraining_records_sha256",
)

C = TypeVar("C")


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
) -> str:
    """Write the folder, replacing a model that is there, and return the parameters' sha256.

    `provenance` is any JSON object. `pretraining_records` are sorted uint64 keys, or None to leave them out.
    A reader that comes in between finds no config.json and says so.
    """
    folder = Path(folder)
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
        "pretraining_records": None if pretraining_records is None else len(pretraining_records),
        "pretraining_records_sha256": None if pretraining_records is None else sha256_file(folder / RECORDS),
    }
    write_json(folder / CONFIG, config)
    return sha256


def load_model(folder: Path | str) -> Model:
    """Read a model folder. Raises UserError, one line, for anything that is not exactly as `save_model` wrote it."""
    folder = Path(folder)
    config = _read_config(folder)
    model = from_fields(ModelConfig, config["model"], f"{folder / CONFIG}: model", LATER)
    inputs = from_fields(InputConfig, config["inputs"], f"{folder / CONFIG}: inputs")
    contract = SignalContract.from_dict(config["contract"])
    if (model.leads, model.samples) != (len(contract.leads), contract.samples):
        raise UserError(
            f"{folder / CONFIG}: the model takes {model.leads} leads of {model.samples} samples, "
            f"its contract has {len(contract.leads)} of {contract.samples}"
        )
    data = _checked_bytes(folder / PARAMS, config["params_sha256"])
    try:
        flat = read_safetensors(data)
    except SafetensorError as error:
        raise UserError(f"{folder / PARAMS}: not a safetensors file ({error})") from None
    _check_shapes(folder / PARAMS, flat, model)
    records = None
    if config["pretraining_records"] is not None:
        _checked_bytes(folder / RECORDS, config["pretraining_records_sha256"])
        records = np.load(folder / RECORDS, allow_pickle=False)
    elif (folder / RECORDS).exists():
        raise UserError(f"{folder / RECORDS}: is there, but {CONFIG} says that it was left out; remove one of the two")
    return Model(unflatten(flat), model, inputs, contract, config["provenance"], config["params_sha256"], records)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"model={folder}: no such folder")
    if not path.is_file():
        raise UserError(
            f"model={folder}: has no {CONFIG}, so it is not a finished model folder (a run's is WORKDIR/model)"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(config, dict) or "format" not in config:
        raise UserError(
            f"model={folder}: its {CONFIG} names no format, so it is not a model folder (a run's is WORKDIR/model)"
        )
    if config["format"] != FORMAT:
        raise UserError(
            f"{path}: format {config['format']}, this version reads {FORMAT}; install the one that wrote it"
        )
    _same_names(f"{path}", set(config), set(FIELDS))
    return config


def from_fields(kind: type[C], values: object, where: str, later: Mapping[str, Any] = MappingProxyType({})) -> C:
    """A dataclass from a JSON object that has exactly its fields; UserError names what is missing, unknown or mistyped.

    `later` says what it means where a field is missing that older files do not have.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: must be an object, not {values!r}")
    values = dict(later) | values
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _same_names(where, set(values), set(fields))
    for name, value in values.items():
        # The annotations of these dataclasses are plain names, so their text says the type.
        wanted = {"int": int, "float": (int, float), "str": str, "bool": bool}[str(fields[name].type)]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):  # type: ignore[arg-type]
            raise UserError(f"{where}.{name}={value!r}: must be {fields[name].type}")
    return kind(**values)


def _same_names(where: str, found: set[str], wanted: set[str]) -> None:
    problems = [
        f"{word} {', '.join(sorted(names)[:4])}{' ...' if len(names) > 4 else ''}"
        for word, names in (("lacks", wanted - found), ("has unknown", found - wanted))
        if names
    ]
    if problems:
        raise UserError(f"{where}: {' and '.join(problems)}")


def _checked_bytes(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise UserError(f"{path}: missing, although {CONFIG} lists it")
    if sha256_file(path) != sha256:
        raise UserError(
            f"{path}: its sha256 is not the one in {CONFIG}: the file was altered or cut short; copy it again"
        )
    return path.read_bytes()


def _check_shapes(path: Path, flat: dict[str, np.ndarray], model: ModelConfig) -> None:
    wanted = jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))
    shapes = {"/".join(str(s.key) for s in p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(wanted)}
    _same_names(str(path), set(flat), set(shapes))
    for name, shape in shapes.items():
        if flat[name].shape != shape or flat[name].dtype != np.float32:
            raise UserError(
                f"{path}: {name} is {flat[name].dtype} {flat[name].shape}, the model of {CONFIG} needs float32 {shape}"
            )
