"""One record explained: where CLS looks, what is predicted as leads are taken away, leads drawn from the others.

L leads, T patches a lead, S samples, C labels.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from lamae_jax.artifact.folder import Model
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.evaluation import features_folder
from lamae_jax.evaluate.task import open_task
from lamae_jax.files import write_json
from lamae_jax.model.inputs import crop
from lamae_jax.serve.explain.altered import ARMS_SWAPPED, Alteration, removals
from lamae_jax.serve.explain.attention import Looks, look
from lamae_jax.serve.explain.figures import draw_chances, save_both
from lamae_jax.serve.explain.hidden import draw_hidden, draws_heights, likeness
from lamae_jax.serve.explain.probe import fitted_here, own_head, read_altered
from lamae_jax.serve.explain.report import record_page
from lamae_jax.signal.ecg_paper import draw_ecg, draw_reconstruction
from lamae_jax.signal.leads import STANDARD_LEADS

if TYPE_CHECKING:
    from lamae_jax.serve.explain.task import ExplainConfig

SHOWN_LABELS = 10  # those with the highest chance


def explain_record(
    config: ExplainConfig, model: Model, store: Store, readout: str, hidden: tuple[int, ...], workdir: Path
) -> dict[str, Any]:
    """Explain the record `config.record`, the leads `hidden` drawn by the model; see `explain.explain`."""
    began = time.monotonic()
    row = row_of(store, config.record)
    rows, leads, figures = np.array([row]), model.contract.leads, workdir / "figures"
    available = store.available[row]
    summary: dict[str, Any] = {
        "record": config.record,
        "patient": str(store.patients[row]),
        "store": {"folder": str(store.folder), "hash": store.hash, "source": store.name},
        "available": [lead for lead, there in zip(leads, available, strict=True) if there],
        "readout": readout,
        "attention": {},
        "hidden": {},
        "chances": {},
    }
    signal = np.asarray(crop(jnp.asarray(store.read(rows)), model.config.samples))[0] / 1e3
    layout = "3x4" if set(leads) == set(STANDARD_LEADS) else "12x1"
    fs = model.contract.fs
    if model.config.latent_depth:
        looks = look(model, store, rows, 1, "attention")
        for name, shares in zip(Looks._fields, looks.shares(), strict=True):
            summary["attention"][name] = dict(zip(leads, shares[0].tolist(), strict=True))
        for name, values in zip(Looks._fields, looks, strict=True):
            title = f"record {config.record}: {TITLES[name]}"
            figure = draw_ecg(signal, fs, leads, available, title, layout, glow(values[0, :, 1:]))
            save_both(figure, figures / f"attention_{name}.png")
    else:
        save_both(draw_ecg(signal, fs, leads, available, f"record {config.record}", layout), figures / "ecg.png")

    absent = tuple(np.flatnonzero(~available).tolist())
    drawn = tuple(sorted({*hidden, *absent}))
    if drawn and len(drawn) < len(leads) and (hidden or draws_heights(model)):
        summary["hidden"] = draw_leads(model, store, row, drawn, figures / "hidden.png")
    if config.labels:
        summary["chances"] = chances(config, model, store, readout, row, workdir)
    summary |= {
        "model": {"folder": config.model, "sha256": model.sha256},
        "seed": config.seed,
        "seconds": round(time.monotonic() - began, 2),
    }
    write_json(workdir / "summary.json", summary)
    record_page(workdir, summary)
    return summary


TITLES = {
    "last": "what CLS attends to in the last layer of latent attention",
    "rollout": "what CLS attends to through all layers (rollout)",
}


def row_of(store: Store, record: str) -> int:
    """The row of a record id, of several windows the first. Raises UserError where the store has no such record."""
    ids = store.record_ids.astype(str)
    found = np.flatnonzero(ids == record)
    if not len(found):
        raise UserError(
            f"record={record}: not among the {len(ids)} records of {store.folder}; their ids are like {', '.join(ids[:3])}"
        )
    return int(found[0])


def glow(weights: np.ndarray) -> np.ndarray:
    """Attention [L, T] as light from 0 to 1: what an even spread would give is dark, the hundredth part above all is full."""
    even = weights.sum() / max(np.count_nonzero(weights), 1)
    bright = max(float(np.quantile(weights, 0.99)), even * 1.0001, 1e-12)
    return np.clip((weights - even) / (bright - even), 0, 1)


def draw_leads(model: Model, store: Store, row: int, hidden: tuple[int, ...], path: Path) -> dict[str, Any]:
    """Draw the leads `hidden` from the others; how like the recorded ones they are, by lead (None: was not recorded)."""
    leads, available = model.contract.leads, store.available[row]
    drawn = draw_hidden(model, store, np.array([row]), hidden)
    recorded, made = drawn.recorded[0], drawn.recorded[0].copy()
    made[list(hidden)] = drawn.made[0]
    mask = np.zeros(recorded.shape, bool)
    mask[list(hidden)] = True
    shown = available | mask[:, 0]
    names = ", ".join(leads[lead] for lead in hidden)
    figure = draw_reconstruction(
        recorded, recorded, made, model.contract.fs, leads, mask, shown, f"{names} drawn from the other leads"
    )
    save_both(figure, path)
    found: dict[str, Any] = {}
    for place, lead in enumerate(hidden):
        r, rms = likeness(recorded[None, lead], drawn.made[:, place])
        found[leads[lead]] = {"correlation": float(r[0]), "rms_mv": float(rms[0])} if available[lead] else None
    return found


def chances(config: ExplainConfig, model: Model, store: Store, readout: str, row: int, workdir: Path) -> dict[str, Any]:
    """What is predicted of the record as recorded, without each of its leads, with the arm electrodes swapped: by the model's
    own head, or by a probe of `readout`."""
    task = open_task(config.labels, store, config.icd10)
    head = own_head(model, task, config.readout)
    there = task.store.available[row]
    leads = tuple(lead for lead, usable in zip(model.contract.leads, there, strict=True) if usable)
    plan = [Alteration("as recorded", leads)]
    plan += removals(leads).values() if len(leads) > 1 else []
    if set(ARMS_SWAPPED) <= set(leads):
        plan.append(Alteration("arm electrodes swapped", leads, swapped=True))
    rows = np.array([row])
    with features_folder(config.cache, workdir) as folder:
        reading = read_altered(model, task, head or readout, rows, plan, folder, config.batch_size, config.seed)
    values = np.concatenate(reading.chances)
    shown = np.argsort(-values[0], kind="stable")[:SHOWN_LABELS]
    names = [alteration.name for alteration in plan]
    draw_chances(names, [task.names[c] for c in shown], values[:, shown], workdir / "figures" / "chances.png")
    known = task.labels.matrix[row][task.learnable]
    part = task.part[task.rows == row]
    return {
        "labels": config.labels,
        "read_by": "head" if head else "probe",
        "readout": head.readout if head else readout,
        "head_left_aside": model.head is not None and head is None,
        # Of what the head or probe was fitted on; None where the head is of another store.
        "part": (str(part[0]) if len(part) else "none") if head is None or fitted_here(head, task) else None,
        "present": [name for name, value in zip(task.names, known, strict=True) if value == 1],
        "values": {
            name: dict(zip(task.names, of.tolist(), strict=True)) for name, of in zip(names, values, strict=True)
        },
    }
