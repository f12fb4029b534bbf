"""What peer.py times is the same model and the same update: same parameters, inputs and masks, same numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lamae_jax.benchmark import peer
from lamae_jax.errors import UserError
from lamae_jax.model import inputs
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import Params, init_params, patches_of, reconstruct
from lamae_jax.model.losses import counted_patches, squared_error
from lamae_jax.model.masking import MaskConfig, Masks, draw_masks, hidden_patches
from lamae_jax.model.presets import ModelConfig, preset
from lamae_jax.train.optimizer import OptimizerConfig, make_optimizer

SMALL = ModelConfig(
    width=24, heads=3, encoder_depth=2, latent_depth=2, decoder_width=16, decoder_heads=2, decoder_depth=2,
    samples=200, patch=10,
)  # fmt: skip
AVAILABLE = np.ones((3, 12), bool)
AVAILABLE[1, [2, 7]] = False


@pytest.fixture
def theirs() -> Any:
    """peer_torch.py, where PyTorch is."""
    pytest.importorskip("torch", reason="PyTorch is not installed: skipped")
    from lamae_jax.benchmark import peer_torch

    return peer_torch


def params_of(config: ModelConfig) -> Params:
    """Parameters with every array away from its initial zeros, so that one in the wrong place shows."""
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def counts_of(config: ModelConfig) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 300, (3, config.leads, config.samples)).astype(np.int16)


@pytest.mark.parametrize("config", [SMALL, preset("nano")], ids=["small", "nano"])
def test_the_same_parameters_and_masks_give_the_same_reconstruction_loss_and_gradient(
    theirs: Any, config: ModelConfig
) -> None:
    import torch

    params, available = params_of(config), jnp.asarray(AVAILABLE)
    masks = draw_masks(jax.random.key(2), available, config.patches, MaskConfig())
    x, _ = inputs.model_input(jnp.asarray(counts_of(config)), available, InputConfig())

    @jax.jit
    def ours(params: Params, masks: Masks) -> tuple[jax.Array, jax.Array]:
        predicted = reconstruct(config, params, x, masks, available)
        counted = counted_patches(hidden_patches(masks, config.leads, config.patches), available)
        return squared_error(predicted, patches_of(x, config.patch), counted) / counted.sum(), predicted

    (loss, predicted), gradient = jax.value_and_grad(ours, has_aux=True)(params, masks)

    module = theirs.Peer(config)
    theirs.load(module, params)
    shown = torch.from_numpy(AVAILABLE)
    their_x = theirs.model_input(torch.from_numpy(counts_of(config)), shown, InputConfig())
    np.testing.assert_allclose(their_x, x, rtol=1e-5, atol=1e-6)
    index = [torch.from_numpy(np.array(part)).long() for part in (masks.visible, masks.kept)]
    their_loss = theirs.loss_of(module, their_x, *index, shown)
    their_loss.backward()
    with torch.no_grad():
        theirs_predicted = module(their_x, *index, shown)

    # What is predicted of an unavailable lead is nobody's business, but the two agree there too.
    np.testing.assert_allclose(theirs_predicted, predicted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(their_loss.item(), loss, rtol=1e-5)
    wanted = theirs.Peer(config)
    theirs.load(wanted, gradient)
    for (name, parameter), expected in zip(module.named_parameters(), wanted.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, expected.detach(), rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_same_gradients_give_the_same_updates(theirs: Any) -> None:
    import torch

    config, params = OptimizerConfig(steps=8, learning_rate=0.01, warmup=0.25), params_of(SMALL)
    module, gradient = theirs.Peer(SMALL), theirs.Peer(SMALL)
    theirs.load(module, params)
    theirs.load(gradient, params)  # a gradient as good as any, and well above the norm that is clipped
    adamw, schedule = theirs.make_optimizer(module, config)
    tx, step = make_optimizer(config), params
    state = tx.init(params)
    for _ in range(6):
        updates, state = tx.update(params, state, step)
        step = optax.apply_updates(step, updates)
        for parameter, given in zip(module.parameters(), gradient.parameters(), strict=True):
            parameter.grad = given.detach().clone()
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.clip)
        adamw.step()
        schedule.step()
    theirs.load(gradient, step)
    for (name, parameter), expected in zip(module.named_parameters(), gradient.parameters(), strict=True):
        np.testing.assert_allclose(parameter.detach(), expected.detach(), rtol=1e-4, atol=1e-6, err_msg=name)


def test_masks_show_as_many_patches_as_ours_and_drop_unavailable_leads_first(theirs: Any) -> None:
    import torch

    visible, kept = theirs.draw_masks(torch.from_numpy(AVAILABLE), SMALL, MaskConfig())
    assert visible.shape == (3, 12, 5) and kept.shape == (3, 54)
    assert all(len(set(row.tolist())) == 5 for row in visible.flatten(0, 1))
    # 60 shown tokens, 6 dropped: of record 1 all of them from its two unavailable leads.
    assert set(range(60)) - set(kept[1].tolist()) <= {*range(10, 15), *range(35, 40)}


@pytest.mark.parametrize("change", [{"decoder_reads": "tokens"}, {"positions": "both"}, {"latent_depth": 0}], ids=str)
def test_a_form_that_the_peer_does_not_have_is_refused(theirs: Any, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="peer"):
        theirs.Peer(preset("nano", **change))


def test_the_script_measures_both_sides(theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = theirs.make_step

    def without_compiler(*given: Any) -> Any:
        if given[-1] is not None:
            raise RuntimeError("no compiler here\nand a long story")
        return made(*given)

    monkeypatch.setattr(theirs, "make_step", without_compiler)
    file = tmp_path / "peer.json"
    flags = ["--presets=nano", "--batch-sizes=2", "--rounds=2", "--seconds=0.01", f"--out={file}"]
    assert peer.main(flags) == 0
    result = json.loads(file.read_text())
    row = result["train"][0]
    assert row["ecg_per_s"].keys() == {"ours", "eager"} and row["ours_over"]["eager"] > 0
    assert [len(rates) for rates in row["rounds"].values()] == [2, 2]
    assert row["not_compiled"] == "RuntimeError: no compiler here"


def test_without_pytorch_it_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert peer.main(["--presets=nano", "--batch-sizes=2"]) == 2
    assert capsys.readouterr().err.startswith("error: PyTorch is not installed")
