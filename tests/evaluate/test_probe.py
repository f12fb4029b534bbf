"""The linear probe from a folder of recordings to summary.json: what it scores, what it reports and what it refuses."""

import csv
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lamae_jax.artifact.folder import save_model
from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.data.splits import pretraining_record_keys, train_rows
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.probe import L2_VALUES, ProbeConfig, Records, check_contract, probe, score_features
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params
from lamae_jax.model.presets import ModelConfig, preset
from lamae_jax.signal.contract import SignalContract

RECORDS, FS, SECONDS = 100, 100, 4.0
SMALL = preset("nano", width=16, decoder_width=16, encoder_depth=1, latent_depth=1, samples=300, patch=50)
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
    folder: Path, model: ModelConfig = SMALL, contract: SignalContract | None = None, keys: np.ndarray | None = None
) -> Path:
    contract = contract or SignalContract(fs=FS, seconds=model.samples / FS, band="none")
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(5))
    save_model(folder, params, model, InputConfig(), contract, {}, keys)
    return folder


def run(folder: Path, workdir: Path, **changes: object) -> dict:
    values = {"model": "", "store": str(folder), "labels": "ptbxl:super", "readout": "all", "batch_size": 16, "seed": 0}
    return probe(ProbeConfig(**(values | changes)), workdir)  # type: ignore[arg-type]


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
    assert set(summary["l2"].values()) <= set(L2_VALUES)
    assert (tmp_path / "run" / "figures" / "probe.png").stat().st_size > 1000
    with open(tmp_path / "run" / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["readout"], line["label"]) for line in lines[:2]] == [("la_cls", "NORM"), ("la_cls", "MI")]
    assert lines[1]["description"] == "myocardial infarction" and lines[1]["positive_train"] == "25"
    for name in four:
        values = [float(line["auroc"]) for line in lines if line["readout"] == name]
        assert np.mean(values) == pytest.approx(summary["macro_auroc"][name], abs=1e-6)


def test_a_preset_untrained_is_its_own_yardstick(store: Path, tmp_path: Path) -> None:
    summary = run(store, tmp_path, model="random:nano", readout="encoder_mean")
    assert summary["macro_auroc"] == summary["macro_auroc_random"]
    assert list(summary["macro_auroc"]) == ["encoder_mean"]


def test_own_labels_with_unknown_records(store: Path, tmp_path: Path) -> None:
    table = ["record_id,fast,never,rare"]
    for number in range(1, RECORDS + 1):
        known = "" if number % 7 == 0 else str(int(fast(number)))
        table.append(f"{number},{known},0,{int(number in (1, 2))}")
    (tmp_path / "own.csv").write_text("\n".join(table))
    summary = run(store, tmp_path, model="random:nano", readout="encoder_concat", labels=f"csv:{tmp_path / 'own.csv'}")
    # `never` cannot be learned, `rare` can, and has no positive record in the test fold: neither is in the mean.
    assert summary["labels"]["undefined"] == ["never", "rare"]
    assert summary["macro_auroc"]["encoder_concat"] > 0.95
    with open(tmp_path / "results.csv", newline="") as file:
        lines = {line["label"]: line for line in csv.DictReader(file)}
    assert lines["never"]["auroc"] == lines["rare"]["auroc"] == ""
    assert int(lines["fast"]["known_train"]) == 69 and int(lines["never"]["known_train"]) == 80


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


def test_all_means_the_readouts_that_the_model_has(store: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "model", dataclasses.replace(SMALL, latent_depth=0))
    summary = run(store, tmp_path / "run", model=str(model))
    assert list(summary["macro_auroc"]) == ["encoder_mean", "encoder_concat"]


def made_records(seed: int = 0) -> tuple[np.ndarray, Records]:
    """Standardised features and two labels that depend on them weakly; 120 train, 60 validation, 60 test records."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(240, 40))
    labels = (x @ rng.normal(size=(40, 2)) / 6 + rng.logistic(size=(240, 2)) > 0).astype(float)
    part = np.repeat(["train", "validation", "test"], [120, 60, 60])
    return x, Records(np.arange(240), labels, part, np.ones((240, 12), bool))


def test_the_strength_is_the_best_on_validation_and_the_score_is_scikit_learns() -> None:
    x, records = made_records()
    train, validation, test = (records.part == part for part in ("train", "validation", "test"))

    def by_hand(l2: float, where: np.ndarray) -> float:
        aurocs = []
        for y in records.labels.T:
            fit = LogisticRegression(C=1 / (l2 * 120), tol=1e-10, max_iter=5000).fit(x[train], y[train])
            aurocs.append(roc_auc_score(y[where], fit.decision_function(x[where])))
        return float(np.mean(aurocs))

    score = score_features(x, records)
    assert score.l2 == max(L2_VALUES, key=lambda l2: by_hand(l2, validation))
    assert score.validation == pytest.approx(by_hand(score.l2, validation), abs=1e-6)
    assert score.test == pytest.approx(by_hand(score.l2, test), abs=1e-3)
    assert score.l2 not in (min(L2_VALUES), max(L2_VALUES))


def test_nothing_of_the_test_fold_is_learned_from() -> None:
    x, records = made_records()
    test = records.part == "test"
    before = score_features(x, records)
    records.labels[test] = 1 - records.labels[test]
    after = score_features(x, records)
    assert (after.l2, after.validation) == (before.l2, before.validation)
    np.testing.assert_allclose(after.per_label, 1 - before.per_label)
