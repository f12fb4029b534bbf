"""Programs for TPU slices: what is read from their text, and (slow, with libtpu) that the train step is split as it should be."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from lamae_jax.benchmark.collectives import Array, Collective, arrays_of, collectives, whole
from lamae_jax.benchmark.topologies import (
    CASES,
    CHIP_GB,
    Case,
    compile_case,
    counted_flops,
    main,
    recipe,
    split_weights,
)
from lamae_jax.command import read_command
from lamae_jax.config import pretrain_config
from lamae_jax.model.flops import training_flops
from lamae_jax.train.sharding import MeshConfig, make_mesh
from lamae_jax.train.step import compile_init

LAUNCH = Path(__file__).parents[2] / "launch"

# Lines as the TPU's compiler writes them, shortened.
PROGRAM = """HloModule jit_step
%all-reduce-scatter.52 (input_0.8: f32[256,143], input_1.8: bf16[64,32]) -> (f32[32,143], bf16[8,32]) {
  %input_0.8 = f32[256,143]{1,0:T(8,128)} parameter(0)
  %all-reduce.388 = (f32[256,143]{1,0:T(8,128)}, bf16[64,32]{1,0}) all-reduce(%input_0.8, %input_1.8), channel_id=1
}
%body (p: f32[12,96]) -> f32[12,96] {
  %all-gather.7 = bf16[384,1,1536]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%bitcast.5), channel_id=6, dimensions={0}
}
ENTRY %main (p: f32[12,96]) -> f32[12,96] {
  %all-reduce.9 = (f32[], f32[384]{0:T(512)}) all-reduce(%a, %b), channel_id=8, to_apply=%add
  %cps.1 = (bf16[50,48]{1,0}, bf16[50,48]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%g), channel_id=172
  %cpd.1 = bf16[50,48]{1,0} collective-permute-done(%cps.1)
  %fusion.1 = (f32[32,143], bf16[8,32]) fusion(%x, %y), kind=kCustom, calls=%all-reduce-scatter.52
}
"""


def test_every_exchange_is_read_once_with_what_comes_out_of_it() -> None:
    assert collectives(PROGRAM) == [
        Collective("reduce-scatter", (Array("f32", (32, 143)), Array("bf16", (8, 32)))),
        Collective("all-gather", (Array("bf16", (384, 1, 1536)),)),
        Collective("all-reduce", (Array("f32", ()), Array("f32", (384,)))),
        Collective("collective-permute", (Array("bf16", (50, 48)),)),
    ]


def test_arrays_are_read_with_their_sizes() -> None:
    arrays = arrays_of("(bf16[50,1,48]{0,2,1:T(8,128)(2,1)S(1)}, pred[]{:S(2)})")
    assert [str(array) for array in arrays] == ["bf16[50,1,48]", "pred[]"]
    assert [array.bytes for array in arrays] == [2 * 50 * 48, 1]


def test_a_weight_is_found_whole_in_any_order_of_axes_as_a_stack_or_as_one_layer() -> None:
    weights = {"layers/mlp_in/kernel": (8, 384, 1536), "layers/out/kernel": (8, 6, 64, 384), "head/kernel": (192, 50)}
    arrays = [Array("bf16", (1536, 1, 384)), Array("f32", (50, 192))]
    assert whole(arrays, weights, ("f32", "bf16"), layers=True) == ("layers/mlp_in/kernel", "head/kernel")
    assert whole(arrays, weights, ("f32", "bf16"), layers=False) == ("head/kernel",)
    assert whole(arrays, weights, ("s32",), layers=True) == ()


@pytest.mark.parametrize("name", ["small", "base", "large"])
def test_what_is_compiled_is_what_the_config_file_trains(name: str) -> None:
    command = ["--config.data.store=somewhere", "--config.batch_size=2048", f"--config=configs/pretrain.py:{name}"]
    trained = pretrain_config(read_command(command).config).step
    ours = recipe(name, 2048)
    optimizer = replace(ours.optimizer, steps=trained.optimizer.steps)
    assert replace(ours, optimizer=optimizer, accumulate=trained.accumulate) == trained


def test_every_case_can_be_laid_out_on_its_slice() -> None:
    for case in CASES:
        kind, sides = case.topology.split(":")
        count = int(np.prod([int(side) for side in sides.split("x")]))
        data, fsdp, _ = case.mesh.shape(count)
        assert kind in CHIP_GB and case.batch_size % (data * fsdp) == 0


@pytest.mark.parametrize("script", ["tpu_vm.sh", "gke.sh", "slurm.sh"])
def test_meshes_that_the_launch_scripts_name_are_among_those_compiled(script: str) -> None:
    text = re.sub(r"\\\n#\s*", "", (LAUNCH / script).read_text())  # lines that go on are joined
    compiled = {(case.preset, case.mesh.fsdp) for case in CASES}
    [(preset, fsdp)] = re.findall(r"configs/pretrain\.py:(\w+) .*--config\.mesh\.fsdp=(\d+)", text)
    advised = {(preset, int(fsdp))} | {("large", int(size)) for size in re.findall(r"large: (\d+)", text)}
    assert advised <= compiled
    if script != "slurm.sh":  # of TPUs slice and batch are named too
        of_all = {(case.preset, case.mesh.fsdp, case.batch_size) for case in CASES if case.topology == "v5e:16x16"}
        [batch] = re.findall(r"--config\.batch_size=(\d+)", text)
        assert (preset, int(fsdp), int(batch)) in of_all
        assert f"{fsdp} of a v5e 16x16" in text or f"mesh.fsdp={fsdp} is a row of a v5litepod-256" in text


def test_weights_split_over_fsdp_are_listed_with_the_shape_of_one_tensor_shard() -> None:
    mesh = make_mesh(MeshConfig(2, 2, 2))
    _, abstract, shardings = compile_init(recipe("nano", 16), mesh)
    weights = split_weights(abstract.params, shardings.params)
    assert weights["latent_attention/transformer/layers/mlp_in/kernel"] == (2, 64, 128)  # 256 over tensor 2
    assert weights["encoder/transformer/layers/mlp_in/kernel"] == (3, 64, 256)
    assert not any(name.endswith("bias") for name in weights)
    _, abstract, shardings = compile_init(recipe("nano", 16), make_mesh(MeshConfig()))
    assert split_weights(abstract.params, shardings.params) == {}


def test_xla_counts_the_arithmetic_that_we_count() -> None:
    config = recipe("nano", 16)
    ours = training_flops(config.model, config.masks)
    assert ours < counted_flops(config) < 1.1 * ours  # XLA counts softmax, LayerNorm and GELU too


def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--presets=huge"]) == 2
    assert "huge" in capsys.readouterr().err


@pytest.mark.slow
def test_on_a_tpu_slice_weights_are_gathered_by_layer_gradients_scattered_and_optimiser_state_never_moves() -> None:
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: nothing compiles for a TPU")
    config = recipe("base", 64)
    # No stack of three: its `out` would look like the three of one layer's qkv.
    small = {"width": 256, "heads": 4, "encoder_depth": 7, "latent_depth": 2, "decoder_width": 128, "decoder_heads": 2}
    config = replace(config, model=replace(config.model, **small))
    row = compile_case(Case("base", "v5e:2x4", MeshConfig(data=1, fsdp=8), 64), config)
    # On a row of chips sums are scattered either in one go or round the ring, neighbour by neighbour.
    assert row.counts["reduce-scatter"] + row.counts["collective-permute"] > 0
    assert row.split == 15 and not row.summed_whole and not row.whole
    # Weights travel, tokens don't: nothing that is sent is larger than a layer's largest matrix.
    assert row.largest_bytes <= 4 * 4 * 256**2
    state = jax.tree.leaves(compile_init(config, make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))[1])
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in state)
    batch = 64 * 12 * (2500 * 2 + 1)
    assert (whole + batch) / 8 <= row.arguments < 1.5 * (whole + batch) / 8  # a TPU pads short axes
