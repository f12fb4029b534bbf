"""The cells of a study: what they are kept by, and when they are made anew."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from small_study import asked, counted, saved_model

from lamae_jax import config
from lamae_jax.artifact.folder import Model, load_model, save_model
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate import task
from lamae_jax.evaluate.outcomes import Settings
from lamae_jax.evaluate.results import Outcome
from lamae_jax.evaluate.study import cells
from lamae_jax.evaluate.task import untrained
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.presets import preset


def test_a_kept_cell_is_of_the_code_that_computes_cells(
    mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And holds no model: a study makes hundreds of cells, and what was fine-tuned has parameters of its own."""
    calls = counted(monkeypatch)
    model = load_model(saved_model(tmp_path / "model", mimic_store))
    opened = task.open_task("icd10:chapter_ix", Store.open(mimic_store), Icd10Rules(min_count=19))
    settings = Settings(tmp_path / "features", 8, 0, None)

    def ask() -> list[Outcome]:
        return cells.predicted(tmp_path / "cells", "linear", model, opened, ("la_mean",), settings)

    (fresh,), (kept,) = ask(), ask()
    assert len(calls) == 1 and fresh.model is kept.model is None
    np.testing.assert_array_equal(fresh.prediction.chances, kept.prediction.chances)
    monkeypatch.setattr(cells, "CODE", "another")
    ask()
    assert len(calls) == 2


def test_what_computes_a_cell_is_all_that_predictions_import() -> None:
    """But what reads recordings and labels, and what judges and reports."""
    found: set[Path] = set()
    todo = {cells.PACKAGE / "evaluate/outcomes.py"}
    while todo:
        found |= todo
        nodes = [node for file in todo for node in ast.walk(ast.parse(file.read_text()))]
        modules = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        paths = {cells.PACKAGE.parent / f"{module.replace('.', '/')}.py" for module in modules}
        todo = {path for path in paths - found if path.is_file() and cells.PACKAGE in path.parents}
    computing = {file for file in found if file.relative_to(cells.PACKAGE).parts[0] in ("model", "evaluate", "train")}
    others = {cells.PACKAGE / f"{name}.py" for name in ("evaluate/bootstrap", "evaluate/results", "train/alignment")}
    assert computing - others <= set(cells.COMPUTED_BY) and not others & set(cells.COMPUTED_BY)


def test_a_pretraining_on_a_store_that_has_changed_is_not_taken_for_one_on_this(
    mimic_store: Path, tmp_path: Path
) -> None:
    store = Store.open(mimic_store)
    config_of = (
        config.study_config(asked("study.py", f"--config.pretrain.data.store={mimic_store}")).pretrainings[0].config
    )
    bare = untrained(
        Model({}, preset("nano", width=16, samples=400, patch=50), InputConfig(), store.contract, {}, "", None), 1
    )
    stores = {"stores": [{"name": store.name, "sha256": "another"}]}
    save_model(tmp_path / "model", bare.params, bare.config, InputConfig(), store.contract, stores, None)
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="as it was before it was prepared anew; name another --workdir"):
        cells.pretrained(config_of, store, tmp_path)
