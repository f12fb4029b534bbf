"""One simulated recording: rhythm, the dipole's path, the torso, and the noise that every electrode picks up.

The 8 independent leads are the dipole seen through the patient's own version of Dower's lead vectors; III, aVR, aVL and aVF
follow from I and II, so that Einthoven's and Goldberger's laws hold. For the same reason noise arises at the nine electrodes and
reaches the leads as a cart would form them (V leads against the mean of the three limbs). Heart-rate variability has the two
bands of McSharry et al. 2003 (around 0.1 Hz, and breathing); breathing also turns the heart, changes its size and moves the
baseline (Sornmo & Laguna, Bioelectrical Signal Processing, 2005, chapter 7). Sizes of noise follow the 500 Hz recordings of
PTB-XL: outside the QRS 3 to 11 uV between 25 and 150 Hz, below 0.5 Hz 20 to 110 uV (5th to 95th percentile).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamae_jax.signal.leads import LIMB_PROJECTION
from lamae_jax.signal.simulated_patient import Patient
from lamae_jax.signal.simulated_waves import Waves, conducted_beat, fibrillation, premature_beat

FS = 500  # Hz, as in MIMIC-IV-ECG
SECONDS = 10.0
MAINS = 60.0  # Hz
BEFORE, AFTER = 0.45, 0.75  # s around a QRS onset that hold all waves of a beat

# Leads I, II, V1-V6 from the potentials at RA, LA, LL, V1-V6.  [8, 9]
ELECTRODES_TO_LEADS = np.zeros((8, 9))
ELECTRODES_TO_LEADS[0, [1, 0]] = 1, -1
ELECTRODES_TO_LEADS[1, [2, 0]] = 1, -1
ELECTRODES_TO_LEADS[2:, 3:] = np.eye(6)
ELECTRODES_TO_LEADS[2:, :3] = -1 / 3


@dataclass(frozen=True)
class Truth:
    """What a recording was made with: `onset` [beats] of each QRS in s and whether it is `premature` [beats].

    Intervals in ms at this recording's mean RR; axes in degrees from the waves' areas. `pr`, `p_duration` and `p_axis` are None
    in atrial fibrillation.
    """

    onset: np.ndarray
    premature: np.ndarray
    rr: float
    pr: float | None
    p_duration: float | None
    qrs: float
    qt: float
    p_axis: float | None
    qrs_axis: float
    t_axis: float


def simulate_record(
    patient: Patient, rng: np.random.Generator, fs: int = FS, seconds: float = SECONDS, noise: float = 1.0
) -> tuple[np.ndarray, Truth]:
    """Record a patient: float32 signal [12, N] in mV, leads as in STANDARD_LEADS, and the truth behind it.

    `noise` scales everything the electrodes add to the heart; 0 leaves the heart alone. Rates from 250 to 1000 Hz.
    """
    waves = conducted_beat(patient)
    time = np.arange(round(fs * seconds)) / fs
    breath, breath_phase = rng.uniform(0.18, 0.33), rng.uniform(0, 2 * np.pi)  # Hz, rad
    onset, premature, previous = rhythm(patient, breath, seconds, rng)
    depth = rng.uniform(0.3, 1.0)
    breathing = depth * np.sin(2 * np.pi * breath * onset + breath_phase)
    # QT follows the rate with a long memory and by the cube root of RR (Fridericia).
    mean_rr = float(np.mean(previous))
    stretch = (0.8 * mean_rr + 0.2 * previous) ** (1 / 3)

    dipole = np.zeros((3, len(time)), np.float32)
    for kind, chosen in ((waves, ~premature), (premature_beat(patient), premature)):
        if chosen.any():
            turned = breathing_vectors(kind.vector, breathing[chosen], rng)
            add_beats(dipole, kind, turned, onset[chosen], stretch[chosen], fs)
    if "atrial_fibrillation" in patient.findings:
        dipole += fibrillation(patient, time, rng).astype(np.float32)
    leads = patient.lead_field.astype(np.float32) @ dipole
    if noise:
        electrodes = electrode_noise(time, breath, breath_phase, rng)
        leads += np.float32(noise) * (ELECTRODES_TO_LEADS.astype(np.float32) @ electrodes)
    limbs = LIMB_PROJECTION.astype(np.float32) @ leads[:2]
    return np.concatenate([limbs, leads[2:]]), _truth(patient, waves, onset, premature, mean_rr, seconds)


def rhythm(
    patient: Patient, breath: float, seconds: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """QRS onsets [b] s from before the start to after the end, which are premature [b], and the RR before each [b] s."""
    mean = 60 / patient.heart_rate
    count = int((seconds + 2.5) / (0.6 * mean)) + 4
    if "atrial_fibrillation" in patient.findings:
        # The AV node lets through what it can: intervals without memory, CV about .2, none below its refractory period.
        interval = np.maximum(mean * np.exp(rng.normal(-0.02, rng.uniform(0.17, 0.27), count)), 0.32)
    else:
        time = np.arange(count) * mean
        low, high = 2 * np.pi * rng.uniform(0.08, 0.12), 2 * np.pi * breath
        swing = 0.6 * np.sin(low * time + rng.uniform(0, 2 * np.pi)) + np.sin(high * time + rng.uniform(0, 2 * np.pi))
        interval = mean * (1 + patient.variability * swing + 0.006 * rng.standard_normal(count))
    onset = np.cumsum(interval) - rng.uniform(0, mean) - 1.0
    premature = np.zeros(count, bool)
    if "pvc" in patient.findings:
        inside = np.flatnonzero((onset > 1.6) & (onset < seconds - 1.0))
        wanted = min(1 + rng.poisson(1.0), len(inside))
        for k in rng.permutation(inside):
            if wanted and not premature[k - 1 : k + 2].any():
                # It takes the place of the sinus beat it forestalls; the next one comes on time (a compensatory pause).
                onset[k] = onset[k - 1] + max(rng.uniform(0.52, 0.68) * interval[k], 0.36)
                premature[k] = True
                wanted -= 1
    previous = np.diff(onset, prepend=onset[0] - mean)
    keep = (onset > -AFTER) & (onset < seconds + BEFORE)
    return onset[keep], premature[keep], previous[keep]


def breathing_vectors(vector: np.ndarray, breathing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The waves' vectors [w, 3] at each beat, [b, w, 3]: turned by some degrees and resized by some per cent by breathing."""
    frontal, sagittal = rng.normal(0, 0.05, 2)  # radians at full breath
    turn = np.array([[0, -frontal, 0], [frontal, 0, -sagittal], [0, sagittal, 0]])
    size = 1 + rng.normal(0, 0.035) * breathing + 0.012 * rng.standard_normal(len(breathing))
    return size[:, None, None] * (vector + breathing[:, None, None] * (vector @ turn.T))


def add_beats(
    dipole: np.ndarray, waves: Waves, vector: np.ndarray, onset: np.ndarray, stretch: np.ndarray, fs: float
) -> None:
    """Add beats to a dipole [3, N]: waves [w] with vectors [b, w, 3] at onsets [b] s, ST and T stretched by [b]."""
    length = dipole.shape[1]
    first = np.ceil((onset - BEFORE) * fs).astype(int)
    steps = np.arange(round((BEFORE + AFTER) * fs))
    time = ((first[:, None] + steps) / fs - onset[:, None]).astype(np.float32)  # [b, n]
    slower = np.where(waves.recovery, stretch[:, None], 1.0)  # [b, w]
    centre, width = (slower * waves.centre).astype(np.float32), (slower * waves.width).astype(np.float32)
    shape = np.exp(-0.5 * ((time[:, None] - centre[..., None]) / width[..., None]) ** 2)  # [b, w, n]
    beats = vector.astype(np.float32).transpose(0, 2, 1) @ shape  # [b, 3, n]
    for start, beat in zip(first.tolist(), beats, strict=True):
        low, high = max(start, 0), min(start + len(steps), length)
        if low < high:
            dipole[:, low:high] += beat[:, low - start : high - start]


def electrode_noise(time: np.ndarray, breath: float, breath_phase: float, rng: np.random.Generator) -> np.ndarray:
    """What nine electrodes add, mV [9, N]: a wandering baseline, breathing, mains hum and muscle."""
    slow = np.exp(rng.uniform(np.log(0.04), np.log(1.2), 7))
    wander = 0.026 * np.exp(rng.normal(0, 0.55)) * (slow / 0.1) ** -0.6
    mains = 0.0012 * np.exp(rng.normal(0, 0.7))
    rates = np.array([*slow, breath, MAINS])
    sizes = np.array([*wander, 0.018 * np.exp(rng.normal(0, 0.6)), mains]) / np.sqrt(2)
    phases = np.array([*rng.uniform(0, 2 * np.pi, 7), breath_phase, 0.0])
    angle = (2 * np.pi * rates[:, None] * time + phases[:, None]).astype(np.float32)
    waves = np.concatenate([np.sin(angle), np.cos(angle)])
    mix = rng.standard_normal((9, len(waves))) * np.tile(sizes, 2)
    noise = mix.astype(np.float32) @ waves

    # Muscle: white noise shaped to 30-170 Hz; some people tense a limb or the chest for a second or two.
    white = rng.standard_normal((9, len(time) + 3), dtype=np.float32)
    pair = white[:, 1:] + white[:, :-1]
    muscle = pair[:, 2:] - pair[:, :-2]
    size = np.full(len(time), 1.0, np.float32)
    if rng.random() < 0.2:
        middle, lasting = rng.uniform(0, time[-1]), rng.uniform(0.3, 1.2)
        size += np.float32(rng.uniform(1, 5)) * np.exp(-0.5 * ((time - middle) / lasting) ** 2, dtype=np.float32)
    muscle *= size
    each = 0.0019 * np.exp(rng.normal(0, 0.4)) * np.exp(rng.normal(0, 0.25, 9))
    noise += each[:, None].astype(np.float32) * muscle
    return noise


def _truth(
    patient: Patient, waves: Waves, onset: np.ndarray, premature: np.ndarray, mean_rr: float, seconds: float
) -> Truth:
    inside = (onset > 0) & (onset < seconds)
    areas = waves.vector * waves.width[:, None]
    atrial = "atrial_fibrillation" not in patient.findings
    p, recovery = waves.centre < 0, waves.recovery
    return Truth(
        onset=onset[inside],
        premature=premature[inside],
        rr=1000 * mean_rr,
        pr=patient.pr if atrial else None,
        p_duration=patient.p_duration if atrial else None,
        qrs=patient.qrs,
        qt=patient.qtc * mean_rr ** (1 / 3),
        p_axis=axis(patient.lead_field, areas[p].sum(0)) if atrial else None,
        qrs_axis=axis(patient.lead_field, areas[~p & ~recovery].sum(0)),
        t_axis=axis(patient.lead_field, areas[recovery].sum(0)),
    )


def axis(lead_field: np.ndarray, area: np.ndarray) -> float:
    """The frontal axis in degrees of a wave's net area, a vector [3] in Frank's axes, as read from leads I and aVF."""
    lead_one, lead_two = lead_field[:2] @ area
    foot = (2 * lead_two - lead_one) / np.sqrt(3)  # aVF, brought to the size of a limb lead
    return float(np.degrees(np.arctan2(foot, lead_one)))
