"""The figures of a pretraining run: a reconstructed ECG on ECG paper, and the curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from lamae_jax.data.loader import Selection
from lamae_jax.model.lamae import Params, reconstruct
from lamae_jax.model.losses import undo_targets
from lamae_jax.model.masking import hidden_patches
from lamae_jax.signal.ecg_paper import draw_reconstruction, save_figure
from lamae_jax.train.metrics import read_metrics
from lamae_jax.train.validation import YARDSTICKS, validation_inputs

if TYPE_CHECKING:
    from lamae_jax.train.pretrain import PretrainConfig
    from lamae_jax.train.records import Data


def reconstruction(path: Path, config: PretrainConfig, data: Data, params: Params) -> None:
    """The first validation record: as recorded, as the model saw it, and as it was reconstructed, in mV."""
    step, model = config.step, config.step.model
    selection = Selection(data.stores, data.validation)
    batch = {name: jnp.asarray(rows) for name, rows in selection.read(np.array([0])).items()}

    @jax.jit
    def run(params: Params) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, scale, masks = validation_inputs(step, batch, jnp.arange(1))
        hidden = hidden_patches(masks, model.leads, model.patches)
        predicted = reconstruct(model, params, x, masks, batch["available"])
        predicted = undo_targets(predicted, x.reshape(predicted.shape), step.target)
        return x * scale, predicted.reshape(x.shape) * scale, jnp.repeat(hidden, model.patch, axis=-1)

    original, predicted, hidden = (np.asarray(part[0]) for part in run(params))
    title = "drawn with the true patch scale" if step.target == "normalised" else ""
    leads, available = config.contract.leads, np.asarray(batch["available"][0])
    figure = draw_reconstruction(original, original, predicted, config.contract.fs, leads, hidden, available, title)
    save_figure(figure, path)


def curve(path: Path, metrics: Path, final: dict[str, float]) -> None:
    """Training loss and validation error over steps, beside the predictors that need no learning."""
    lines = read_metrics(metrics)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, words, style in (
        ("train/loss", "training", {"color": "0.7", "lw": 1}),
        ("val/loss", "validation", {"color": "C0", "lw": 2, "marker": "."}),
    ):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot([step for step, _ in points], [value for _, value in points], label=words, **style)  # type: ignore[arg-type]
    for name, dashes in zip(YARDSTICKS, ("--", "-.", ":"), strict=True):
        axes.axhline(
            final[f"val_mse_{name}"], color="0.3", lw=1, ls=dashes, label=f"{name.replace('_', ' ')} (no learning)"
        )
    # An untrained model's error may be many times that of no learning: the curve is about what comes below.
    top = 1.15 * max(final[f"val_mse_{name}"] for name in YARDSTICKS)
    axes.set(xlabel="step", ylabel="squared error, model's units", ylim=(0, top))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
