"""Which rows of a batch a process reads, wherever its devices stand in the mesh."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from lamae_jax.train.sharding import AXES, MeshConfig, batch_sharding, held_rows, make_mesh

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
