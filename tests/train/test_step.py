"""One step: the same on any mesh and with any number of microbatches, compiled once, averaged where asked."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.benchmark.collectives import collectives
from lamae_jax.errors import UserError
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params, reconstruct
from lamae_jax.model.masking import MaskConfig, draw_leads, draw_masks
from lamae_jax.model.presets import PRESETS, ModelConfig, preset
from lamae_jax.train.checkpoint import Checkpoints
from lamae_jax.train.optimizer import OptimizerConfig, make_optimizer, schedule
from lamae_jax.train.sharding import MeshConfig, make_mesh, path_of, spec_of, state_shardings, to_devices
from lamae_jax.train.step import StepConfig, compile_init, compile_step, microbatches

MODEL = ModelConfig(
    width=32, heads=8, encoder_depth=1, latent_depth=2, decoder_width=32, decoder_heads=8, decoder_depth=1,
    samples=200, patch=10,
)  # fmt: skip
CONFIG = StepConfig(MODEL, InputConfig(), MaskConfig(), OptimizerConfig(steps=20, learning_rate=1e-3))


@functools.cache
def batches(count: int, records: int = 16, samples: int = 200) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    available = rng.random((records, 12)) > 0.1
    return [
        {"counts": rng.normal(0, 300, (records, 12, samples)).astype(np.int16), "available": available}
        for _ in range(count)
    ]


def run(
    config: StepConfig, shape: tuple[int, int, int], steps: int, samples: int = 200
) -> tuple[Any, list[float], Any]:
    """Train; returns the state, the losses and the step function. A shape of one device takes the first of the eight."""
    devices = jax.devices()[: int(np.prod(shape))]
    mesh = make_mesh(MeshConfig(*shape), devices)
    init, _, shardings = compile_init(config, mesh)
    update = compile_step(config, mesh, shardings)
    state, losses = init(), []
    for batch in batches(steps, samples=samples):
        state, metrics = update(state, to_devices(batch, mesh))
        losses.append(float(metrics["train/loss"]))
    return state, losses, update


def test_eight_devices_give_the_losses_of_one_over_20_steps_and_their_checkpoint_restores_on_one(tmp_path: Any) -> None:
    alone, ours, _ = run(CONFIG, (1, 1, 1), 20)
    split, theirs, _ = run(CONFIG, (2, 2, 2), 20)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    kernel = split.params["latent_attention"]["transformer"]["layers"]["mlp_in"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 4  # fsdp 2 x tensor 2
    moments = split.opt_state[1][0].mu["encoder"]["transformer"]["layers"]["mlp_in"]["kernel"]
    assert moments.addressable_shards[0].data.size == moments.size // 2  # so is the optimiser's state

    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    _, abstract, shardings = compile_init(CONFIG, mesh)
    with Checkpoints(tmp_path, 1) as checkpoints:
        checkpoints.save(20, split, {"note": 1}, {"val_mse": 1.0})
        checkpoints.wait()
        restored, facts = checkpoints.restore(20, abstract, shardings)
    assert facts == {"note": 1}
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(split))
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(restored))


@pytest.mark.slow
def test_eight_devices_give_the_losses_of_one_also_where_the_encoder_is_a_loop_over_recomputed_layers() -> None:
    deep = dataclasses.replace(MODEL, encoder_depth=8, remat=True)
    config = dataclasses.replace(CONFIG, model=deep)
    split, theirs, _ = run(config, (2, 2, 2), 3)
    np.testing.assert_allclose(theirs, run(config, (1, 1, 1), 3)[1], rtol=1e-4)
    kernel = split.params["encoder"]["transformer"]["layers"]["mlp_in"]["kernel"]
    assert kernel.shape[0] == 8 and kernel.addressable_shards[0].data.size == kernel.size // 2  # fsdp 2


def splits_of(devices: int) -> list[tuple[int, int, int]]:
    """Every way to write a number of devices as data x fsdp x tensor."""
    sizes = [size for size in range(1, devices + 1) if devices % size == 0]
    return [(a, b, c) for a in sizes for b in sizes for c in sizes if a * b * c == devices]


@pytest.mark.slow
@pytest.mark.parametrize("shape", splits_of(8), ids=str)
def test_every_split_of_eight_devices_gives_the_losses_of_one_over_50_steps(shape: tuple[int, int, int]) -> None:
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(steps=50, learning_rate=1e-3))
    np.testing.assert_allclose(run(config, shape, 50)[1], losses_of_one_device(config), rtol=1e-4)


@functools.cache
def losses_of_one_device(config: StepConfig) -> list[float]:
    return run(config, (1, 1, 1), 50)[1]


@pytest.mark.slow
def test_fsdp_8_leaves_each_device_a_fifth_of_base_at_most() -> None:
    """Parameters and optimiser state as the compiled program takes them, against those of one device."""
    config = StepConfig(preset("base", remat=True), InputConfig(), MaskConfig(), OptimizerConfig(20, 1e-3))
    mesh = make_mesh(MeshConfig(1, 8, 1))
    _, abstract, shardings = compile_init(config, mesh)
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(abstract))
    batch = batches(1, 8, config.model.samples)[0]
    memory = compile_step(config, mesh, shardings).lower(abstract, batch).compile().memory_analysis()
    assert memory is not None
    assert memory.argument_size_in_bytes < whole / 5


def test_a_big_array_that_no_axis_splits_is_refused_under_fsdp_and_named() -> None:
    big = {"encoder": {"lead_embedding": jax.ShapeDtypeStruct((300, 1000), jnp.float32)}}
    state_shardings(big, make_mesh(MeshConfig(8, 1, 1)))
    with pytest.raises(UserError, match=r"encoder/lead_embedding \[300, 1000\]: 1.2 MB would lie whole .* mesh.fsdp=2"):
        state_shardings(big, make_mesh(MeshConfig(-1, 2, 1)))


def test_decoding_some_leads_is_decoding_all_and_keeping_some() -> None:
    """So the loss over n of L leads, times L/n, is right on average; over all L it is the loss itself."""
    params = init_params(MODEL, jax.random.key(0))
    x, available = jax.random.normal(jax.random.key(1), (3, 12, 200)), jnp.ones((3, 12), bool)
    masks = draw_masks(jax.random.key(2), available, MODEL.patches, MaskConfig())
    decoded = draw_leads(jax.random.key(3), 3, 12, 5)
    predict = jax.jit(functools.partial(reconstruct, MODEL))
    whole, some = predict(params, x, masks, available), predict(params, x, masks, available, decoded=decoded)
    rows = np.asarray(decoded)[..., None, None]
    np.testing.assert_allclose(some, np.take_along_axis(np.asarray(whole), rows, axis=1), atol=1e-5)
    drawn = np.bincount(np.asarray(draw_leads(jax.random.key(4), 4000, 12, 3)).ravel(), minlength=12)
    np.testing.assert_allclose(drawn, 1000, atol=130)  # 4.7 standard deviations


@pytest.mark.slow
def test_the_loss_over_some_leads_estimates_the_loss_over_all() -> None:
    whole = run(CONFIG, (1, 1, 1), 3)[1]
    np.testing.assert_allclose(run(dataclasses.replace(CONFIG, decode_leads=12), (1, 1, 1), 3)[1], whole, rtol=1e-5)
    six = run(dataclasses.replace(CONFIG, decode_leads=6), (1, 1, 1), 3)[1]
    np.testing.assert_allclose(six, whole, rtol=0.2)  # the same scale, and not the same numbers
    assert not np.allclose(six, whole, rtol=1e-4)


def test_initial_parameters_don_t_depend_on_the_devices() -> None:
    states = [run(CONFIG, shape, 0)[0] for shape in ((1, 1, 1), (2, 2, 2), (1, 8, 1))]
    for other in states[1:]:
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(states[0]), jax.device_get(other))


def test_a_device_computes_the_tokens_of_its_own_records_alone_also_in_a_loop_over_layers() -> None:
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, encoder_depth=2, remat=True))
    mesh, records = make_mesh(MeshConfig(1, 8, 1)), 88  # a number that no other size of this model is
    _, abstract, shardings = compile_init(config, mesh)
    step = compile_step(config, mesh, shardings)
    program = step.lower(abstract, batches(1, records)[0]).compile().as_text()
    tokens = [shape for shape in re.findall(r"(?:f32|bf16)\[([\d,]+)\]", program) if shape.count(",") >= 3]
    assert any(str(records // 8) in shape.split(",") for shape in tokens)
    assert not [shape for shape in tokens if str(records) in shape.split(",")]


@pytest.mark.parametrize("mode", ["independent", "block"])
def test_devices_never_ask_one_another_where_tokens_stand(mode: str) -> None:
    config = dataclasses.replace(CONFIG, masks=MaskConfig(mode=mode), accumulate=2)
    mesh = make_mesh(MeshConfig(8, 1, 1))
    _, abstract, shardings = compile_init(config, mesh)
    program = compile_step(config, mesh, shardings).lower(abstract, batches(1, 16)[0]).compile()
    sent = collectives(program.as_text())
    assert sent and not [one for one in sent for array in one.arrays if array.dtype in ("s32", "u32", "pred")]


def test_compiles_once_and_donates_its_state() -> None:
    mesh = make_mesh(MeshConfig())
    init, _, shardings = compile_init(CONFIG, mesh)
    update = compile_step(CONFIG, mesh, shardings)
    state = init()
    first = jax.tree.leaves(state.params)[0]
    with jax.transfer_guard("disallow"):
        for batch in batches(3):
            state, _ = update(state, to_devices(batch, mesh))
    assert update._cache_size() == 1  # type: ignore[attr-defined]
    assert first.is_deleted()
    assert int(state.step) == 3


def test_microbatches_change_nothing_but_rounding() -> None:
    _, whole, _ = run(CONFIG, (1, 1, 1), 4)
    _, parts, _ = run(dataclasses.replace(CONFIG, accumulate=4), (2, 2, 1), 4)
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_averaged_parameters_follow_slowly() -> None:
    state, _, _ = run(dataclasses.replace(CONFIG, ema=0.9), (1, 1, 1), 1)
    start = jax.jit(lambda: init_params(MODEL, jax.random.fold_in(jax.random.key(0), 0)))()
    expected = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, start, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.ema, expected)


def test_longer_records_are_cropped_and_seeds_differ() -> None:
    _, losses, _ = run(CONFIG, (1, 1, 1), 2, samples=300)
    _, other, _ = run(dataclasses.replace(CONFIG, seed=1), (1, 1, 1), 2, samples=300)
    assert np.isfinite(losses).all() and losses != other


@pytest.mark.parametrize("name, rate", [("adamw", 5e-3), pytest.param("muon", 2e-2, marks=pytest.mark.slow)])
def test_learns(name: str, rate: float) -> None:
    """On a batch that repeats, the loss falls well below the 1 that predicting the mean gives."""
    optimizer = OptimizerConfig(steps=150, learning_rate=rate, name=name, warmup=0.1)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    init, _, shardings = compile_init(config, mesh)
    update = compile_step(config, mesh, shardings)
    t = np.arange(200)
    waves = np.sin(2 * np.pi * (t + np.arange(16)[:, None, None] * 7) / 40) * np.linspace(0.3, 1.5, 12)[:, None]
    batch = {"counts": (waves * 1000).astype(np.int16), "available": np.ones((16, 12), bool)}
    state = init()
    for _ in range(150):
        state, metrics = update(state, to_devices(batch, mesh))
    assert float(metrics["train/loss"]) < 0.7


def test_weight_decay_is_on_matrices_only() -> None:
    params = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0)))
    tx = make_optimizer(OptimizerConfig(steps=10, learning_rate=1.0, weight_decay=0.5, warmup=0.0))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    state = tx.init(ones)
    zero = jax.tree.map(jnp.zeros_like, ones)
    for _ in range(2):  # the first step of the warm-up has rate zero
        updates, state = tx.update(zero, state, ones)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        decays = path_of(path).endswith("kernel")
        assert bool(np.any(update)) == decays, path_of(path)


def test_muon_takes_stacked_kernels_layer_by_layer() -> None:
    tx = make_optimizer(OptimizerConfig(steps=10, learning_rate=1e-2, name="muon", weight_decay=0.0, clip=1e9))
    key = jax.random.key(0)
    kernel = jax.random.normal(key, (2, 8, 3, 4, 2))

    def update_of(tree: Any) -> Any:
        state, updates = tx.init(tree), None
        for _ in range(2):
            updates, state = tx.update(tree, state, tree)
        return updates

    stacked = update_of({"layers": {"qkv": {"kernel": kernel}}})["layers"]["qkv"]["kernel"]
    for layer in range(2):
        alone = update_of({"layers": {"qkv": {"kernel": kernel[layer : layer + 1]}}})["layers"]["qkv"]["kernel"]
        np.testing.assert_allclose(stacked[layer], alone[0], atol=1e-6)


def test_rate_warms_up_and_ends_at_its_share() -> None:
    rate = schedule(OptimizerConfig(steps=1000, learning_rate=2e-3))
    assert float(rate(0)) == 0
    assert float(rate(25)) == pytest.approx(1e-3)
    assert float(rate(50)) == pytest.approx(2e-3)
    assert float(rate(1000)) == pytest.approx(2e-5, rel=1e-3)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_array_of_every_preset_has_a_rule(name: str, optimizer: str) -> None:
    config = dataclasses.replace(
        CONFIG, model=preset(name), ema=0.99, optimizer=OptimizerConfig(steps=10, learning_rate=1e-3, name=optimizer)
    )
    mesh = make_mesh(MeshConfig(2, 4, 1))
    compile_init(config, mesh)  # raises for an array without a rule or that an axis does not divide


def test_an_array_without_a_rule_is_named() -> None:
    with pytest.raises(UserError, match="encoder/mystery .*: no sharding rule matches it"):
        spec_of("encoder/mystery", (3, 4), make_mesh(MeshConfig()))


def test_an_array_that_an_axis_does_not_divide_is_named() -> None:
    with pytest.raises(UserError, match=r"mesh.fsdp=8: does not divide a size of to_decoder/kernel \[12, 4\]"):
        spec_of("to_decoder/kernel", (12, 4), make_mesh(MeshConfig(1, 8, 1)))


@pytest.mark.parametrize("sizes", [(0, 1, 1), (-1, -1, 1), (-2, 1, 1)])
def test_impossible_meshes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="mesh"):
        MeshConfig(*sizes)


@pytest.mark.parametrize(
    "records, width, alone, among_eight",
    [(16, 64, 2, 1), (16, 192, 4, 1), (12, 64, 2, 1), (5, 192, 1, 1), (13, 64, 1, 1), (2, 192, 1, 1), (128, 64, 16, 4)],
)
def test_a_batch_is_split_into_equal_parts_of_a_few_records_a_cpu_device(
    records: int, width: int, alone: int, among_eight: int
) -> None:
    assert microbatches(records, width, make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])) == alone
    assert microbatches(records, width, make_mesh(MeshConfig())) == among_eight


@pytest.mark.parametrize("cores, records, devices", [(2, 16, 2), (2, 6, 1), (64, 16, 4)])
def test_a_process_alone_on_a_cpu_takes_its_cores_for_devices(cores: int, records: int, devices: int) -> None:
    """In a process of its own: the number of devices can be set once."""
    program = f"""
import os
os.sched_getaffinity = lambda pid: range({cores})
from lamae_jax.train.processes import use_cores
use_cores({records})
import jax
print(jax.device_count())
use_cores(1000)  # too late, and no matter
print(jax.device_count())
"""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [str(devices)] * 2
    asked = environment | {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    answer = subprocess.run([sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["3", "3"]
