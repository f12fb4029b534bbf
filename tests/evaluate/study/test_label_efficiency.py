"""Label efficiency from the command's config to its files: which subsets, which models, and what they share."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_study import SMALL, asked, few_labels, saved_model

from lamae_jax import config
from lamae_jax.data.splits import limited, train_rows
from lamae_jax.data.store import Store
from lamae_jax.evaluate import task
from lamae_jax.evaluate.outcomes import outcomes
from lamae_jax.evaluate.study import cells
from lamae_jax.evaluate.study.label_efficiency import label_efficiency
from lamae_jax.main import main
from lamae_jax.model.inputs import InputConfig


def test_few_labels_are_nested_and_each_architecture_is_there_untrained(mimic_store: Path, tmp_path: Path) -> None:
    saved_model(tmp_path / "model", mimic_store)
    plain = asked("label_efficiency.py", f"--config.models={tmp_path / 'model'}", f"--config.data.store={mimic_store}",
                  "--config.labels=icd10:chapter_ix", "--config.sizes=11,0", "--config.draws=2", "--config.modes=linear,knn",
                  "--config.cache=")  # fmt: skip
    summary = label_efficiency(config.label_efficiency_config(plain), tmp_path / "run")
    assert {(p["system"], p["mode"], p["size"], p["draw"]) for p in summary["points"]} == {
        (system, mode, size, draw)
        for system in ("lamae", "lamae_e", "scratch")
        for mode in ("linear", "knn")
        for size, draw in ((11, 0), (11, 1), (13, 0))
    }
    with open(tmp_path / "run/results.csv", newline="") as file:
        # What was asked for, and the whole patients that it gave.
        assert {(line["size"], line["n_train"], line["draw"]) for line in csv.DictReader(file)} == {
            ("11", "11", "0"),
            ("11", "10", "1"),
            ("13", "13", "0"),
        }
    assert (tmp_path / "run/figures/labels_knn.png").exists()
    for point in summary["points"]:
        assert set(point["chosen"]) == ({"l2"} if point["mode"] == "linear" else {"k"})
        assert 0 <= point["validation"] <= 1 and point["seed"] == (0 if point["system"] == "scratch" else None)
        assert point["by_patient"][0] <= point["macro"] <= point["by_patient"][1] and len(point["by_record"]) == 2
    # No stored record has I10 or is in its block.
    assert summary["labels"]["undefined"] == ["I10-I1A", "I10"] and summary["labels"]["scored"] == 5
    assert "as one sign does not occur: I10-I1A, I10." in (tmp_path / "run/report.html").read_text()


def test_curves_of_icd10_are_the_mean_over_codes_as_the_papers(mimic_store: Path, tmp_path: Path) -> None:
    models = [saved_model(tmp_path / "model", mimic_store)]
    for labels in ("icd10:chapter_ix", "icd10:all"):
        summary = few_labels(tmp_path, mimic_store, models, "--config.sizes=0", f"--config.labels={labels}")
        with open(tmp_path / "run/results.csv", newline="") as file:
            lines = [line for line in csv.DictReader(file) if line["system"] == "lamae" and line["auroc"]]
        codes = [float(line["auroc"]) for line in lines if line["hierarchy_level"].isdigit()]
        every = [float(line["auroc"]) for line in lines]
        (lamae,) = (point for point in summary["points"] if point["system"] == "lamae")
        assert lamae["macro"] == pytest.approx(np.mean(every), abs=1e-6)
        said = f"Macro AUROC over the {len(codes)} codes alone" in (tmp_path / "run/report.html").read_text()
        if labels == "icd10:all":
            assert codes == every and lamae["macro_codes"] is None and not said
        else:
            assert len(codes) < len(every) and lamae["macro_codes"] == pytest.approx(np.mean(codes), abs=1e-6) and said


def test_all_records_are_drawn_again_only_where_a_mode_goes_by_chance(mimic_store: Path, tmp_path: Path) -> None:
    """A draw of all records is another seed of the training; a closed solution has none, and is not said to vary."""
    few_labels(
        tmp_path, mimic_store, [saved_model(tmp_path / "model", mimic_store)], "--config.sizes=0",
        "--config.modes=linear,attention",
    )  # fmt: skip
    with np.load(tmp_path / "run/predictions.npz") as saved:
        found = {}
        for mode, system, draw, scores in zip(
            *(saved[key] for key in ("modes", "systems", "draw", "scores")), strict=True
        ):
            found.setdefault((str(mode), str(system)), {})[int(draw)] = scores
    for system in ("lamae", "scratch"):
        assert list(found["linear", system]) == [0]
        assert list(found["attention", system]) == [0, 1]
        assert not np.array_equal(found["attention", system][0], found["attention", system][1])


def test_subsets_share_one_open_store_and_one_table_of_labels(
    mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a store of many shards runs out of open files, and labels of many records out of memory."""
    opened: list[int] = []
    read: list[str] = []
    open_shard, load_labels = Store._open, task.load_labels

    def open_counted(store: Store, shard: int) -> tuple[int, int]:
        opened.append(shard)
        return open_shard(store, shard)

    def load_counted(spec: str, *rest: Any) -> Any:
        read.append(spec)
        return load_labels(spec, *rest)

    monkeypatch.setattr(Store, "_open", open_counted)
    monkeypatch.setattr(task, "load_labels", load_counted)
    few_labels(tmp_path, mimic_store, [saved_model(tmp_path / "model", mimic_store)], "--config.sizes=11,8")
    assert (opened, read) == ([0], ["icd10:chapter_ix"])


def test_few_labels_end_in_files_where_the_largest_subset_lacks_a_label(mimic_store: Path, tmp_path: Path) -> None:
    store = Store.open(mimic_store)
    trained = train_rows([store])
    (drawn,) = limited([store], trained, 10)
    unseen = str(store.record_ids[np.setdiff1d(trained[0], drawn)[0]])
    lines = ["record_id,fast,rare"]
    for row, (record, patient) in enumerate(zip(store.record_ids, store.patients, strict=True)):
        rare = record == unseen if row in trained[0] else row % 2
        lines.append(f"{record},{int(patient) % 2},{int(rare)}")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    summary = few_labels(
        tmp_path, mimic_store, [saved_model(tmp_path / "model", mimic_store)], "--config.sizes=10",
        f"--config.labels=csv:{tmp_path / 'own.csv'}",
    )  # fmt: skip
    assert summary["labels"]["names"] == ["fast", "rare"]
    assert set(summary["bootstrap"]["one_sided"]["by_patient"]) <= {"fast"}
    with np.load(tmp_path / "run/predictions.npz") as saved:
        assert saved["label_names"].tolist() == ["fast"]


def test_models_that_see_other_inputs_are_other_architectures_untrained(
    mimic_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nobody is told for each of them which readouts a model without latent attention lacks."""
    models = [
        saved_model(tmp_path / name / "model", mimic_store, InputConfig(normalisation=name), latent_depth=0)
        for name in ("record", "lead")
    ]
    summary = few_labels(tmp_path, mimic_store, models, "--config.sizes=0")
    assert [(p["system"], p["model"]) for p in summary["points"]] == [
        ("ind_p", "record"), ("ind_p", "lead"), ("ind_s", "record"), ("ind_s", "lead"),
    ]  # fmt: skip
    assert "left out" not in capsys.readouterr().out


def test_sigterm_ends_an_evaluation_with_75_and_the_same_command_goes_on(
    mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_model(tmp_path / "model", mimic_store)
    command = ["--config=configs/label_efficiency.py", *SMALL, f"--config.models={tmp_path / 'model'}",
               f"--config.data.store={mimic_store}", "--config.labels=icd10:chapter_ix", "--config.sizes=11,0",
               "--config.draws=1", "--config.modes=linear", "--config.cache=", f"--workdir={tmp_path / 'run'}"]  # fmt: skip
    calls = []

    def asked_to_stop(mode: str, *rest: Any) -> Any:
        calls.append(mode)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return outcomes(mode, *rest)

    monkeypatch.setattr(cells, "outcomes", asked_to_stop)
    assert main(command) == 75
    assert "stopped: by SIGTERM; what is finished is kept" in capsys.readouterr().err
    assert main(command) == 0
    assert len(calls) == 5  # four cells, the one that was interrupted twice
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_two_models_of_one_system_are_two_curves(mimic_store: Path, tmp_path: Path) -> None:
    models = [
        saved_model(tmp_path / name / "model", mimic_store, width=width)
        for name, width in (("narrow", 16), ("wide", 32))
    ]
    summary = few_labels(tmp_path, mimic_store, models, "--config.sizes=0")
    assert {(p["system"], p["model"]) for p in summary["points"]} == {
        (system, model) for system in ("lamae", "lamae_e", "scratch") for model in ("narrow", "wide")
    }
    page = (tmp_path / "run/report.html").read_text()
    assert "<th>LAMAE<small>narrow</small></th><th>LAMAE<small>wide</small></th>" in page
    with np.load(tmp_path / "run/predictions.npz") as saved:
        assert sorted(set(saved["model"].tolist())) == ["narrow", "wide"] and set(saved["modes"].tolist()) == {"knn"}
        assert len(saved["scores"]) == len(saved["seeds"]) == len(saved["model"]) == 6
