"""Studies small enough for a test: their configs, their models and a count of the cells that were computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lamae_jax import config
from lamae_jax.artifact.folder import Model, save_model
from lamae_jax.command import read_command
from lamae_jax.data.store import Store
from lamae_jax.evaluate.outcomes import outcomes
from lamae_jax.evaluate.study import cells
from lamae_jax.evaluate.study.label_efficiency import label_efficiency
from lamae_jax.evaluate.task import untrained
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.presets import preset

SMALL = [
    "--config.icd10.min_count=19", "--config.resamples=20", "--config.tuning.steps=4", "--config.tuning.batch_size=8",
    "--config.tuning.eval_every=2", "--config.batch_size=8",
]  # fmt: skip


def asked(file: str, *fields: str) -> dict[str, Any]:
    return read_command([f"--config=configs/{file}", *SMALL, *fields]).config


def saved_model(folder: Path, of: Path, inputs: InputConfig = InputConfig(), **sizes: int) -> Path:  # noqa: B008  (frozen)
    """A narrow nano as it starts, in a folder, of a store's contract."""
    contract = Store.open(of).contract
    narrow = {"width": 16, "decoder_width": 16, "encoder_depth": 1, "latent_depth": 1, "patch": 50}
    model = preset("nano", **(narrow | sizes), samples=contract.samples)
    bare = untrained(Model({}, model, inputs, contract, {}, "", None), 1)
    save_model(folder, bare.params, model, inputs, contract, {}, None)
    return folder


def few_labels(tmp_path: Path, store: Path, models: Sequence[Path], *fields: str) -> dict[str, Any]:
    """A label efficiency of models in folders, two draws, nearest neighbours; files in tmp_path / run."""
    plain = asked("label_efficiency.py", f"--config.models={','.join(map(str, models))}",
                  f"--config.data.store={store}", "--config.labels=icd10:chapter_ix", "--config.draws=2",
                  "--config.modes=knn", "--config.cache=", *fields)  # fmt: skip
    return label_efficiency(config.label_efficiency_config(plain), tmp_path / "run")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes of the cells that were computed."""
    calls: list[str] = []

    def once(mode: str, *rest: Any) -> Any:
        calls.append(mode)
        return outcomes(mode, *rest)

    monkeypatch.setattr(cells, "outcomes", once)
    return calls
