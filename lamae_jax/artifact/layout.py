"""Stacked and unrolled parameters: two layouts of the same numbers. Pure functions, either way without loss.

A stack of n blocks is stored as one array with the layer as first axis, `encoder/transformer/layers/mlp_in/kernel [n, D, 4 D]`.
Other code often has a block a name: `encoder/transformer/layers/0/mlp_in/kernel [D, 4 D]`, ... `layers/n-1/...`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.errors import UserError
from lamae_jax.model.lamae import Params

LAYERS = "layers"


def unrolled(params: Params) -> Params:
    """Each stack `layers` of stacked arrays as a dict of blocks "0", "1", ..."""

    def split(stack: Any) -> Any:
        depths = {leaf.shape[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(stack)}
        if len(depths) != 1 or 0 in depths:
            raise UserError(f"layers: their arrays hold {sorted(depths)} layers; stacked ones hold the same number")
        return {str(i): jax.tree.map(lambda leaf, i=i: leaf[i], stack) for i in range(depths.pop())}

    return _in_stacks(params, split)


def stacked(params: Params) -> Params:
    """The inverse of `unrolled`. Raises UserError where blocks are missing or differ in what they hold."""

    def join(blocks: Any) -> Any:
        names = [str(i) for i in range(len(blocks))]
        if set(blocks) != set(names):
            raise UserError(
                f"layers: {', '.join(sorted(map(str, blocks))[:4])}; they must be called 0 to {len(blocks) - 1}"
            )
        shapes = [jax.tree.map(np.shape, blocks[name]) for name in names]
        different = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
        if different is not None:
            raise UserError(f"layers: block {different} holds other arrays than block 0")
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(blocks[name] for name in names))

    return _in_stacks(params, join)


def _in_stacks(tree: Params, change: Any) -> Params:
    return {
        name: change(branch) if name == LAYERS else _in_stacks(branch, change) if isinstance(branch, dict) else branch
        for name, branch in tree.items()
    }
