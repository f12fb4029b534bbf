"""python -m lamae_jax.benchmark.peer [--presets=nano,tiny,small] [--batch-sizes=16,16,16] [--rounds=5] [--seconds=3]
                                   [--dtype=float32] [--compile-mode=default] [--out=FILE.json]

Our train step and the same step in plain PyTorch (peer_torch.py), eager and compiled, by turns on one device: from int16
counts to updated parameters, same sizes, batch, precision and number of threads. PyTorch is no dependency of the package.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from lamae_jax.benchmark.step import OPTIMIZER, Case, machine, noise_records, per_second
from lamae_jax.benchmark.suite import BenchmarkConfig
from lamae_jax.errors import UserError
from lamae_jax.files import write_json
from lamae_jax.machine import cores
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params
from lamae_jax.model.masking import MaskConfig
from lamae_jax.model.presets import preset
from lamae_jax.progress import say
from lamae_jax.train.processes import use_cores

COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
SIDES = ("ours", "eager", "compiled")


def compare(config: BenchmarkConfig, compile_mode: str) -> dict[str, Any]:
    """Measure each preset and print a table; returns machine and rows."""
    torch, device = pytorch()
    rows: list[dict[str, Any]] = []
    say(f"{'preset':8} {'batch':>5} {'ours':>9} {'eager':>9} {'compiled':>9}   ECG/s; ours over eager and compiled")
    for name, size in config.cases:
        case = Case(config.model(name), size)
        steps: dict[str, Callable[[], Any]] = {"ours": case.step}
        compile_seconds = {"ours": case.compile_seconds}
        failed = ""
        steps["eager"], _ = peer_step(name, size, config.dtype, device, None)
        try:
            steps["compiled"], compile_seconds["compiled"] = peer_step(name, size, config.dtype, device, compile_mode)
        except Exception as error:  # no compiler here, say: worth a line in the result, not the end of it
            failed = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        rounds: dict[str, list[float]] = {side: [] for side in steps}
        for turn in range(config.rounds):  # by turns, each in another order
            order = list(steps)
            for side in order[turn % len(order) :] + order[: turn % len(order)]:
                jax.block_until_ready(steps[side]())  # a turn's first call pays for what the other side left behind
                rounds[side].append(size * per_second(steps[side], config.seconds))
        medians = {side: statistics.median(rates) for side, rates in rounds.items()}
        ratios = {side: medians["ours"] / medians[side] for side in medians if side != "ours"}
        rows.append(
            {
                "preset": name,
                "batch_size": size,
                "dtype": config.dtype,
                "ecg_per_s": medians,
                "ours_over": ratios,
                "rounds": rounds,
                "compile_seconds": compile_seconds,
                "not_compiled": failed or None,
            }
        )
        shown = " ".join(f"{medians[side]:9.1f}" if side in medians else f"{'-':>9}" for side in SIDES)
        say(f"{name:8} {size:>5} {shown}   {', '.join(f'{ratio:.2f}' for ratio in ratios.values())}")
        if failed:
            say(f"{name:8} torch.compile: {failed}")
    peers = {"threads": torch.get_num_threads(), "torch": torch.__version__, "compile_mode": compile_mode}
    return {"machine": machine(config.common_batch) | peers, "train": rows}


def pytorch() -> tuple[Any, str]:
    """The library, with as many threads and as many bits in a product as XLA takes, and its name for our device."""
    try:
        import torch
    except ModuleNotFoundError:
        raise UserError("PyTorch is not installed: pip install torch in this environment first") from None
    backend = jax.default_backend()
    if backend == "gpu" and torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # XLA, too, multiplies float32 as TF32 there
        return torch, "cuda"
    if backend != "cpu":
        raise UserError(f"jax runs on {backend}, where this PyTorch does not; JAX_PLATFORMS=cpu compares on the CPU")
    torch.set_num_threads(cores())
    return torch, "cpu"


def peer_step(
    name: str, batch_size: int, dtype: str, device: str, compile_mode: str | None
) -> tuple[Callable[[], Any], float]:
    """The peer's train step, warm, from parameters that we drew; and the seconds that its first call took."""
    from lamae_jax.benchmark.peer_torch import Peer, load, make_step

    model = preset(name, dtype=dtype)
    peer = Peer(model)
    load(peer, jax.jit(lambda: init_params(model, jax.random.key(0)))())
    batch = noise_records(model, batch_size)
    step = make_step(peer.to(device), batch, InputConfig(), MaskConfig(), OPTIMIZER, compile_mode)
    begun = time.perf_counter()
    step()
    seconds = time.perf_counter() - begun
    step()
    return step, seconds


def main(arguments: list[str]) -> int:
    """Run the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lamae_jax.benchmark.peer", allow_abbrev=False)
    parser.add_argument("--presets", default="nano,tiny,small")
    parser.add_argument("--batch-sizes", default="16,16,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, at least")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--compile-mode", default="default", choices=COMPILE_MODES, help="of torch.compile")
    parser.add_argument("--out", type=Path, help="write the result here, as JSON")
    asked = parser.parse_args(arguments)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory is for both
    try:
        config = BenchmarkConfig(
            presets=asked.presets,
            batch_sizes=asked.batch_sizes,
            dtype=asked.dtype,
            remat="",
            rounds=asked.rounds,
            seconds=asked.seconds,
            matmul=1,
            source="",
            profile=False,
        )
        use_cores(config.common_batch)
        result = compare(config, asked.compile_mode)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if asked.out:
        write_json(asked.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
