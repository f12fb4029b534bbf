"""The rivals of latent attention: independent leads, and MMVM, which aligns them by a loss."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import parameters, run

from lamae_jax.artifact.folder import load_model
from lamae_jax.command import read_command
from lamae_jax.config import pretrain_config
from lamae_jax.errors import UserError
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import Seen, init_params
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import PRESETS, preset
from lamae_jax.train.alignment import AlignConfig, alignment, alignment_count, beta_at
from lamae_jax.train.optimizer import OptimizerConfig
from lamae_jax.train.sharding import MeshConfig, make_mesh, to_devices
from lamae_jax.train.step import StepConfig, compile_init, compile_step

MODEL = preset("nano", width=16, decoder_width=16, encoder_depth=1, latent_depth=0, samples=200, patch=20)
FORMS = ("pairwise", "mixture")


def step_config(form: str, beta: float, **changes: Any) -> StepConfig:
    model = dataclasses.replace(MODEL, posterior=form == "mixture")
    optimizer = OptimizerConfig(60, 3e-3, warmup=0.05)
    masks = MaskConfig(alpha_E=0.5, alpha_LA=0.0)
    return StepConfig(model, InputConfig(), masks, optimizer, align=AlignConfig(form, beta), **changes)


def train(config: StepConfig, steps: int, devices: tuple[int, int, int] = (1, 1, 1)) -> list[dict[str, float]]:
    mesh = make_mesh(MeshConfig(*devices), jax.devices()[: int(np.prod(devices))])
    init, _, shardings = compile_init(config, mesh)
    update, state = compile_step(config, mesh, shardings), init()
    rng = np.random.default_rng(0)
    beats = np.cumsum(rng.normal(0, 60, (16, 1, 200)), axis=-1) * rng.normal(1, 0.3, (16, 12, 1))
    batch = to_devices({"counts": beats.astype(np.int16), "available": rng.random((16, 12)) > 0.1}, mesh)
    seen = []
    for _ in range(steps):
        state, metrics = update(state, batch)
        seen.append({name: float(value) for name, value in metrics.items()})
    return seen


@pytest.mark.parametrize("name", PRESETS)
def test_independent_leads_have_the_parameters_of_latent_attention_but_for_its_token_and_norm(name: str) -> None:
    """And so many parameters: the comparison is of what leads see of each other, not of size."""
    both = []
    for system in ("lamae", "independent"):
        values = read_command([f"--config=configs/pretrain.py:{name}", f"--config.system={system}"]).config
        model = pretrain_config(values).step.model
        shapes = jax.eval_shape(lambda key, model=model: init_params(model, key), jax.random.key(0))
        both.append(sum(leaf.size for leaf in jax.tree.leaves(shapes)))
    assert both[0] - both[1] == 3 * PRESETS[name].width


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_alignment_loss_aligns(form: str) -> None:
    """Against the same model whose alignment is measured and weighs nothing."""
    strong, none = train(step_config(form, 5.0), 60), train(step_config(form, 0.0), 60)
    assert strong[-1]["train/alignment"] < 0.5 * none[-1]["train/alignment"]
    assert none[-1]["train/loss"] < none[0]["train/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_microbatches_and_devices_change_nothing(form: str) -> None:
    whole = train(step_config(form, 1.0, accumulate=1), 4)
    for others in (train(step_config(form, 1.0, accumulate=4), 4), train(step_config(form, 1.0), 4, (2, 2, 1))):
        for theirs, ours in zip(others, whole, strict=True):
            assert theirs == pytest.approx(ours, rel=2e-4)


def test_beta_is_zero_through_the_warm_up_and_then_rises_to_its_end() -> None:
    betas = np.array([beta_at(AlignConfig(beta=0.4), jnp.int32(step), 1000, 0.05) for step in range(0, 1001, 10)])
    assert (betas[:6] == 0).all() and (np.diff(betas) >= 0).all()
    assert betas[6] < 0.01 and betas[21] == pytest.approx(0.2, rel=0.1) and betas[-1] == pytest.approx(0.4, rel=1e-3)


def test_only_tokens_that_both_leads_show_are_compared() -> None:
    tokens = jax.random.normal(jax.random.key(0), (1, 2, 3, 8))
    shown = jnp.array([[[True, True, False], [False, True, True]]])  # the leads meet at the second time alone
    seen = Seen(tokens, jnp.zeros_like(tokens), tokens)
    changed = tokens.at[0, 0, 0].add(9.0).at[0, 1, 2].add(9.0)
    for form in FORMS:
        before = alignment(form, seen, shown)
        after = alignment(form, Seen(changed, jnp.zeros_like(tokens), changed), shown)
        np.testing.assert_allclose(after, before, atol=1e-4)
    assert float(alignment_count("pairwise", shown)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"system": "independent"},
        {"system": "mmvm"},
        pytest.param({"system": "mmvm", "align__form": "mixture"}, marks=pytest.mark.slow),
    ],
)
def test_each_system_pretrains_from_the_same_command(
    changes: dict[str, str], small_store: Path, tmp_path: Path
) -> None:
    assert run(small_store, tmp_path, **changes) == 0
    model = load_model(tmp_path / "model")
    assert (model.config.encoder_depth, model.config.latent_depth) == (2, 0)
    assert model.config.readouts == ("encoder_mean", "encoder_concat")
    assert not any("latent_attention" in name for name in parameters(tmp_path))
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any("train/alignment" in line for line in logged) == (changes["system"] == "mmvm")


@pytest.mark.parametrize(
    "field, message",
    [
        ({"system": "lame"}, "system=lame: must be one of lamae, independent, mmvm"),
        ({"align__form": "triple"}, "align.form=triple: must be one of pairwise, mixture"),
        ({"align__beta": -1}, "align.beta=-1: must be 0 or more"),
    ],
)
def test_an_impossible_system_is_one_line(
    field: dict[str, Any], message: str, small_store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(small_store, tmp_path, **field) == 2
    assert message in capfd.readouterr().err


def test_a_posterior_without_its_alignment_is_refused() -> None:
    with pytest.raises(UserError, match="goes with align.form=mixture"):
        dataclasses.replace(step_config("mixture", 1.0), align=None)
