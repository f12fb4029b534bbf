"""What evaluating costs: both ways solve the same problem, and the file says how long each took."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from lamae_jax.benchmark.evaluating import EvaluationCosts, evaluation_costs, made
from lamae_jax.errors import UserError
from lamae_jax.main import main

FEW = {"records": 500, "features": 5, "labels": 3, "test_records": 200, "test_labels": 4, "resamples": 20}


def test_the_probe_comes_to_what_scikit_learn_comes_to_and_both_have_their_times(tmp_path: Path) -> None:
    flags = [f"--config.{name}={value}" for name, value in FEW.items()]
    assert main(["--config=configs/benchmark.py:evaluation", f"--workdir={tmp_path}", *flags]) == 0
    result = json.loads((tmp_path / "evaluation.json").read_text())
    probe, beside = result["probe"], result["probe"]["scikit_learn"]
    assert probe["macro_auroc"] == pytest.approx(beside["macro_auroc"], abs=2e-3) and probe["macro_auroc"] > 0.7
    assert (probe["strengths"], beside["strengths"]) == (7, 1) and probe["seconds"] > 0 and beside["seconds"] > 0
    assert result["intervals"]["seconds"].keys() == {"by_record", "by_patient"}


def test_without_scikit_learn_it_measures_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert evaluation_costs(EvaluationCosts(**FEW), tmp_path)["probe"]["scikit_learn"] is None


def test_labels_are_from_common_to_rare_and_follow_from_the_features() -> None:
    x, y = made(5000, 4, 3)
    assert y.mean(axis=0) == pytest.approx([0.5, 0.1, 0.02], abs=1e-3)
    assert abs(x.mean()) < 1e-12


def test_sizes_that_are_none_are_one_line() -> None:
    with pytest.raises(UserError, match="labels=0: must be at least 1"):
        EvaluationCosts(**FEW | {"labels": 0})
