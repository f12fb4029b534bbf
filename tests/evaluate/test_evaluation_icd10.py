"""The probe on diagnoses: who trains, who is tested, by which folds (tests/conftest.py says what the store holds)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.errors import UserError
from lamae_jax.evaluate.evaluation import EvaluationConfig, evaluate


def config(store: Path, **rules: object) -> EvaluationConfig:
    icd10 = Icd10Rules(**({"min_count": 19} | rules))  # type: ignore[arg-type]
    return EvaluationConfig(
        "random:nano", str(store), "icd10:chapter_ix", "linear", "encoder_mean", 0, 64, 20, 0, "", icd10, None
    )


def test_it_trains_on_all_ecgs_with_a_diagnosis_and_tests_on_the_first_of_each_stay(
    mimic_store: Path, tmp_path: Path
) -> None:
    summary = evaluate(config(mimic_store), tmp_path)
    assert summary["records"] == {"train": 13, "validation": 5, "test": 6}
    assert summary["split"]["column"] == "fold"
    assert "only the first ECG of each stay (ecg_no_within_stay 0) in validation and test" in summary["split"]["rule"]
    # No stored record has I10 or is in its block: they can't be learned. 2 and 8 Hz tell the others apart.
    assert summary["labels"]["undefined"] == ["I10-I1A", "I10"] and summary["labels"]["rows_with_codes"] == 95
    assert summary["macro_auroc"]["encoder_mean"] > 0.9
    with open(tmp_path / "results.csv", newline="") as file:
        lines = {line["label"]: line for line in csv.DictReader(file)}
    assert lines["I4891"]["description"] == "Atrial fibrillation, unspecified"
    assert [lines["I4891"][f"n_{part}_pos"] for part in ("train", "test")] == ["7", "3"]
    assert lines["I48"]["hierarchy_level"] == "3" and lines["I4891"]["hierarchy_level"] == "5"


def test_a_patient_in_two_folds_of_the_other_column_stops_it(mimic_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"two sides of the split: 1 \(train and test\); columns strat_fold"):
        evaluate(config(mimic_store, fold_column="strat_fold"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
