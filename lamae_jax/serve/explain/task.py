"""What a model looks at and what it withstands, as a page: of a cohort of labelled records, or of one record.

What is done is in cohort.py and record.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError, check_at_least_one
from lamae_jax.evaluate.task import open_model
from lamae_jax.model.presets import READOUTS
from lamae_jax.serve.explain.cohort import explain_cohort
from lamae_jax.serve.explain.hidden import named_leads
from lamae_jax.serve.explain.record import explain_record


@dataclass(frozen=True)
class ExplainConfig:
    """What configs/explain.py says. Raises UserError for an empty or impossible field.

    `model`: a model folder, or `random:PRESET`; `store`: a prepared store; `labels`: see data/labels, may be empty where `record`
    is a record's id; `hidden`: leads for the model to draw, comma-separated; `readout`: one of READOUTS, empty for the model's
    first; `records`: at most so many of the test fold, in whole patients, 0 for all; `batch_size`: records encoded at once;
    `resamples` of the bootstrap; `seed`: of noise, bootstrap and an untrained model; `cache`: a folder for features.
    """

    model: str
    store: str
    labels: str
    record: str
    hidden: str
    readout: str
    records: int
    batch_size: int
    resamples: int
    seed: int
    cache: str
    icd10: Icd10Rules

    def __post_init__(self) -> None:
        for field, value, example in (("model", self.model, "DIR or random:nano"), ("data.store", self.store, "DIR")):
            if not value:
                raise UserError(f"{field} is empty: pass --config.{field}={example}")
        if not self.labels and not self.record:
            raise UserError(
                "labels and record are empty: pass --config.labels=ptbxl:super (or icd10:chapter_ix, csv:FILE) for the test "
                "fold, or --config.record=ID for one record"
            )
        if self.readout not in ("", *READOUTS):
            raise UserError(f"readout={self.readout}: must be empty or one of {', '.join(READOUTS)}")
        if self.records < 0:
            raise UserError(f"records={self.records}: must be 0 (the whole test fold) or a number of records")
        check_at_least_one(self, "batch_size", "resamples")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: must be from 0 to {2**32 - 1}")


def explain(config: ExplainConfig, workdir: Path) -> dict[str, Any]:
    """Write report.html, summary.json, tables and figures/ into `workdir`; returns the summary.

    Raises UserError before any encoding for whatever can't be explained, a test record that was pretrained on included.
    """
    store = Store.open(config.store)
    model = open_model(config.model, store, config.seed)
    readout = config.readout or model.config.readouts[0]
    model.config.check_readout(readout)
    if config.record:
        hidden = named_leads(config.hidden, model.contract.leads) if config.hidden else ()
        return explain_record(config, model, store, readout, hidden, workdir)
    return explain_cohort(config, model, store, readout, workdir)
