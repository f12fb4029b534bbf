"""Simulated recordings in MIMIC-IV-ECG's layout: a run without data goes through the very loader the real thing uses.

`write_simulated` writes what PhysioNet's module holds (record_list.csv, machine_measurements.csv and
files/pNNNN/pSUBJECT/sSTUDY/STUDY.hea and .dat, 500 Hz, 200 counts a mV, aVF before aVL), the diagnoses in the manner of
MIMIC-IV-ECG-Ext-ICD (records_w_diag_icd10.csv: same columns, folds 0-19 by patient), and findings.csv: `record_id` and one
column a finding, 1 or 0, ready for a probe. Patients and their recordings are made in `simulated_patient`,
`simulated_waves` and `simulated_record`, which name their sources.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np

from lamae_jax.errors import UserError
from lamae_jax.files import write_csv, write_json
from lamae_jax.progress import Progress
from lamae_jax.signal.leads import STANDARD_LEADS
from lamae_jax.signal.simulated_patient import FINDINGS, NO_FINDING, OLD_INFARCTION, Patient, draw_patient, later_visit
from lamae_jax.signal.simulated_record import FS, Truth, simulate_record

__all__ = ["FINDINGS", "Patient", "Truth", "simulate_patient", "simulate_record", "write_simulated"]

VERSION = 1  # of what is simulated: another number, other recordings
MARKER = "simulated.json"
MOST_PATIENTS = 1_000_000  # what eight digits hold
CHUNK = 16  # patients a worker makes at a time
COUNTS_PER_MV = 200
FILE_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
# Dealt to a random order of the patients, so that even three of them make a test, a validation and a training fold.
FOLDS = (19, 18, *range(18))
NOT_MEASURED = 29999  # MIMIC's word for an absent P wave
P_ONSET = 40  # ms into the machine's median beat

RECORD_LIST = ("subject_id", "study_id", "file_name", "ecg_time", "path")
MEASUREMENTS = (
    *("subject_id", "study_id", "cart_id", "ecg_time"),
    *(f"report_{i}" for i in range(18)),
    *("bandwidth", "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"),
    *("p_axis", "qrs_axis", "t_axis"),
)
DIAGNOSES = (
    *("file_name", "study_id", "subject_id", "ecg_time", "ed_stay_id", "ed_hadm_id", "hosp_hadm_id"),
    *("ed_diag_ed", "ed_diag_hosp", "hosp_diag_hosp", "all_diag_hosp", "all_diag_all"),
    *("gender", "age", "anchor_year", "anchor_age", "dod"),
    *("ecg_no_within_stay", "ecg_taken_in_ed", "ecg_taken_in_hosp", "ecg_taken_in_ed_or_hosp", "fold", "strat_fold"),
)
MODULE = "mimic-iv-ecg-diagnostic-electrocardiogram-matched-subset-1.0"


@dataclass(frozen=True)
class Visit:
    """One recording to make: who, when, in which stay, and as which recording of that stay (from 0)."""

    number: int  # of the patient in the set
    subject: int
    study: int
    patient: Patient
    when: datetime
    stay: int
    number_in_stay: int

    @property
    def path(self) -> str:
        """Where it lies in the set, without extension."""
        return f"files/p{self.subject // 10_000}/p{self.subject}/s{self.study}/{self.study}"


def simulate_patient(seed: int, number: int) -> list[Visit]:
    """Patient `number` of the set of `seed`, visit by visit (1 to 3); the same for any size of the set."""
    rng = _generator(seed, number, 0)
    patient = draw_patient(rng)
    when = datetime(2110, 1, 1) + timedelta(minutes=int(rng.integers(80 * 525_600)))
    visits: list[Visit] = []
    stay, inside = 0, 0
    for k in range(int(rng.choice([1, 2, 3], p=[0.45, 0.35, 0.2]))):
        if k and rng.random() < 0.3:  # once more within the stay
            when, inside = when + timedelta(minutes=int(rng.integers(60, 2000))), inside + 1
        elif k:
            when, inside, stay = when + timedelta(days=int(rng.integers(40, 500))), 0, stay + 1
            patient = later_visit(patient, rng)
        subject, study = 10_000_000 + _scattered(seed, number), 40_000_000 + _scattered(seed, 3 * number + k)
        visits.append(Visit(number, subject, study, patient, when, _scattered(seed, 3 * number + stay), inside))
    return visits


def _scattered(seed: int, number: int) -> int:
    """A number below 10^7, another one for every `number` below 10^7: multiplied by one that shares no factor with 10^7."""
    return (number * 7_368_787 + int(_generator(seed, 0, 2).integers(10_000_000))) % 10_000_000


def write_simulated(folder: Path | str, patients: int, seed: int, workers: int = 1) -> None:
    """Write the recordings of `patients` patients (1 to 3 each) to `folder`; the bytes depend on `patients` and `seed` alone.

    Returns at once when the folder holds just this set. Raises UserError for a folder that holds anything else, and for a
    number of patients or workers that cannot be.
    """
    folder = Path(folder)
    if not 1 <= patients <= MOST_PATIENTS:
        raise UserError(f"simulated patients: {patients}; from 1 to {MOST_PATIENTS} can be simulated")
    if seed < 0:
        raise UserError(f"seed of simulated patients: {seed}; it must be 0 or more")
    if workers < 1:
        raise UserError(f"workers: {workers}; at least 1 is needed")
    wanted = {"version": VERSION, "patients": patients, "seed": seed}
    if _is_there(folder, wanted):
        return
    # Said first as not complete and last as complete: a killed run is recognised as ours and made again.
    write_json(folder / MARKER, {**wanted, "complete": False})
    total = _write_recordings(folder, patients, seed, workers)
    write_json(folder / MARKER, {**wanted, "complete": True, "recordings": total})


def _is_there(folder: Path, wanted: dict[str, int]) -> bool:
    """Whether the folder holds the whole set wanted. Raises UserError when it holds something else."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: not a folder; simulated recordings need one")
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / MARKER).read_text())
        held, complete = {name: found[name] for name in wanted}, bool(found["complete"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = "holds something other than simulated recordings; choose an empty or new folder"
        raise UserError(f"{folder}: {words}") from error
    for name, value in wanted.items():
        if held[name] != value:
            words = f"holds simulated recordings of {name} {held[name]}, wanted {value}; choose another folder"
            raise UserError(f"{folder}: {words}")
    return complete


def _write_recordings(folder: Path, patients: int, seed: int, workers: int) -> int:
    """Write signals, then tables; returns the number of recordings."""
    chunks = [range(start, min(start + CHUNK, patients)) for start in range(0, patients, CHUNK)]
    rows: list[tuple[Visit, Truth]] = []
    progress = Progress(patients, "patients", "simulated")
    for done, part in enumerate(_made(partial(_make_chunk, folder, seed), chunks, workers), 1):
        rows += part
        progress.update(min(done * CHUNK, patients))
    progress.close()

    # Round robin over a random order: every fold gets patients, all about as many.
    places = [_generator(seed, k, 3).permutation(patients) for k in range(2)]
    folds = {visit.subject: tuple(FOLDS[place[visit.number] % len(FOLDS)] for place in places) for visit, _ in rows}
    rows.sort(key=lambda row: (row[0].subject, row[0].study))
    write_csv(folder / "machine_measurements.csv", [MEASUREMENTS, *(_measurements(*row) for row in rows)])
    write_csv(folder / "records_w_diag_icd10.csv", [DIAGNOSES, *(_diagnoses(v, *folds[v.subject]) for v, _ in rows)])
    write_csv(folder / "findings.csv", [("record_id", *FINDINGS), *(_findings(visit) for visit, _ in rows)])
    listed = ((v.subject, v.study, v.study, v.when, v.path) for v, _ in rows)
    write_csv(folder / "record_list.csv", [RECORD_LIST, *listed])
    return len(rows)


def _made(make: partial, chunks: list[range], workers: int) -> Iterator[list[tuple[Visit, Truth]]]:
    """The chunks' results in order, here or in worker processes (spawned: a fork would copy a parent's threads and locks)."""
    workers = min(workers, len(chunks))
    if workers == 1:
        yield from map(make, chunks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(make, chunks)


def _make_chunk(folder: Path, seed: int, numbers: range) -> list[tuple[Visit, Truth]]:
    """Simulate and write these patients' recordings."""
    made = []
    for visit in (visit for number in numbers for visit in simulate_patient(seed, number)):
        signal, truth = simulate_record(visit.patient, _generator(seed, visit.study, 1))
        _write_signal(folder, visit, signal)
        made.append((visit, truth))
    return made


def _write_signal(folder: Path, visit: Visit, signal: np.ndarray) -> None:
    """Write one recording [12, N] mV as WFDB format 16."""
    rows = [STANDARD_LEADS.index(name) for name in FILE_LEADS]
    counts = np.ascontiguousarray(np.rint(signal[rows] * COUNTS_PER_MV).T.astype("<i2"))  # [N, 12]
    sums = counts.sum(0, dtype=np.int64) % 65536
    lines = [f"{visit.study} {len(FILE_LEADS)} {FS} {len(counts)} {visit.when:%H:%M:%S %d/%m/%Y}"]
    for name, first, total in zip(FILE_LEADS, counts[0].tolist(), sums.tolist(), strict=True):
        lines.append(f"{visit.study}.dat 16 {COUNTS_PER_MV}.0(0)/mV 16 0 {first} {total} 0 {name}")
    lines.append(f"# <subject_id>: {visit.subject}")
    path = folder / visit.path
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not one by one made durable: the marker, written last, says whether the set is whole.
    path.with_suffix(".dat").write_bytes(counts.data)
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")


def _codes(patient: Patient) -> list[str]:
    """The patient's ICD-10-CM codes at this visit; an infarction that is no longer fresh is an old one."""
    codes = set()
    for name in patient.findings:
        old = name.endswith("_infarction") and not patient.acute
        codes.add(OLD_INFARCTION if old else FINDINGS[name].code)
    return sorted(codes) or [NO_FINDING]


def _reports(patient: Patient) -> list[str]:
    """The machine's statements."""
    has = patient.findings
    reports = ["Sinus rhythm" if patient.heart_rate >= 60 else "Sinus bradycardia"]
    if "atrial_fibrillation" in has:
        reports = []
    reports += [FINDINGS[name].report for name in has]
    return [*reports, "Abnormal ECG" if has else "Normal ECG"]


def _measurements(visit: Visit, truth: Truth) -> tuple[object, ...]:
    """A row of machine_measurements.csv."""
    reports = _reports(visit.patient)
    p_onset = p_end = p_axis = NOT_MEASURED
    qrs_onset = 190
    if truth.pr is not None and truth.p_duration is not None and truth.p_axis is not None:
        p_onset, p_end, p_axis = P_ONSET, round(P_ONSET + truth.p_duration), round(truth.p_axis)
        qrs_onset = round(P_ONSET + truth.pr)
    return (
        *(visit.subject, visit.study, 6_800_000 + visit.subject % 97, visit.when),
        *(reports + [""] * (18 - len(reports))),
        *("0.005-150 Hz", "60 Hz notch Baseline filter", round(truth.rr), p_onset, p_end),
        *(qrs_onset, round(qrs_onset + truth.qrs), round(qrs_onset + truth.qt)),
        *(p_axis, round(truth.qrs_axis), round(truth.t_axis)),
    )


def _diagnoses(visit: Visit, fold: int, strat_fold: int) -> tuple[object, ...]:
    """A row of records_w_diag_icd10.csv: every recording is taken in an emergency stay that leads to a hospital stay."""
    codes, age, year = str(_codes(visit.patient)), f"{visit.patient.age}.0", f"{visit.when.year}.0"
    return (
        *(f"{MODULE}/{visit.path}", visit.study, visit.subject, visit.when),
        *(f"{30_000_000 + visit.stay}.0", f"{20_000_000 + visit.stay}.0", "", codes, codes, "[]", codes, codes),
        *(visit.patient.sex, age, year, age, "", visit.number_in_stay, True, False, True, fold, strat_fold),
    )


def _findings(visit: Visit) -> tuple[int, ...]:
    """A row of findings.csv."""
    return (visit.study, *(int(name in visit.patient.findings) for name in FINDINGS))


def _generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    """A stream of its own for each patient, recording and table, so that nothing depends on the order of work."""
    return np.random.default_rng([seed, number, purpose])
