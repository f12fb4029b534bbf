"""A model names all the data that it was made of, with licences: its own, that of the model before it, that of its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_model import save_small

from lamae_jax.artifact.folder import Model, load_model
from lamae_jax.artifact.head import Head
from lamae_jax.artifact.origin import entry, learned, provenance_of, stores_of

PTB_XL, MIMIC = entry("ptb_xl", "ptb_xl", "ab" * 32), entry("ward 3", "mimic_iv_ecg", "cd" * 32)


def model(folder: Path, provenance: dict[str, Any], about: dict[str, Any] | None = None) -> Model:
    zero = np.zeros(16, np.float32)
    head = Head(
        "la_mean", ("MI",), np.zeros((16, 1), np.float32), np.zeros(1, np.float32), zero, zero, zero, about or {}
    )
    return load_model(save_small(folder, provenance=provenance, head=None if about is None else head))


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def test_what_a_model_began_from_counts_too(tmp_path: Path) -> None:
    first = model(tmp_path / "first", provenance_of([PTB_XL], {"training": 5}))
    then = model(tmp_path / "then", provenance_of([MIMIC], {"training": 7}, first))
    assert then.provenance["stores"] == [MIMIC, PTB_XL] and then.provenance["records"] == {"training": 7}
    third = learned([PTB_XL], then)
    assert third == {"stores": [PTB_XL, MIMIC], "init": then.sha256, "origin_known": True}  # each store once
    for text in ("MIMIC-IV-ECG 1.0", "CC BY 4.0", f"from the model `{first.sha256[:12]}`; its data are among these"):
        assert text in card(tmp_path / "then")


@pytest.mark.parametrize(
    "before",
    [{}, {"stores": "ptb_xl"}, {"stores": [{"name": 3, "sha256": ""}]}, {"stores": [PTB_XL], "init": "ef" * 32}],
    ids=["nothing", "no list", "no stores", "an older folder's own origin"],
)
def test_where_not_all_is_recorded_the_card_says_so(before: dict[str, Any], tmp_path: Path) -> None:
    """Also of a model two steps on."""
    made = model(tmp_path / "0", before)
    for step in "12":
        made = model(tmp_path / step, provenance_of([MIMIC], {}, made))
        assert "what that learned from is not all recorded here" in card(tmp_path / step)


@pytest.mark.parametrize("field, value", [("records", 5), ("figures", [1]), ("figures", {"val_mse": "low"})])
def test_a_card_is_written_whatever_the_provenance_holds(field: str, value: object, tmp_path: Path) -> None:
    model(tmp_path / "model", {"stores": [PTB_XL], field: value})
    assert "CC BY 4.0" in card(tmp_path / "model")


def test_stores_of_older_folders_get_the_licence_of_their_kind() -> None:
    older = {name: PTB_XL[name] for name in ("name", "kind", "sha256")}
    assert stores_of({"stores": [older, {"name": "own", "sha256": "0"}]})[0] == PTB_XL
    assert "licence not known" in stores_of({"stores": [{"name": "own", "sha256": "0"}]})[0]["licence"]


def test_a_heads_data_stand_beside_the_models(tmp_path: Path) -> None:
    about = {"task": "icd10:chapter_ix", "store": MIMIC, "records": {"train": 70, "validation": 10, "test": 10}}
    folder = tmp_path / "model"
    made = model(folder, provenance_of([PTB_XL], {"training": 5}), about)
    text = card(folder)
    assert "The head was fitted on `ward 3` (store sha256 `cdcdcdcdcdcd`). MIMIC-IV-ECG 1.0" in text
    assert "70 train, 10 validation, 10 test" in text and "CC BY 4.0" in text and "{'name'" not in text
    assert made.head is not None and made.head.about["store"] == MIMIC
    model(folder, provenance_of([PTB_XL], {}), {"task": "my own"})
    assert "The head's labels and recordings: not recorded" in card(folder)


def test_a_licence_that_was_written_down_is_kept() -> None:
    assert stores_of({"stores": [MIMIC | {"licence": "as agreed"}]})[0]["licence"] == "as agreed"
