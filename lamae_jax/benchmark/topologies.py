"""The train step compiled for TPU slices that are not there: what a chip must hold, and what the chips send each other.

    python -m lamae_jax.benchmark.topologies [--presets=base,large] [--topologies=v5e:16x16] [--out=FILE]

Needs `pip install --no-deps libtpu` of the version that jax[tpu] asks for, and no TPU: programs are compiled, none is run.
Without --out the tables are printed alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lamae_jax.benchmark.collectives import KINDS, Shape, arrays_of, collectives, whole
from lamae_jax.benchmark.step import one_device, program_memory
from lamae_jax.errors import UserError
from lamae_jax.files import write_text
from lamae_jax.model.flops import training_flops
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import PRESETS, preset
from lamae_jax.progress import say
from lamae_jax.train.optimizer import OptimizerConfig
from lamae_jax.train.sharding import MeshConfig, make_mesh, path_of
from lamae_jax.train.step import StepConfig, compile_init, compile_step

CHIP_GB = {"v5e": 16, "v5p": 95}  # memory a chip, as its maker states it


@dataclass(frozen=True)
class Case:
    """A preset on a slice: the mesh of its chips and the batch of all of them together."""

    preset: str
    topology: str
    mesh: MeshConfig
    batch_size: int


CASES = (
    Case("small", "v5e:2x4", MeshConfig(fsdp=1), 256),
    Case("small", "v5e:2x4", MeshConfig(fsdp=8), 256),
    Case("small", "v5e:4x4", MeshConfig(fsdp=1), 512),
    Case("small", "v5e:16x16", MeshConfig(fsdp=1), 2048),
    Case("base", "v5e:2x4", MeshConfig(fsdp=8), 256),
    Case("base", "v5e:4x4", MeshConfig(fsdp=16), 512),
    Case("base", "v5e:16x16", MeshConfig(fsdp=16), 2048),
    Case("large", "v5e:2x4", MeshConfig(fsdp=8), 256),
    Case("large", "v5e:4x4", MeshConfig(fsdp=16), 512),
    Case("large", "v5e:16x16", MeshConfig(fsdp=32), 2048),
    Case("large", "v5p:4x4x4", MeshConfig(fsdp=16), 2048),
)


@dataclass(frozen=True)
class Compiled:
    """One program's figures, all of one chip.

    Of the weights that are split over fsdp: `summed_whole` had the gradient, of one layer or all, summed on every chip before
    each took its part; of `whole` an array of all layers is somewhere in the program, or one in float32 was gathered: that
    would be the stored weights, the optimiser's state or the sum of gradients.
    """

    case: Case
    mesh: tuple[int, ...]
    arguments: int  # bytes: parameters, optimiser state and batch
    temporaries: int
    memory: int  # all that the program needs, its own code included
    counts: dict[str, int]
    largest: str
    largest_bytes: int
    split: int
    summed_whole: tuple[str, ...]
    whole: tuple[str, ...]
    flops: float
    bytes: float


def recipe(name: str, batch_size: int) -> StepConfig:
    """The train step of configs/pretrain.py:NAME for recordings of 10 s, in one part as on any accelerator.

    The number of steps only sets the schedule's constants.
    """
    model = preset(name, dtype="float32" if name in ("nano", "tiny") else "bfloat16", remat=name in ("base", "large"))
    optimizer = OptimizerConfig(steps=100_000, learning_rate=PRESETS[name].learning_rate(batch_size))
    return StepConfig(model, InputConfig(), MaskConfig(), optimizer, accumulate=1)


def abstract_batch(config: StepConfig, records: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What the loader would bring, without the data."""
    leads, samples = config.model.leads, config.model.samples
    return {
        "counts": jax.ShapeDtypeStruct((records, leads, samples), jnp.int16),
        "available": jax.ShapeDtypeStruct((records, leads), jnp.bool_),
    }


def chips(topology: str) -> list[Any]:
    """The chips of a slice such as `v5e:2x4`. Raises UserError without libtpu."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("libtpu is not installed: pip install --no-deps libtpu, in the version that jax[tpu] asks for")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no cloud machine: there is nobody to ask about its TPU
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no TPU is used, so there is nothing to lock
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)


def split_weights(params: Any, shardings: Any) -> dict[str, Shape]:
    """Parameters that lie split over fsdp, by path: the shape that a chip would see if it held them whole."""
    found = {}
    for (path, leaf), sharding in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings)):
        size = {axis: sharding.mesh.shape[axis] for axis in sharding.mesh.axis_names}
        if "fsdp" in sharding.spec and size["fsdp"] > 1:
            tensor = (size["tensor"] if axis == "tensor" else 1 for axis in (*sharding.spec, *[None] * leaf.ndim))
            found[path_of(path)] = tuple(length // by for length, by in zip(leaf.shape, tensor))
    return found


def compile_case(case: Case, config: StepConfig) -> Compiled:
    """Compile a case. Raises UserError without libtpu, and for a program that does not fit a chip."""
    mesh = make_mesh(case.mesh, chips(case.topology))
    _, abstract, shardings = compile_init(config, mesh)
    lowered = compile_step(config, mesh, shardings).lower(abstract, abstract_batch(config, case.batch_size))
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"{case.preset} on {case.topology}: {str(error).splitlines()[0]}") from None
    stats: Any = program.memory_analysis()
    cost: Any = program.cost_analysis()
    text = program.as_text() or ""
    sent = collectives(text)
    summed = [array for one in sent if one.kind == "all-reduce" for array in one.arrays]
    gathered = [array for one in sent if one.kind == "all-gather" for array in one.arrays]
    weights = split_weights(abstract.params, shardings.params)
    stacks = {path: shape for path, shape in weights.items() if "layers" in path}
    largest = max((array for one in sent for array in one.arrays), key=lambda array: array.bytes, default=None)
    return Compiled(
        case=case,
        mesh=tuple(mesh.shape.values()),
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        memory=program_memory(program) + stats.generated_code_size_in_bytes,
        counts={kind: sum(one.kind == kind for one in sent) for kind in KINDS},
        largest=str(largest),
        largest_bytes=largest.bytes if largest else 0,
        split=len(weights),
        summed_whole=whole(summed, weights, ("f32", "bf16"), layers=True),
        whole=whole(arrays_of(text), stacks, ("f32", "bf16"), layers=False)
        + whole(gathered, weights, ("f32",), layers=False),
        flops=cost["flops"],
        bytes=cost["bytes accessed"],
    )


def counted_flops(config: StepConfig, records: int = 256) -> float:
    """One record's update by XLA's own count, before it optimises; elementwise work is in it, recomputation not.

    XLA counts a loop's body once. So the step is lowered with one block in each stack and with a second in one stack after
    the other (stacks as short as that are not rolled into loops), which gives the cost of a block of each. With so many
    records the optimiser's share is lost in rounding.
    """

    def of_depths(encoder: int, latent: int, decoder: int) -> float:
        depths: dict[str, Any] = {"encoder_depth": encoder, "latent_depth": latent, "decoder_depth": decoder}
        short = replace(config, model=replace(config.model, remat=False, **depths))
        mesh = one_device()
        _, abstract, shardings = compile_init(short, mesh)
        cost: Any = compile_step(short, mesh, shardings).lower(abstract, abstract_batch(short, records)).cost_analysis()
        return cost["flops"] / records

    base, model = of_depths(1, 1, 1), config.model
    more = [of_depths(2, 1, 1) - base, of_depths(1, 2, 1) - base, of_depths(1, 1, 2) - base]
    depths = np.array([model.encoder_depth, model.latent_depth, model.decoder_depth])
    return float(base + np.dot(depths - 1, more))


def memory_table(rows: list[Compiled]) -> list[str]:
    """Markdown: what a chip must hold and what the chips send."""
    lines = [
        "| preset | slice | mesh (data x fsdp) | batch | arguments | memory a chip | of | "
        + " | ".join(KINDS)
        + " | largest array sent | gradients | optimiser state |",
        "|---" * (10 + len(KINDS)) + "|",
    ]
    for row in rows:
        gradients = f"{row.split - len(row.summed_whole)} of {row.split} scattered" if row.split else "whole"
        state = ("split" if not row.whole else "gathered") if row.split else "whole"
        data, fsdp, _ = row.mesh
        lines.append(
            f"| {row.case.preset} | {row.case.topology.replace(':', ' ')} | {data} x {fsdp} | {row.case.batch_size} "
            f"| {row.arguments / 1e9:.2f} GB | {row.memory / 1e9:.1f} GB | {CHIP_GB[row.case.topology[:3]]} GB | "
            + " | ".join(str(row.counts[kind]) for kind in KINDS)
            + f" | {row.largest}, {row.largest_bytes / 1e6:.1f} MB | {gradients} | {state} |"
        )
    return lines


def cost_table(rows: list[Compiled]) -> list[str]:
    """Markdown: the arithmetic of an update by our count and by the compiler's."""
    lines = [
        "| preset | GFLOP a record, ours | XLA's | XLA / ours | slice | GFLOP a chip, ours | in the text | GB in the text |",
        "|---|---|---|---|---|---|---|---|",
    ]
    counted: dict[str, tuple[float, float]] = {}
    for row in rows:
        config = recipe(row.case.preset, row.case.batch_size)
        if row.case.preset not in counted:
            counted[row.case.preset] = training_flops(config.model, config.masks), counted_flops(config)
        ours, xla = counted[row.case.preset]
        a_chip = ours * row.case.batch_size / int(np.prod(row.mesh))
        lines.append(
            f"| {row.case.preset} | {ours / 1e9:.1f} | {xla / 1e9:.1f} | {xla / ours:.2f} "
            f"| {row.case.topology.replace(':', ' ')}, {row.mesh[0]} x {row.mesh[1]} | {a_chip / 1e9:.0f} "
            f"| {row.flops / 1e9:.0f} | {row.bytes / 1e9:.0f} |"
        )
    return lines


def main(arguments: list[str]) -> int:
    """Compile the cases asked for, print the tables and write them where asked; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="small,base,large", help="comma-separated")
    parser.add_argument("--topologies", default="", help="comma-separated; empty: all of the table")
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    asked = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")  # compile for TPUs, run nothing on one that may be here
    names, slices = asked.presets.split(","), [name for name in asked.topologies.split(",") if name]
    cases = [case for case in CASES if case.preset in names and (not slices or case.topology in slices)]
    try:
        if not cases:
            known = ", ".join(f"{case.preset} on {case.topology}" for case in CASES)
            raise UserError(
                f"presets={asked.presets} topologies={asked.topologies}: nothing to compile; there are {known}"
            )
        rows = []
        for case in cases:
            rows.append(compile_case(case, recipe(case.preset, case.batch_size)))
            say(memory_table(rows)[-1])  # each takes minutes
        text = "\n".join([*memory_table(rows), "", *cost_table(rows), ""])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    say(text)
    if asked.out:
        write_text(asked.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
