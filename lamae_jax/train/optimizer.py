"""The optimiser: AdamW (default) or Muon, warm-up and cosine per step, clipping by global norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import optax
from optax import contrib

from lamae_jax.errors import UserError


@dataclass(frozen=True)
class OptimizerConfig:
    """What an update depends on. `warmup` and `final` are shares: of the steps, and of the peak `learning_rate`.

    Weight decay is on matrices only. Raises UserError for impossible values.
    """

    steps: int
    learning_rate: float
    name: str = "adamw"
    weight_decay: float = 0.05
    b1: float = 0.9
    b2: float = 0.95
    warmup: float = 0.05
    final: float = 0.01
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("adamw", "muon"):
            raise UserError(f"optimizer.name={self.name}: must be adamw or muon")
        if self.steps < 1:
            raise UserError(f"steps={self.steps}: must be at least 1")
        if not self.learning_rate > 0 or self.learning_rate == float("inf"):
            raise UserError(f"learning_rate={self.learning_rate}: must be above 0 and finite")
        for name in ("b1", "b2", "warmup", "final"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"optimizer.{name}={getattr(self, name)}: must be at least 0 and below 1")
        if not self.clip > 0:
            raise UserError(f"optimizer.clip={self.clip}: must be above 0")
        if self.weight_decay < 0:
            raise UserError(f"optimizer.weight_decay={self.weight_decay}: must be 0 or more")


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Linear warm-up to the peak rate, then a cosine to `final` of it at the last step."""
    warm = max(1, round(config.warmup * config.steps))
    return optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warm, max(config.steps, warm + 1), config.final * config.learning_rate
    )


def _is_matrix(path: tuple[Any, ...]) -> bool:
    return path[-1].key == "kernel"


def _matrices(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_matrix(path), params)


def _muon_dimensions(params: Any) -> Any:
    """Which axes make up each matrix: optax's own rule would take stacked biases for matrices and stacked kernels not."""

    def dimensions(path: tuple[Any, ...], leaf: Any) -> contrib.MuonDimensionNumbers | None:
        if not _is_matrix(path):
            return None
        names = [key.key for key in path]
        first = 1 if "layers" in names else 0
        rows = 2 if names[-2] == "out" else 1  # [heads, head width] are together one side of a matrix
        axes = tuple(range(first, leaf.ndim))
        return contrib.MuonDimensionNumbers(reduction_axis=axes[:rows], output_axis=axes[rows:])

    return jax.tree_util.tree_map_with_path(dimensions, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The gradient transformation; call its `init` inside jit, so that its state is born where it belongs."""
    rate = schedule(config)
    if config.name == "muon":
        update = contrib.muon(
            learning_rate=rate,
            adam_b1=config.b1,
            adam_b2=config.b2,
            weight_decay=config.weight_decay,
            weight_decay_mask=_matrices,
            consistent_rms=0.2,  # updates of Adam's size, so that one peak rate serves both
            muon_weight_dimension_numbers=_muon_dimensions,
        )
    else:
        update = optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay, mask=_matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip), update)


def begin_at(opt_state: Any, step: int) -> Any:
    """A fresh optimiser's state whose learning rate is that of `step`. The moments' own counts stay 0: they say how many
    gradients those have seen."""

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def moved(node: Any) -> Any:
        return node._replace(count=node.count + step) if is_schedule(node) else node

    return jax.tree.map(moved, opt_state, is_leaf=is_schedule)
