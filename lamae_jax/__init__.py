"""Masked autoencoding of 12-lead ECGs with latent attention between leads, in JAX.

`load(folder)` opens a trained model, `LAMAE` is the network, `presets` its sizes. The names are loaded at first use:
the processes that prepare recordings import this package and must not pay for JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamae_jax.model import presets
    from lamae_jax.model.lamae import LAMAE
    from lamae_jax.serve.model import load

__version__ = "0.1.0"
__all__ = ["LAMAE", "__version__", "load", "presets"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from lamae_jax.serve.model import load

        return load
    if name == "LAMAE":
        from lamae_jax.model.lamae import LAMAE

        return LAMAE
    if name == "presets":
        from lamae_jax.model import presets

        return presets
    raise AttributeError(f"module 'lamae_jax' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
