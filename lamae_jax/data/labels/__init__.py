"""What is known of each record: labels from PTB-XL's statements or from a user's own table, aligned with a store's rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lamae_jax.data.labels.scp import TASKS, ptbxl_labels
from lamae_jax.data.labels.table import Labels, table_labels
from lamae_jax.errors import UserError

if TYPE_CHECKING:
    from lamae_jax.data.store import Store


def load_labels(spec: str, store: Store) -> Labels:
    """The labels that `spec` names, one row a stored record: `ptbxl:TASK` or `csv:FILE`. Raises UserError.

    `ptbxl:TASK` reads the tables that prepare copied into the store; a record without any label of the task is not kept.
    `csv:FILE` has a column `record_id` and one column a label (1, 0, or empty for unknown); a record of which no label is
    known is not kept.
    """
    kind, _, rest = spec.partition(":")
    if kind == "ptbxl" and rest in TASKS:
        return ptbxl_labels(store.folder / "labels", rest, store.record_ids.tolist())
    if kind == "csv" and rest:
        return table_labels(Path(rest), store.record_ids.tolist())
    raise UserError(f"labels={spec or '(empty)'}: must be ptbxl:{'|'.join(TASKS)} or csv:FILE")
