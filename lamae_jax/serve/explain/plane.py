"""Records on a plane. n records, F features."""

from __future__ import annotations

import numpy as np

from lamae_jax.progress import say


def principal(features: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The first two principal components of `features` [n, F], [n, 2], and the share of the variance along each."""
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(features), 2))
    size = min(2, len(singular))
    points[:, :size] = left[:, :size] * singular[:size]
    power = np.pad(singular**2, (0, 2))[:2] / max((singular**2).sum(), 1e-300)
    return points, power.tolist()


def umap(features: np.ndarray, seed: int) -> np.ndarray | None:
    """UMAP (McInnes et al. 2018) of `features` [n, F], [n, 2]; None where umap-learn is not installed."""
    try:
        from umap import UMAP
    except ImportError as error:
        say(f"no UMAP: {error} (pip install umap-learn; nothing else needs it)")
        return None
    # One job, or the seed would not decide the picture.
    return np.asarray(UMAP(random_state=seed, n_jobs=1).fit_transform(features), np.float64)
