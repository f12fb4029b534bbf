"""Studies from the command's config to their files: what is pretrained, what is kept, and what a second run does again."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import look_at
from html_outline import Outline
from small_study import asked, counted, few_labels, saved_model

from lamae_jax import config
from lamae_jax.artifact.folder import Model, load_model, save_model
from lamae_jax.command import read_command
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.study import cells, systems
from lamae_jax.evaluate.study.scaling import scaling
from lamae_jax.evaluate.study.systems import study
from lamae_jax.evaluate.task import untrained
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.presets import preset
from lamae_jax.train.pretrain import PretrainConfig


def fakes(monkeypatch: pytest.MonkeyPatch, pretrained: list[PretrainConfig]) -> None:
    """Models of a narrow nano in place of pretrained ones: what a study does with them is the same."""

    def fake(configured: PretrainConfig, store: Store, folder: Path) -> Model:
        pretrained.append(configured)
        model = configured.step.model
        narrow = preset("nano", width=16, decoder_width=16, encoder_depth=1, latent_depth=min(1, model.latent_depth),
                        samples=store.contract.samples, patch=store.contract.fs // 2)  # fmt: skip
        bare = untrained(Model({}, narrow, InputConfig(), store.contract, {}, "", None), configured.step.seed)
        save_model(folder, bare.params, narrow, InputConfig(), store.contract, {"config": configured.config}, np.arange(
            configured.limit or 50, dtype=np.uint64))  # fmt: skip
        return load_model(folder)

    from lamae_jax.evaluate.study import scaling as scaling_file

    for file in (systems, scaling_file):
        monkeypatch.setattr(file, "pretrained", fake)


def test_a_study_pretrains_each_system_with_its_seeds_and_mmvm_with_each_beta() -> None:
    systems = "--config.systems=lamae:2,lamae_e_b,mmvm:2,independent:1"
    found = config.study_config(asked("study.py:ptb_xl", systems, "--config.betas=0.1,1")).pretrainings
    assert [each.name for each in found] == [
        "lamae-0", "lamae-1", "lamae_e_b-0", "mmvm-0-beta0.1", "mmvm-0-beta1", "mmvm-1-beta0.1", "mmvm-1-beta1",
        "independent-0",
    ]  # fmt: skip
    by_name = {each.name: each.config for each in found}
    assert by_name["lamae-1"].step.seed == 1 and by_name["lamae-1"].step.masks.alpha_LA == 0.1
    assert by_name["lamae_e_b-0"].step.masks.alpha_LA == 0 and by_name["lamae_e_b-0"].step.model.latent_depth == 2
    assert by_name["independent-0"].step.model.latent_depth == 0 and by_name["independent-0"].step.align is None
    align = by_name["mmvm-1-beta1"].step.align
    assert align is not None and align.beta == 1


def test_on_mimic_fine_tuning_sees_every_labelled_record_several_times() -> None:
    tuning = read_command(["--config=configs/study.py:mimic"]).config["tuning"]
    assert 4 <= tuning["steps"] * tuning["batch_size"] / 400_000 <= 10
    assert tuning["steps"] / tuning["eval_every"] >= 8


def test_scaling_pretrains_on_each_size_with_each_seed() -> None:
    found = config.scaling_config(asked("scaling.py", "--config.sizes=100,0", "--config.seeds=2")).pretrainings
    assert [(each.name, each.config.limit, each.config.step.seed) for each in found] == [
        ("100-0", 100, 0), ("100-1", 100, 1), ("all-0", 0, 0), ("all-1", 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "field", "message"),
    [
        ("study.py", "--config.systems=lamae,mae", "systems=lamae,mae: mae must be one of lamae, lamae_e_b, mmvm"),
        ("study.py", "--config.systems=lamae:0", "lamae:0 must be lamae or lamae:SEEDS, such as lamae:3"),
        ("study.py", "--config.systems=lamae:", "lamae: must be lamae or lamae:SEEDS"),
        ("scaling.py", "--config.seeds=0", "seeds=0: must be at least 1"),
        ("study.py", "--config.systems=lamae,lamae:2", "systems=lamae,lamae:2: lamae stands there twice"),
        ("study.py", "--config.betas=0.1,0.10", "betas=0.1,0.10: 0.1 stands there twice"),
        ("study.py", "--config.modes=linear,linear", "modes=linear,linear: linear stands there twice"),
        ("study.py", "--config.pretrain.mask.alpha_LA=0", "systems=lamae needs both above 0; lamae_e_b is the one"),
        (
            "study.py",
            "--config.pretrain.model.latent_depth=0",
            "pretrain.model.latent_depth=0: systems=lamae needs both",
        ),
        ("study.py", "--config.betas=low", "betas=low: must be numbers"),
        ("study.py", "--config.modes=linear,svm", "modes=linear,svm: svm must be one of linear"),
        ("study.py", "--config.resamples=0", "resamples=0: must be at least 1"),
        ("scaling.py", "--config.batch_size=0", "batch_size=0: must be at least 1"),
        ("label_efficiency.py", "--config.resamples=-1", "resamples=-1: must be at least 1"),
        ("study.py", "--config.labels=", r"labels=\(empty\): must be icd10:chapter_ix"),
        ("study.py", "--config.labels=csv:a/x.csv,csv:b/x.csv", "each label set needs a name of its own"),
        ("scaling.py", "--config.labels=chapter_ix", "labels=chapter_ix: must be icd10:chapter_ix"),
        ("study.py:mitbih", "", "no such variant; there are simulated, ptb_xl, mimic"),
        ("study.py", "--config.pretrain.mask.alpha_E=2", "mask.alpha_E=2"),
        ("scaling.py", "--config.sizes=many", "sizes=many: must be numbers"),
        ("label_efficiency.py", "--config.models=", "models is empty"),
        ("label_efficiency.py", "--config.draws=0", "draws=0"),
        ("label_efficiency.py", "--config.sizes=100,0,100", "sizes=100,0,100: 100 stands there twice"),
        ("label_efficiency.py", "--config.sizes=-1", "sizes=-1: must be numbers of records, 0 for all"),
    ],
)
def test_what_cannot_be_studied_is_one_line(file: str, field: str, message: str) -> None:
    wanted = {
        "study": config.study_config,
        "scaling": config.scaling_config,
        "label_efficiency": config.label_efficiency_config,
    }
    rest = (
        ["--config.models=a", "--config.data.store=b", "--config.labels=ptbxl:super"]
        if file.startswith("label")
        else []
    )
    with pytest.raises(UserError, match=message):
        wanted[file.split(".")[0]](asked(file, *rest, *filter(None, [field])))


@pytest.mark.slow
def test_a_study_names_every_system_keeps_its_cells_and_does_them_once(
    mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrainings: list[PretrainConfig] = []
    fakes(monkeypatch, pretrainings)
    calls = counted(monkeypatch)
    plain = asked(
        "study.py",
        f"--config.pretrain.data.store={mimic_store}",
        "--config.modes=linear,finetune",
        "--config.betas=0.1,1",
    )
    summary = study(config.study_config(plain), tmp_path)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    seven = ["lamae", "lamae_e", "lamae_e_b", "scratch", "mmvm", "ind_p", "ind_s"]
    for mode in ("linear", "finetune"):
        assert list(summary[mode]["paper"]) == list(summary[mode]["equal_width"]) == seven
        assert {name: of["readout"] for name, of in summary[mode]["paper"].items()} == {
            **dict.fromkeys(("lamae", "lamae_e_b", "scratch"), "la_cls"),
            **dict.fromkeys(("lamae_e", "mmvm", "ind_p", "ind_s"), "encoder_mean"),
        }
        assert (tmp_path / f"figures/{mode}_best.png").stat().st_size > 1000
        assert len(summary["differences"][mode]["best"]) == 21
    assert {"value", "by_record", "by_patient"} <= set(summary["differences"]["finetune"]["best"]["lamae_e_less_ind_p"])
    tuned = summary["finetune"]["best"]["lamae"]
    assert tuned["chosen"][0].keys() == {"step"} and 0 < tuned["validation"][0] <= 1 and tuned["over_codes"]
    # I10 and its block are in no stored record (tests/conftest.py), so that they can't be learned.
    assert summary["labels"]["undefined"] == ["I10-I1A", "I10"]
    assert set(summary["mmvm_betas_on_validation"]) == {"0.1", "1"} and len(summary["models"]) == 4  # one MMVM of two
    with open(tmp_path / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert {(line["system"], line["mode"]) for line in lines} == {(s, m) for s in seven for m in ("linear", "finetune")}
    # Fine-tuned, latent attention is read as it is by a probe, LAMAE untrained (Scratch) like LAMAE.
    tuned_readouts = {(line["system"], line["readout"]) for line in lines if line["mode"] == "finetune"}
    assert tuned_readouts == {
        *((system, readout) for system in ("lamae", "lamae_e_b", "scratch") for readout in ("la_cls", "la_mean")),
        *((system, "encoder_mean") for system in ("lamae_e", "mmvm", "ind_p", "ind_s")),
    }
    page = (tmp_path / "report.html").read_text()
    # All that is fine-tuned is as wide (and of so few records every readout tells all): one comparison of two, and one figure.
    assert page.count("data:image/png;base64") == 6 and "at equal width it is the same" in page
    for words in ("Ind_S", "1 seed of pretraining", "LAMAE_E (a) less Ind_P", "Without a figure, as one sign does not occur",
                  "LAMAE and LAMAE_E: probed and fine-tuned", "mean over codes"):  # fmt: skip
        assert words.lower() in page.lower()

    before = (tmp_path / "results.csv").read_bytes()
    assert len(calls) == 13  # two MMVMs on validation, then six models in two modes, less the MMVM's linear one again
    study(config.study_config(plain), tmp_path)
    assert len(calls) == 13 and (tmp_path / "results.csv").read_bytes() == before


def test_of_several_label_sets_each_has_its_folder_and_one_page_shows_them_all(
    mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrainings: list[PretrainConfig] = []
    fakes(monkeypatch, pretrainings)
    asked_for = ["study.py", f"--config.pretrain.data.store={mimic_store}", "--config.modes=linear",
                 "--config.systems=lamae:2,independent"]  # fmt: skip
    both = study(
        config.study_config(asked(*asked_for, "--config.labels=icd10:chapter_ix,icd10:all")), tmp_path / "both"
    )
    assert len(pretrainings) == 3  # once for both label sets
    alone = study(config.study_config(asked(*asked_for, "--config.labels=icd10:all")), tmp_path / "alone")
    of_all = both["label_sets"]["icd10:all"]
    assert of_all["linear"] == alone["linear"] and of_all["seeds"] == {"lamae": [0, 1], "independent": [0]}
    assert (tmp_path / "both/icd10_all/results.csv").read_bytes() == (tmp_path / "alone/results.csv").read_bytes()
    assert (tmp_path / "both/icd10_all/predictions.npz").exists() and (tmp_path / "both/icd10_all/report.html").exists()
    with open(tmp_path / "both/results.csv", newline="") as file:
        assert {line["label_set"] for line in csv.DictReader(file)} == {"icd10:chapter_ix", "icd10:all"}
    page = Outline()
    page.feed((tmp_path / "both/report.html").read_text())
    assert not page.open
    text = (tmp_path / "both/report.html").read_text()
    for pair in ("lamae_less_ind_p", "lamae_e_less_ind_p"):
        assert f"{of_all['differences']['linear']['best'][pair]['value']:+.3f}" in text
    assert "icd10:chapter_ix, codes alone" in text and "icd10:all, codes alone" not in text


def test_few_recordings_stand_beside_none(mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(monkeypatch, [])
    plain = asked(
        "scaling.py", f"--config.pretrain.data.store={mimic_store}", "--config.sizes=10,0", "--config.seeds=2"
    )
    summary = scaling(config.scaling_config(plain), tmp_path)
    assert {(p["system"], p["size"], p["draw"]) for p in summary["points"]} == {
        ("scratch", 0, 0), ("scratch", 0, 1),
        *((system, size, seed) for system in ("lamae", "lamae_e") for size in (10, 16) for seed in (0, 1)),
    }  # fmt: skip
    assert {(p["seed"], p["draw"]) for p in summary["points"]} == {(0, 0), (1, 1)}
    assert all({"l2"} == set(p["chosen"]) and p["by_patient"][0] <= p["macro"] for p in summary["points"])
    assert summary["labels"]["undefined"] == ["I10-I1A", "I10"]
    # More than there are is all of them, in whichever words: no seed counts twice.
    more = asked(
        "scaling.py", f"--config.pretrain.data.store={mimic_store}", "--config.sizes=10,1000,0", "--config.seeds=2"
    )
    assert scaling(config.scaling_config(more), tmp_path / "more")["points"] == summary["points"]
    assert (tmp_path / "figures/scaling_linear.png").exists() and "0 recordings: the architecture untrained" in (
        tmp_path / "report.html"
    ).read_text()


@pytest.mark.slow
def test_every_page_is_whole_in_a_browser(mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fakes(monkeypatch, [])
    of = f"--config.pretrain.data.store={mimic_store}"
    two = ["--config.systems=lamae,independent", "--config.modes=linear", "--config.labels=icd10:chapter_ix,icd10:all"]
    study(config.study_config(asked("study.py", of, *two)), tmp_path / "study")
    scaling(
        config.scaling_config(asked("scaling.py", of, "--config.sizes=10,0", "--config.seeds=1")), tmp_path / "scaling"
    )
    few_labels(tmp_path, mimic_store, [saved_model(tmp_path / "model", of=mimic_store)], "--config.modes=linear,knn")
    for page in ("study", "study/icd10_chapter_ix", "scaling", "run"):
        seen = look_at(tmp_path / page / "report.html", tmp_path / "browser")
        assert seen.images == seen.of >= 2 and seen.console == () and seen.overhang <= 0, page
        assert seen.inked > 0.02


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("study.py", ["--config.pretrain.data.folds=all"], "test records would be pretrained on: 1"),
        ("scaling.py", ["--config.pretrain.data.folds=0,19"], "test records would be pretrained on"),
    ],
)  # fmt: skip
def test_a_leak_is_found_before_the_first_pretraining(
    file: str, fields: list[str], message: str, mimic_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrainings: list[PretrainConfig] = []
    fakes(monkeypatch, pretrainings)
    plain = asked(file, f"--config.pretrain.data.store={mimic_store}", *fields)
    with pytest.raises(UserError, match=message):
        if file == "study.py":
            study(config.study_config(plain), tmp_path)
        else:
            scaling(config.scaling_config(plain), tmp_path)
    assert pretrainings == []


@pytest.mark.slow
def test_a_study_of_real_pretrainings_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command is stopped after its first pretraining; the second finds that one complete."""
    plain = asked("study.py", "--config.pretrain.steps=4", "--config.pretrain.data.simulated_patients=120",
                  "--config.systems=lamae,independent", "--config.modes=linear", "--config.icd10.min_count=5")  # fmt: skip
    whole = config.study_config(plain)
    real, begun = cells.pretrain, []

    def stopped(configured: PretrainConfig, folder: Path) -> Any:
        begun.append(folder.name)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return real(configured, folder)

    monkeypatch.setattr(cells, "pretrain", stopped)
    with pytest.raises(KeyboardInterrupt):
        study(whole, tmp_path)
    study(whole, tmp_path)
    assert begun == ["lamae-0", "independent-0", "independent-0"]
    assert set(json.loads((tmp_path / "summary.json").read_text())["linear"]["best"]) == {
        "lamae",
        "lamae_e",
        "scratch",
        "ind_p",
        "ind_s",
    }
