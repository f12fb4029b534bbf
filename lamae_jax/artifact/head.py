"""A head: what turns a model's readout into probabilities of named labels.

F features of the readout (D, or L D for `encoder_concat`), C labels.

    head.safetensors   float32 fill, mean, scale [F], kernel [F, C], bias [C]
    config.json        "head": readout, labels, about, and size and sha256 of the other

    features, those of absent leads = fill -> (features - mean) * scale -> @ kernel + bias -> sigmoid

It standardises and fills as the training records of a linear probe say; fine-tuning changes kernel and bias alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save as safetensors_bytes

from lamae_jax.artifact.reading import checked_bytes, same_names, tensors
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file, write_bytes
from lamae_jax.model.presets import ModelConfig

HEAD = "head.safetensors"
ARRAYS = ("fill", "mean", "scale", "kernel", "bias")
FIELDS = ("readout", "labels", "about", "sha256", "bytes")


@dataclass(frozen=True)
class Head:
    """One linear layer over a standardised readout. Raises UserError where names and shapes contradict one another.

    `fill` [F] stands for the features of a lead that a record lacks (`encoder_concat` alone has such), `scale` [F] is 1 over the
    standard deviation, 0 for a constant feature. `about` is any JSON object: task, store, figures.
    """

    readout: str
    labels: tuple[str, ...]
    kernel: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    fill: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise UserError(f"head: {len(self.labels)} label names, {len(set(self.labels))} different ones")
        features = len(self.kernel) if self.kernel.ndim == 2 else -1
        wanted = {"kernel": (features, len(self.labels)), "bias": (len(self.labels),)}
        for name in ARRAYS:
            array, shape = getattr(self, name), wanted.get(name, (features,))
            if array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
                raise UserError(
                    f"head: {name} is {array.dtype} {array.shape}; with {len(self.labels)} labels finite float32 {shape} is due"
                )

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What `logits` takes."""
        return {name: getattr(self, name) for name in ARRAYS}

    def check_fits(self, model: ModelConfig) -> None:
        """Raise UserError where the model has no such readout, or one of another width."""
        features = features_of(model, self.readout)
        if len(self.kernel) != features:
            raise UserError(f"head: takes {len(self.kernel)} features, the model's {self.readout} has {features}")


def features_of(model: ModelConfig, readout: str) -> int:
    """F, the features of a readout. Raises UserError where the model has no such readout."""
    model.check_readout(readout)
    return model.width * (model.leads if readout == "encoder_concat" else 1)


def logits(head: Mapping[str, jax.Array | np.ndarray], values: jax.Array, available: jax.Array) -> jax.Array:
    """Log odds `[B, C]` from a readout `[B, D]` (or `[B, L, D]` of `encoder_concat`) with leads `available [B, L]`. Pure."""
    features = values.reshape(values.shape[0], -1)
    if values.ndim == 3:
        there = jnp.broadcast_to(available[..., None], values.shape).reshape(features.shape)
        features = jnp.where(there, features, head["fill"][None])
    return ((features - head["mean"][None]) * head["scale"][None]) @ head["kernel"] + head["bias"][None]


def write_head(folder: Path, head: Head | None) -> dict[str, Any] | None:
    """Write the head's file, or remove one that is there; returns what config.json says of it."""
    path = folder / HEAD
    if head is None:
        path.unlink(missing_ok=True)
        return None
    write_bytes(path, safetensors_bytes({name: np.ascontiguousarray(array) for name, array in head.arrays.items()}))
    return {
        "readout": head.readout,
        "labels": list(head.labels),
        "about": head.about,
        "sha256": sha256_file(path),
        "bytes": path.stat().st_size,
    }


def read_head(folder: Path, fields: object, model: ModelConfig, record: str) -> Head | None:
    """The head that `fields` of the file `record` describe; None where there is none. Raises UserError."""
    if fields is None:
        return None
    where = f"{folder / record}: head"
    if not isinstance(fields, dict):
        raise UserError(f"{where}: must be an object or null")
    same_names(where, set(fields), set(FIELDS))
    labels, readout, about = fields["labels"], fields["readout"], fields["about"]
    if not (isinstance(labels, list) and all(isinstance(name, str) for name in labels)):
        raise UserError(f"{where}.labels: must be a list of names")
    if not isinstance(about, dict) or not isinstance(readout, str):
        raise UserError(f"{where}: readout must be a name, about an object")
    path = folder / HEAD
    try:
        features = features_of(model, readout)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    most = 4 * (features * (len(labels) + 3) + len(labels))  # kernel, mean, scale, fill; bias
    arrays = tensors(path, checked_bytes(path, fields["sha256"], fields["bytes"], record, most))
    same_names(str(path), set(arrays), set(ARRAYS))
    try:
        head = Head(readout, tuple(labels), **arrays, about=about)
        head.check_fits(model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return head
