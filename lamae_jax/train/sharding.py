"""Devices as a mesh of data x fsdp x tensor, and one table that says how each parameter is split over it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lamae_jax.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = P(("data", "fsdp"))
REPLICATED_MOST = 1_000_000  # bytes of an array that may be on every device under fsdp

# First match wins. A pattern is whole names at the end of a path, so that optimiser state follows its parameter and a name
# nobody thought of finds no rule. The first axis of whatever lies under `layers` counts the layers. Only latent attention is
# split over `tensor`: its heads and its MLP.
RULES: tuple[tuple[str, P], ...] = (
    (r"latent_attention/.*/attention/qkv/kernel", P(None, "fsdp", None, "tensor", None)),
    (r"latent_attention/.*/attention/out/kernel", P(None, "tensor", None, "fsdp")),
    (r"latent_attention/.*/mlp_in/kernel", P(None, "fsdp", "tensor")),
    (r"latent_attention/.*/mlp_out/kernel", P(None, "tensor", "fsdp")),
    (r"attention/qkv/kernel", P(None, "fsdp", None, None, None)),
    (r"attention/out/kernel", P(None, None, None, "fsdp")),
    (r"mlp_in/kernel", P(None, "fsdp", None)),
    (r"mlp_out/kernel", P(None, None, "fsdp")),
    (r"patch_embedding/kernel", P(None, "fsdp")),
    (r"to_decoder/kernel", P("fsdp", None)),
    (r"posterior/kernel", P("fsdp", None)),
    (r"head/kernel", P("fsdp", None)),
    (r"(bias|scale|cls|lead_embedding|mask_token)", P()),
    (r"(step|count|ns_coeffs)", P()),
)


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the three axes; -1 takes the devices that the others leave. Raises UserError for impossible sizes."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = {axis: getattr(self, axis) for axis in AXES}
        for axis, size in sizes.items():
            if size == 0 or size < -1:
                raise UserError(f"mesh.{axis}={size}: must be a number of devices, or -1 for the rest")
        if list(sizes.values()).count(-1) > 1:
            raise UserError("mesh: only one of data, fsdp and tensor can be -1 (the rest)")

    def shape(self, devices: int) -> tuple[int, int, int]:
        """The three sizes for so many devices."""
        sizes = [self.data, self.fsdp, self.tensor]
        given = int(np.prod([size for size in sizes if size > 0]))
        if devices % given or (-1 not in sizes and given != devices):
            asked = " x ".join(str(size) for size in sizes)
            raise UserError(f"mesh (data x fsdp x tensor)={asked}: does not make up the {devices} devices here")
        return tuple(devices // given if size == -1 else size for size in sizes)  # type: ignore[return-value]


def make_mesh(config: MeshConfig, devices: list[Any] | None = None) -> Mesh:
    """The mesh over all devices of all processes, with Auto axes spelled out (jax's default changed between versions)."""
    devices = jax.devices() if devices is None else devices
    shape = config.shape(len(devices))
    try:
        return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    except NotImplementedError:  # the sides of a three-dimensional slice can't be cut so
        asked = " x ".join(map(str, shape))
        raise UserError(
            f"mesh (data x fsdp x tensor)={asked}: each axis must be a product of the sides of this slice of TPUs"
        ) from None


def sharing(records: int) -> Mesh:
    """A mesh of as many of this process's devices as share out batches of `records` evenly."""
    devices = jax.local_devices()
    shared = max(n for n in range(1, len(devices) + 1) if records % n == 0)
    return make_mesh(MeshConfig(shared, 1, 1), devices[:shared])


def batch_divisor(mesh: Mesh) -> int:
    """What a batch must be a multiple of: the devices that split it."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def path_of(path: tuple[Any, ...]) -> str:
    """A tree path as text: `opt_state/1/mu/encoder/.../kernel`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def spec_of(path: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The rule for one array. Raises UserError naming an array that no rule matches or whose size an axis does not divide."""
    if not shape:
        return P()
    spec = next((spec for pattern, spec in RULES if re.search(rf"(^|/){pattern}$", path)), None)
    if spec is None:
        raise UserError(f"{path} {list(shape)}: no sharding rule matches it; add one to the table in train/sharding.py")
    for size, axis in zip(shape, spec, strict=False):
        if axis is not None and size % mesh.shape[axis]:
            raise UserError(f"mesh.{axis}={mesh.shape[axis]}: does not divide a size of {path} {list(shape)}")
    return spec


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """A tree of NamedShardings for a tree of abstract arrays. Raises UserError as spec_of, and for what stays whole but big."""

    def sharding_of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name, size = path_of(path), leaf.size * leaf.dtype.itemsize
        sharding = NamedSharding(mesh, spec_of(name, leaf.shape, mesh))
        if mesh.shape["fsdp"] > 1 and size > REPLICATED_MOST and sharding.is_fully_replicated:
            raise UserError(
                f"{name} {list(leaf.shape)}: {size / 1e6:.1f} MB would lie whole on every device in spite of "
                f"mesh.fsdp={mesh.shape['fsdp']}; give it a rule in the table in train/sharding.py"
            )
        return sharding

    return jax.tree_util.tree_map_with_path(sharding_of, abstract)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Records split over data x fsdp."""
    return NamedSharding(mesh, BATCH)


def by_records(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """Says of tokens `[B, ...]` inside a program that they are split by records, as the batch is.

    Without a word the partitioner carries the split of the parameters into a loop over layers: every device then holds
    all records with a share of each width, and sums activations over the devices instead of gathering weights.
    """
    return lambda tokens: jax.lax.with_sharding_constraint(tokens, batch_sharding(mesh))


def held_rows(mesh: Mesh, records: int, devices: Sequence[Any]) -> np.ndarray:
    """The positions in a batch of `records` that these devices of the mesh hold, rising, int [b].

    Those of a process need not lie side by side: make_mesh arranges the chips of a slice by their links (in a ring, say), not
    by their hosts. Processes whose devices share rows along `tensor` hold the same ones.
    """
    held = batch_sharding(mesh).devices_indices_map((records,))
    return np.unique(np.concatenate([np.arange(records)[held[device]] for device in devices]))


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """The rows of a global batch that this process holds, put on its devices; the transfer runs while the device computes."""
    sharding, parts = batch_sharding(mesh), batch_divisor(mesh)
    held = len(held_rows(mesh, parts, mesh.local_devices))  # of as many parts as split the batch

    def whole(rows: np.ndarray) -> tuple[int, ...]:
        return (len(rows) // held * parts, *rows.shape[1:])

    return {name: jax.make_array_from_process_local_data(sharding, rows, whole(rows)) for name, rows in batch.items()}
