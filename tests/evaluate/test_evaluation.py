"""Evaluations from a folder of recordings to results and report: what they score, what they write and what they refuse."""

import csv
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from browser import look_at
from html_outline import Outline
from scipy.special import expit

from lamae_jax.artifact.folder import load_model, save_model
from lamae_jax.data.labels import load_labels
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.data.splits import fold_rows, pretraining_record_keys, train_rows
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate import task
from lamae_jax.evaluate.evaluation import EvaluationConfig, evaluate
from lamae_jax.evaluate.linear import L2_VALUES
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.task import check_contract, open_task, subset, system_of, untrained
from lamae_jax.evaluate.tuning import TuneConfig, predict
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params
from lamae_jax.model.presets import READOUTS, ModelConfig, preset
from lamae_jax.signal.contract import SignalContract

RECORDS, FS, SECONDS = 100, 100, 4.0
SMALL = preset("nano", width=16, decoder_width=16, encoder_depth=1, latent_depth=1, samples=300, patch=50)
QUICK = TuneConfig(steps=30, batch_size=16, learning_rate=5e-3, layer_decay=0.75, weight_decay=0.05, warmup=0.05, drop_path=0.1,
                   eval_every=10, seed=0)  # fmt: skip
STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior myocardial infarction,1.0,,,MI,IMI
SR,sinus rhythm,,,1.0,,
"""


def fast(number: int) -> bool:
    """What the recordings differ in, and what labels are made of."""
    return number % 3 == 0


def write_recordings(folder: Path) -> Path:
    """PTB-XL's layout: record n of patient n, folds 1 to 10 in turn; every third record is fast. Record 30 has no diagnosis."""
    rng = np.random.default_rng(0)
    time = np.arange(round(FS * SECONDS)) / FS
    leads = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
    rows = []
    for number in range(1, RECORDS + 1):
        path = folder / f"records100/00000/{number:05d}_lr"
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = np.sin(2 * np.pi * ((8 if fast(number) else 2) * time + rng.random((12, 1)))) + rng.normal(
            0, 0.2, (12, len(time))
        )
        path.with_suffix(".dat").write_bytes((500 * wave).T.astype("<i2").tobytes())
        header = [
            f"{path.name} 12 {FS} {len(time)}",
            *(f"{path.name}.dat 16 1000.0(0)/mV 16 0 0 0 0 {lead}" for lead in leads),
        ]
        path.with_suffix(".hea").write_text("\n".join(header) + "\n")
        codes = {"SR": 0.0} if number == 30 else {"IMI" if fast(number) else "NORM": 0.0, "SR": 0.0}
        name = f"records100/00000/{number:05d}"
        rows.append([number, float(number), 50, 0, str(codes), number % 10 + 1, f"{name}_lr", f"{name}_hr"])
    with open(folder / "ptbxl_database.csv", "w", newline="") as file:
        header = ["ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold", "filename_lr", "filename_hr"]
        csv.writer(file).writerows([header, *rows])
    (folder / "scp_statements.csv").write_text(STATEMENTS)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    config = PrepareConfig(
        kind="ptb_xl", source=str(write_recordings(folder / "source")), store=str(folder / "store"), fs=FS, seconds=SECONDS,
        band="none", long="crop", workers=1, max_bad_fraction=0.0, allow_upsampling=False, verify_only=False,
        shard="", merge=False, simulated_patients=0, seed=0,
    )  # fmt: skip
    prepare(config, folder / "prepared")
    return folder / "store"


def save(
    folder: Path,
    model: ModelConfig = SMALL,
    contract: SignalContract | None = None,
    keys: np.ndarray | None = None,
    **pretraining: object,
) -> Path:
    contract = contract or SignalContract(fs=FS, seconds=model.samples / FS, band="none")
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(5))
    save_model(folder, params, model, InputConfig(), contract, {"config": pretraining}, keys)
    return folder


def run(folder: Path, workdir: Path, **changes: object) -> dict:
    values = {
        "model": "", "store": str(folder), "labels": "ptbxl:super", "mode": "linear", "readout": "all", "limit": 0,
        "batch_size": 16, "resamples": 50, "seed": 0, "cache": "", "icd10": Icd10Rules(), "tuning": QUICK,
    }  # fmt: skip
    return evaluate(EvaluationConfig(**(values | changes)), workdir)  # type: ignore[arg-type]


def table(workdir: Path) -> list[dict[str, str]]:
    with open(workdir / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_model_beside_a_random_one_of_its_config(store: Path, tmp_path: Path) -> None:
    opened = Store.open(store)
    keys = pretraining_record_keys([opened], train_rows([opened]))
    summary = run(store, tmp_path / "run", model=str(save(tmp_path / "model", keys=keys)))
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    four = {"la_cls", "la_mean", "encoder_mean", "encoder_concat"}
    assert set(summary["macro_auroc"]) == set(summary["macro_auroc_random"]) == four
    assert max(summary["macro_auroc"].values()) > 0.95  # 2 and 8 Hz: any features tell them apart
    assert summary["macro_auroc"] != summary["macro_auroc_random"]
    assert summary["records"] == {"train": 79, "validation": 10, "test": 10}  # record 30 has no label of the task
    assert summary["split"]["column"] == "strat_fold" and summary["split"]["test"] == [10]
    assert summary["store"]["hash"] == opened.hash and len(summary["model"]["sha256"]) == 64
    assert summary["pretraining_check"].startswith("passed")
    assert {chosen["l2"] for chosen in summary["chosen"].values()} <= set(L2_VALUES)
    for name in ("probe", "roc", "calibration"):
        assert (tmp_path / "run" / "figures" / f"{name}.png").stat().st_size > 1000


def test_results_and_predictions_hold_every_system_and_readout(store: Path, tmp_path: Path) -> None:
    summary = run(store, tmp_path / "run", model=str(save(tmp_path / "model", seed=7)))
    lines = table(tmp_path / "run")
    columns = (
        "system seed mode readout n_features label_set label description hierarchy_level n_train_pos n_test_pos n_test "
        "auroc auroc_low auroc_high auprc"
    )
    assert list(lines[0]) == columns.split(" ")
    first = lines[1]
    assert (first["label"], first["description"], first["n_train_pos"]) == ("MI", "myocardial infarction", "25")
    assert {(line["system"], line["seed"], line["readout"], line["n_features"]) for line in lines} == {
        ("lamae", "7", "la_cls", "16"), ("lamae", "7", "la_mean", "16"), ("lamae_e", "7", "encoder_mean", "16"),
        ("lamae_e", "7", "encoder_concat", "192"), ("scratch", "0", "la_cls", "16"), ("scratch", "0", "la_mean", "16"),
        ("scratch", "0", "encoder_mean", "16"), ("scratch", "0", "encoder_concat", "192"),
    }  # fmt: skip
    for name, macro in summary["macro_auroc"].items():
        mine = [line for line in lines if line["readout"] == name and line["system"] != "scratch"]
        assert np.mean([float(line["auroc"]) for line in mine]) == pytest.approx(macro, abs=1e-6)
        assert all(float(line["auroc_low"]) <= float(line["auroc"]) <= float(line["auroc_high"]) for line in mine)
    with np.load(tmp_path / "run" / "predictions.npz", allow_pickle=False) as saved:
        assert saved["scores"].shape == (8, 10, 2) and saved["labels"].shape == (10, 2)
        assert saved["systems"].tolist() == ["lamae"] * 2 + ["lamae_e"] * 2 + ["scratch"] * 4
        which = saved["readouts"].tolist().index("la_mean")
        assert macro_auroc(saved["labels"], saved["scores"][which]).value == summary["macro_auroc"]["la_mean"]


@pytest.mark.parametrize(
    ("model", "pretraining", "system"),
    [
        (SMALL, {}, ["lamae", "lamae_e"]),
        (SMALL, {"mask": {"alpha_LA": 0.0}}, ["lamae_e_b"]),
        (dataclasses.replace(SMALL, latent_depth=0), {"system": "independent"}, ["ind_p"]),
        (dataclasses.replace(SMALL, latent_depth=0), {"system": "mmvm"}, ["mmvm"]),
    ],
)
def test_systems_are_named_as_in_the_paper(
    model: ModelConfig, pretraining: dict, system: list[str], tmp_path: Path
) -> None:
    opened = load_model(save(tmp_path / "model", model, **pretraining))
    named = [system_of(opened, readout) for readout in ("la_mean", "encoder_mean")]
    assert list(dict.fromkeys(named)) == system
    bare = untrained(opened, 3)
    assert system_of(bare, "encoder_mean") == ("scratch" if model.latent_depth else "ind_s")


def test_intervals_and_the_difference_come_with_the_figures(store: Path, tmp_path: Path) -> None:
    summary = run(store, tmp_path / "run", model=str(save(tmp_path / "model")), readout="la_mean")
    interval = summary["macro_auroc_interval"]["la_mean"]
    low, high = interval["by_patient"]
    assert low <= summary["macro_auroc"]["la_mean"] <= high and set(interval) == {"by_patient", "by_record"}
    gained = summary["macro_auroc"]["la_mean"] - summary["macro_auroc_random"]["la_mean"]
    assert summary["difference"]["la_mean"]["value"] == pytest.approx(gained)
    assert summary["bootstrap"]["resamples"] == 50 and summary["bootstrap"]["patients"] == 10


@pytest.mark.parametrize("mode", ["linear", "attention", "knn", pytest.param("finetune", marks=pytest.mark.slow)])
def test_other_labels_in_the_test_fold_change_no_choice_and_no_prediction(
    mode: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is chosen and predicted is a function of everything but the labels of the test fold."""
    asked = {
        "model": str(save(tmp_path / "model")),
        "mode": mode,
        "readout": "all" if mode == "attention" else "la_mean",
    }
    run(store, tmp_path / "true", **asked)
    opened = Store.open(store)
    test = np.isin(opened.folds, opened.split.test)

    def turned(*args: object) -> object:
        labels = load_labels(*args)  # type: ignore[arg-type]
        matrix = labels.matrix.copy()
        matrix[test] = 1 - matrix[test]
        return dataclasses.replace(labels, matrix=matrix)

    monkeypatch.setattr(task, "load_labels", turned)
    run(store, tmp_path / "turned", **asked)
    before, after = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("true", "turned"))
    for field in ("chosen", "macro_auroc_validation", "best_on_validation"):
        assert before[field] == after[field]
    with np.load(tmp_path / "true/predictions.npz") as one, np.load(tmp_path / "turned/predictions.npz") as other:
        np.testing.assert_array_equal(one["scores"], other["scores"])
        np.testing.assert_array_equal(one["labels"], 1 - other["labels"])
    for name, value in before["macro_auroc"].items():
        assert after["macro_auroc"][name] == pytest.approx(1 - value)


def test_no_evaluation_changes_the_model_that_it_is_given(store: Path, tmp_path: Path) -> None:
    """Nor does a probe change a copy of it: the model that it writes, where it does, has the same parameters bit for bit."""
    model = save(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    given = bits(model)
    scores = []
    for number, mode in enumerate(("linear", "finetune", "attention", "knn", "linear")):
        folder = tmp_path / f"{number}-{mode}"
        run(store, folder, model=str(model), mode=mode, readout="all" if mode == "attention" else "la_mean")
        assert (folder / "model").exists() == (mode in ("linear", "finetune"))
        if mode == "linear":
            assert bits(folder / "model") == given
            with np.load(folder / "predictions.npz") as saved:
                scores.append(saved["scores"])
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    np.testing.assert_array_equal(scores[0], scores[1])


def bits(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of each parameter of a model folder."""
    leaves = jax.tree_util.tree_leaves_with_path(load_model(folder).params)
    return {jax.tree_util.keystr(path): (str(leaf.dtype), np.asarray(leaf).tobytes()) for path, leaf in leaves}


@pytest.mark.parametrize(("mode", "readout"), [("linear", "encoder_concat"), ("finetune", "la_mean")])
def test_the_model_that_is_left_predicts_what_was_scored(mode: str, readout: str, store: Path, tmp_path: Path) -> None:
    opened = Store.open(store)
    keys = pretraining_record_keys([opened], train_rows([opened], "1,2"))
    summary = run(store, tmp_path / "run", model=str(save(tmp_path / "model", keys=keys)), mode=mode, readout=readout)
    left = load_model(tmp_path / "run" / "model")
    assert left.head is not None and left.head.labels == ("NORM", "MI")
    with np.load(tmp_path / "run" / "predictions.npz") as saved:
        scored = saved["scores"][0]
    rows = fold_rows([opened], "test")[0]
    np.testing.assert_allclose(expit(predict(left, opened, rows, "again")), scored, atol=1e-5)
    assert f"{summary['macro_auroc'][readout]:.3f}" in (tmp_path / "run" / "model" / "README.md").read_text()
    # What it was made of, with licences: a fine-tuned model's parameters have learned from the store too.
    assert left.head.about["store"]["sha256"] == opened.hash and left.head.about["records"] == summary["records"]
    stores = left.provenance.get("stores", [])
    assert "head was fitted on `ptb_xl`" in (tmp_path / "run" / "model" / "README.md").read_text()
    assert [each["sha256"] for each in stores] == ([opened.hash] if mode == "finetune" else [])
    # What a model was tuned on must not be tested on either.
    assert left.pretraining_records is not None
    assert len(left.pretraining_records) == (80 if mode == "finetune" else 20)  # record 30 was pretrained on


def test_fewer_training_records_are_a_subset_of_whole_patients(store: Path) -> None:
    opened = Store.open(store)
    whole, half, tenth = (open_task("ptbxl:super", opened, Icd10Rules(), limit) for limit in (0, 40, 10))
    rows = [set(each.rows_of("train").tolist()) for each in (whole, half, tenth)]
    assert rows[2] < rows[1] < rows[0] and (len(rows[1]), len(rows[2])) == (40, 10)
    assert set(subset(whole, 10, draw=1).rows_of("train").tolist()) != rows[2]
    again = subset(whole, 10)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(again.rows_of(part), tenth.rows_of(part))
    for part in ("validation", "test"):
        np.testing.assert_array_equal(tenth.rows_of(part), whole.rows_of(part))


def test_the_report_stands_alone(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "run", model=str(save(tmp_path / "model")))
    page = (tmp_path / "run" / "report.html").read_text()
    parsed = Outline()
    parsed.feed(page)
    assert parsed.open == [] and parsed.images == 3 and "http" not in page.replace("http-equiv", "")
    for words in (
        "myocardial infarction",
        "LAMAE_E (a)",
        "Scratch",
        "resamples of whole patients",
        "strat_fold",
    ):
        assert words in page


@pytest.mark.slow
def test_the_report_in_a_browser(store: Path, tmp_path: Path) -> None:
    run(store, tmp_path / "run", model=str(save(tmp_path / "model")))
    seen = look_at(tmp_path / "run" / "report.html", tmp_path / "browser")
    assert seen.images == seen.of == 3 and seen.console == () and seen.overhang <= 0
    assert seen.inked > 0.03


def test_a_preset_untrained_is_its_own_yardstick(store: Path, tmp_path: Path) -> None:
    summary = run(store, tmp_path, model="random:nano", readout="encoder_mean")
    assert summary["macro_auroc"] == summary["macro_auroc_random"]
    assert list(summary["macro_auroc"]) == ["encoder_mean"]


def test_own_labels_with_unknown_records(store: Path, tmp_path: Path) -> None:
    own = ["record_id,fast,never,rare"]
    for number in range(1, RECORDS + 1):
        known = "" if number % 7 == 0 else str(int(fast(number)))
        own.append(f"{number},{known},0,{int(number in (1, 2))}")
    (tmp_path / "own.csv").write_text("\n".join(own))
    summary = run(store, tmp_path, model="random:nano", readout="encoder_concat", labels=f"csv:{tmp_path / 'own.csv'}")
    # `never` cannot be learned, `rare` can, and has no positive record in the test fold: neither is in the mean.
    assert summary["labels"]["undefined"] == ["never", "rare"]
    assert summary["macro_auroc"]["encoder_concat"] > 0.95
    lines = {line["label"]: line for line in table(tmp_path)}
    assert (
        lines["never"]["auroc"] == lines["rare"]["auroc"] == lines["rare"]["auroc_low"] == lines["rare"]["auprc"] == ""
    )
    assert (
        lines["fast"]["n_train_pos"] == "22"
        and lines["rare"]["n_train_pos"] == "2"
        and lines["rare"]["n_test_pos"] == "0"
    )
    assert [line["n_test"] for line in lines.values()] == ["9", "10", "10"]


def test_a_test_record_that_was_pretrained_on_stops_the_run(store: Path, tmp_path: Path) -> None:
    opened = Store.open(store)
    keys = pretraining_record_keys([opened], train_rows([opened], "1,2,10"))
    model = save(tmp_path / "model", keys=keys)
    with pytest.raises(UserError, match="10 of 10 test records were pretrained on: 19, 29, 39"):
        run(store, tmp_path / "run", model=str(model))
    assert not (tmp_path / "run").exists()


def test_without_a_list_of_pretraining_records_the_summary_says_so(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = run(store, tmp_path / "run", model=str(save(tmp_path / "model")), readout="la_mean")
    assert summary["pretraining_check"].startswith("not possible")
    assert "can't be checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (SignalContract(fs=250, seconds=4, band="none"), "fs: store 100, model 250"),
        (SignalContract(fs=100, seconds=4), "band: store none, model highpass_0.5"),
        (SignalContract(fs=100, seconds=5, band="none"), "seconds: store 4, model 5"),
        (SignalContract(leads=("II", "I"), fs=100, seconds=4, band="none"), "leads: store I II III .*, model II I"),
    ],
)
def test_model_and_store_are_compared_field_by_field(
    contract: SignalContract, message: str, store: Path, tmp_path: Path
) -> None:
    leads = len(contract.leads)
    model = save(tmp_path / "model", dataclasses.replace(SMALL, leads=leads, samples=contract.samples), contract)
    with pytest.raises(UserError, match=message):
        run(store, tmp_path / "run", model=str(model))


def test_stored_records_may_be_longer_than_the_models(store: Path) -> None:
    @dataclasses.dataclass
    class Opened:
        contract: SignalContract
        config: ModelConfig = SMALL

    check_contract(Opened(SignalContract(fs=FS, seconds=3, band="none")), Store.open(store))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (None, {"model": ""}, "model is empty"),
        (None, {"store": ""}, "data.store is empty"),
        (None, {"labels": ""}, "labels is empty"),
        (None, {"batch_size": 0}, "batch_size=0"),
        (None, {"resamples": 0}, "resamples=0"),
        (None, {"limit": -1}, "data.limit=-1"),
        (None, {"mode": "svm"}, "mode=svm: must be one of linear, attention, knn"),
        (None, {"mode": "finetune", "tuning": None}, "mode=finetune: a probe .*; take configs/finetune.py"),
        (None, {"mode": "attention", "readout": "la_cls"}, "reads the tokens themselves"),
        (None, {"seed": -1}, "seed=-1"),
        (None, {"readout": "cls"}, "readout=cls: must be all or one of la_cls"),
        (None, {"model": "random:huge"}, "preset=huge: must be one of nano"),
        (None, {"model": "nowhere"}, "no such folder"),
        (None, {"store": "nowhere"}, "no such folder"),
        (None, {"labels": "ptbxl:best"}, "labels=ptbxl:best: must be icd10:.*, ptbxl:super"),
        (None, {"labels": "ptbxl:rhythm"}, "not one of SR has both 1 and 0"),
        (dataclasses.replace(SMALL, latent_depth=0), {"readout": "la_mean"}, "no latent attention"),
        (dataclasses.replace(SMALL, decoder_reads="tokens"), {"readout": "la_cls"}, "never learned"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_any_work(
    model: ModelConfig | None, changes: dict, message: str, store: Path, tmp_path: Path
) -> None:
    start = "random:nano" if model is None else str(save(tmp_path / "model", model))
    with pytest.raises(UserError, match=message) as caught:
        run(store, tmp_path / "run", **({"model": start} | changes))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_all_means_the_readouts_that_the_model_has_and_the_others_are_said_once(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tmp_path / "model", dataclasses.replace(SMALL, latent_depth=0))
    summary = run(store, tmp_path / "run", model=str(model))
    assert list(summary["macro_auroc"]) == ["encoder_mean", "encoder_concat"]
    out = capsys.readouterr().out
    assert [out.count(f"left out: readout={name}: ") for name in READOUTS] == [1, 1, 0, 0]
