"""Transformer blocks, positions and row selection: what E, LA and D are made of.

Parameters of a stack are stored with the layer as first axis, one array for all layers, whether the loop over them is
rolled or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Rotation = tuple[jax.Array, jax.Array]
Placement = Callable[[jax.Array], jax.Array]  # tokens `[B, N, D]` to themselves, said to lie where they belong

SINCOS_BASE = 10_000.0
ROTARY_BASE = 100.0


def sincos_table(patches: int, width: int) -> np.ndarray:
    """Fixed positions `[T, D]`: sines, then cosines, of the patch index (Vaswani et al. 2017)."""
    rates = SINCOS_BASE ** -(np.arange(width // 2) / (width // 2))
    angles = np.arange(patches)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def rotation(times: jax.Array, head_width: int) -> Rotation:
    """Cosines and sines `[..., N, Dh/4]` for tokens at `times [..., N]` (in patches; Su et al. 2021).

    Half of a head's dimensions turn, as Dh/4 pairs, from 1 rad a patch downwards; the other half carry content.
    """
    pairs = head_width // 4
    rates = ROTARY_BASE ** -(np.arange(pairs) / pairs)
    angles = times[..., None].astype(jnp.float32) * rates.astype(np.float32).reshape((1,) * times.ndim + (pairs,))
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, turn: Rotation) -> jax.Array:
    """Turn the first half of the dimensions of `x [..., H, N, Dh]` by `turn`'s `[..., N, Dh/4]`."""
    cos, sin = (part[..., None, :, :].astype(x.dtype) for part in turn)
    pairs = cos.shape[-1]
    first, second, content = x[..., :pairs], x[..., pairs : 2 * pairs], x[..., 2 * pairs :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, content], axis=-1)


@jax.custom_vjp
def select_rows(x: jax.Array, index: jax.Array, inverse: jax.Array) -> jax.Array:
    """Rows `index [B, J]` of `x [B, N, D]`, zero where index = N.

    `inverse [B, N]` says where each row of x went (J = nowhere). With it the backward pass is a selection too, not a
    scatter, which is slow on CPU and sequential on an accelerator.
    """
    return _take(x, index)


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
    return jax.vmap(lambda rows, i: jnp.take(rows, i, axis=0, mode="fill", fill_value=0))(x, index)


def _select_forward(x: jax.Array, index: jax.Array, inverse: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _take(x, index), inverse


def _select_backward(inverse: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return _take(gradient, inverse), None, None


select_rows.defvjp(_select_forward, _select_backward)


def inverse_of(index: jax.Array, rows: int) -> jax.Array:
    """For distinct `index [B, J]` into `rows`: where each row stands in it, `[B, rows]`, J where it does not."""
    size = index.shape[1]
    places = jnp.arange(size, dtype=jnp.int32)
    # A record at a time: a scatter over all records at once would be computed by every device for all of them.
    return jax.vmap(lambda i: jnp.full(rows, size, jnp.int32).at[i].set(places))(index)


class Attention(nn.Module):
    """Multi-head self-attention with one product for queries, keys and values."""

    heads: int
    qk_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, turn: Rotation | None, shown: jax.Array | None) -> jax.Array:
        """`x [..., N, D]`; `shown [..., N]` bool: which tokens may be attended to (None: all)."""
        width = x.shape[-1]
        head = (self.heads, width // self.heads)
        init = nn.initializers.xavier_uniform()
        qkv = nn.DenseGeneral((3, *head), dtype=self.dtype, kernel_init=init, name="qkv")(x)
        query, key, value = (jnp.swapaxes(qkv[..., i, :, :], -2, -3) for i in range(3))  # [..., H, N, Dh]
        if self.qk_norm:
            query = nn.LayerNorm(dtype=self.dtype, name="query_norm")(query)
            key = nn.LayerNorm(dtype=self.dtype, name="key_norm")(key)
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        query = query * jnp.asarray(head[1] ** -0.5, query.dtype)
        scores = jnp.matmul(query, jnp.swapaxes(key, -1, -2), preferred_element_type=jnp.float32)  # [..., H, N, N]
        if shown is not None:
            scores = jnp.where(shown[..., None, None, :], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        mixed = jnp.swapaxes(jnp.matmul(weights, value), -2, -3)  # [..., N, H, Dh]
        return nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, kernel_init=init, name="out")(mixed)


class Block(nn.Module):
    """A pre-norm transformer block: attention, then an MLP of four times the width with tanh-GELU."""

    heads: int
    qk_norm: bool
    dtype: Any
    place: Placement | None

    @nn.compact
    def __call__(
        self, x: jax.Array, turn: Rotation | None, shown: jax.Array | None, keep: jax.Array | None
    ) -> tuple[jax.Array, None]:
        if self.place is not None:
            x = self.place(x)
        width = x.shape[-1]
        init = nn.initializers.xavier_uniform()

        def add(x: jax.Array, branch: jax.Array) -> jax.Array:
            return x + (branch if keep is None else branch * keep[:, None, None].astype(branch.dtype))

        normed = nn.LayerNorm(dtype=self.dtype, name="attention_norm")(x)
        x = add(x, Attention(self.heads, self.qk_norm, self.dtype, name="attention")(normed, turn, shown))
        normed = nn.LayerNorm(dtype=self.dtype, name="mlp_norm")(x)
        inner = nn.Dense(4 * width, dtype=self.dtype, kernel_init=init, name="mlp_in")(normed)
        return add(x, nn.Dense(width, dtype=self.dtype, kernel_init=init, name="mlp_out")(nn.gelu(inner))), None


class Transformer(nn.Module):
    """`depth` blocks and a final LayerNorm. `place` says at each block where the tokens lie on the devices (None: anywhere).

    `keep [depth, B]`, for stochastic depth (Huang et al. 2016), is 0 where a record skips a block, else what its branches are
    multiplied with; None: no block is skipped.
    """

    depth: int
    heads: int
    qk_norm: bool
    remat: bool
    unroll: bool
    dtype: Any
    place: Placement | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        turn: Rotation | None = None,
        shown: jax.Array | None = None,
        keep: jax.Array | None = None,
    ) -> jax.Array:
        block = nn.remat(Block, prevent_cse=False) if self.remat else Block
        layers = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            length=self.depth,
            unroll=self.depth if self.unroll else 1,
        )
        x, _ = layers(self.heads, self.qk_norm, self.dtype, self.place, name="layers")(x, turn, shown, keep)
        return nn.LayerNorm(dtype=self.dtype, name="norm")(x)
