"""The sizes of the model and what makes a valid combination of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from lamae_jax.errors import UserError

DECODER_READS = ("tokens_and_cls", "tokens", "cls_only")
SYSTEMS = ("lamae", "independent", "mmvm")
POSITIONS = ("both", "sincos", "rotary")
READOUTS = ("la_cls", "la_mean", "encoder_mean", "encoder_concat")


@dataclass(frozen=True)
class ModelConfig:
    """What the parameters' shapes and the forward pass depend on. Raises UserError for an impossible combination.

    `leads` L, `samples` S a lead, `patch` P samples; T = S / P patches a lead; `width` D.
    `encoder_depth`, `latent_depth`, `decoder_depth` count transformer blocks; a latent depth of 0 means independent leads.
    `decoder_reads` and `positions` are forms of the method: docs/method.md, docs/decisions.md.
    `posterior` makes each of the encoder's tokens a Gaussian, of which the mean is read out: what MMVM's mixture form aligns.
    `remat` recomputes each block in the backward pass: less memory for about a third more time.
    `dtype` is what blocks compute in; parameters, LayerNorm, softmax and the loss stay float32.
    """

    width: int
    heads: int
    encoder_depth: int
    latent_depth: int
    decoder_width: int
    decoder_heads: int
    decoder_depth: int
    leads: int = 12
    samples: int = 2500
    patch: int = 50
    decoder_reads: str = "tokens_and_cls"
    positions: str = "rotary"
    qk_norm: bool = False
    posterior: bool = False
    remat: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("leads", "samples", "patch", "width", "heads", "encoder_depth",
                     "decoder_width", "decoder_heads", "decoder_depth"):  # fmt: skip
            if getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)}: must be at least 1")
        if self.latent_depth < 0:
            raise UserError(f"model.latent_depth={self.latent_depth}: must be 0 (independent leads) or more")
        if self.samples % self.patch:
            near = min(
                (p for p in range(1, self.samples + 1) if self.samples % p == 0), key=lambda p: abs(p - self.patch)
            )
            raise UserError(
                f"model.patch={self.patch}: does not divide the {self.samples} samples of a lead; {near} would"
            )
        if self.samples == self.patch:
            raise UserError(
                f"model.patch={self.patch}: leaves one patch a lead, nothing could be hidden; use a smaller one"
            )
        for width, heads in (("width", "heads"), ("decoder_width", "decoder_heads")):
            w, h = getattr(self, width), getattr(self, heads)
            if w % h:
                raise UserError(f"model.{heads}={h}: does not divide model.{width}={w}")
            if self.positions != "sincos" and (w // h) % 4:
                raise UserError(
                    f"model.{heads}={h}: leaves {w // h} dimensions a head; rotary positions need a multiple of 4"
                )
            if w % 2:
                raise UserError(f"model.{width}={w}: must be even (sine and cosine pairs)")
        if self.decoder_reads not in DECODER_READS:
            raise UserError(f"model.decoder_reads={self.decoder_reads}: must be one of {', '.join(DECODER_READS)}")
        if self.positions not in POSITIONS:
            raise UserError(f"model.positions={self.positions}: must be one of {', '.join(POSITIONS)}")
        if self.dtype not in ("float32", "bfloat16"):
            raise UserError(f"dtype={self.dtype}: must be float32 or bfloat16")

    @property
    def patches(self) -> int:
        """T, the number of patches a lead."""
        return self.samples // self.patch

    @property
    def readouts(self) -> tuple[str, ...]:
        """The readouts that this model can give."""
        return READOUTS if self.latent_depth else READOUTS[2:]

    def check_readout(self, name: str) -> None:
        """Raise UserError where the model cannot give the readout `name`, or gives one that never learned."""
        if name not in READOUTS:
            raise UserError(f"readout={name}: must be all or one of {', '.join(READOUTS)}")
        if name not in self.readouts:
            raise UserError(f"readout={name}: this model has no latent attention; use encoder_mean or encoder_concat")
        if name == "la_cls" and self.decoder_reads == "tokens" and self.latent_depth == 1:
            raise UserError(
                "readout=la_cls: the CLS token never learned (decoder_reads=tokens, latent_depth=1); use la_mean"
            )


def independent(encoder_depth: int, latent_depth: int) -> dict[str, int]:
    """Depths of the model without latent attention that has as many parameters as one with it.

    Latent attention's blocks are as wide as the encoder's and go there; its CLS token and final LayerNorm, 3 D parameters, go.
    """
    return {"encoder_depth": encoder_depth + latent_depth, "latent_depth": 0}


@dataclass(frozen=True)
class Preset:
    """One row of the table of sizes, with the batch and the peak rate that go with it."""

    width: int
    heads: int
    encoder_depth: int
    latent_depth: int
    decoder_width: int
    decoder_heads: int
    decoder_depth: int
    batch_size: int
    rate: float
    rate_per: int | None = None

    def learning_rate(self, batch_size: int) -> float:
        """The peak rate: fixed for the small presets, proportional to the batch for the others."""
        return self.rate if self.rate_per is None else self.rate * batch_size / self.rate_per

    def sizes(self) -> dict[str, int]:
        """The fields that ModelConfig shares."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name in _SIZES}


_SIZES = {f.name for f in dataclasses.fields(ModelConfig)}

PRESETS = {
    "nano": Preset(64, 4, 3, 2, 64, 4, 1, 16, 1.5e-3),
    "tiny": Preset(192, 3, 6, 3, 96, 3, 2, 32, 1e-3),
    "small": Preset(384, 6, 8, 4, 192, 6, 3, 256, 1.5e-4, 256),
    "base": Preset(768, 12, 12, 4, 384, 12, 4, 256, 1.5e-4, 256),
    "large": Preset(1024, 16, 16, 8, 512, 16, 4, 256, 1.5e-4, 256),
}


def preset(name: str, **changes: object) -> ModelConfig:
    """The model of a preset, with any field of ModelConfig changed: `preset("nano", samples=1000, patch=20)`."""
    if name not in PRESETS:
        raise UserError(f"preset={name}: must be one of {', '.join(PRESETS)}")
    return ModelConfig(**{**PRESETS[name].sizes(), **changes})  # type: ignore[arg-type]
