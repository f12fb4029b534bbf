"""Every system of the paper pretrained, probed and fine-tuned on one store: configs/study.py, Tables 1, 3 and 4."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.data.labels import check_spec
from lamae_jax.errors import UserError
from lamae_jax.evaluate.figures import draw_calibration, draw_roc, draw_systems
from lamae_jax.evaluate.outcomes import Settings, chosen_readouts
from lamae_jax.evaluate.report import MODES_ARE, SYSTEMS_ARE, heading, image, page, paragraph, protocol, without_figure
from lamae_jax.evaluate.results import (
    Judged,
    Outcome,
    ResultSet,
    over_codes,
    undefined,
    write_predictions,
    write_results,
)
from lamae_jax.evaluate.study.cells import StudyProtocol, check_before, predicted, pretrained, study_store
from lamae_jax.evaluate.study.tables import (
    COMPARISONS,
    PAIRS,
    Column,
    Versus,
    caution,
    columns,
    comparisons_of,
    differences,
    supervision_rows,
    system_rows,
    versus_rows,
    write_overview,
)
from lamae_jax.evaluate.summary import described_bootstrap, described_labels, where
from lamae_jax.evaluate.task import Task, check_not_pretrained, open_task, untrained
from lamae_jax.files import write_json
from lamae_jax.progress import say
from lamae_jax.train.pretrain import PretrainConfig


@dataclass(frozen=True, eq=False)  # a key of dicts
class Pretraining:
    """One pretraining of a study. `system`: lamae, lamae_e_b, mmvm or independent; `beta`: an MMVM's weight, else 0."""

    system: str
    seed: int
    beta: float
    config: PretrainConfig

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.system}-{self.seed}" + (f"-beta{self.beta:g}" if self.beta else "")


@dataclass(frozen=True)
class StudyConfig:
    """What configs/study.py says: `pretrainings` system by system and seed by seed, the label sets, and how models are evaluated
    on each. Raises UserError."""

    pretrainings: tuple[Pretraining, ...]
    label_sets: tuple[str, ...]
    protocol: StudyProtocol

    def __post_init__(self) -> None:
        for labels in self.label_sets:
            check_spec(labels)
        if len({folder_name(labels) for labels in self.label_sets}) < len(self.label_sets):
            raise UserError(
                f"labels={','.join(self.label_sets)}: each label set needs a name of its own, for its folder"
            )


def folder_name(labels: str) -> str:
    """The folder of a label set in a study of several: `ptbxl_super`, `csv_` and the file's name."""
    kind, _, rest = labels.partition(":")
    return f"{kind}_{Path(rest).stem}"


def study(config: StudyConfig, workdir: Path) -> dict[str, Any]:
    """Write results.csv, predictions.npz, summary.json, report.html and figures/ into `workdir`; returns the summary.

    Of several label sets each has a folder with all of these, and the workdir the results of all.
    """
    began = time.monotonic()
    protocol = config.protocol
    store = study_store(config.pretrainings[0].config, workdir)
    tasks = [open_task(labels, store, protocol.icd10) for labels in config.label_sets]
    for task in tasks:
        sizes = ", ".join(f"{count} {part}" for part, count in task.counts.items())
        say(f"{task.name}: {len(task.learnable)} of {len(task.labels.names)} labels, records: {sizes}")
    check_before([each.config for each in config.pretrainings], tasks, store)
    models = {each: pretrained(each.config, store, workdir / "pretrain" / each.name) for each in config.pretrainings}
    for model in models.values():
        for task in tasks:
            check_not_pretrained(model, task)
    sets: list[ResultSet] = []
    summaries: dict[str, dict[str, Any]] = {}
    folders = {task.name: workdir if len(tasks) == 1 else workdir / folder_name(task.name) for task in tasks}
    for task in tasks:
        judged, summaries[task.name] = _on(task, models, protocol, workdir, folders[task.name])
        sets.append(ResultSet(task, judged))
    if len(tasks) == 1:
        (summary,) = summaries.values()
    else:
        write_results(workdir / "results.csv", sets)
        summary = {"label_sets": summaries}
        write_overview(summaries, folders, protocol.modes, store.name, workdir / "report.html")
    summary |= {"seconds": round(time.monotonic() - began, 2)}
    write_json(workdir / "summary.json", summary)
    return summary


def _on(
    task: Task, pretrained: dict[Pretraining, Model], protocol: StudyProtocol, workdir: Path, folder: Path
) -> tuple[list[Judged], dict[str, Any]]:
    """Every model on one label set; its files go to `folder`, what is kept for a second run to `workdir`."""
    settings = protocol.settings(workdir / "features")
    models, betas = _with_chosen_beta(pretrained, task, settings, workdir)
    found: list[Outcome] = []
    for mode in protocol.modes:
        for each, model in models.items():
            say(f"{task.name}, {mode}: {each.name}")
            found += predicted(workdir / "cells", mode, model, task, _readouts(mode, model, each.system), settings)
            if each.system in ("lamae", "independent"):  # the same architectures untrained, with the same seeds
                bare = untrained(model, each.seed)
                found += predicted(workdir / "cells", mode, bare, task, _readouts(mode, bare, each.system), settings)
    say(f"{task.name}: {len(found)} predictions, {protocol.resamples} resamples of each by record and by patient")
    judged = [protocol.judge(task, outcome) for outcome in found]
    write_results(folder / "results.csv", [ResultSet(task, judged)])
    chosen = [
        each
        for mode in protocol.modes
        for comparison in COMPARISONS
        for column in columns(judged, mode, comparison)
        for each in column.seeds
    ]
    kept = list({id(each): each for each in chosen}.values())
    write_predictions(folder / "predictions.npz", [ResultSet(task, kept)])
    seeds: dict[str, list[int]] = {}
    for each in models:
        seeds.setdefault(each.system, []).append(each.seed)
    summary = _summary(protocol, task, judged, betas) | {
        "seeds": seeds,
        "models": {each.name: model.sha256 for each, model in models.items()},
        "parameters": {
            each.name: int(sum(leaf.size for leaf in jax.tree.leaves(model.params))) for each, model in models.items()
        },
    }
    for mode in protocol.modes:
        for (
            comparison,
            words,
        ) in COMPARISONS.items():  # all: the page of several label sets may tell apart what is the same here
            if summary[mode][comparison]:
                draw_systems(summary[mode][comparison], f"{mode}, {words}", folder / f"figures/{mode}_{comparison}.png")
        for column in columns(judged, mode, "best"):
            if column.system == "lamae":
                draw_roc(task, column.seeds[0], folder / f"figures/{mode}_roc.png")
                draw_calibration(task, column.seeds[0], folder / f"figures/{mode}_calibration.png")
    write_json(folder / "summary.json", summary)
    _report(protocol, task, judged, summary, folder)
    return judged, summary


def _readouts(mode: str, model: Model, system: str) -> tuple[str, ...]:
    """Frozen: all that the model gives. End to end, each a training of its own: both of latent attention, untrained too; the
    encoder's mean of a pretrained LAMAE, which is LAMAE_E, and of leads that never meet."""
    possible = chosen_readouts(model.config, mode, "all")
    if mode != "finetune":
        return possible
    latent = tuple(name for name in possible if name.startswith("la_"))
    return latent if latent and not (system == "lamae" and model.sha256) else (*latent, "encoder_mean")


def _with_chosen_beta(
    models: dict[Pretraining, Model], task: Task, settings: Settings, workdir: Path
) -> tuple[dict[Pretraining, Model], dict[str, float]]:
    """Of the MMVMs those with the beta that does best on validation (linear probe, encoder_mean, mean over seeds)."""
    reached: dict[float, list[float]] = {}
    for each, model in models.items():
        if each.system == "mmvm":
            (outcome,) = predicted(workdir / "cells", "linear", model, task, ("encoder_mean",), settings)
            reached.setdefault(each.beta, []).append(outcome.prediction.validation)
    if not reached:
        return models, {}
    means = {beta: float(np.mean(values)) for beta, values in reached.items()}
    best = max(means, key=lambda beta: means[beta])
    say(f"mmvm: beta {best:g} of {', '.join(f'{beta:g} ({value:.4f})' for beta, value in means.items())} on validation")
    return {each: model for each, model in models.items() if each.system != "mmvm" or each.beta == best}, {
        f"{beta:g}": value for beta, value in means.items()
    }


def _summary(asked: StudyProtocol, task: Task, judged: Sequence[Judged], betas: dict[str, float]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    between: dict[str, Any] = {}
    for mode in asked.modes:
        figures[mode], between[mode] = {}, {}
        for comparison in COMPARISONS:
            shown = columns(judged, mode, comparison)
            figures[mode][comparison] = {column.system: _figures(task, column) for column in shown}
            between[mode][comparison] = {name: asdict(each) for name, each in differences(task, shown).items()}
    return (
        figures
        | where(task)
        | {
            "differences": between,
            "labels": {"names": list(task.names), **described_labels(task, undefined(task, judged[0]))},
            "mmvm_betas_on_validation": betas,
            "bootstrap": described_bootstrap(task, judged[0], asked.resamples, asked.seed),
        }
    )


def _figures(task: Task, column: Column) -> dict[str, Any]:
    """What summary.json says of a system in one comparison."""
    predictions = [each.outcome.prediction for each in column.seeds]
    return {
        "readout": column.readout,
        "chosen": [each.chosen for each in predictions],
        "validation": [each.validation for each in predictions],
        "macro_auroc": float(np.mean(column.macros)),
        "each_seed": column.macros,
        **column.mean.macro_intervals(),
        "over_codes": over_codes(task, column.mean),
    }


def _report(asked: StudyProtocol, task: Task, judged: Sequence[Judged], summary: dict[str, Any], folder: Path) -> None:
    fewest = min(len(seeds) for seeds in summary["seeds"].values())
    sizes = ", ".join(f"{name} {count:,}" for name, count in summary["parameters"].items())
    parts = [
        protocol(task, summary["bootstrap"]),
        caution(fewest),
        paragraph(
            f"{SYSTEMS_ARE} Read as in the paper, latent attention gives its CLS token, leads that never meet their encoder's "
            "mean. At equal width every system is read as D features, best against best as any; validation chooses its readout. "
            "Untrained architectures are frozen under a probe and trained end to end in fine-tuning, which keeps the step that "
            f"did best on validation; step 0 is the linear probe that it starts from. Parameters: {sizes}."
        ),
    ]
    for mode in asked.modes:
        for comparison, words in comparisons_of(summary[mode]).items():
            shown = columns(judged, mode, comparison)
            parts += [heading(f"{MODES_ARE[mode]}: {words}"), system_rows(task, shown)]
            found = [Versus(**each) for each in summary["differences"][mode][comparison].values()]
            pairs = [each for each in found if (each.system, each.other) in PAIRS]
            if pairs:
                parts += [paragraph("Differences, on the same resamples of the test patients:"), versus_rows(pairs)]
            figures = {
                f"{mode}_{comparison}": "Macro AUROC: mean over seeds with 95 % by patient, and each seed as a dot"
            }
            if comparison == "best" and any(column.system == "lamae" for column in shown):
                figures |= {
                    f"{mode}_roc": "LAMAE, first seed: ROC curves",
                    f"{mode}_calibration": "LAMAE, first seed: calibration",
                }
            parts += [image(folder / f"figures/{name}.png", caption) for name, caption in figures.items()]
    supervision = supervision_rows(task, judged)
    if supervision:
        parts += [heading("LAMAE and LAMAE_E: probed and fine-tuned, at equal width"), supervision]
    parts += without_figure(summary["labels"]["undefined"])
    page(folder / "report.html", f"Systems of the paper on {task.name}, {task.store.name}", parts)
