"""What is known of each record: labels from diagnoses, PTB-XL's statements or a user's own table, aligned with a store's rows."""

from __future__ import annotations

from pathlib import Path

from lamae_jax.data.labels.diagnoses import diagnosis_table, icd10_labels, read_diagnoses
from lamae_jax.data.labels.icd10 import DEFAULT_RULES, LABEL_SETS, Icd10Rules
from lamae_jax.data.labels.scp import TASKS, ptbxl_labels
from lamae_jax.data.labels.table import Labels, table_labels
from lamae_jax.data.splits import PER_STAY, split_by
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError

ICD10 = tuple(f"icd10:{label_set}" for label_set in LABEL_SETS)


def check_spec(spec: str) -> None:
    """Raise UserError unless `spec` names labels: `icd10:SET`, `ptbxl:TASK` or `csv:FILE`."""
    kind, _, rest = spec.partition(":")
    if not (spec in ICD10 or (kind == "ptbxl" and rest in TASKS) or (kind == "csv" and rest)):
        raise UserError(
            f"labels={spec or '(empty)'}: must be icd10:{'|'.join(LABEL_SETS)}, ptbxl:{'|'.join(TASKS)} or csv:FILE"
        )


def split_for(spec: str, store: Store, rules: Icd10Rules = DEFAULT_RULES) -> Store:
    """The store split as these labels are tested: those of ICD-10 by `rules.fold_column`, all others as the store says."""
    check_spec(spec)
    if spec not in ICD10:
        return store
    diagnosis_table(store)  # says in plain words that a store has none
    return store.with_split(split_by(store.split, rules.fold_column, PER_STAY))


def load_labels(spec: str, store: Store, rules: Icd10Rules = DEFAULT_RULES) -> Labels:
    """The labels that `spec` names, one row a stored record. Raises UserError.

    `icd10:chapter_ix` (with blocks and the chapter) and `icd10:all` (every letter, codes alone) are made of the whole diagnosis
    table in the store by `rules`; a record without diagnosis is not kept, nor, in validation and test, one that is not the first
    of its stay. Open the store with `split_for`. `ptbxl:TASK` reads the tables that prepare copied into the store; a record
    without any label of the task is not kept. `csv:FILE` has a column `record_id` and one column a label (1, 0, or empty for
    unknown); a record of which no label is known is not kept.
    """
    check_spec(spec)
    kind, _, rest = spec.partition(":")
    if kind == "icd10":
        return icd10_labels(read_diagnoses(diagnosis_table(store), rules.fold_column), rest, store, rules)
    if kind == "ptbxl":
        return ptbxl_labels(store.folder / "labels", rest, store.record_ids.tolist())
    return table_labels(Path(rest), store.record_ids.tolist())
