"""Which rows of a batch a process reads, wherever its devices stand in the mesh; which rule a parameter finds."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from lamae_jax.command import read_command
from lamae_jax.config import pretrain_config
from lamae_jax.errors import UserError
from lamae_jax.model.presets import POSITIONS, PRESETS
from lamae_jax.train.sharding import AXES, MeshConfig, batch_sharding, held_rows, make_mesh, spec_of, state_shardings
from lamae_jax.train.step import init_state

SYSTEMS = {
    "lamae": ["--config.system=lamae"],
    "independent": ["--config.system=independent"],
    "mmvm": ["--config.system=mmvm", "--config.align.form=mixture"],
}

# Of eight devices the first four are one host's: side by side, round a ring, and with pairs of `tensor` across the hosts.
ORDERS = {
    "side by side": ((4, 2, 1), [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15]),
    "a ring": ((1, 8, 1), [0, 1, 4, 5, 7, 6, 3, 2], [0, 1, 2, 3, 12, 13, 14, 15], [4, 5, 6, 7, 8, 9, 10, 11]),
    "shared": ((2, 1, 4), [0, 1, 4, 5, 2, 3, 6, 7], list(range(16)), list(range(16))),
    "some shared": (
        (2, 2, 2), [0, 4, 1, 2, 5, 6, 3, 7],
        [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15], [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_a_process_holds_the_rows_that_lie_on_its_devices(name: str) -> None:
    shape, order, first, second = ORDERS[name]
    devices = jax.devices()
    mesh = Mesh(np.array(devices)[order].reshape(shape), AXES)
    assert held_rows(mesh, 16, devices[:4]).tolist() == first
    assert held_rows(mesh, 16, devices[4:]).tolist() == second
    whole = jax.device_put(np.arange(16), batch_sharding(mesh))
    for host, rows in ((devices[:4], first), (devices[4:], second)):
        shards = [shard.data for shard in whole.addressable_shards if shard.device in host]
        assert sorted(set(np.concatenate(shards).tolist())) == rows


def test_a_process_alone_holds_all_rows() -> None:
    mesh = make_mesh(MeshConfig(2, 2, 2))
    assert held_rows(mesh, 16, mesh.local_devices).tolist() == list(range(16))


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_array_that_a_config_can_make_has_a_rule(name: str, system: str) -> None:
    """Layers are written out or in a loop, by preset: their parameters are the same stacks."""
    given = [f"--config=configs/pretrain.py:{name}", "--config.data.store=somewhere", "--config.ema=0.99"]
    given += ["--config.model.qk_norm=true", *SYSTEMS[system]]
    mesh = make_mesh(MeshConfig(2, 4, 1))
    for change in [*(f"model.positions={positions}" for positions in POSITIONS), "optimizer.name=muon"]:
        config = pretrain_config(read_command([*given, f"--config.{change}"]).config).step
        abstract = jax.eval_shape(partial(init_state, config))
        state_shardings(abstract, mesh)  # raises for an array without a rule


@pytest.mark.parametrize(
    "path",
    [
        "encoder/mystery_scale",
        "encoder/overhead/kernel",
        "encoder/flash_attention/qkv/kernel",
        "latent_attention/transformer/layers/gated_mlp_in/kernel",
        "params/into_decoder/kernel",
        "opt_state/1/0/mu/encoder/mystery_scale",
        "opt_state/account",
    ],
)
def test_a_parameter_whose_name_only_ends_as_a_known_one_is_named(path: str) -> None:
    with pytest.raises(UserError, match=rf"^{path} \[8, 8\]: no sharding rule matches it"):
        spec_of(path, (8, 8), make_mesh(MeshConfig()))


def test_an_optimiser_s_state_is_split_as_its_parameter_wherever_it_lies() -> None:
    mesh = make_mesh(MeshConfig())
    for above in ("", "params/", "ema/", "opt_state/1/0/mu/", "opt_state/1/inner_states/muon/inner_state/0/mu/"):
        assert spec_of(f"{above}decoder/head/kernel", (8, 8), mesh) == P("fsdp", None)
        assert spec_of(f"{above}mask_token", (8,), mesh) == P()
