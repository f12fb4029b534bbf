"""What people have goes in by name, rate and unit, and comes out as the embedding that the store would have given."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import tiny
from small_model import CONFIG, random_params, save_small, small_config

import lamae_jax
from lamae_jax.data.prepare import prepare
from lamae_jax.data.store import Store
from lamae_jax.errors import NotFinite, UserError
from lamae_jax.evaluate.features import extract
from lamae_jax.model.inputs import InputConfig
from lamae_jax.serve import recordings
from lamae_jax.serve.model import EcgModel
from lamae_jax.signal.contract import SignalContract
from lamae_jax.signal.leads import STANDARD_LEADS

LEADS = list(STANDARD_LEADS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EcgModel:
    return lamae_jax.load(save_small(tmp_path_factory.mktemp("model")))


def ecg(number: int = 1, fs: int = 100, seconds: float = 10) -> np.ndarray:
    """[12, samples] in mV: sharp beats of another shape in every lead, drawn at any rate."""
    t = np.arange(round(fs * seconds)) / fs
    beats = np.exp(-(((t[None] % (0.7 + 0.02 * number)) - 0.3) ** 2) / 0.0015)
    sizes = np.sin(np.arange(12) * 1.3 + number)[:, None] + 0.2
    return sizes * beats + 0.2 * np.cos(t[None] * 4 + np.arange(12)[:, None])


def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b[np.isfinite(b)]).max()))


@pytest.fixture(scope="module")
def one(model: EcgModel) -> np.ndarray:
    return model.embed(ecg(), 100, LEADS).cls


def test_one_recording_gives_the_three_shapes(model: EcgModel) -> None:
    made = model.embed(ecg(), fs=100, leads=LEADS)
    assert (made.cls.shape, made.leads.shape, made.tokens.shape) == ((1, 16), (1, 12, 16), (1, 12, 10, 16))
    assert made.warnings == ((),) and made.available.all() and made.readout == "la_cls"


def test_order_and_case_of_leads_and_units_do_not_show(model: EcgModel, one: np.ndarray) -> None:
    order = np.random.default_rng(0).permutation(12)
    shuffled = [LEADS[i].upper() if i % 2 else f" {LEADS[i].lower()} " for i in order]
    close(model.embed(ecg()[order], 100, shuffled).cls, one)
    close(model.embed(1e3 * ecg(), 100, LEADS, "uV").cls, one)
    close(model.embed(ecg() / 1e3, 100, LEADS, units="V").cls, one)


@pytest.mark.parametrize("fs", [250, 500, 1000])
def test_another_rate_is_nearly_the_same(fs: int, model: EcgModel, one: np.ndarray) -> None:
    others = model.embed([ecg(number) for number in range(8)], 100, LEADS).cls
    again = model.embed(ecg(fs=fs), fs, LEADS).cls
    assert np.linalg.norm(others - again, axis=1).argmin() == 1
    assert np.linalg.norm(one - again) < 0.1 * np.linalg.norm(others - one, axis=1)[[0, *range(2, 8)]].min()


@pytest.mark.parametrize(
    "names",
    [LEADS, ["I", "II", *LEADS[6:]], LEADS[:6], ["I", "II", "III"], ["V5", "II"], ["I"]],
    ids=lambda names: str(len(names)),
)
def test_fewer_leads_are_taken_and_told(names: list[str], model: EcgModel) -> None:
    rows = [LEADS.index(name) for name in names]
    made = model.embed(ecg()[rows], 100, names)
    np.testing.assert_array_equal(made.available[0], [name in names for name in LEADS])
    assert np.isfinite(made.leads[made.available]).all() and np.isnan(made.leads[~made.available]).all()
    missing = [name for name in LEADS if name not in names]
    assert made.warnings == (((f"lead_missing: {' '.join(missing)}",) if missing else ()),)


def test_a_wearables_single_row_is_enough(model: EcgModel) -> None:
    close(model.embed(ecg()[0], 100, "I").cls, model.embed(ecg()[:1], 100, ["I"]).cls)


def test_a_batch_may_mix_lengths_leads_rates_and_units(model: EcgModel, one: np.ndarray) -> None:
    long = np.concatenate([ecg()[:, :0], np.tile(ecg(), 3)], axis=1)
    made = model.embed(
        [ecg(), 1e3 * ecg(2)[:2], long, ecg(3, fs=500)],
        [100, 100, 100, 500], [LEADS, ["i", "ii"], LEADS, LEADS], ["mV", "uV", "mV", "mV"],
    )  # fmt: skip
    close(made.cls[:1], one)
    close(made.cls[1:2], model.embed(ecg(2)[:2], 100, ["I", "II"]).cls)
    assert made.warnings[2] == ("cut: the middle 10 s of 30 s are used",)
    assert made.warnings[1][0].startswith("lead_missing: III") and made.warnings[3] == ()


def test_what_is_odd_is_said(model: EcgModel) -> None:
    x = ecg()
    x[3, 100:110], x[4, 100:300], x[5], x[6] = np.nan, np.nan, 0.3, np.nan
    told = model.embed(np.vstack([x, x[:1]]), 100, [*LEADS, "resp"]).warnings[0]
    assert [text.split(":")[0] for text in told] == ["lead_unknown", "lead_nan", "lead_gap", "lead_flat", "gap_filled"]
    assert "resp not used" in told[0]
    # each lead with its own cause
    assert told[1:4] == ("lead_nan: V1 left out", "lead_gap: aVL left out", "lead_flat: aVF left out")
    slow = small_config(samples=2500, patch=250)
    quick = dataclasses.replace(model, config=slow, contract=SignalContract(fs=250), params=random_params(slow))
    assert quick.embed(ecg(), 100, LEADS).warnings == (
        ("upsampled: from 100 to 250 Hz; nothing above 50 Hz is in it",),
    )
    (told,) = model.embed(ecg() / 100, 100, LEADS).warnings
    assert told[0].startswith("quiet: the largest lead spans") and told[0].endswith("was the unit really mV?")


@pytest.mark.parametrize(
    "given, message",
    [
        ({"leads": None}, "leads: missing"),
        ({"fs": None}, "fs: missing"),
        ({"fs": 60}, "fs: 60 Hz; 100 to 1000 Hz are accepted"),
        ({"fs": "100"}, "fs='100': must be a number"),
        ({"fs": 100j}, "fs=100j: must be a number"),
        ({"units": 5}, "units=5: must be mV, uV or V"),
        ({"leads": [1, 2]}, r"leads=\[1, 2\]: must be names of the rows"),
        ({"leads": [*LEADS[:11], 12]}, "leads=.*: must be names of the rows"),
        ({"leads": 12}, r"leads=\[12\]: must be names of the rows"),
        ({"ecg": [ecg(), ecg()], "leads": [1, 2]}, r"recording 0: leads=\[1, 2\]: must be names of the rows"),
        ({"ecg": [[[1.0, 2.0], [3.0]]]}, "rows of different lengths"),
        ({"ecg": None}, "ecg: of type object; numbers are due"),
        ({"ecg": ecg().T}, "has shape 1000x12, leads names 12: .* pass its transpose"),
        ({"ecg": ecg()[:5]}, "has shape 5x1000, leads names 12"),
        ({"leads": [*LEADS[:11], "v5"]}, "lead V5 stands twice"),
        ({"leads": [f"ch{i}" for i in range(12)]}, "none of 12 leads can be used .*: ch0, .* known are I, II"),
        ({"ecg": ecg()[:, :900]}, "too_short: 900 samples at 100 Hz are 9 s; 10 s are needed"),
        ({"ecg": np.full((12, 1000), np.nan)}, "no_signal: none of 12 leads can be used"),
        ({"ecg": np.zeros((12, 1000))}, "lead_flat"),
        ({"ecg": 1e3 * ecg()}, "span .* mV or more when taken as mV, no ECG does; are they microvolts"),
        ({"ecg": (200 * ecg()).astype(np.int16)}, "are they microvolts .* or counts of a converter"),
        ({"ecg": ecg() / 1e4}, "no_signal: .* the values span .* mV in all: is that the unit"),
        ({"units": "mmHg"}, "unit: lead I is in 'mmHg'; mV, uV and V are known"),
        ({"ecg": []}, "an empty list"),
        ({"ecg": np.zeros((0, 12, 1000))}, "no recording"),
        ({"ecg": [ecg(), ecg()[:, :5]]}, "recording 1: too_short"),
        ({"ecg": [ecg(), ecg()], "fs": [100]}, "fs: given for 1 recordings, ecg holds 2"),
        ({"ecg": ecg().astype(str)}, "numbers are due"),
    ],
)
def test_what_cannot_be_embedded_is_refused_in_one_line(given: dict, message: str, model: EcgModel) -> None:
    with pytest.raises(UserError, match=message) as caught:
        model.embed(**({"ecg": ecg(), "fs": 100, "leads": LEADS} | given))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_ptb_xl(tmp_path_factory.mktemp("source"), 11)


@pytest.fixture(scope="module")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "store"
    prepare(tiny.config(source, folder, band="highpass_0.5"), folder.parent / "work")
    return folder


def test_files_arrays_and_store_give_what_training_reads(model: EcgModel, source: Path, store: Path) -> None:
    opened = Store.open(store)
    due = extract(model.params, CONFIG, InputConfig(), opened, np.arange(11), ("la_cls",), 4, "x")["la_cls"]
    close(model.embed(store).cls, due, 1e-5)
    records = [source / f"records100/00000/{number:05d}_lr" for number in range(1, 12)]
    close(model.embed(records).cls, due, 1e-5)
    close(model.embed(f"{records[2]}.hea").cls, due[2:3], 1e-5)
    arrays = np.stack([tiny.signal_of(number) for number in range(1, 12)])
    close(model.embed(arrays, 100, tiny.LEADS, "uV").cls, due, 1e-5)


def test_a_stores_missing_leads_are_named_and_what_is_odd_in_it_is_said(model: EcgModel, tmp_path: Path) -> None:
    sound, flat, both = (tiny.signal_of(number, 3000) for number in (1, 2, 3))
    flat[3] = 0
    both[4], both[5, 1000:2000] = 7, -32768  # WFDB's word for "no sample"
    for name, signal in (("a", sound), ("b", flat), ("c", both)):
        tiny.write_record(tmp_path / "in" / name, signal)
    header = tmp_path / "in" / "a.hea"
    header.write_text(header.read_text().replace("AVF", "none"))
    asked = tiny.config(tmp_path / "in", tmp_path / "store", kind="wfdb", band="highpass_0.5", seconds=30.0)
    prepare(asked, tmp_path / "work")
    cut = "cut: the middle 10 s of 30 s are used"
    made = model.embed(tmp_path / "store")
    assert made.warnings == (
        ("lead_missing: aVF", cut),
        ("lead_flat: aVR left out", cut),
        ("lead_gap, lead_flat: aVL aVF left out", cut),  # a store does not keep which is which
    )
    paths = [tmp_path / "in" / name for name in "abc"]
    assert model.embed(paths).warnings[2] == ("lead_gap: aVF left out", "lead_flat: aVL left out", cut)


def test_a_store_passes_on_what_prepare_found_odd(model: EcgModel, tmp_path: Path) -> None:
    tiny.write_record(tmp_path / "in" / "a", tiny.signal_of(1) // 100)
    prepare(tiny.config(tmp_path / "in", tmp_path / "store", kind="wfdb", band="highpass_0.5"), tmp_path / "work")
    assert model.embed(tmp_path / "store").warnings == (("quiet",),)
    assert model.embed(tmp_path / "in" / "a").warnings[0][0].startswith("quiet: the largest lead spans ")


def test_what_would_fill_the_memory_is_refused_before_it_is_read(
    model: EcgModel, source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, counts = 4 * 12 * 10 * 16, 2 * 12 * 1000
    half = 10 * (tokens + counts)  # room for ten of the eleven
    monkeypatch.setattr(os, "sysconf", lambda name: 2 * half if name == "SC_PHYS_PAGES" else 1)
    monkeypatch.setattr(Store, "read", lambda *_: pytest.fail("was read"))
    monkeypatch.setattr(recordings, "read_wfdb", lambda *_: pytest.fail("was read"))
    for many in (store, [source / f"records100/00000/{number:05d}_lr" for number in range(1, 12)]):
        with pytest.raises(UserError, match="11 recordings .* GB, half of the memory is .* configs/embed.py"):
            model.embed(many)
    with pytest.raises(UserError, match="11 recordings"):
        model.reconstruct(store)


def test_each_file_is_read_only_when_its_turn_comes(
    model: EcgModel, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recording of an hour is large; of each only the model's input may be kept."""
    done: list[str] = []
    read, prepared = recordings.read_wfdb, recordings.prepare_one
    monkeypatch.setattr(recordings, "read_wfdb", lambda path: done.append("read") or read(path))
    monkeypatch.setattr(recordings, "prepare_one", lambda *given: done.append("prepared") or prepared(*given))
    model.embed([source / f"records100/00000/{number:05d}_lr" for number in (1, 2)])
    assert done == ["read", "prepared", "read", "prepared"]


def test_the_same_call_gives_the_same_bits(model: EcgModel) -> None:
    first, second = (model.embed(np.stack([ecg(number) for number in range(9)]), 100, LEADS) for _ in range(2))
    for name in ("cls", "leads", "tokens"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_a_store_of_another_contract_is_refused_with_both_sides(
    source: Path, store: Path, model: EcgModel, tmp_path: Path
) -> None:
    prepare(tiny.config(source, tmp_path / "store"), tmp_path / "work")
    with pytest.raises(UserError, match="band: store none, model highpass_0.5"):
        model.embed(tmp_path / "store")
    with pytest.raises(UserError, match="fs=100: not with a store"):
        model.embed(store, fs=100)
    with pytest.raises(UserError, match="a folder that is no store"):
        model.embed(tmp_path)
    with pytest.raises(UserError, match="absent"):
        model.embed(tmp_path / "nothing")


def test_a_model_without_latent_attention_has_the_encoders_tokens(tmp_path: Path) -> None:
    alone = lamae_jax.load(save_small(tmp_path, config=small_config(latent_depth=0)))
    made = alone.embed(ecg()[:2], 100, LEADS[:2])
    assert made.readout == "encoder_mean"
    close(made.cls, made.tokens[:, :2].mean((1, 2)), 1e-5)


def test_broken_parameters_are_not_passed_on(model: EcgModel) -> None:
    broken = dataclasses.replace(model, params=random_params())
    broken.params["encoder"]["cls"][:] = np.nan
    with pytest.raises(NotFinite, match="not finite"):
        broken.embed(ecg(), 100, LEADS)
