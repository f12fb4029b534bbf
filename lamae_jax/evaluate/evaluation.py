"""One model on one label set, beside the same model untrained: what configs/probe.py and configs/finetune.py run."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamae_jax.artifact.origin import described, provenance_of
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError, check_at_least_one
from lamae_jax.evaluate.figures import draw_calibration, draw_probe, draw_roc
from lamae_jax.evaluate.outcomes import MODES, Settings, chosen_readouts, outcomes, refusal
from lamae_jax.evaluate.report import write_report
from lamae_jax.evaluate.results import Judged, ResultSet, judge, write_predictions, write_results
from lamae_jax.evaluate.summary import split_of, summarise
from lamae_jax.evaluate.task import Task, check_not_pretrained, open_model, open_task, untrained
from lamae_jax.evaluate.tuning import TuneConfig
from lamae_jax.files import write_json
from lamae_jax.model.presets import READOUTS
from lamae_jax.progress import say
from lamae_jax.train.convert import save


@dataclass(frozen=True)
class EvaluationConfig:
    """What the two config files say. Raises UserError for an empty or impossible field.

    `model`: a model folder, or `random:PRESET`; `store`: a prepared store; `labels`: see data/labels; `mode`: one of MODES;
    `readout`: `all` or one of READOUTS (`all` where the mode is attention), in fine-tuning empty for the model's first; `limit`:
    at most so many training records (nested, whole patients), 0 for all; `batch_size`: records encoded at once; `resamples` of
    each bootstrap; `seed`: of the untrained model, the bootstraps and whatever is learned here; `cache`: a folder, or empty.
    """

    model: str
    store: str
    labels: str
    mode: str
    readout: str
    limit: int
    batch_size: int
    resamples: int
    seed: int
    cache: str
    icd10: Icd10Rules
    tuning: TuneConfig | None  # for mode finetune

    def __post_init__(self) -> None:
        for field, value, example in (
            ("model", self.model, "DIR or random:nano"),
            ("data.store", self.store, "DIR"),
            ("labels", self.labels, "icd10:chapter_ix, ptbxl:super or csv:FILE"),
        ):
            if not value:
                raise UserError(f"{field} is empty: pass --config.{field}={example}")
        if self.mode not in MODES:
            raise UserError(f"mode={self.mode}: must be one of {', '.join(MODES[:3])}")
        if self.mode == "finetune" and self.tuning is None:
            raise UserError(
                "mode=finetune: a probe leaves the model as it is; take configs/finetune.py, with the same fields"
            )
        first = self.mode == "finetune" and self.readout == ""
        if self.readout not in ("all", *READOUTS) and not first:
            raise UserError(f"readout={self.readout}: must be all or one of {', '.join(READOUTS)}")
        if self.mode == "attention" and self.readout != "all":
            raise UserError(f"readout={self.readout}: mode=attention reads the tokens themselves; leave readout out")
        if self.limit < 0:
            raise UserError(f"data.limit={self.limit}: must be 0 (no limit) or a number of records")
        check_at_least_one(self, "batch_size", "resamples")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must be from 0 to {2**32 - 1}")


def evaluate(config: EvaluationConfig, workdir: Path) -> dict[str, Any]:
    """Write results.csv, predictions.npz, summary.json, report.html and figures/ into `workdir`; returns the summary. A linear
    probe or a fine-tuning also leaves model/, that of the readout that did best on validation, with its head.

    Raises UserError before any encoding for whatever can't be evaluated, a test record that was pretrained on included.
    """
    began = time.monotonic()
    task = open_task(config.labels, Store.open(config.store), config.icd10, config.limit)
    model = open_model(config.model, task.store, config.seed)
    readouts = chosen_readouts(model.config, config.mode, config.readout)
    if config.readout == "all" and config.mode != "attention":
        for why in filter(None, (refusal(model.config, name) for name in READOUTS)):
            say(f"left out: {why}")
    checked = check_not_pretrained(model, task)
    sizes = ", ".join(f"{count} {part}" for part, count in task.counts.items())
    say(f"{config.labels}: {len(task.learnable)} of {len(task.labels.names)} labels, records: {sizes}")

    with features_folder(config.cache, workdir) as folder:
        settings = Settings(folder, config.batch_size, config.seed, config.tuning)
        scratch = outcomes(config.mode, untrained(model, config.seed), task, readouts, settings)
        trained = outcomes(config.mode, model, task, readouts, settings) if model.sha256 else scratch
    say(f"{config.resamples} resamples by record and by patient")
    yardsticks = {o.readout: judge(task, o, config.resamples, config.seed) for o in scratch}
    judged = {o.readout: judge(task, o, config.resamples, config.seed) for o in trained} if model.sha256 else yardsticks
    for name, each in judged.items():
        low, high = each.macro_intervals()["by_patient"]
        say(f"{name}: macro AUROC {each.macro:.4f} ({low:.4f} to {high:.4f}), untrained {yardsticks[name].macro:.4f}")

    best = max(judged.values(), key=lambda each: each.outcome.prediction.validation)
    both = [*judged.values(), *(yardsticks.values() if model.sha256 else ())]
    write_results(workdir / "results.csv", [ResultSet(task, both)])
    write_predictions(workdir / "predictions.npz", [ResultSet(task, both)])
    summary = summarise(task, config.mode, judged, yardsticks, config.resamples, config.seed) | {
        "best_on_validation": best.outcome.readout,
        "pretraining_check": checked,
        "model": {"folder": config.model, "sha256": model.sha256, "seed": best.outcome.seed},
        "seconds": round(time.monotonic() - began, 2),
    }
    draw_probe(summary, workdir / "figures" / "probe.png")
    draw_roc(task, best, workdir / "figures" / "roc.png")
    draw_calibration(task, best, workdir / "figures" / "calibration.png")
    if best.outcome.model and model.sha256:
        save_with_head(workdir / "model", best, config, task)
    write_json(workdir / "summary.json", summary)
    write_report(workdir, f"{config.mode} on {config.labels}", task, both, summary)
    return summary


def save_with_head(folder: Path, best: Judged, config: EvaluationConfig, task: Task) -> None:
    """The model folder whose `predict` gives what was scored; the card has figure, interval and what the head was fitted on."""
    model = best.outcome.model
    assert model is not None and model.head is not None
    low, high = best.macro_intervals()["by_patient"]
    about = {"task": config.labels, "mode": config.mode, "macro AUROC": [best.macro, low, high],
             "store": described(task.store), "records": task.counts, "split": split_of(task)}  # fmt: skip
    provenance = model.provenance
    if config.mode == "finetune":  # the parameters have learned from this store, too
        records = {"training": task.counts["train"], "validation": task.counts["validation"]}
        provenance = provenance | provenance_of([described(task.store)], records, model)
    head = dataclasses.replace(model.head, about=about)
    save(dataclasses.replace(model, head=head, provenance=provenance), folder)


@contextmanager
def features_folder(cache: str, workdir: Path) -> Iterator[Path]:
    """Where features are kept; without `cache` a folder that goes when the work is done."""
    if cache:
        yield Path(cache)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="features-", dir=workdir) as folder:
        yield Path(folder)
