"""A small model for tests of what surrounds models: parameters drawn with numpy, so that nothing has to be compiled."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lamae_jax.artifact.folder import save_model
from lamae_jax.artifact.head import Head
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params
from lamae_jax.model.presets import ModelConfig, preset
from lamae_jax.signal.contract import SignalContract

CONTRACT = SignalContract(fs=100)
KEYS = np.array([5, 2**63 + 1], np.uint64)


def small_config(**changes: Any) -> ModelConfig:
    """A nano shrunk to one block each; 10 s at 100 Hz, patches of 1 s."""
    sizes = {"width": 16, "decoder_width": 16, "encoder_depth": 1, "latent_depth": 1, "samples": 1000, "patch": 100}
    return preset("nano", **(sizes | changes))


CONFIG = small_config()


@functools.lru_cache
def _shapes(config: ModelConfig) -> Any:
    return jax.eval_shape(lambda key: init_params(config, key), jax.random.key(0))


def random_params(config: ModelConfig = CONFIG, seed: int = 0) -> dict[str, Any]:
    """Parameters of the model's shapes, large enough for every one of them to matter."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), _shapes(config))


def save_small(
    folder: Path,
    seed: int = 0,
    keys: np.ndarray | None = KEYS,
    config: ModelConfig = CONFIG,
    contract: SignalContract = CONTRACT,
    inputs: InputConfig = InputConfig(),  # noqa: B008  (frozen)
    provenance: dict[str, Any] | None = None,
    head: Head | None = None,
) -> Path:
    """A model folder of it."""
    save_model(folder, random_params(config, seed), config, inputs, contract, provenance or {}, keys, head)
    return folder
