"""The same model and the same train step in plain PyTorch, for peer.py to time beside ours.

Symbols and shapes as in model/lamae.py. It holds what the presets use: the decoder reads tokens and CLS, positions are rotary,
masks are independent with no lead hidden. Written to be quick in PyTorch's own ways, not to mirror ours: masks are drawn
unsorted, positions are read from tables, the mask tokens are overwritten by one scatter, whose backward pass is a gather.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamae_jax.errors import UserError
from lamae_jax.model.inputs import MV_PER_COUNT, InputConfig
from lamae_jax.model.layers import ROTARY_BASE
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import ModelConfig
from lamae_jax.train.optimizer import OptimizerConfig


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first half of the dimensions of `x [..., N, Dh]` by angles given as `[..., N, Dh/4]`."""
    pairs = cos.shape[-1]
    first, second, content = x.split((pairs, pairs, x.shape[-1] - 2 * pairs), dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, content], dim=-1)


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index [..., J]` of `x [..., N, D]`."""
    return x.gather(-2, index[..., None].expand(*index.shape, x.shape[-1]))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, shown: Tensor | None) -> Tensor:
        """`x [B, N, D]`, angles `[B, 1, N, Dh/4]`, `shown [B, 1, 1, N]`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [3, B, H, N, Dh]
        both, value = qkv.split((2, 1))
        query, key = rotate(both, cos, sin).unbind()
        mixed = F.scaled_dot_product_attention(query, key, value.squeeze(0), attn_mask=shown)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, shown: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, shown)
        return x + self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh"))


class Transformer(nn.Module):
    cos: Tensor
    sin: Tensor

    def __init__(self, depth: int, width: int, heads: int, patches: int):
        super().__init__()
        self.layers = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        pairs = width // heads // 4
        angles = torch.arange(patches)[:, None] * ROTARY_BASE ** -(torch.arange(pairs) / pairs)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, x: Tensor, times: Tensor, shown: Tensor | None = None) -> Tensor:
        """`x [B, N, D]` at `times [B, N]` (or `[1, N]`), `shown [B, N]`."""
        cos, sin = (table[times][:, None].to(x.dtype) for table in (self.cos, self.sin))
        mask = None if shown is None else shown[:, None, None]
        for block in self.layers:
            x = block(x, cos, sin, mask)
        return self.norm(x)


class Encoder(nn.Module):
    """E_phi, leads as rows of the batch."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.patch_embedding = nn.Linear(config.patch, config.width)
        self.cls = nn.Parameter(torch.zeros(config.width))
        self.lead_embedding = nn.Parameter(torch.zeros(config.leads, config.width))
        self.transformer = Transformer(config.encoder_depth, config.width, config.heads, config.patches)

    def forward(self, patches: Tensor, times: Tensor) -> Tensor:
        """`patches [B, L, K, P]` at `times [B, L, K]` -> `[B, L, 1+K, D]`."""
        records, leads, _ = times.shape
        tokens = self.patch_embedding(patches)
        cls = self.cls.to(tokens.dtype).expand(records, leads, 1, -1)
        x = torch.cat([cls, tokens], dim=2) + self.lead_embedding.to(tokens.dtype)[:, None]
        x = self.transformer(x.flatten(0, 1), F.pad(times, (1, 0)).flatten(0, 1))
        return x.unflatten(0, (records, leads))


class LatentAttention(nn.Module):
    """LA, its own CLS first."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(config.width))
        self.transformer = Transformer(config.latent_depth, config.width, config.heads, config.patches)

    def forward(self, lead_cls: Tensor, tokens: Tensor, times: Tensor, shown: Tensor) -> Tensor:
        """`lead_cls [B, L, D]`, `tokens [B, M, D]` at `times [B, M]`, `shown [B, L+M]` -> `[B, 1+L+M, D]`."""
        records, leads, _ = lead_cls.shape
        cls = self.cls.to(tokens.dtype).expand(records, 1, -1)
        x = torch.cat([cls, lead_cls, tokens], dim=1)
        return self.transformer(x, F.pad(times, (1 + leads, 0)), F.pad(shown, (1, 0), value=True))


class Decoder(nn.Module):
    """D_theta, leads as rows of the batch."""

    times: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, patches = config.decoder_width, config.patches
        self.lead_embedding = nn.Parameter(torch.zeros(config.leads, width))
        self.transformer = Transformer(config.decoder_depth, width, config.decoder_heads, patches)
        self.head = nn.Linear(width, config.patch)
        self.register_buffer("times", F.pad(torch.arange(patches), (2, 0))[None], persistent=False)

    def forward(self, summary: Tensor, tokens: Tensor) -> Tensor:
        """`summary [B, L, 2, D']`, `tokens [B, L, T, D']` -> `[B, L, T, P]` float32."""
        x = torch.cat([summary, tokens], dim=2) + self.lead_embedding.to(tokens.dtype)[:, None]
        x = self.transformer(x.flatten(0, 1), self.times)
        return self.head(x[:, 2:]).float().unflatten(0, summary.shape[:2])


class Peer(nn.Module):
    """The model; parameters named as in ours, so that `load` can find them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.decoder_reads != "tokens_and_cls" or config.positions != "rotary" or config.qk_norm:
            raise UserError("peer: only decoder_reads=tokens_and_cls, positions=rotary and qk_norm=false")
        if not config.latent_depth:
            raise UserError("peer: model.latent_depth=0: must be 1 or more")
        self.config = config
        self.encoder = Encoder(config)
        self.latent_attention = LatentAttention(config)
        self.to_decoder = nn.Linear(config.width, config.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(config.decoder_width))
        self.decoder = Decoder(config)

    def forward(self, x: Tensor, visible: Tensor, kept: Tensor, available: Tensor) -> Tensor:
        """`x [B, L, S]`, `visible [B, L, K]`, `kept [B, M]`, `available [B, L]` -> `[B, L, T, P]` float32."""
        leads, patches = self.config.leads, self.config.patches
        seen = rows_of(x.unflatten(-1, (patches, self.config.patch)), visible)
        lead_cls, tokens = self.encoder(seen, visible).split((1, visible.shape[-1]), dim=2)
        first = torch.arange(0, leads * patches, patches, device=x.device)
        place = (first[:, None] + visible).flatten(1).gather(1, kept)  # [B, M] into L*T
        shown = torch.cat([available, available.gather(1, place // patches)], dim=1)
        z = self.latent_attention(lead_cls.squeeze(2), rows_of(tokens.flatten(1, 2), kept), place % patches, shown)

        cls, lead_cls, tokens = self.to_decoder(z).split((1, leads, kept.shape[1]), dim=1)
        empty = self.mask_token.to(tokens.dtype).expand(x.shape[0], leads * patches, -1)
        canvas = empty.scatter(1, place[..., None].expand_as(tokens), tokens).unflatten(1, (leads, patches))
        return self.decoder(torch.stack([cls.expand_as(lead_cls), lead_cls], dim=2), canvas)


def load(peer: Peer, params: Any) -> None:
    """Put our parameters into the module: layers come apart, kernels are turned over."""
    shapes = {name: value.shape for name, value in peer.state_dict().items()}
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *module, kind = [key.key for key in path]
        name = ".".join([*module, "weight" if kind in ("kernel", "scale") else kind])
        layers = enumerate(np.array(leaf)) if "layers" in module else [("", np.array(leaf))]
        for i, value in layers:
            one = name.replace("layers.", f"layers.{i}.")
            shape = shapes[one]
            value = value.reshape(shape[::-1]).T if kind == "kernel" else value.reshape(shape)
            state[one] = torch.from_numpy(np.ascontiguousarray(value))
    peer.load_state_dict(state)


def model_input(counts: Tensor, available: Tensor, config: InputConfig) -> Tensor:
    """Counts `[B, L, S]` to the model's units, all leads over one scale."""
    signal = (counts.float() * MV_PER_COUNT).clamp(-config.clip_mv, config.clip_mv)
    signal = (signal - signal.mean(-1, keepdim=True)).masked_fill(~available[..., None], 0.0)
    power = signal.square().mean(-1).sum(1) / available.sum(1).clamp(min=1)  # an unavailable lead has none
    return signal / power.sqrt().clamp(min=config.floor_mv)[:, None, None]


def draw_masks(available: Tensor, config: ModelConfig, masks: MaskConfig) -> tuple[Tensor, Tensor]:
    """`visible [B, L, K]` and `kept [B, M]`, in no order: nothing here depends on it."""
    records, leads = available.shape
    visible_patches = masks.visible_patches(config.patches)
    noise = torch.rand(records, leads, config.patches, device=available.device)
    visible = noise.topk(visible_patches, sorted=False).indices
    # Tokens of unavailable leads go first: availability counts more than any draw below 1.
    score = torch.rand(records, leads, visible_patches, device=available.device) + available[..., None]
    return visible, score.flatten(1).topk(masks.kept_tokens(leads, config.patches), sorted=False).indices


def loss_of(peer: Peer, x: Tensor, visible: Tensor, kept: Tensor, available: Tensor) -> Tensor:
    """Squared error over hidden patches of available leads."""
    wanted = x.unflatten(-1, (peer.config.patches, peer.config.patch))
    hidden = torch.ones(wanted.shape[:3], dtype=torch.bool, device=x.device).scatter(2, visible, False)
    counted = hidden & available[..., None]
    error = (peer(x, visible, kept, available) - wanted).square().mean(-1)
    return (error * counted).sum() / counted.sum().clamp(min=1)


def make_optimizer(peer: Peer, config: OptimizerConfig) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW, decay on matrices only, and its schedule."""
    matrices = [module.weight for module in peer.modules() if isinstance(module, nn.Linear)]
    known = set(matrices)
    others = [parameter for parameter in peer.parameters() if parameter not in known]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, config.learning_rate, (config.b1, config.b2), weight_decay=config.weight_decay, fused=True
    )
    warm = max(1, round(config.warmup * config.steps))
    rest = max(config.steps, warm + 1) - warm

    def factor(step: int) -> float:
        if step < warm:
            return step / warm
        return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / rest)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def make_step(
    peer: Peer,
    batch: dict[str, Any],
    inputs: InputConfig,
    masks: MaskConfig,
    optimizer: OptimizerConfig,
    compile_mode: str | None,
) -> Callable[[], Tensor]:
    """The whole update of `peer`, where it lives, on a host batch of `counts` and `available`; None: not compiled."""
    device, low = peer.mask_token.device, peer.config.dtype == "bfloat16"
    counts, available = (torch.from_numpy(batch[name]).to(device) for name in ("counts", "available"))

    def forward(counts: Tensor, available: Tensor) -> Tensor:
        x = model_input(counts, available, inputs)
        visible, kept = draw_masks(available, peer.config, masks)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            return loss_of(peer, x, visible, kept, available)

    if compile_mode is not None:
        forward = torch.compile(forward, mode=compile_mode, fullgraph=True, dynamic=False)
    adamw, schedule = make_optimizer(peer, optimizer)

    def step() -> Tensor:
        loss = forward(counts, available)
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), optimizer.clip)
        adamw.step()
        schedule.step()
        adamw.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return loss.detach()

    return step
