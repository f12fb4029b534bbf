"""The simulated ECG measured as a reader would measure it: on the signal, against published normal ranges and criteria.

Normal ranges: 2nd to 98th percentile of Mason et al., J Electrocardiol 2007;40:228: rate 48-98/min, PR 113-212 ms, QRS 69-109 ms,
QTc (Fridericia) 359-445 ms, QRS axis -40 to 91 degrees. Criteria: AHA/ACCF/HRS 2009 (Circulation 119:e235, e241, e251) and the
fourth universal definition of infarction (Circulation 2018;138:e618).
"""

from __future__ import annotations

import csv
import json
from ast import literal_eval
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import wfdb
from scipy.signal import butter, find_peaks, sosfiltfilt

from lamae_jax.errors import UserError
from lamae_jax.signal.leads import STANDARD_LEADS
from lamae_jax.signal.simulated import FINDINGS, simulate_patient, simulate_record, write_simulated
from lamae_jax.signal.simulated_patient import Patient, draw_patient
from lamae_jax.signal.simulated_record import FS, Truth

I, II, III, AVR, AVL, AVF, V1, V2, V3, V4, V5, V6 = range(12)  # noqa: E741 (a lead's name)
ZERO = round(0.40 * FS)  # the QRS onset's place in a median beat
J40 = 0.040  # s after the QRS end, where ST is read


@dataclass(frozen=True)
class Measured:
    """What a reader finds on one recording: intervals in ms, amplitudes of the median beat [12, n] in mV."""

    beat: np.ndarray
    rr: np.ndarray
    pr: float
    qrs: float
    qtc: float
    axis: float
    p_axis: float
    p: np.ndarray  # amplitudes [12]
    r: np.ndarray  # the largest of the QRS
    first_r: np.ndarray  # of its first 60 ms
    s: np.ndarray
    t: np.ndarray
    st: np.ndarray


def median_beat(signal: np.ndarray, onsets: np.ndarray) -> np.ndarray:
    """The median of the beats [12, n] that begin at `onsets` (s), from .40 s before to .60 s after, level just before the QRS."""
    firsts = [round(onset * FS) - ZERO for onset in onsets]
    beats = np.stack([signal[:, f : f + FS] for f in firsts if f >= 0 and f + FS <= signal.shape[1]])
    beats = beats - beats[:, :, ZERO - 9 : ZERO - 3].mean(2, keepdims=True)
    return np.median(beats, axis=0)


def measure(signal: np.ndarray, truth: Truth, premature: bool = False) -> Measured:
    """Measure a recording; of the truth, only where the beats are is used."""
    rr = np.diff(truth.onset)
    beat = median_beat(signal, truth.onset[truth.premature == premature])
    speed = np.sqrt((np.gradient(beat[[I, II, *range(V1, V6 + 1)]], axis=1) ** 2).sum(0))
    limit = 0.06 * speed[ZERO : ZERO + 100].max()
    fast = np.flatnonzero(speed[ZERO - 10 : ZERO + 120] > limit) + ZERO - 10
    gaps = np.flatnonzero(np.diff(fast) > 12)  # 24 ms of quiet end the QRS
    begin, end = fast[0], (fast[gaps[0]] if len(gaps) else fast[-1])

    # T: where the tangent to its steepest last slope meets the baseline, in the lead with the largest T.
    late = beat[:, end + 20 :]
    size = np.abs(late).max(1)
    lead = late[np.argmax(size)] * np.sign(late[np.argmax(size)][np.abs(late[np.argmax(size)]).argmax()])
    slope = np.gradient(lead)
    steep = lead.argmax() + slope[lead.argmax() : lead.argmax() + 60].argmin()
    t_end = end + 20 + steep - lead[steep] / slope[steep]
    # P: between the T before and the QRS, from where it leaves the level (or T), in the mean size over leads.
    before = beat[:, : ZERO - 10]
    quiet = int(np.clip(round(t_end - np.median(rr) * FS) + 10, 0, ZERO - 60))
    atrial = np.sqrt((before**2).mean(0))
    top = quiet + atrial[quiet:].argmax()
    below = np.flatnonzero(atrial[quiet:top] < 0.12 * atrial[top])
    p_onset = quiet + (below[-1] if len(below) else atrial[quiet : top + 1].argmin())

    def angle(area: np.ndarray) -> float:
        return float(np.degrees(np.arctan2(2 / np.sqrt(3) * area[AVF], area[I])))

    q = beat[:, begin : end + 1]
    t_place = np.abs(late).argmax(1)
    return Measured(
        beat=beat,
        rr=rr,
        pr=2.0 * (begin - p_onset),
        qrs=2.0 * (end - begin + 1),
        qtc=2.0 * (t_end - begin) / np.mean(rr) ** (1 / 3),
        axis=angle(q.sum(1)),
        p_axis=angle(before[:, p_onset:].sum(1)),
        p=before[:, p_onset:].max(1),
        r=np.maximum(q.max(1), 0),
        first_r=np.maximum(q[:, :30].max(1), 0),
        s=np.maximum(-q.min(1), 0),
        t=late[np.arange(12), t_place],
        st=beat[:, end + round(J40 * FS)],
    )


def patients(*findings: str, n: int = 40, **changes: object) -> list[tuple[Measured, Truth, np.ndarray, Patient]]:
    """Simulated recordings of people with just these findings; intervals and sizes are measured without the electrodes' noise."""
    out = []
    for k in range(n):
        seed = [k, *map(ord, "".join(findings))]
        patient = replace(draw_patient(np.random.default_rng(seed), findings), **changes)
        signal, truth = simulate_record(patient, np.random.default_rng(seed))
        heart, _ = simulate_record(patient, np.random.default_rng(seed), noise=0)
        out.append((measure(heart, truth), truth, signal, patient))
    return out


def share(values: object, low: float = -np.inf, high: float = np.inf) -> float:
    """The share of values within low and high."""
    values = np.asarray(values)
    return float(np.mean((values >= low) & (values <= high)))


@pytest.fixture(scope="module")
def normal() -> list[tuple[Measured, Truth, np.ndarray, Patient]]:
    return patients(n=80)


# --- the healthy heart ---


def test_limb_leads_obey_einthoven_and_goldberger_noise_included(normal):
    for _, _, x, _ in normal[:10]:
        for lead, law in (
            (x[III], x[II] - x[I]),
            (x[AVR], -(x[I] + x[II]) / 2),
            (x[AVL], (x[I] - x[III]) / 2),
            (x[AVF], (x[II] + x[III]) / 2),
        ):
            np.testing.assert_allclose(lead, law, atol=2e-6)


def test_intervals_lie_in_the_normal_ranges(normal):
    found = [m for m, *_ in normal]
    assert share([60 / m.rr.mean() for m in found], 48, 98) >= 0.96
    assert share([m.pr for m in found], 113, 212) >= 0.96
    assert share([m.qrs for m in found], 69, 109) >= 0.96
    assert share([m.qtc for m in found], 359, 445) >= 0.96
    assert share([m.axis for m in found], -40, 91) >= 0.96
    assert share([m.p_axis for m in found], 0, 75) >= 0.90


def test_people_differ(normal):
    found = [m for m, *_ in normal]
    for values, least in (
        ([60 / m.rr.mean() for m in found], 6),
        ([m.pr for m in found], 10),
        ([m.qrs for m in found], 4),
        ([m.axis for m in found], 12),
        ([m.r[V5] / 0.01 for m in found], 20),
    ):
        assert np.std(values) > least


def test_what_is_measured_is_what_the_truth_says(normal):
    for name, tolerance in (("pr", 12), ("qrs", 10)):
        errors = [getattr(m, name) - getattr(truth, name) for m, truth, *_ in normal]
        assert abs(np.median(errors)) < tolerance
        assert np.percentile(np.abs(errors), 90) < 2 * tolerance
    assert np.median([abs(m.axis - truth.qrs_axis) for m, truth, *_ in normal]) < 5
    assert np.median([abs(m.qtc - p.qtc) for m, _, _, p in normal]) < 15


def test_waves_have_normal_sizes_and_directions(normal):
    found = [m for m, *_ in normal]
    assert share([m.p[II] for m in found], 0.05, 0.25) >= 0.95
    assert share([m.s[V1] + max(m.r[V5], m.r[V6]) for m in found], 0.9, 3.5) >= 0.96
    for lead in (I, II, V3, V4, V5, V6):
        assert share([m.t[lead] for m in found], 0.0) >= 0.95, STANDARD_LEADS[lead]
    assert share([m.t[AVR] for m in found], high=0.0) >= 0.97
    assert share([m.r[AVR] - m.s[AVR] for m in found], high=0.0) >= 0.97
    assert share([np.abs(m.st).max() for m in found], high=0.2) >= 0.95


def test_r_grows_from_v1_to_v4_and_the_transition_lies_in_between(normal):
    r, s = (np.median([getattr(m, name) for m, *_ in normal], axis=0) for name in ("r", "s"))
    assert r[V1] < r[V2] < r[V3] < r[V4]
    assert r[V1] < s[V1] and r[V2] < s[V2] and r[V5] > s[V5] and r[V6] > s[V6]
    assert share([m.r[V1] - m.s[V1] for m, *_ in normal], high=0.0) >= 0.97


def test_sinus_rhythm_breathes_a_little(normal):
    spread = [m.rr.std() / m.rr.mean() for m, *_ in normal]
    assert share(spread, 0.004, 0.10) >= 0.97


def test_noise_is_like_that_of_real_recordings(normal):
    """Real ones (PTB-XL, 500 Hz): 25-150 Hz outside the QRS 2.6 to 10.6 uV, below .5 Hz 20 to 110 uV (5th to 95th percentile)."""
    fast, slow = [], []
    for _, truth, x, _ in normal:
        quiet = np.ones(x.shape[1], bool)
        for onset in truth.onset:
            quiet[max(0, round((onset - 0.04) * FS)) : round((onset + 0.17) * FS)] = False
        fast.append(
            1000 * np.median(sosfiltfilt(butter(4, [25, 150], "band", fs=FS, output="sos"), x)[:, quiet].std(1))
        )
        slow.append(1000 * np.median(sosfiltfilt(butter(2, 0.5, "low", fs=FS, output="sos"), x).std(1)))
    assert 3 < np.median(fast) < 9 and share(fast, 2, 25) > 0.95
    assert 25 < np.median(slow) < 80 and share(slow, 10, 250) > 0.95


def test_leads_are_as_large_as_real_ones(normal, real_ptb_xl):
    real = np.stack(
        [
            np.fromfile(path, "<i2").reshape(-1, 12).T / 1000.0
            for path in sorted(real_ptb_xl.glob("records100/**/*.dat"))
        ]
    )
    simulated = np.stack([x for _, _, x, _ in normal])

    def size(x: np.ndarray) -> np.ndarray:  # [12]
        return np.median((x - np.median(x, axis=2, keepdims=True)).std(2), axis=0)

    assert np.all(np.abs(np.log(size(simulated) / size(real))) < np.log(1.7))


# --- findings, each by its own criterion ---


def test_atrial_fibrillation_has_no_p_an_irregular_rhythm_and_waves_of_its_own(normal):
    found = patients("atrial_fibrillation")
    assert share([m.rr.std() / m.rr.mean() for m, *_ in found], 0.11) >= 0.95
    # Successive intervals are unrelated.
    assert abs(np.mean([np.corrcoef(m.rr[1:], m.rr[:-1])[0, 1] for m, *_ in found])) < 0.25

    def p_size(m: Measured) -> float:
        return float(np.ptp(m.beat[II, ZERO - 110 : ZERO - 20]))

    assert np.median([p_size(m) for m, *_ in found]) < 0.6 * np.median([p_size(m) for m, *_ in normal])

    def f_waves(x: np.ndarray, truth: Truth) -> float:  # uV in V1 from 4 to 9 Hz between T and the next QRS
        inside = [x[V1, round((a + 0.42) * FS) : round((b - 0.25) * FS)] for a, b in zip(truth.onset, truth.onset[1:])]
        parts = [part - part.mean() for part in inside if len(part) > 40]
        return 1000 * float(np.median([part.std() for part in parts])) if parts else np.nan

    waves, none = ([f_waves(x, truth) for _, truth, x, _ in group] for group in (found, normal))
    assert np.nanmedian(waves) > 2.5 * np.nanmedian(none)
    assert all(truth.pr is None for _, truth, *_ in found)


def test_first_degree_block_has_a_pr_beyond_200_ms():
    found = patients("av_block")
    assert share([m.pr for m, *_ in found], 200, 330) >= 0.95
    assert share([m.qrs for m, *_ in found], 69, 112) >= 0.95


def test_left_bundle_branch_block():
    found = [m for m, *_ in patients("lbbb")]
    assert share([m.qrs for m in found], 120, 190) >= 0.97
    assert share([m.s[V1] / (m.first_r[V1] + 0.01) for m in found], 3) >= 0.9  # rS or QS
    assert share([m.r[V6] / (m.s[V6] + 0.01) for m in found], 1.5) >= 0.9  # R alone,
    assert share([m.beat[V6, ZERO : ZERO + 20].min() for m in found], -0.06) >= 0.9  # without q
    assert share([m.r[I] / (m.s[I] + 0.01) for m in found], 1.5) >= 0.9
    assert share([m.t[V1] for m in found], 0.1) >= 0.9 and share([m.t[V6] for m in found], high=0) >= 0.85  # discordant


def test_right_bundle_branch_block():
    found = [m for m, *_ in patients("rbbb")]
    assert share([m.qrs for m in found], 120, 185) >= 0.97
    late = [m.beat[:, ZERO + round(0.55 * m.qrs / 2) : ZERO + round(m.qrs / 2)] for m in found]
    assert share([x[V1].max() for x in late], 0.2) >= 0.95  # R'
    assert (
        share([x[I].min() for x in late], high=-0.05) >= 0.85 and share([x[V6].min() for x in late], high=-0.1) >= 0.9
    )
    assert share([m.t[V1] for m in found], high=0) >= 0.9


def test_anterior_infarction_loses_r_and_shows_its_age_in_st_and_t(normal):
    fresh = [m for m, *_ in patients("anterior_infarction", acute=True)]
    old = [m for m, *_ in patients("anterior_infarction", acute=False)]
    usual = np.median([m.first_r for m, *_ in normal], axis=0)
    for group in (fresh, old):
        r, s = (np.median([getattr(m, name) for m in group], axis=0) for name in ("first_r", "s"))
        assert np.all(r[[V2, V3]] < 0.5 * usual[[V2, V3]]) and s[V2] > 3 * r[V2]
        assert abs(r[II] / usual[II] - 1) < 0.35  # far from the damage
        # Some leads of V1-V4 begin with a Q, or have no R at all.
        q = [min(m.beat[lead, ZERO : ZERO + 15].min() for lead in (V2, V3)) for m in group]
        assert share(q, high=-0.1) >= 0.8
    assert share([max(m.st[V2], m.st[V3]) for m in fresh], 0.15) >= 0.95  # men over 40: .2 mV, women .15
    assert share([max(m.st[V2], m.st[V3]) for m, *_ in normal], 0.15) <= 0.05
    assert share([m.t[V3] for m in old], high=0) >= 0.7


def test_inferior_infarction_has_q_in_ii_iii_avf_and_the_mirror_image_in_avl(normal):
    fresh = [m for m, *_ in patients("inferior_infarction", acute=True)]
    old = [m for m, *_ in patients("inferior_infarction", acute=False)]

    def q_width(m: Measured, lead: int) -> float:  # ms below -.1 mV in the first 50 ms
        return 2.0 * float((m.beat[lead, ZERO : ZERO + 25] < -0.1).sum())

    for group in (fresh, old):
        assert np.median([q_width(m, AVF) for m in group]) >= 16
        assert share([m.s[AVF] / (m.r[AVF] + 0.01) for m in group], 0.25) >= 0.8
    assert np.median([q_width(m, AVF) for m, *_ in normal]) < 6
    assert share([min(m.st[II], m.st[III], m.st[AVF]) for m in fresh], 0.1) >= 0.85
    assert share([m.st[AVL] for m in fresh], high=-0.05) >= 0.85
    assert np.median([m.st[III] for m in fresh]) > np.median([m.st[II] for m in fresh])
    assert share([m.t[III] for m in old], high=0) >= 0.8


def test_premature_beats_come_early_are_wide_and_followed_by_a_pause():
    for k, (sinus, truth, _, patient) in enumerate(patients("pvc", n=25)):
        at = np.flatnonzero(truth.premature)
        assert len(at) >= 1
        assert at.min() > 0 and at.max() < len(truth.onset) - 1
        usual = np.median(sinus.rr)
        assert np.all(sinus.rr[at - 1] < 0.8 * usual) and np.all(sinus.rr[at - 1] > 0.3)
        assert np.all(sinus.rr[at] > 1.15 * usual)
        heart, _ = simulate_record(patient, np.random.default_rng([k, *map(ord, "pvc")]), noise=0)
        wide = measure(heart, truth, premature=True)
        assert 120 <= wide.qrs <= 200
        # Nothing atrial before it, T against it.
        lead = wide.beat[np.argmax(np.abs(wide.beat[:, ZERO : ZERO + 80]).max(1))]
        peak = lead[ZERO : ZERO + 80][np.abs(lead[ZERO : ZERO + 80]).argmax()]
        assert lead[ZERO + 110 : ZERO + 220].mean() * peak < 0
    assert not any(truth.premature.any() for _, truth, *_ in patients(n=5))


def test_hypertrophy_has_the_voltage_and_often_the_strain(normal):
    found = [m for m, *_ in patients("lvh")]
    assert (
        share([m.s[V1] + max(m.r[V5], m.r[V6]) for m in found], 3.4) >= 0.95
    )  # Sokolow-Lyon 3.5, less what reading loses
    assert np.median([m.t[V6] for m in found]) < 0.1 < np.median([m.t[V6] for m, *_ in normal])
    assert share([m.qrs for m in found], 75, 119) >= 0.97


def test_findings_go_together():
    both = [m for m, *_ in patients("rbbb", "inferior_infarction", "atrial_fibrillation", n=15)]
    assert share([m.qrs for m in both], 120, 190) >= 0.9
    assert share([m.rr.std() / m.rr.mean() for m in both], 0.11) >= 0.9


# --- the set on disk ---


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    return {path.stem: list(csv.DictReader(path.open())) for path in sorted(folder.glob("*.csv"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "simulated"
    write_simulated(folder, patients=70, seed=5)
    return folder


def test_the_set_reads_as_mimic_iv_ecg(written):
    rows = tables(written)
    names = {"findings", "machine_measurements", "record_list", "records_w_diag_icd10"}
    assert set(rows) == names and len({len(table) for table in rows.values()}) == 1
    assert {row["study_id"] for row in rows["record_list"]} == {row["record_id"] for row in rows["findings"]}
    for row in rows["record_list"][:5]:
        subject, study = row["subject_id"], row["study_id"]
        assert len(subject) == len(study) == 8
        assert row["path"] == f"files/p{subject[:4]}/p{subject}/s{study}/{study}"
        record = wfdb.rdrecord(str(written / row["path"]), physical=False)
        assert record.sig_name == ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
        assert (record.fs, record.sig_len, set(record.adc_gain), set(record.units)) == (500, 5000, {200.0}, {"mV"})
        x = record.d_signal.astype(np.int64)
        assert record.checksum == (x.sum(0) % 65536).tolist()
        # The laws survive rounding to 5 uV within two counts.
        assert np.abs(x[:, 2] - (x[:, 1] - x[:, 0])).max() <= 2
        assert np.abs(x[:, 3] + (x[:, 0] + x[:, 1]) / 2).max() <= 2


def test_columns_are_those_of_the_real_tables(written, mimic_shaped):
    for name in ("record_list", "machine_measurements", "records_w_diag_icd10"):
        with (mimic_shaped / f"{name}.csv").open() as real, (written / f"{name}.csv").open() as ours:
            assert next(csv.reader(ours)) == next(csv.reader(real)), name


def test_the_machine_s_measurements_are_those_of_the_signal_beside_them(written):
    rows = tables(written)
    for row, has, listed in zip(rows["machine_measurements"], rows["findings"], rows["record_list"], strict=True):
        assert row["study_id"] == has["record_id"] == listed["study_id"]
        assert (row["p_onset"] == "29999") == (has["atrial_fibrillation"] == "1")
        x = np.fromfile(written / f"{listed['path']}.dat", "<i2").reshape(5000, 12) / 200.0  # [N, 12] mV
        if has["pvc"] == "1":
            continue
        steep = sosfiltfilt(butter(2, [6, 22], "band", fs=FS, output="sos"), x, axis=0)
        power = np.convolve((steep**2).sum(1), np.ones(60) / 60, "same")
        beats, _ = find_peaks(power, height=0.15 * np.percentile(power, 98), distance=150)
        assert np.mean(np.diff(beats)) * 2 == pytest.approx(int(row["rr_interval"]), rel=0.06)


def test_folds_are_twenty_and_keep_patients_together(written):
    rows = tables(written)["records_w_diag_icd10"]
    for column in ("fold", "strat_fold"):
        by_patient: dict[str, set[str]] = {}
        for row in rows:
            by_patient.setdefault(row["subject_id"], set()).add(row[column])
        assert all(len(folds) == 1 for folds in by_patient.values())
        sizes = np.bincount([int(next(iter(folds))) for folds in by_patient.values()], minlength=20)
        assert len(sizes) == 20 and sizes.min() >= 3 and sizes.max() <= 4
    assert [row["fold"] for row in rows] != [row["strat_fold"] for row in rows]


def test_codes_name_the_findings(written):
    rows = tables(written)
    codes = {row["study_id"]: set(literal_eval(row["all_diag_all"])) for row in rows["records_w_diag_icd10"]}
    seen = set()
    for row in rows["findings"]:
        has = {name for name in FINDINGS if row[name] == "1"}
        infarcted = has & {"anterior_infarction", "inferior_infarction"}
        wanted = {FINDINGS[name].code for name in has - infarcted}
        allowed = {FINDINGS[name].code for name in infarcted} | ({"I252"} if infarcted else set())
        found = codes[row["record_id"]]
        assert wanted <= found <= wanted | allowed | (set() if has else {"Z0389"})
        assert bool(found & allowed) == bool(infarcted)
        seen |= found
    assert {"I4891", "I440", "I447", "I4510", "I252", "I2109", "I2119", "I493", "I517", "Z0389"} <= seen


def test_the_same_bytes_for_any_number_of_workers(written, tmp_path):
    write_simulated(tmp_path / "two", patients=70, seed=5, workers=2)
    assert contents(tmp_path / "two") == contents(written)
    write_simulated(tmp_path / "other", patients=2, seed=6)
    assert not set(contents(tmp_path / "other")) <= set(contents(written))


def test_a_whole_set_is_left_alone_and_a_killed_one_is_made_again(tmp_path):
    write_simulated(tmp_path, patients=3, seed=0)
    whole = contents(tmp_path)
    assert {row["fold"] for row in tables(tmp_path)["records_w_diag_icd10"]} == {"19", "18", "0"}
    signal = next(tmp_path.rglob("*.dat"))
    signal.write_bytes(b"ours")
    write_simulated(tmp_path, patients=3, seed=0)
    assert signal.read_bytes() == b"ours"  # nothing was done

    marker = tmp_path / "simulated.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "complete": False}))
    write_simulated(tmp_path, patients=3, seed=0)
    assert contents(tmp_path) == whole


def test_other_folders_and_numbers_are_refused(tmp_path):
    write_simulated(tmp_path / "set", patients=2, seed=0)
    with pytest.raises(UserError, match="patients 2, wanted 3"):
        write_simulated(tmp_path / "set", patients=3, seed=0)
    with pytest.raises(UserError, match="seed 0, wanted 1"):
        write_simulated(tmp_path / "set", patients=2, seed=1)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "record_list.csv").write_text("subject_id\n")
    with pytest.raises(UserError, match="something other than simulated"):
        write_simulated(tmp_path / "real", patients=2, seed=0)
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["record_list.csv"]
    for wrong in ({"patients": 0, "seed": 0}, {"patients": 2, "seed": -1}, {"patients": 2, "seed": 0, "workers": 0}):
        with pytest.raises(UserError):
            write_simulated(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_a_patient_is_the_same_in_a_larger_set_and_recognisable_at_every_visit():
    visits = next(found for found in (simulate_patient(5, number) for number in range(50)) if len(found) == 3)
    again = simulate_patient(5, visits[0].number)
    assert [visit.study for visit in again] == [visit.study for visit in visits]
    assert len({visit.subject for visit in visits}) == 1 and len({visit.study for visit in visits}) == 3
    assert [visit.when for visit in visits] == sorted(visit.when for visit in visits)
    for visit in visits:
        np.testing.assert_array_equal(visit.patient.lead_field, visits[0].patient.lead_field)
    ids = [visit.study for number in range(300) for visit in simulate_patient(5, number)]
    assert len(set(ids)) == len(ids)
