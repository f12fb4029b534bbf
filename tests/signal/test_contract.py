"""Whatever order, unit and rate a recording comes in, it leaves in the contract's form, or with the reason why it cannot."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy import signal as dsp

from lamae_jax.errors import UserError
from lamae_jax.signal.contract import Conditioned, SignalContract, SignalError, condition, cut
from lamae_jax.signal.leads import STANDARD_LEADS
from lamae_jax.signal.quality import FLAGS

PLAIN = SignalContract(fs=500, band="none")  # nothing but leads, units and rounding


def recording(samples: int = 5000, fs: float = 500, step: float = 5.0, seed: int = 0) -> np.ndarray:
    """Twelve leads in uV [12, N]: beats, wander and noise in multiples of `step`, as a converter gives them."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / fs
    beats = np.exp(-0.5 * ((time % 0.8 - 0.4) / 0.012) ** 2)
    wander = np.sin(2 * np.pi * 0.2 * time + random.uniform(0, 6, (12, 1)))
    signal = random.uniform(-2000, 2000, (12, 1)) * beats + 300 * wander + random.normal(0, 20, (12, samples)) + 150
    return step * np.round(signal / step)


def in_mv(signal: np.ndarray) -> np.ndarray:
    return (signal / 1000).astype(np.float32)


def run(signal: np.ndarray, contract: SignalContract = PLAIN, fs: float = 500, **other: object) -> Conditioned:
    arguments = {"leads": STANDARD_LEADS, "units": "mV"} | other
    return condition(signal, fs, contract=contract, **arguments)  # type: ignore[arg-type]


def reason_of(*arguments: object, **other: object) -> str:
    with pytest.raises(SignalError) as caught:
        run(*arguments, **other)  # type: ignore[arg-type]
    assert str(caught.value) == f"{caught.value.reason}: {caught.value.detail}"
    assert "\n" not in str(caught.value)
    return caught.value.reason


# --- the contract itself


def test_the_default_is_ten_seconds_of_twelve_leads_at_250_hz() -> None:
    contract = SignalContract()
    assert contract.leads == STANDARD_LEADS and contract.samples == 2500
    assert (contract.unit, contract.band) == ("mV", "highpass_0.5")


@pytest.mark.parametrize(
    "field, value",
    [
        ("leads", ()),
        ("leads", ("I", "I")),
        ("leads", ("I", "avr")),
        ("fs", 49),
        ("fs", 1001),
        ("seconds", 0.5),
        ("seconds", float("nan")),
        ("seconds", 2.001),
        ("unit", "uV"),
        ("band", "0.5-40"),
    ],
)
def test_impossible_contracts_are_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(UserError, match=f"^{field} "):
        SignalContract(**{field: value})  # type: ignore[arg-type]


def test_a_contract_survives_json_and_nothing_else_passes() -> None:
    contract = SignalContract(leads=("II", "V5"), fs=100, seconds=5, band="none")
    fields = contract.to_dict()
    assert fields == {"leads": ["II", "V5"], "fs": 100, "seconds": 5, "unit": "mV", "band": "none"}
    assert SignalContract.from_dict(fields) == contract
    for wrong, word in [
        ({name: value for name, value in fields.items() if name != "band"}, "band is missing"),
        (fields | {"gain": 1}, "gain is unknown"),
        (fields | {"fs": 100.0}, "signal contract: fs 100.0"),
        (fields | {"fs": True}, "signal contract: fs True"),
        (fields | {"leads": "II"}, "leads 'II'"),
        (fields | {"seconds": "5"}, "seconds '5'"),
        (fields | {"band": None}, "band None"),
    ]:
        with pytest.raises(UserError, match=word):
            SignalContract.from_dict(wrong)


def test_differences_name_the_field_and_both_values() -> None:
    model, store = SignalContract(), SignalContract(leads=("I", "II"), fs=100, seconds=2.5)
    assert model.differences(store, "store", "model") == [
        f"leads: store I II, model {' '.join(STANDARD_LEADS)}",
        "fs: store 100, model 250",
        "seconds: store 2.5, model 10",
    ]
    assert model.differences(SignalContract()) == []


def test_stored_records_may_be_longer_than_the_models_but_not_shorter_nor_else_different() -> None:
    model = SignalContract(fs=100, seconds=4)
    assert model.differences_from_stored(SignalContract(fs=100, seconds=10)) == []
    assert model.differences_from_stored(SignalContract(fs=100, seconds=2)) == ["seconds: store 2, model 4"]
    assert model.differences_from_stored(SignalContract(fs=250, seconds=10), "it has", "due are") == [
        "fs: it has 250, due are 100"
    ]


# --- leads and units


def test_counts_are_microvolts() -> None:
    signal = recording()
    result = run(in_mv(signal))
    assert result.counts.dtype == np.int16 and np.array_equal(result.counts, signal)
    assert result.available.all() and result.flags == ()


@pytest.mark.parametrize("contract", [PLAIN, SignalContract()])
def test_order_case_and_extra_leads_do_not_matter(contract: SignalContract) -> None:
    signal = in_mv(recording())
    names = [name.upper() if k % 2 else f" {name.lower()}" for k, name in enumerate(STANDARD_LEADS)]
    order = np.random.default_rng(1).permutation(12)
    shuffled = np.concatenate([np.full((2, 5000), 7, np.float32), signal[order]])
    result = run(shuffled, contract, leads=["X", "X", *[names[k] for k in order]], units=["mmHg", "?"] + ["mV"] * 12)
    expected = run(signal, contract)
    assert np.array_equal(result.counts, expected.counts) and result.flags == expected.flags


@pytest.mark.parametrize("contract", [PLAIN, SignalContract()])
@pytest.mark.parametrize("step", [5.0, 5000 / 1024, 1.0, 0.5])
@pytest.mark.parametrize(
    "unit, factor",
    [("uV", 1), ("uv", 1), ("\u00b5V", 1), ("\u03bcV", 1), ("mv", 1e-3), ("V", 1e-6), ("v", 1e-6)],
)
def test_units_give_identical_counts(contract: SignalContract, step: float, unit: str, factor: float) -> None:
    signal = recording(step=step)
    expected, result = run(in_mv(signal), contract), run((signal * factor).astype(np.float32), contract, units=unit)
    assert np.array_equal(result.counts, expected.counts)
    assert ("unit_converted" in result.flags) == (unit != "mv")


def test_leads_may_come_in_different_units() -> None:
    signal = recording()
    mixed = in_mv(signal)
    mixed[3] = signal[3]
    result = run(mixed, units=["mV"] * 3 + ["uV"] + ["mV"] * 8)
    assert np.array_equal(result.counts, signal) and result.flags == ("unit_converted",)


def test_rounding_goes_to_the_even_count_in_every_unit() -> None:
    signal = recording()
    signal[0, :4] = [0.5, 1.5, -0.5, 2.5]
    for scaled, unit in [(in_mv(signal), "mV"), (signal, "uV"), ((signal / 1e6).astype(np.float32), "V")]:
        assert run(scaled, units=unit).counts[0, :4].tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("unit", ["xV", "mmHg", "MV", "", "mV/nV"])
def test_other_units_are_refused(unit: str) -> None:
    assert reason_of(in_mv(recording()), units=["mV"] * 11 + [unit]) == "unit"


def test_a_lead_that_stands_twice_is_refused() -> None:
    assert reason_of(in_mv(recording()), leads=[*STANDARD_LEADS[:11], "i"]) == "leads"


def test_names_must_match_the_signal() -> None:
    assert reason_of(in_mv(recording()), leads=STANDARD_LEADS[:11]) == "leads"
    assert reason_of(in_mv(recording())[0]) == "leads"


def test_a_contract_of_few_leads_takes_only_those() -> None:
    signal = recording()
    result = run(in_mv(signal), SignalContract(leads=("V5", "II"), fs=500, band="none"))
    assert np.array_equal(result.counts, signal[[10, 1]])


# --- what is missing


def test_unusable_leads_are_zero_unavailable_and_change_no_other() -> None:
    contract = SignalContract()
    signal = in_mv(recording())
    whole = run(signal, contract)
    spoilt = signal.copy()
    spoilt[2] = 0.4
    spoilt[5] = np.nan
    spoilt[8, 1000:1101] = np.nan
    keep = [k for k in range(12) if k != 10]
    result = run(spoilt[keep], contract, leads=[STANDARD_LEADS[k] for k in keep])
    gone = [2, 5, 8, 10]
    assert np.flatnonzero(~result.available).tolist() == gone
    assert not result.counts[gone].any()
    assert np.array_equal(np.delete(result.counts, gone, 0), np.delete(whole.counts, gone, 0))
    assert result.flags == ("resampled", "lead_missing", "lead_nan", "lead_gap", "lead_flat")
    assert set(result.flags) <= set(FLAGS)


@pytest.mark.parametrize("band", ["none", "highpass_0.5"])
def test_short_gaps_are_bridged_up_to_the_very_last_sample(band: str) -> None:
    signal = recording()
    spoilt = in_mv(signal)
    spoilt[0, 50:150] = np.nan
    spoilt[11, -3:] = np.nan
    spoilt[11, 0] = np.inf
    result = run(spoilt, SignalContract(fs=500, band=band))
    assert result.available.all() and result.flags == ("gap_filled",)
    if band == "none":
        line = np.interp(np.arange(50, 150), [49, 150], signal[0, [49, 150]])
        assert np.abs(result.counts[0, 50:150] - line).max() <= 0.5
        assert result.counts[11, -3:].tolist() == [signal[11, -4]] * 3 and result.counts[11, 0] == signal[11, 1]
        assert np.array_equal(result.counts[1:11], signal[1:11])


def test_a_gap_is_measured_at_the_recordings_own_rate() -> None:
    for fs, gap, filled in [(250, 50, True), (250, 51, False), (1000, 200, True), (1000, 201, False)]:
        signal = in_mv(recording(round(10 * fs), fs))
        signal[4, 100 : 100 + gap] = np.nan
        assert run(signal, SignalContract(fs=250), fs=fs).available[4] == filled


def test_no_lead_left_is_no_signal() -> None:
    assert reason_of(np.full((12, 5000), np.nan, np.float32)) == "no_signal"
    assert reason_of(np.zeros((12, 5000), np.float32)) == "no_signal"
    assert reason_of(in_mv(recording())[:3], leads=["X", "Y", "Z"]) == "no_signal"


def test_the_recording_itself_is_left_alone() -> None:
    signal = in_mv(recording())
    signal[3, 7] = np.nan
    before = signal.copy()
    run(signal, SignalContract())
    assert np.array_equal(signal, before, equal_nan=True)


# --- amplitudes


def test_beyond_int16_is_held_and_said() -> None:
    signal = recording()
    signal[0, 100:102] = [32767, -32767]
    assert run(in_mv(signal)).flags == ()
    signal[0, 100:103] = [40000, -32768, 1e12]
    result = run(in_mv(signal))
    assert result.counts[0, 100:103].tolist() == [32767, -32767, 32767]
    assert "saturated" in result.flags


def test_flat_tops_are_said_to_be_clipped() -> None:
    signal = recording()
    assert "clipped" in run(in_mv(np.clip(3 * signal, -1500, 1500)), SignalContract()).flags


# --- rates


@pytest.mark.parametrize("fs", [99.9, 1000.1, 0, -500, float("nan"), float("inf")])
def test_only_rates_from_100_to_1000_hz_are_accepted(fs: float) -> None:
    assert reason_of(in_mv(recording()), fs=fs, allow_upsampling=True) == "fs"


def test_rates_are_raised_only_on_request() -> None:
    signal = in_mv(recording(1000, 100))
    assert reason_of(signal, SignalContract(), fs=100) == "fs"
    result = run(signal, SignalContract(), fs=100, allow_upsampling=True)
    assert result.counts.shape == (12, 2500) and result.flags == ("resampled", "upsampled")


@pytest.mark.parametrize("fs", [250, 257, 333.333, 360, 400, 499.998, 500, 1000])
def test_a_wave_stays_in_its_place_at_any_rate(fs: float) -> None:
    time = np.arange(round(10 * fs)) / fs
    wave = np.tile(1000 * np.sin(2 * np.pi * 7 * time + 1), (12, 1))
    counts = run(in_mv(wave), SignalContract(band="none"), fs=fs).counts
    expected = 1000 * np.sin(2 * np.pi * 7 * np.arange(2500) / 250 + 1)
    assert counts.shape == (12, 2500)
    assert np.abs(counts - expected)[:, 25:-25].max() < 5


def test_what_the_lower_rate_cannot_hold_is_removed() -> None:
    time = np.arange(5000) / 500
    hum = np.tile(np.sin(2 * np.pi * 200 * time), (12, 1))
    assert np.abs(run(hum, SignalContract(band="none")).counts[:, 50:-50]).max() < 10


# --- band


def test_the_whole_way_agrees_with_scipy_on_real_recordings(real_ptb_xl: Path) -> None:
    contract = SignalContract()
    sections = dsp.butter(2, 0.5, "highpass", fs=250, output="sos")
    files = sorted(real_ptb_xl.glob("records500/*/*.dat"))[:5]
    assert files
    for file in files:
        raw = np.fromfile(file, "<i2").reshape(-1, 12).T
        halved = dsp.resample_poly(raw.astype(float), 1, 2, axis=1, padtype="antireflect")
        expected = np.rint(dsp.sosfiltfilt(sections, halved, axis=1, padtype="odd", padlen=750))
        assert np.array_equal(run(in_mv(raw), contract).counts, expected)


def test_wander_goes_and_beats_stay() -> None:
    time = np.arange(5000) / 500
    wander = 2000 + 1000 * np.sin(2 * np.pi * 0.1 * time)
    beats = 500 * np.sin(2 * np.pi * 5 * time)
    counts = run(in_mv(np.tile(wander + beats, (12, 1))), SignalContract()).counts
    assert np.abs(counts[0] - beats[::2])[250:-250].max() < 20


def test_the_band_is_applied_before_any_cut() -> None:
    contract = SignalContract()
    long = run(in_mv(recording(15000)), contract)
    assert long.counts.shape == (12, 7500)
    (middle,) = cut(long, contract, "crop")
    assert np.array_equal(middle, long.counts[:, 2500:5000])
    afterwards = run(in_mv(recording(15000)[:, 5000:10000]), contract).counts
    assert not np.array_equal(middle, afterwards)


# --- length


@pytest.mark.parametrize("fs, samples", [(500, 4999), (250, 2499), (1000, 9999), (333.333, 3332), (500, 0)])
def test_shorter_recordings_are_refused(fs: float, samples: int) -> None:
    assert reason_of(in_mv(recording(samples, fs)), SignalContract(), fs=fs) == "too_short"


def test_a_recording_of_the_very_length_is_one_piece_either_way() -> None:
    contract = SignalContract()
    whole = run(in_mv(recording()), contract)
    for long in ("crop", "windows"):
        (piece,) = cut(whole, contract, long)
        assert np.array_equal(piece, whole.counts)


def test_long_recordings_give_their_middle_or_whole_windows() -> None:
    contract = SignalContract(fs=100, seconds=2, band="none")
    counts = np.tile(np.arange(705, dtype=np.int16), (12, 1))
    long = Conditioned(counts, np.ones(12, bool), ())
    assert [piece[0, 0] for piece in cut(long, contract, "crop")] == [252]
    windows = cut(long, contract, "windows")
    assert [piece[0, 0] for piece in windows] == [0, 200, 400]
    assert {piece.shape for piece in windows} == {(12, 200)}
    with pytest.raises(UserError, match="long stretch: must be crop or windows"):
        cut(long, contract, "stretch")


# --- in company


def test_errors_cross_between_processes() -> None:
    error = pickle.loads(pickle.dumps(SignalError("unit", "lead I is in xV")))
    assert (error.reason, error.detail, str(error)) == ("unit", "lead I is in xV", "unit: lead I is in xV")
    assert isinstance(error, UserError)


# What each fault of the MIMIC-shaped set that can be read at all must come to: flags and unavailable leads, or a reason.
FAULTS = {
    "unit_unknown": "unit",
    "unit_not_a_voltage": "unit",
    "unit_uV": ({"unit_converted"}, set()),
    "unit_uV_1000_per_mV": ({"unit_converted"}, set()),
    "unit_mv_lower_case": (set(), set()),
    "lead_names_lower_case": (set(), set()),
    "lead_names_upper_case": (set(), set()),
    "leads_shuffled": (set(), set()),
    "leads_standard_order": (set(), set()),
    "lead_absent": ({"lead_missing"}, {"V3"}),
    "lead_flat": ({"lead_flat"}, {"V2"}),
    "leads_flat_real": ({"lead_flat"}, {"V2", "V4", "V6"}),
    "lead_all_nan": ({"lead_nan"}, {"V5"}),
    "nan_scattered_3pct": ({"gap_filled"}, set()),
    "nan_scattered_3pct_edges": ({"gap_filled"}, set()),
    "record_all_nan": "no_signal",
    "record_flat": "no_signal",
    "fs_250": (set(), set()),
    "fs_1000": (set(), set()),
    "too_short_8s": "too_short",
    "long_30s": (set(), set()),
    "extra_leads_xyz": (set(), set()),
    "swap_LA_RA": (set(), set()),
    "saturated_5mV": ({"clipped"}, set()),
    "powerline_60Hz": (set(), set()),
}


def read(path: Path) -> tuple[np.ndarray, float, list[str], list[str]]:
    """A sound 16-bit WFDB record: signal [n, N], rate, lead names, units."""
    first, *rest = path.with_suffix(".hea").read_text().splitlines()
    leads, fs, samples = (float(word) for word in first.split()[1:4])
    lines = [line.split() for line in rest[: int(leads)]]
    gains, units = zip(*(line[2].split("/") for line in lines), strict=True)
    raw = np.fromfile(path.with_suffix(".dat"), "<i2").reshape(int(samples), int(leads)).T.astype(np.float32)
    raw[raw == -32768] = np.nan
    gain = np.array([gain.split("(")[0] for gain in gains], np.float32)
    return raw / gain[:, None], fs, [line[-1] for line in lines], list(units)


def test_faulty_recordings_are_repaired_flagged_or_refused_as_listed(mimic_shaped: Path) -> None:
    contract, seen = SignalContract(), set()
    with open(mimic_shaped / "FAULTS.csv", newline="") as file:
        faults = [row for row in csv.DictReader(file) if row["kind"] in FAULTS]
    for row in faults:
        expected = FAULTS[row["kind"]]
        arguments = read(mimic_shaped / row["path"])
        try:
            result = condition(*arguments, contract)
        except SignalError as error:
            assert error.reason == expected, row["kind"]
        else:
            unavailable = {lead for lead, there in zip(contract.leads, result.available, strict=True) if not there}
            assert (set(result.flags) - {"resampled"}, unavailable) == expected, row["kind"]
            assert len(cut(result, contract, "windows")) == (3 if row["kind"] == "long_30s" else 1)
        seen.add(row["kind"])
    assert seen == set(FAULTS)


def test_sound_recordings_carry_no_flag(mimic_shaped: Path) -> None:
    contract = SignalContract()
    with open(mimic_shaped / "FAULTS.csv", newline="") as file:
        faulty = {row["path"] for row in csv.DictReader(file)}
    sound = [
        path.with_suffix("")
        for path in mimic_shaped.glob("files/*/*/*/*.hea")
        if path.with_suffix("").relative_to(mimic_shaped).as_posix() not in faulty
    ]
    assert len(sound) == 56
    for path in sound:
        result = condition(*read(path), contract)
        assert result.flags == ("resampled",) and result.available.all(), path
