"""Explanations from a store to a page: deletion finds the lead that carries the label, nothing of a hidden lead leaks.

The recordings are made: a label is written into lead V1 alone, 8 Hz or 2 Hz; the other leads are noise.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from browser import look_at
from html_outline import Outline

import lamae_jax
from lamae_jax import config as from_config
from lamae_jax.artifact.folder import load_model, save_model
from lamae_jax.artifact.head import Head
from lamae_jax.artifact.origin import described
from lamae_jax.command import read_command
from lamae_jax.data.labels.icd10 import Icd10Rules
from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.evaluate.statistics import macro_auroc
from lamae_jax.evaluate.summary import split_of
from lamae_jax.evaluate.task import open_task
from lamae_jax.model.inputs import InputConfig
from lamae_jax.model.lamae import init_params
from lamae_jax.model.presets import ModelConfig, preset
from lamae_jax.serve.explain import cohort as cohort_module
from lamae_jax.serve.explain.altered import Altered, removals
from lamae_jax.serve.explain.hidden import draw_hidden, likeness, named_leads
from lamae_jax.serve.explain.plane import principal
from lamae_jax.serve.explain.probe import costs
from lamae_jax.serve.explain.task import ExplainConfig, explain
from lamae_jax.signal.contract import SignalContract
from lamae_jax.signal.leads import STANDARD_LEADS

RECORDS, FS, SAMPLES = 120, 100, 200
SMALL = preset("nano", width=16, decoder_width=16, encoder_depth=1, latent_depth=2, samples=SAMPLES, patch=20)
V1 = STANDARD_LEADS.index("V1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store, and labels.csv beside it. Record 9 (of the test fold) lacks lead V6."""
    folder = tmp_path_factory.mktemp("explained")
    (folder / "source").mkdir()
    rng, time = np.random.default_rng(0), np.arange(SAMPLES) / FS
    signals = rng.normal(0, 0.2, (RECORDS, 12, SAMPLES))
    fast = rng.random(RECORDS) < 0.5
    signals[:, V1] += np.sin(2 * np.pi * (np.where(fast, 8, 2)[:, None] * time + rng.random((RECORDS, 1))))
    signals[9, 11] = np.nan
    np.save(folder / "source" / "all.npy", signals)
    rows = [["all.npy", row, FS, " ".join(STANDARD_LEADS), "mV", row, row, row % 10 + 1] for row in range(RECORDS)]
    header = ["file", "row", "fs", "leads", "units", "record_id", "patient_id", "fold"]
    for path, lines in (
        (folder / "source" / "metadata.csv", [header, *rows]),
        (
            folder / "labels.csv",
            [["record_id", "fast", "slow"], *([n, int(f), int(not f)] for n, f in enumerate(fast))],
        ),
    ):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows(lines)
    prepare(
        PrepareConfig(kind="arrays", source=str(folder / "source"), store=str(folder / "store"), fs=FS, seconds=2.0,
                      band="none", workers=1, max_bad_fraction=0.0),
        folder / "prepared",
    )  # fmt: skip
    return folder


def save(folder: Path, model: ModelConfig = SMALL, head: Head | None = None, **pretraining: object) -> Path:
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(5))
    contract = SignalContract(fs=FS, seconds=2.0, band="none")
    save_model(folder, params, model, InputConfig(), contract, {"config": pretraining}, None, head)
    return folder


def own(*labels: str) -> Head:
    """A head on `encoder_concat` that nobody fitted: no probe would say the same."""
    rng, features = np.random.default_rng(0), 12 * 16
    vectors = {name: rng.normal(0, 0.5, features).astype(np.float32) for name in ("mean", "scale", "fill")}
    kernel = rng.normal(0, 0.3, (features, len(labels))).astype(np.float32)
    return Head("encoder_concat", labels, kernel, np.zeros(len(labels), np.float32), **vectors)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


def settings(source: Path, **changes: object) -> ExplainConfig:
    values = {
        "model": "", "store": str(source / "store"), "labels": f"csv:{source / 'labels.csv'}", "record": "", "hidden": "",
        "readout": "encoder_concat", "records": 0, "batch_size": 16, "resamples": 20, "seed": 0, "cache": "",
        "icd10": Icd10Rules(),
    }  # fmt: skip
    return ExplainConfig(**(values | changes))  # type: ignore[arg-type]


def parsed(page: Path) -> Outline:
    outline = Outline()
    outline.feed(page.read_text())
    assert outline.open == [] and "http:" not in page.read_text() and "https:" not in page.read_text()
    return outline


@pytest.fixture(scope="module")
def cohort(source: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    explain(settings(source, model=str(model)), folder)
    return folder


def test_deletion_finds_the_lead_that_carries_the_label(cohort: Path) -> None:
    found = json.loads((cohort / "summary.json").read_text())
    lost = {lead: found["lost"][f"without {lead}"] for lead in STANDARD_LEADS}
    assert found["macro_auroc"]["as recorded"] > 0.95
    assert max(lost, key=lambda lead: lost[lead]) == "V1" and lost["V1"] > 0.25
    assert max(value for lead, value in lost.items() if lead != "V1") < 0.15
    alone = {lead: found["macro_auroc"][f"{lead} alone"] for lead in STANDARD_LEADS}
    assert max(alone, key=lambda lead: alone[lead]) == "V1"
    assert found["lost"]["6 limb leads"] > 0.25 > found["lost"]["8 leads"]


def test_the_tables_say_what_the_summary_says(cohort: Path) -> None:
    found = json.loads((cohort / "summary.json").read_text())
    assert found["explained"] == {"records": 11, "patients": 11, "left_out_for_a_missing_lead": 1}
    with open(cohort / "alterations.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    means = {line["alteration"]: line for line in lines if line["label"] == "mean"}
    assert len(means) == 1 + 10 + 12 + 11  # as recorded, the matrix, without each, alone (lead I is in the matrix too)
    for name, line in means.items():
        assert float(line["auroc"]) == pytest.approx(found["macro_auroc"][name], abs=1e-6)
        assert float(line["auroc_low"]) <= float(line["auroc_high"]) and float(line["lost_low"]) <= float(
            line["lost_high"]
        )
    with open(cohort / "attention.csv", newline="") as file:
        shares = [line for line in csv.DictReader(file) if line["label"] == "all"]
    assert [line["lead"] for line in shares] == list(STANDARD_LEADS)
    assert sum(float(line["rollout"]) for line in shares) == pytest.approx(1, abs=1e-4)
    assert set(found["attention"]["rank_correlation"]) == {
        f"{kind} with {what}" for kind in ("last", "rollout") for what in ("lost", "alone")
    }
    assert set(found["hidden"]["correlation_median"]) == set(STANDARD_LEADS)


def test_the_cohorts_report_stands_alone(cohort: Path) -> None:
    text = (cohort / "report.html").read_text()
    assert parsed(cohort / "report.html").images >= 5
    for words in ("arm electrodes swapped", "noise, 10 dB", "Nothing was refitted", "1 test records that lack a lead"):
        assert words in text
    for name in ("robustness", "importance", "by_label", "hidden", "map_pca"):
        assert (cohort / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (cohort / "figures" / f"{name}.svg").read_text()


@pytest.mark.slow
def test_the_cohorts_report_in_a_browser(cohort: Path, tmp_path: Path) -> None:
    seen = look_at(cohort / "report.html", tmp_path / "browser")
    assert seen.images == seen.of >= 5 and seen.console == () and seen.overhang <= 0
    assert seen.inked > 0.1


@pytest.mark.slow
def test_a_records_report_in_a_browser(source: Path, model: Path, tmp_path: Path) -> None:
    explain(settings(source, model=str(model), record="9", hidden="V4", readout=""), tmp_path / "run")
    seen = look_at(tmp_path / "run" / "report.html", tmp_path / "browser")
    assert seen.images == seen.of == 4 and seen.console == () and seen.overhang <= 0
    assert seen.inked > 0.1


def test_one_record(source: Path, model: Path, tmp_path: Path) -> None:
    found = explain(settings(source, model=str(model), record="9", hidden="v4,I", readout=""), tmp_path / "run")
    assert found["readout"] == "la_cls" and "V6" not in found["available"]
    assert set(found["hidden"]) == {"I", "V4", "V6"} and found["hidden"]["V6"] is None  # what it lacks is drawn too
    assert -1 <= found["hidden"]["V4"]["correlation"] <= 1
    assert found["attention"]["last"]["V6"] == 0 and sum(found["attention"]["rollout"].values()) == pytest.approx(1)
    names = list(found["chances"]["values"])
    assert (
        names[:2] == ["as recorded", "without I"]
        and "without V6" not in names
        and names[-1] == "arm electrodes swapped"
    )
    assert found["chances"]["part"] == "test" and len(found["chances"]["present"]) == 1
    assert parsed(tmp_path / "run" / "report.html").images == 4
    for name in ("attention_last", "attention_rollout", "hidden", "chances"):
        assert "<svg" in (tmp_path / "run" / "figures" / f"{name}.svg").read_text()


def test_one_record_without_labels_and_without_latent_attention(source: Path, tmp_path: Path) -> None:
    model = save(
        tmp_path / "model", preset("nano", width=16, encoder_depth=1, latent_depth=0, samples=SAMPLES, patch=20)
    )
    found = explain(settings(source, model=str(model), record="3", labels="", readout=""), tmp_path / "run")
    assert found["attention"] == found["chances"] == found["hidden"] == {}
    assert parsed(tmp_path / "run" / "report.html").images == 1


def test_a_models_own_head_is_what_is_explained(source: Path, tmp_path: Path) -> None:
    """Of its labels in any order, and among others; the record lacks V6, for which the head has a fill."""
    model = save(tmp_path / "model", head=own("slow", "other", "fast"))
    found = explain(settings(source, model=str(model), record="9", readout=""), tmp_path / "run")["chances"]
    assert found["read_by"] == "head" and found["readout"] == "encoder_concat"
    loaded, store = lamae_jax.load(model), Store.open(source / "store")
    without = Altered(store, removals(STANDARD_LEADS)["V1"], 0)
    for name, recordings in (("as recorded", store), ("without V1", without)):
        due = loaded.predict(recordings)
        of = dict(zip(due.labels, due.probabilities[9], strict=True))
        assert found["values"][name] == pytest.approx({label: of[label] for label in ("fast", "slow")}, abs=1e-5)
    assert "the model&#x27;s own head on encoder_concat" in (tmp_path / "run" / "report.html").read_text()


def test_a_cohort_is_read_by_the_models_own_head(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort_module, "hardships", lambda leads: [])
    monkeypatch.setattr(cohort_module, "solos", lambda leads: {})
    monkeypatch.setattr(cohort_module, "removals", lambda leads: {})
    model = save(tmp_path / "model", head=own("fast", "slow"))
    found = explain(settings(source, model=str(model), readout=""), tmp_path / "run")
    rows = np.array([row for row in range(9, RECORDS, 10) if row != 9])
    chances = lamae_jax.load(model).predict(Store.open(source / "store")).probabilities[rows]
    with open(source / "labels.csv", newline="") as file:
        labels = np.array([[float(line[name]) for name in ("fast", "slow")] for line in csv.DictReader(file)])[rows]
    assert found["macro_auroc"]["as recorded"] == pytest.approx(macro_auroc(labels, chances).value)
    assert "by the model&#x27;s own head, as its predict does" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("labels", "readout"), [(("fast", "other"), ""), (("fast", "slow"), "la_mean")], ids=["labels", "readout"]
)
def test_a_head_for_something_else_is_left_aside_and_the_report_says_so(
    labels: tuple[str, ...], readout: str, source: Path, tmp_path: Path
) -> None:
    model = save(tmp_path / "model", head=own(*labels))
    found = explain(settings(source, model=str(model), record="9", readout=readout), tmp_path / "run")["chances"]
    assert found["read_by"] == "probe" and found["readout"] == (readout or "la_cls")
    text = (tmp_path / "run" / "report.html").read_text()
    assert "by a linear probe of" in text and "own head was left aside: it has other labels or reads another" in text


def test_a_head_fitted_here_by_another_split_is_left_aside_as_it_may_know_the_test_records(
    source: Path, tmp_path: Path
) -> None:
    store = described(Store.open(source / "store"))
    split = split_of(open_task(f"csv:{source / 'labels.csv'}", Store.open(source / "store"), Icd10Rules()))
    for name, of, read_by in (("same", split, "head"), ("other", split | {"column": "own_fold"}, "probe")):
        head = dataclasses.replace(own("slow", "fast"), about={"store": store, "split": of})
        asked = settings(source, model=str(save(tmp_path / name, head=head)), record="9", readout="")
        assert explain(asked, tmp_path / f"run_{name}")["chances"]["read_by"] == read_by
    assert "what reads it was fitted without it" in (tmp_path / "run_same" / "report.html").read_text()


class Other(Store):
    """The same store but for one lead, which is something else."""

    lead = V1

    def read(self, rows: np.ndarray) -> np.ndarray:
        counts = super().read(rows)
        counts[:, self.lead] = np.random.default_rng(1).integers(-3000, 3000, counts[:, self.lead].shape)
        return counts


def test_nothing_of_a_hidden_lead_goes_into_its_drawing(source: Path, model: Path) -> None:
    loaded, rows = load_model(model), np.arange(3)
    stores = Store.open(source / "store"), Other.open(source / "store")
    one, other = (draw_hidden(loaded, store, rows, (V1,)) for store in stores)
    assert one.made.shape == (3, 1, SAMPLES) and one.recorded.shape == (3, 12, SAMPLES)
    np.testing.assert_array_equal(one.made, other.made)
    assert np.any(one.recorded != other.recorded)
    # The other leads do go in.
    without, changed = (draw_hidden(loaded, store, rows, (0,)) for store in stores)
    assert np.any(without.made != changed.made)


def test_a_model_that_does_not_know_heights_is_not_asked_for_them(source: Path, tmp_path: Path) -> None:
    model = save(tmp_path / "model", target="normalised")
    with pytest.raises(UserError, match="target=normalised"):
        explain(settings(source, model=str(model), record="3", labels="", hidden="V4"), tmp_path / "run")


def test_likeness_is_correlation_and_distance() -> None:
    wave = np.sin(np.arange(100) / 5)[None]
    r, rms = likeness(np.concatenate([wave, wave, wave]), np.concatenate([2 * wave, -wave, 0 * wave]))
    np.testing.assert_allclose(r, [1, -1, 0], atol=1e-12)
    np.testing.assert_allclose(rms / wave.std(), [1, 2, 1], atol=1e-12)


def test_what_is_lost_is_measured_on_the_same_resamples() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 2)) < 0.5).astype(float)
    good = labels + rng.normal(0, 1, labels.shape)
    first, same, worse = costs(labels, np.arange(200), ["a", "b", "c"], [good, good, rng.random(labels.shape)], 50, 0)
    assert (same.lost, same.lost_interval) == (0, (0, 0)) and first.macro == same.macro
    assert worse.lost == pytest.approx(first.macro - worse.macro)
    assert worse.lost_interval[0] > 0 and np.all(worse.lost_intervals[:, 0] < worse.lost_each)


def test_principal_components_keep_the_largest_spread() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(0, [5, 2], (50, 2)) @ np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    points, explained = principal(plane + 3)
    assert sum(explained) == pytest.approx(1) and explained[0] > explained[1]
    apart = [np.linalg.norm(each[:, None] - each[None], axis=-1) for each in (points, plane)]
    np.testing.assert_allclose(*apart, atol=1e-9)
    assert principal(np.ones((4, 1)))[0].shape == (4, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "model is empty: pass --config.model=DIR"),
        ({"labels": ""}, "labels and record are empty"),
        ({"readout": "cls"}, "readout=cls: must be empty or one of la_cls"),
        ({"records": -1}, "records=-1"),
        ({"resamples": 0}, "resamples=0: must be at least 1"),
        ({"record": "x9"}, "record=x9: not among the 120 records of .*; their ids are like 0, 1, 2"),
        ({"record": "9", "hidden": "V7"}, "hidden=V7: V7 must be one of I, II, III"),
    ],
)
def test_a_mistake_is_one_line(changes: dict, message: str, source: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        explain(settings(source, **({"model": str(model)} | changes)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_leads_by_name_in_any_case_and_one_must_stay() -> None:
    assert named_leads("v4, avr", STANDARD_LEADS) == (3, 9)
    with pytest.raises(UserError, match="names every lead"):
        named_leads("I,II", ("II", "I"))


def test_the_command_line_says_it_all() -> None:
    given = ["--config=configs/explain.py", "--config.model=M", "--config.data.store=S", "--config.record=7"]
    built = from_config.explain_config(read_command(given).config)
    assert (built.model, built.store, built.record, built.hidden, built.records) == ("M", "S", "7", "", 1000)
