"""The simulated patient: what is drawn once and stays the same over their recordings.

Intervals and rates are drawn within the reference ranges of Mason et al., J Electrocardiol 2007;40:228 (79,743 people), those of
a finding within its definition: bundle branch blocks and axis, Surawicz et al., Circulation 2009;119:e235 (AHA/ACCF/HRS
recommendations, part III); first-degree AV block, PR over 200 ms, Kusumoto et al., Circulation 2019;140:e382; hypertrophy by
voltage, Sokolow & Lyon, Am Heart J 1949;37:161.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

# Lead vectors of I, II, V1-V6 over Frank's x, y, z: Dower, Machado & Osborne, Clin Cardiol 1980;3:87. [8, 3]
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)


@dataclass(frozen=True)
class Finding:
    """A finding: its ICD-10-CM code (undotted, as MIMIC writes it), the machine's words, its share of patients aged 65."""

    code: str
    report: str
    share: float


# Shares are several times those of a clinic, so that a few hundred patients hold some dozens of each.
FINDINGS = {
    "atrial_fibrillation": Finding("I4891", "Atrial fibrillation", 0.20),
    "av_block": Finding("I440", "Prolonged PR interval", 0.17),
    "lbbb": Finding("I447", "Left bundle branch block", 0.13),
    "rbbb": Finding("I4510", "Right bundle branch block", 0.15),
    "anterior_infarction": Finding("I2109", "Anterior infarct", 0.17),
    "inferior_infarction": Finding("I2119", "Inferior infarct", 0.17),
    "pvc": Finding("I493", "Premature ventricular contractions", 0.20),
    "lvh": Finding("I517", "Left ventricular hypertrophy", 0.18),
}
OLD_INFARCTION = "I252"
NO_FINDING = "Z0389"  # seen for a suspected condition that was ruled out

# Left bundle branch block hides the signs of the others in its group; fibrillating atria have no PR interval.
EXCLUDED = {
    "atrial_fibrillation": ("av_block",),
    "lbbb": ("rbbb", "anterior_infarction", "inferior_infarction", "lvh"),
}


@dataclass(frozen=True)
class Patient:
    """One patient at one visit. Intervals in ms, rates per minute, angles in degrees, `voltage` (SV1 + RV5 or RV6) in mV."""

    age: int
    sex: str
    findings: tuple[str, ...]
    acute: bool  # an infarction is fresh (ST elevation) rather than old (Q and inverted T)
    heart_rate: float
    pr: float
    p_duration: float
    qrs: float
    qtc: float  # by Fridericia: QT at 60/min
    voltage: float
    t_size: float  # T amplitude relative to the average one
    variability: float  # size of the heart-rate variability, share of the mean RR
    turns: tuple[float, float, float]  # how the heart lies: frontal (+ towards vertical), horizontal, sagittal
    severity: float  # of infarction, strain and discordance; 1 is typical
    focus: tuple[float, float, float]  # direction in which a premature ventricular beat spreads
    lead_field: np.ndarray  # [8, 3], this torso's own version of DOWER
    quirks: np.ndarray  # [24, 5] standard normal: what sets this heart's every wave apart (centre, width, x, y, z)


def _within(value: float, low: float, high: float) -> float:
    return float(min(max(value, low), high))


def draw_findings(age: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a patient's findings; they become commoner with age, and two may go together where an ECG can show both."""
    drawn: list[str] = []
    weight = _within((age - 15) / 50, 0.2, 1.4)
    for name, finding in FINDINGS.items():
        wanted = rng.random() < finding.share * weight
        if wanted and not any(name in EXCLUDED.get(other, ()) for other in drawn):
            drawn.append(name)
    return tuple(drawn)


def draw_patient(rng: np.random.Generator, findings: tuple[str, ...] | None = None) -> Patient:
    """Draw one patient; `findings` (names in FINDINGS) instead of drawn ones where given. Raises KeyError for an unknown name."""
    age, sex = round(_within(rng.normal(58, 17), 18, 92)), "M" if rng.random() < 0.5 else "F"
    drawn = draw_findings(age, rng)
    has = set(drawn if findings is None else findings)
    findings = tuple(name for name in FINDINGS if name in has)
    for name in has:
        FINDINGS[name]
    male = sex == "M"

    heart_rate = _within(rng.normal(71 if male else 74, 10), 51, 97)
    if "atrial_fibrillation" in has:
        heart_rate = _within(rng.normal(92, 20), 58, 150)
    pr = _within(rng.normal(158, 17), 124, 197)
    if "av_block" in has:
        pr, heart_rate = _within(rng.normal(242, 22), 214, 310), min(heart_rate, 88.0)
    qrs = _within(rng.normal(93 if male else 87, 7), 74, 108)
    if "lvh" in has:
        qrs = min(qrs + 8, 112)
    if "rbbb" in has:
        qrs = _within(rng.normal(140, 8), 126, 162)
    if "lbbb" in has:
        qrs = _within(rng.normal(147, 10), 128, 174)
    # A block delays the end of repolarisation by about as much as the end of depolarisation.
    qtc = _within(rng.normal(404 if male else 414, 14), 372, 438) + max(0.0, qrs - 112) * 0.8
    # LVH is found by voltage: at least 3.5 mV (Sokolow-Lyon); hearts without it stay below.
    voltage = _within(rng.normal(2.5 if male else 2.2, 0.45), 1.3, 3.3)
    if "lvh" in has:
        voltage = _within(rng.normal(4.2, 0.45), 3.65, 6.0)
    left_ward = 0.45 * (age - 50) + (8 if "lvh" in has else 0)  # the axis moves to the left with age
    return Patient(
        age=age,
        sex=sex,
        findings=findings,
        acute=bool(rng.random() < 0.6),
        heart_rate=heart_rate,
        pr=pr,
        p_duration=_within(rng.normal(106, 8), 86, 119),
        qrs=qrs,
        qtc=qtc,
        voltage=voltage,
        t_size=float(np.exp(rng.normal(0, 0.28))),
        variability=float(0.035 * np.exp(-(age - 40) / 45 + rng.normal(0, 0.35))),
        turns=(_within(rng.normal(4 - left_ward, 15), -48, 38), rng.normal(0, 11), rng.normal(0, 7)),
        severity=_within(np.exp(rng.normal(0, 0.28)), 0.7, 1.6),
        focus=draw_focus(rng),
        lead_field=DOWER * (1 + rng.normal(0, 0.09, DOWER.shape)) + rng.normal(0, 0.04, DOWER.shape),
        quirks=rng.standard_normal((24, 5)),
    )


def draw_focus(rng: np.random.Generator) -> tuple[float, float, float]:
    """Where premature beats come from: the right ventricle (spreading left and back) or the left (right and forwards)."""
    if rng.random() < 0.6:
        direction = np.array([0.6, 0.55, 0.6]) + rng.normal(0, 0.2, 3)
    else:
        direction = np.array([-0.35, rng.choice([-0.7, 0.6]), -0.65]) + rng.normal(0, 0.18, 3)
    x, y, z = direction / np.linalg.norm(direction)
    return float(x), float(y), float(z)


def later_visit(patient: Patient, rng: np.random.Generator) -> Patient:
    """The same patient some months later: another heart rate; a fresh infarction has become an old one."""
    rate = _within(patient.heart_rate + rng.normal(0, 7), 51, 150 if "atrial_fibrillation" in patient.findings else 97)
    return replace(patient, heart_rate=rate, acute=False)
