"""Which rows of which stores belong to training, validation and test: by patient, always.

Rows are given as one int64 array a store, sorted. A patient is a pair of source name and patient id, so that one person in two
stores of one source stays one person.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from lamae_jax.data.sources import Split
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError

Rows = list[np.ndarray]  # one int64 [n_s] a store

# Labels of a hospital stay are the same for all its ECGs. The benchmark on MIMIC-IV-ECG-Ext-ICD trains on all of them and tests
# on the first, so that a long stay doesn't count more than a short one.
PER_STAY = (
    "records with a diagnosis; of those only the first ECG of each stay (ecg_no_within_stay 0) in validation and test"
)
STAY_COLUMN = "ecg_no_within_stay"


def train_rows(stores: Sequence[Store], folds: str = "train", limit: int = 0) -> Rows:
    """The rows to train on.

    `folds` is `train` (the source's training folds), `all` (every fold but the validation one, the test fold included: for a
    model that will be tested elsewhere) or fold numbers, `0,1,2`. Validation is always the source's validation fold and is
    never trained on. `limit` > 0 takes a nested subset of whole patients with at most that many waveforms (`limited`).
    Raises UserError when nothing is left or the validation fold is asked for.
    """
    rows = []
    for store in stores:
        held_out = store.split.validation
        if folds == "train":
            wanted = np.isin(store.folds, store.split.train)
        elif folds == "all":
            wanted = (store.folds >= 0) & ~np.isin(store.folds, held_out)
        else:
            numbers = fold_numbers(folds)
            clash = sorted(set(numbers) & set(held_out))
            if clash:
                raise UserError(
                    f"data.folds: {folds} holds {clash[0]}, the validation fold of {store.folder} "
                    f"({store.split.column}); validation is never trained on"
                )
            wanted = np.isin(store.folds, numbers)
        rows.append(np.flatnonzero(wanted))
    if not sum(map(len, rows)):
        raise UserError(
            f"data.folds: no record of {names(stores)} is in {folds!r}; "
            f"its folds ({stores[0].split.column}) are {sorted(set(stores[0].folds.tolist()))}"
        )
    return limited(stores, rows, limit) if limit else rows


def validation_rows(stores: Sequence[Store]) -> Rows:
    """The rows of each source's validation fold; UserError when there are none."""
    return fold_rows(stores, "validation")


def test_rows(stores: Sequence[Store]) -> Rows:
    """The rows of each source's test fold; UserError when there are none."""
    return fold_rows(stores, "test")


def fold_rows(stores: Sequence[Store], part: str) -> Rows:
    """The rows of the folds that the split of each store names for a part."""
    rows = [np.flatnonzero(np.isin(store.folds, getattr(store.split, part))) for store in stores]
    if not sum(map(len, rows)):
        split = stores[0].split
        raise UserError(f"{names(stores)}: no {part} record ({split.column} in {list(getattr(split, part))})")
    return rows


def limited(stores: Sequence[Store], rows: Rows, limit: int, draw: int = 0) -> Rows:
    """Whole patients, in the order of a hash of their ids, as long as they have at most `limit` waveforms; at least one.

    The order doesn't depend on the limit, so the subset of a smaller limit lies inside that of a larger one. Each number
    `draw` is another order.
    """
    if limit < 1:
        raise UserError(f"data.limit: {limit}; 0 (no limit) or a number of records >= 1")
    hashes = [patient_hashes(store, part, draw) for store, part in zip(stores, rows, strict=True)]
    unique, counts = np.unique(np.concatenate(hashes), return_counts=True)  # sorted: this is the order
    taken = max(1, int(np.searchsorted(np.cumsum(counts), limit, side="right")))
    last = unique[min(taken, len(unique)) - 1]
    return [part[each <= last] for part, each in zip(rows, hashes, strict=True)]


def patient_hashes(store: Store, rows: np.ndarray, draw: int = 0) -> np.ndarray:
    """A uint64 [n] for the patient of each row: the first 8 bytes of sha256 of `source/patient`, or `draw/source/patient`."""
    return text_hashes(f"{draw}/{store.name}" if draw else store.name, store.patients[rows])


def text_hashes(source: str, ids: np.ndarray) -> np.ndarray:
    """uint64 [n]: the first 8 bytes, big-endian, of sha256 of `source/id`."""
    unique, inverse = np.unique(ids.astype(str), return_inverse=True)
    digests = b"".join(hashlib.sha256(f"{source}/{text}".encode()).digest()[:8] for text in unique)
    return np.frombuffer(digests, ">u8").astype(np.uint64)[inverse]


def check_disjoint(stores: Sequence[Store], **parts: Rows) -> None:
    """Stop when a patient has records in two parts, as in `check_disjoint(stores, train=a, validation=b)`.

    Raises UserError that names the patients.
    """
    clashes = on_two_sides(
        {
            part: {
                (store.name, str(patient))
                for store, each in zip(stores, rows, strict=True)
                for patient in set(store.patients[each].tolist())
            }
            for part, rows in parts.items()
        }
    )
    if clashes:
        more = f" and {len(clashes) - 10} more" if len(clashes) > 10 else ""
        called = [store.name for store in stores]
        shared = sorted({name for name in called if called.count(name) > 1})
        raise UserError(
            f"{names(stores)}: patients on two sides of the split: {', '.join(clashes[:10])}{more}; "
            f"columns {', '.join(sorted({store.split.column for store in stores}))}"
            + (name_hint(*shared) if shared else "")
        )


def name_hint(*sources: str) -> str:
    """What a message about ids that were met twice adds: equal ids of equally named sources are taken for the same."""
    return f"; if they are of another source called {' or '.join(sources)}, prepare it with a --config.name of its own"


def on_two_sides(parts: Mapping[str, set[tuple[str, str]]]) -> list[str]:
    """The patients, each (source, id), that more than one part has, in words: `10019010 (train and test)`."""
    found: dict[tuple[str, str], str] = {}
    clashes = []
    for part, patients in parts.items():
        clashes += [f"{patient[1]} ({found[patient]} and {part})" for patient in sorted(patients) if patient in found]
        found |= dict.fromkeys(patients, part)
    return clashes


def split_by(split: Split, column: str, kept: str = "") -> Split:
    """The same fold numbers in another column; `kept` says which records of the folds are used, where not all are."""
    rule = split.rule.replace(f"column {split.column} ", f"column {column} ")
    return dataclasses.replace(split, column=column, rule=f"{rule}; {kept}" if kept else rule)


def split_stores(stores: Sequence[Store], column: str) -> list[Store]:
    """The stores split by another fold column of theirs; as they are where `column` is empty."""
    return [store.with_split(split_by(store.split, column)) if column else store for store in stores]


def not_first_of_stay(store: Store) -> np.ndarray:
    """The validation and test records that labels of a stay are not tested on, bool [N]: all but the first ECG of each stay."""
    held_out = np.isin(store.folds, store.split.validation + store.split.test)
    return held_out & (store.column(STAY_COLUMN) != 0)


def pretraining_record_keys(stores: Sequence[Store], rows: Rows) -> np.ndarray:
    """Sorted uint64 keys of the records in these rows: the first 8 bytes of sha256 of `source/record_id`."""
    return np.unique(
        np.concatenate(
            [text_hashes(store.name, store.record_ids[part]) for store, part in zip(stores, rows, strict=True)]
        )
    )


def fold_numbers(folds: str) -> list[int]:
    """The numbers of a text like `0,1,2`. Raises UserError."""
    try:
        return [int(number) for number in folds.split(",")]
    except ValueError:
        raise UserError(f"data.folds: {folds!r}; train, all or numbers like 0,1,2 would be right") from None


def names(stores: Sequence[Store]) -> str:
    """The stores as a message names them."""
    return ", ".join(str(store.folder) for store in stores)
