"""python -m lamae_jax.main --config=configs/TASK.py[:VARIANT] [--config.FIELD=VALUE ...] [--workdir=DIR]

TASK is prepare, labels, pretrain, probe, finetune, study, scaling, label_efficiency, embed, explain or benchmark; what a field
means stands beside it in the config file. Without --workdir the run goes to runs/TASK-VARIANT-HASH, where the hash follows from
the config: the same command resumes the same run.

  --help      this text
  --version   the version

Exit codes: 0 done; 2 a mistake in the command, the config or the data, said in one line; 3 a loss or gradient that is not
finite; 4 another process of the job died or hung (134: the first one died or left first, or one never came); 75 stopped by
SIGTERM and 130 by Ctrl-C: what was finished is saved, the same command goes on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from functools import partial
from typing import Any

from lamae_jax import __version__
from lamae_jax.errors import Lost, NotFinite, Stopped, UserError, sigterm_stops


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0
    if "--version" in arguments:
        print(f"lamae_jax {__version__}")
        return 0
    try:
        with sigterm_stops():  # a training catches the signal itself, to save its state first
            run(arguments)
    except (UserError, NotFinite, Lost, Stopped) as error:
        # No traceback: the line says what to do.
        print(
            f"{'stopped' if isinstance(error, Stopped) else 'error'}: {' '.join(str(error).split())}", file=sys.stderr
        )
        return error.exit_code
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"error: cannot read or write{where}: {error.strerror or error}", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print("stopped: interrupted; the same command goes on from what is saved", file=sys.stderr)
        return 130
    return 0


def run(arguments: list[str]) -> None:
    """Read the command, claim its folder, run its task."""
    from lamae_jax import config
    from lamae_jax.command import facts, read_command
    from lamae_jax.workdir import claimed

    command = read_command(arguments)
    if command.task == "prepare":
        from lamae_jax.data.prepare import prepare

        preparing = config.prepare_config(command.config, command.variant)
        with claimed(command) as workdir:
            prepare(preparing, workdir)
    elif command.task == "labels":
        from lamae_jax.data.labels.report import report_labels

        reporting = config.labels_config(command.config)
        with claimed(command) as workdir:
            report_labels(reporting, workdir)
    elif command.task == "pretrain":
        from lamae_jax.train.pretrain import pretrain
        from lamae_jax.train.processes import check_alike, start_processes, together

        quiet()
        process = start_processes(named=command.workdir is not None, batch_size=shared_out(command.config))
        pretraining = together(lambda: config.pretrain_config(command.config))
        with contextlib.ExitStack() as stack:
            workdir = together(lambda: stack.enter_context(claimed(command, process)))
            check_alike(lambda: facts(command))
            pretrain(pretraining, workdir)
    elif command.task in ("probe", "finetune"):
        from lamae_jax.evaluate.evaluation import evaluate
        from lamae_jax.train.processes import use_cores

        evaluating = config.evaluation_config(command.config, command.task)
        with claimed(command) as workdir:
            use_cores(evaluating.batch_size)
            evaluate(evaluating, workdir)
    elif command.task in ("study", "scaling"):
        from lamae_jax.evaluate.study.scaling import scaling
        from lamae_jax.evaluate.study.systems import study
        from lamae_jax.train.processes import use_cores

        quiet()
        if command.task == "study":
            work = partial(study, config.study_config(command.config))
        else:
            work = partial(scaling, config.scaling_config(command.config))
        with claimed(command) as workdir:
            use_cores(shared_out(command.config["pretrain"]))
            work(workdir)
    elif command.task == "label_efficiency":
        from lamae_jax.evaluate.study.label_efficiency import label_efficiency
        from lamae_jax.train.processes import use_cores

        measuring_labels = config.label_efficiency_config(command.config)
        with claimed(command) as workdir:
            use_cores(measuring_labels.protocol.batch_size)
            label_efficiency(measuring_labels, workdir)
    elif command.task == "embed":
        from lamae_jax.serve.archive import embed_archive
        from lamae_jax.train.processes import use_cores

        embedding = config.embed_config(command.config)
        with claimed(command) as workdir:
            use_cores(embedding.batch_size)
            embed_archive(embedding, workdir)
    elif command.task == "explain":
        from lamae_jax.serve.explain.task import explain
        from lamae_jax.train.processes import use_cores

        explaining = config.explain_config(command.config)
        with claimed(command) as workdir:
            use_cores(explaining.batch_size)
            explain(explaining, workdir)
    elif command.task == "benchmark" and command.variant == "growth":
        from lamae_jax.benchmark.growth import GrowthConfig, growth

        growing = GrowthConfig(**command.config)
        with claimed(command) as workdir:
            growth(growing, workdir)
    elif command.task == "benchmark" and command.variant == "evaluation":
        from lamae_jax.benchmark.evaluating import EvaluationCosts, evaluation_costs

        costs = EvaluationCosts(**command.config)
        with claimed(command) as workdir:
            evaluation_costs(costs, workdir)
    elif command.task == "benchmark":
        from lamae_jax.benchmark.suite import BenchmarkConfig, benchmark

        measuring = BenchmarkConfig(**command.config)
        with claimed(command) as workdir:
            benchmark(measuring, workdir)
    else:
        tasks = (
            "prepare, labels, pretrain, probe, finetune, study, scaling, label_efficiency, embed, explain or benchmark"
        )
        raise UserError(f"task={command.task}: must be {tasks}")


def shared_out(pretraining: dict[str, Any]) -> int:
    """The records of a microbatch, which the cores of a CPU may share; 1 where `mesh.data` leaves them one device."""
    one_device = pretraining["mesh"]["data"] != -1
    return 1 if one_device else int(pretraining["batch_size"] // max(1, pretraining["accumulate"]))


def quiet() -> None:
    """orbax and its event loop log, with tracebacks, what is then raised; the raised error becomes one line."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
