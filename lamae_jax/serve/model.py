"""The model that `lamae_jax.load` gives: ECGs in, embeddings, reconstructions or probabilities out.

N recordings, L leads of the model's contract, T patches a lead, S samples, D width, C labels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.artifact.folder import Model, load_model
from lamae_jax.errors import NotFinite, UserError
from lamae_jax.model.inputs import MV_PER_COUNT
from lamae_jax.model.masking import MaskConfig, Masks, draw_masks_by_record, hidden_patches, whole_leads
from lamae_jax.serve.functions import embed_counts, predict_counts, reconstruct_counts, summary_readout
from lamae_jax.serve.recordings import Ecg, Prepared, prepare_recordings
from lamae_jax.signal.leads import canonical_lead

BATCHES = (
    1,
    8,
    64,
)  # records encoded at once: three programs at most are ever compiled, little is computed for nothing


@dataclass(frozen=True)
class Embedding:
    """What `embed` returns: float32 arrays, N recordings in their order.

    `cls` [N, D] is the readout named `readout`, `leads` [N, L, D] and `tokens` [N, L, T, D] belong to the contract's leads in its
    order; those of a lead that is not `available` [N, L] are NaN. `warnings`: for each recording a tuple of texts.
    """

    cls: np.ndarray
    leads: np.ndarray
    tokens: np.ndarray
    available: np.ndarray
    warnings: tuple[tuple[str, ...], ...]
    readout: str


@dataclass(frozen=True)
class Prediction:
    """What `predict` returns: `probabilities` [N, C] of the `labels` [C], and warnings as in Embedding."""

    labels: tuple[str, ...]
    probabilities: np.ndarray
    warnings: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Reconstruction:
    """What `reconstruct` returns, in mV about each lead's mean, [N, L, S]: `signal` as the model has it, `observed` as recorded
    (NaN where a lead is missing), `hidden` bool, True where the model saw nothing. `leads` and `fs` name rows and rate."""

    signal: np.ndarray
    observed: np.ndarray
    hidden: np.ndarray
    leads: tuple[str, ...]
    fs: int
    warnings: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class EcgModel(Model):
    """A trained model, with all of `artifact.folder.Model` and three methods that take ECGs in any of these forms:

    - an array [leads, samples], or [N, leads, samples], or a list of arrays of different lengths; with `fs` in Hz (100 to
      1000), `leads` (names of the rows, any order and case, twelve of them or one) and `units` (mV unless said: uV, V).
      Where the recordings differ, each of the three may be a list with one item a recording.
    - the path of a WFDB record, or a list of them; a prepared store or its path. These say fs, leads and units themselves.

    Each recording is brought into the contract that is stored in the model, as `prepare` does: units, gaps, resampling, band,
    the middle of what is longer. Raises UserError, one line that names the recording, where that can't be done.
    """

    def embed(
        self,
        ecg: Ecg,
        fs: float | Sequence[float] | None = None,
        leads: Sequence[Any] | None = None,
        units: str | Sequence[str] | None = None,
    ) -> Embedding:
        """CLS, lead and patch tokens of each recording, nothing hidden. Raises UserError, and NotFinite for broken parameters."""
        tokens = 4 * self.config.leads * self.config.patches * self.config.width  # bytes, of each recording
        prepared = prepare_recordings(ecg, fs, leads, units, self.contract, tokens)

        def run(counts: jax.Array, available: jax.Array) -> dict[str, jax.Array]:
            return embed_counts(self.on_device, counts, available, config=self.config, inputs=self.inputs)

        out = in_batches(run, prepared.counts, prepared.available)
        if not np.isfinite(out["cls"]).all():
            raise NotFinite("embed: the embedding is not finite; the parameters are of no use")
        return Embedding(
            available=prepared.available, warnings=prepared.warnings, readout=summary_readout(self.config), **out
        )

    def predict(
        self,
        ecg: Ecg,
        fs: float | Sequence[float] | None = None,
        leads: Sequence[Any] | None = None,
        units: str | Sequence[str] | None = None,
    ) -> Prediction:
        """Probabilities of the labels of the model's head. Raises UserError, also where the model has none."""
        head = self.head
        if head is None:
            raise UserError("predict: this model has no head; probe or fine-tune it first, or use embed")
        prepared = prepare_recordings(ecg, fs, leads, units, self.contract)

        def run(counts: jax.Array, available: jax.Array) -> dict[str, jax.Array]:
            return predict_counts(
                self.on_device,
                head.arrays,
                counts,
                available,
                config=self.config,
                inputs=self.inputs,
                name=head.readout,
            )

        out = in_batches(run, prepared.counts, prepared.available)
        return Prediction(head.labels, out["probabilities"], prepared.warnings)

    def reconstruct(
        self,
        ecg: Ecg,
        fs: float | Sequence[float] | None = None,
        leads: Sequence[Any] | None = None,
        units: str | Sequence[str] | None = None,
        hide: Sequence[str] | None = None,
    ) -> Reconstruction:
        """Each recording as the model completes it. `hide` names leads that it is not shown at all (what would V4 have looked
        like?); without, three quarters of each lead's patches are hidden, the same ones at every call. Missing leads are always
        completed. Raises UserError, also for a model that predicts patches without their amplitude.
        """
        self._check_reconstructs()
        hidden_leads = self._named([] if hide is None else hide)
        made = (4 + 4 + 1) * self.config.leads * self.config.samples  # bytes: signal, observed, hidden
        prepared = prepare_recordings(ecg, fs, leads, units, self.contract, made)
        shown = prepared.available & ~hidden_leads
        if not shown.any(axis=1).all():
            raise UserError(
                f"hide={' '.join(hide or ())}: leaves no lead of recording {int(np.argmin(shown.any(axis=1)))}"
            )
        mask = MaskConfig() if hide is None else None
        out = np.empty(prepared.counts.shape, np.float32)
        hidden = np.empty(prepared.counts.shape, bool)
        for count in np.unique(shown.sum(axis=1)):  # one program for each number of leads
            rows = np.flatnonzero(shown.sum(axis=1) == count)
            masks = _masks(shown[rows], rows, self.config.patches, mask)
            where = jax.jit(hidden_patches, static_argnums=(1, 2))(masks, self.config.leads, self.config.patches)
            hidden[rows] = np.repeat(where, self.config.patch, axis=-1)

            def run(counts: jax.Array, available: jax.Array, masks: Masks) -> dict[str, jax.Array]:
                return reconstruct_counts(
                    self.on_device, counts, available, masks, config=self.config, inputs=self.inputs
                )

            out[rows] = in_batches(run, prepared.counts[rows], shown[rows], masks)["signal"]
        return Reconstruction(
            out, self._observed(prepared), hidden, self.contract.leads, self.contract.fs, self._warned(prepared, shown)
        )

    def export(self, folder: Path | str, fs: float | None = None) -> dict[str, Any]:
        """Write the model, its preprocessing and its head as one program that runs with jax alone (see serve/export.py), for
        recordings at `fs` Hz. Raises UserError for a rate that is not taken."""
        from lamae_jax.serve.export import export_program

        return export_program(self, folder, fs)

    @cached_property
    def on_device(self) -> Any:
        """The parameters on the default device."""
        return jax.device_put(self.params)

    def _trained_with(self, section: str, name: str) -> Any:
        """A field of the config that the model was trained with; None where it isn't recorded."""
        here: Any = self.provenance
        for step in ("config", *section.split(), name):
            here = here[step] if isinstance(here, dict) and step in here else None
        return here

    def _check_reconstructs(self) -> None:
        if self._trained_with("", "target") == "normalised":
            raise UserError("reconstruct: this model was trained with target=normalised: its patches have no amplitude")

    def _named(self, hide: Sequence[str]) -> np.ndarray:
        """Which leads are named, bool [L]."""
        hide = [hide] if isinstance(hide, str) else hide
        if not (isinstance(hide, Sequence) and all(isinstance(name, str) for name in hide)):
            raise UserError(f"hide={hide!r}: must be a list of lead names")
        for name in hide:
            if canonical_lead(name) not in self.contract.leads:
                raise UserError(f"hide={name}: the model has {' '.join(self.contract.leads)}")
        named = [canonical_lead(name) for name in hide]
        return np.array([lead in named for lead in self.contract.leads])

    def _observed(self, prepared: Prepared) -> np.ndarray:
        clip = self.inputs.clip_mv
        observed = np.clip(prepared.counts.astype(np.float32) * MV_PER_COUNT, -clip, clip)
        if self.inputs.normalisation != "fixed":
            observed -= observed.mean(axis=-1, keepdims=True)
        return np.where(prepared.available[..., None], observed, np.nan)

    def _warned(self, prepared: Prepared, shown: np.ndarray) -> tuple[tuple[str, ...], ...]:
        """The warnings, and one for whole leads completed by a model that never learned to."""
        whole = [bool(record.all()) for record in shown]
        if self._trained_with("mask", "hidden_leads") or all(whole):
            return prepared.warnings
        text = "lead_hidden: the model was not pretrained with mask.hidden_leads; what it draws for a whole lead means little"
        return tuple(
            told if all_shown else (*told, text) for told, all_shown in zip(prepared.warnings, whole, strict=True)
        )


def load(folder: Path | str | os.PathLike[str]) -> EcgModel:
    """Open a model folder. Raises UserError, one line, for anything that is not exactly as it was written."""
    return EcgModel(**vars(load_model(Path(folder))))


def in_batches(run: Callable[..., dict[str, jax.Array]], *arrays: Any) -> dict[str, np.ndarray]:
    """`run` over pytrees of arrays with N rows in batches of one of BATCHES; the last is filled up with row 0 and cut."""
    arrays = jax.tree.map(np.asarray, arrays)
    n = len(jax.tree.leaves(arrays)[0])
    size = 1 if n == 1 else BATCHES[1] if n < BATCHES[2] else BATCHES[2]
    out: list[dict[str, np.ndarray]] = []
    for first in range(0, n, size):
        rows = np.arange(first, first + size)
        rows[rows >= n] = 0
        part = jax.device_get(run(*jax.tree.map(lambda whole, rows=rows: jnp.asarray(whole[rows]), arrays)))
        out.append({name: values[: n - first] for name, values in part.items()})
    return {name: np.concatenate([part[name] for part in out]) for name in out[0]} if len(out) > 1 else out[0]


def _masks(shown: np.ndarray, numbers: np.ndarray, patches: int, mask: MaskConfig | None) -> Masks:
    """Masks for records that all show as many leads: all patches of those, or with `mask` the ones it leaves."""
    whole = whole_leads(shown, patches)
    if mask is None:
        return whole
    every = jnp.ones(whole.leads.shape, bool)
    visible = draw_masks_by_record(jax.random.key(0), jnp.asarray(numbers), every, patches, mask).visible
    return Masks(whole.leads, visible, whole.kept[:, : visible.shape[1] * visible.shape[2]])
