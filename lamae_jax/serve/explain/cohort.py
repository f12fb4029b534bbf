"""A cohort explained: lead importance by attention and by deletion, the robustness matrix, hidden leads, the map.

    alterations.csv   a line an alteration and label (`mean` over labels first): AUROC and what is lost of it, with intervals
    attention.csv     a line a lead and label: the share of CLS's attention that the lead takes, mean over records with the label
    hidden.csv        a line a lead: how like it was what the model drew of it from the others

n records of the test fold, L leads, C labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import spearmanr

from lamae_jax.artifact.folder import Model
from lamae_jax.data.splits import limited
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.evaluation import features_folder
from lamae_jax.evaluate.summary import where
from lamae_jax.evaluate.task import Task, check_not_pretrained, open_task
from lamae_jax.files import write_csv, write_json
from lamae_jax.progress import say
from lamae_jax.serve.explain.altered import Alteration, hardships, removals, solos
from lamae_jax.serve.explain.attention import look
from lamae_jax.serve.explain.figures import draw_by_label, draw_hidden_leads, draw_importance, draw_map, draw_matrix
from lamae_jax.serve.explain.hidden import draw_hidden, draws_heights, likeness
from lamae_jax.serve.explain.plane import principal, umap
from lamae_jax.serve.explain.probe import Cost, costs, own_head, read_altered
from lamae_jax.serve.explain.report import cohort_page

if TYPE_CHECKING:
    from lamae_jax.serve.explain.task import ExplainConfig

AS_RECORDED = "as recorded"
DRAWN_RECORDS = 200  # of which each lead in turn is hidden and drawn
SHOWN_LABELS, MAPPED_LABELS = 8, 6  # the most frequent ones; tables have them all


def explain_cohort(config: ExplainConfig, model: Model, store: Store, readout: str, workdir: Path) -> dict[str, Any]:
    """Explain the test fold; see `explain`."""
    began = time.monotonic()
    task = open_task(config.labels, store, config.icd10)
    leads = model.contract.leads
    checked = check_not_pretrained(model, task)
    head = own_head(model, task, config.readout)
    readout = head.readout if head else readout
    rows, left_out = complete_records(task, config.records)
    labels = task.labels.matrix[rows][:, task.learnable]
    patients = task.store.patients[rows].astype(str)
    by = "the model's own head" if head else "a linear probe"
    say(f"{config.labels}: {len(rows)} test records of {len(set(patients.tolist()))} patients, {readout} read by {by}")

    hard, removed, alone = hardships(leads), removals(leads) if len(leads) > 1 else {}, solos(leads)
    plan = {each.name: each for each in (Alteration(AS_RECORDED, leads), *hard, *removed.values(), *alone.values())}
    with features_folder(config.cache, workdir) as folder:
        reading = read_altered(
            model, task, head or readout, rows, list(plan.values()), folder, config.batch_size, config.seed
        )
    of = {c.name: c for c in costs(labels, patients, list(plan), reading.chances, config.resamples, config.seed)}
    whole = of[AS_RECORDED]
    if np.isnan(whole.macro):
        raise UserError(f"records={config.records}: no label has both 1 and 0 among {len(rows)} test records; use more")
    matrix = [whole, *(of[each.name] for each in hard)]
    without, single = ([of[each.name] for each in some.values()] for some in (removed, alone))

    order = np.argsort(-(labels == 1).sum(axis=0), kind="stable")
    shown = order[:SHOWN_LABELS]
    names = [task.names[c] for c in shown]
    figures = workdir / "figures"
    last = rollout = np.zeros(0)
    by_label = np.zeros((0, len(leads)))
    attention: dict[str, Any] = {}
    if model.config.latent_depth:
        shares = look(model, task.store, rows, config.batch_size, "attention").shares()
        last, rollout = (each.mean(axis=0) for each in shares)
        by_label = np.array([mean_of(shares[1], column == 1) for column in labels.T])
        write_attention(workdir / "attention.csv", leads, task.names, shares, labels)
        attention = {"last": by_lead(leads, last), "rollout": by_lead(leads, rollout)}
        if without:
            attention["rank_correlation"] = {
                f"{kind} with {what}": rank_correlation(share, values)
                for kind, share in (("last", last), ("rollout", rollout))
                for what, values in (("lost", [c.lost for c in without]), ("alone", [c.macro for c in single]))
            }
    some = [pick(cost, shown) for cost in (*matrix, *without, *single)]
    matrix_shown, without_shown, single_shown = (
        some[: len(matrix)], some[len(matrix) : len(matrix) + len(without)], some[len(matrix) + len(without) :]
    )  # fmt: skip
    draw_matrix(matrix_shown, names, figures / "robustness.png")
    if without:
        draw_importance(leads, last, rollout, without, single, whole, figures / "importance.png")
        draw_by_label(leads, names, by_label[shown] if len(by_label) else by_label, without_shown, single_shown,
                      figures / "by_label.png")  # fmt: skip
    maps = draw_maps(reading.features, labels[:, order[:MAPPED_LABELS]], names[:MAPPED_LABELS], config.seed, figures)
    drawn = draw_each_lead(model, task.store, rows[:DRAWN_RECORDS], workdir) if without else {}

    write_alterations(workdir / "alterations.csv", task.names, list(of.values()))
    summary = where(task) | {
        "macro_auroc": {name: cost.macro for name, cost in of.items()},
        "macro_auroc_interval": {name: list(cost.interval) for name, cost in of.items()},
        "lost": {name: cost.lost for name, cost in of.items()},
        "lost_interval": {name: list(cost.lost_interval) for name, cost in of.items()},
        "attention": attention,
        "hidden": drawn,
        "map": maps,
        "explained": {"records": len(rows), "patients": len(set(patients.tolist())), "left_out_for_a_missing_lead": left_out},
        "readout": readout,
        "read_by": "head" if head else "probe",
        "head_left_aside": model.head is not None and head is None,
        "resamples": config.resamples,
        "seed": config.seed,
        "pretraining_check": checked,
        "model": {"folder": config.model, "sha256": model.sha256},
        "seconds": round(time.monotonic() - began, 2),
    }  # fmt: skip
    write_json(workdir / "summary.json", summary)
    cohort_page(workdir, summary, leads, matrix, without, single)
    return summary


def complete_records(task: Task, limit: int) -> tuple[np.ndarray, int]:
    """The test records [n] that have every lead, at most `limit` of them in whole patients (0: all), and how many have not.

    Raises UserError where none has.
    """
    test = task.rows_of("test")
    whole = test[task.store.available[test].all(axis=1)]
    if not len(whole):
        raise UserError(f"labels: none of the {len(test)} test records of {task.store.folder} has all its leads")
    rows = limited([task.store], [whole], limit)[0] if limit else whole
    return rows, len(test) - len(whole)


def draw_each_lead(model: Model, store: Store, rows: np.ndarray, workdir: Path) -> dict[str, Any]:
    """Hide each lead of the `rows` [n] in turn, write hidden.csv and its figure; nothing for patches without amplitude."""
    if not draws_heights(model):
        return {}
    leads = model.contract.leads
    found, lines = [], [["lead", "records", "correlation_q1", "correlation_median", "correlation_q3", "rms_mv_median"]]
    for place, lead in enumerate(leads):
        drawn = draw_hidden(model, store, rows, (place,))
        r, rms = likeness(drawn.recorded[:, place], drawn.made[:, 0])
        found.append(r)
        quartiles = [f"{value:.4f}" for value in np.quantile(r, [0.25, 0.5, 0.75])]
        lines.append([lead, str(len(rows)), *quartiles, f"{np.median(rms):.4f}"])
        say(f"{lead} drawn from the other leads: correlation {quartiles[1]} (median of {len(rows)} records)")
    write_csv(workdir / "hidden.csv", lines)
    draw_hidden_leads(leads, found, workdir / "figures" / "hidden.png")
    return {
        "records": len(rows),
        "correlation_median": by_lead(leads, np.array([np.median(r) for r in found])),
    }


def draw_maps(
    features: np.ndarray, labels: np.ndarray, names: Sequence[str], seed: int, figures: Path
) -> dict[str, Any]:
    """The records' features [n, F] on a plane: principal components, and UMAP where it is installed."""
    points, explained = principal(features)
    titles = tuple(f"component {i}: {share:.0%} of the variance" for i, share in enumerate(explained, 1))
    draw_map(points, labels, names, (titles[0], titles[1]), figures / "map_pca.png")
    spread = umap(features, seed)
    if spread is not None:
        draw_map(spread, labels, names, ("UMAP 1", "UMAP 2"), figures / "map_umap.png")
    return {"pca_explained": explained, "umap": spread is not None}


def rank_correlation(one: np.ndarray, other: Sequence[float]) -> float | None:
    """Spearman's, of two values a lead; None where all of one are equal."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def mean_of(values: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """The mean over the rows `mine` [n] of `values` [n, L], NaN where there is none."""
    return values[mine].mean(axis=0) if mine.any() else np.full(values.shape[1], np.nan)


def pick(cost: Cost, labels: np.ndarray) -> Cost:
    """The same cost for some of the labels; `macro` and `lost` stay those of all."""
    return Cost(cost.name, cost.aurocs[labels], cost.intervals[labels], cost.macro, cost.interval,
                cost.lost_each[labels], cost.lost_intervals[labels], cost.lost, cost.lost_interval)  # fmt: skip


def by_lead(leads: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Values [L] under the leads' names."""
    return {lead: float(value) for lead, value in zip(leads, values, strict=True)}


def write_alterations(path: Path, labels: Sequence[str], found: Sequence[Cost]) -> None:
    """alterations.csv; empty where a label has one sign only."""
    lines = [["alteration", "label", "auroc", "auroc_low", "auroc_high", "lost", "lost_low", "lost_high"]]
    for cost in found:
        of_labels = zip(labels, cost.aurocs, cost.intervals, cost.lost_each, cost.lost_intervals, strict=True)
        for label, *values in (("mean", cost.macro, cost.interval, cost.lost, cost.lost_interval), *of_labels):
            auroc, interval, lost, lost_interval = values
            written = (auroc, *interval, lost, *lost_interval)
            lines.append([cost.name, label, *("" if np.isnan(v) else f"{v:.6f}" for v in written)])
    write_csv(path, lines)


def write_attention(
    path: Path, leads: Sequence[str], names: Sequence[str], shares: tuple[np.ndarray, np.ndarray], labels: np.ndarray
) -> None:
    """attention.csv; `shares` [n, L] of the last layer and of all, `labels` [n, C]."""
    groups = {"all": np.ones(len(labels), bool)} | {name: labels[:, c] == 1 for c, name in enumerate(names)}
    lines = [["lead", "label", "records", "last", "rollout"]]
    for name, mine in groups.items():
        if not mine.any():
            continue
        last, rollout = (each[mine].mean(axis=0) for each in shares)
        for lead, one, other in zip(leads, last, rollout, strict=True):
            lines.append([lead, name, str(np.count_nonzero(mine)), f"{one:.6f}", f"{other:.6f}"])
    write_csv(path, lines)
