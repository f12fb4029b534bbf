"""MMVM, the rival that pulls leads together by a loss instead of mixing them: what it adds to a step, and how strongly when."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from lamae_jax.errors import UserError
from lamae_jax.model.lamae import Seen
from lamae_jax.model.losses import aligned_pairs, mixture_alignment, pairwise_alignment

FORMS = ("pairwise", "mixture")
SHARPNESS = (
    12.0  # of the sigmoid: .2 % of beta at the end of the warm-up, half after a sixth of the rest, 99.8 % after a third
)


@dataclass(frozen=True)
class AlignConfig:
    """`form` of the alignment and its final weight `beta`. Raises UserError for impossible values."""

    form: str = "pairwise"
    beta: float = 0.1

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"align.form={self.form}: must be one of {', '.join(FORMS)}")
        if not 0 <= self.beta < float("inf"):
            raise UserError(f"align.beta={self.beta:g}: must be 0 or more")


def beta_at(config: AlignConfig, step: jax.Array, steps: int, warmup: float) -> jax.Array:
    """The weight at a step: 0 during the learning rate's warm-up (a share of the steps), then up to `beta` on a sigmoid.

    Leads that have learned nothing yet are aligned best by all saying the same nothing.
    """
    progress = (step / steps - warmup) / (1 - warmup)
    return jnp.where(progress > 0, config.beta * jax.nn.sigmoid(SHARPNESS * (3 * progress - 0.5)), 0.0)


def alignment(form: str, seen: Seen, shown: jax.Array) -> jax.Array:
    """The sum of one form over what `shown [B, L, T]` says is there; `alignment_count` makes it a mean."""
    if form == "pairwise":
        return pairwise_alignment(seen.mean, shown)
    assert seen.log_variance is not None
    return mixture_alignment(seen.mean, seen.log_variance, seen.sample, shown)


def alignment_count(form: str, shown: jax.Array) -> jax.Array:
    """Over how many pairs or tokens the sum of `alignment` goes, at least 1."""
    return jnp.maximum(aligned_pairs(shown) if form == "pairwise" else shown.sum().astype(jnp.float32), 1.0)
