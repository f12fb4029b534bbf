"""What downstream work reads from an encoded record. B records, L leads, T patches a lead, D width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Tokens:
    """All that a readout can use; nothing masked. The `la` fields are None without latent attention."""

    encoder_cls: jax.Array  # [B, L, D]: each lead's CLS after E
    encoder: jax.Array  # [B, L, T, D]
    la_cls: jax.Array | None  # [B, D]: latent attention's own CLS
    la_leads: jax.Array | None  # [B, L, D]: each lead's CLS after LA
    la: jax.Array | None  # [B, L, T, D]


def readout(tokens: Tokens, name: str, available: jax.Array) -> jax.Array:
    """One feature vector a record, `[B, D]`; for `encoder_concat` the lead CLS tokens `[B, L, D]`.

    Unavailable leads count in no mean. In `encoder_concat` they are zero; whoever has a training set puts its mean there.
    """
    if name == "la_cls":
        assert tokens.la_cls is not None
        return tokens.la_cls
    if name == "encoder_concat":
        return jnp.where(available[..., None], tokens.encoder_cls, 0)
    source = tokens.la if name == "la_mean" else tokens.encoder
    assert source is not None
    shown = available[..., None].astype(source.dtype)  # [B, L, 1]
    return jnp.sum(source.mean(axis=2) * shown, axis=1) / jnp.maximum(shown.sum(axis=1), 1)
