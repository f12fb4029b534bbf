"""The waves of a simulated beat: the heart as a moving dipole, and what each finding does to it.

Every wave is a Gaussian in time along a direction in space (McSharry, Clifford, Tarassenko & Smith, IEEE Trans Biomed Eng
2003;50:289, carried to three dimensions by Sameni, Clifford, Jutten & Shamsollahi, EURASIP J Adv Signal Process 2007:43407,
and to abnormal beats by Clifford, Nemati & Sameni, Physiol Meas 2010;31:595). Axes are Frank's: x to the left arm, y to the
feet, z to the back; vectors are mV in his leads. They were set by hand, so that the usual beat agrees with the median of the
normal ECGs of PTB-XL (Wagner et al., Sci Data 2020;7:154) and each finding with its criteria: blocks, Surawicz et al.,
Circulation 2009;119:e235; ST, T and QT, Rautaharju et al., ibid. e241; hypertrophy and strain, Hancock et al., ibid. e251;
infarction, Thygesen et al., Circulation 2018;138:e618 (fourth universal definition).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamae_jax.signal.simulated_patient import Patient

# Rows: centre, width (standard deviation), x, y, z. P in shares of the P duration from its onset; QRS in shares of the QRS
# duration from its onset; ST and T in shares of QT from the QRS onset.
ATRIA = np.array(
    [
        [0.35, 0.150, 0.070, 0.062, -0.034],  # right atrium: down and forwards
        [0.65, 0.155, 0.102, 0.036, 0.036],  # left atrium: left and backwards
    ]
)
VENTRICLES = np.array(
    [
        [0.175, 0.075, -0.11, -0.06, -0.23],  # septum, from left to right
        [0.360, 0.088, 0.76, 0.42, -0.09],  # apex and front wall
        [0.475, 0.082, 0.72, 0.42, 0.52],  # left side wall
        [0.610, 0.090, -0.04, 0.02, 0.64],  # back wall
        [0.780, 0.085, -0.09, -0.08, 0.14],  # base
    ]
)
# A thick left ventricle adds to its side and back walls.
THICK = np.array([0.6, 0.85, 1.15, 1.25, 1.0])
LEFT_BLOCK = np.array(  # the left ventricle is reached late and through muscle: one long way left and back
    [
        [0.150, 0.065, 0.10, 0.08, -0.02],
        [0.350, 0.105, 0.54, 0.34, 0.72],
        [0.560, 0.098, 0.56, 0.14, 1.00],
        [0.760, 0.090, 0.62, 0.00, 0.54],
    ]
)
RIGHT_BLOCK = np.array(  # as usual at first; then the right ventricle, late and alone: right and forwards
    [
        [0.120, 0.050, -0.11, -0.07, -0.28],
        [0.245, 0.060, 0.76, 0.42, -0.09],
        [0.330, 0.056, 0.64, 0.40, 0.32],
        [0.430, 0.060, -0.08, 0.02, 0.22],
        [0.640, 0.095, -0.34, -0.06, -0.42],
        [0.790, 0.085, -0.26, -0.02, -0.30],
    ]
)
# Dead muscle leaves its share of the early forces to the opposite wall. For a QRS of ordinary length.
ANTERIOR_LOSS = np.array([[0.180, 0.080, -0.08, 0.02, 0.40], [0.350, 0.090, -0.22, 0.00, 0.38]])
INFERIOR_LOSS = np.array([[0.240, 0.095, 0.06, -0.54, 0.02], [0.400, 0.080, -0.04, -0.22, 0.02]])
RECOVERY = np.array(
    [
        [0.340, 0.085, 0.006, 0.004, -0.012],  # from the J point
        [0.520, 0.105, 0.030, 0.020, -0.055],  # the ST segment's slow rise
        [0.715, 0.100, 0.180, 0.085, -0.125],  # T rises slowly
        [0.850, 0.073, 0.235, 0.115, -0.100],  # and falls faster
    ]
)
# What findings add to these four, mV: an injured wall draws ST to itself; T turns away from where recovery is late; a block or
# a thick wall turns both against the QRS.
ANTERIOR_ACUTE = np.array([[0.09, -0.02, -0.19], [0.08, -0.02, -0.18], [0.05, 0.00, -0.16], [0.00, 0.00, -0.03]])
ANTERIOR_OLD = np.array([[0.02, 0.00, -0.05], [0.02, 0.00, -0.06], [-0.18, -0.03, 0.17], [-0.33, -0.07, 0.30]])
INFERIOR_ACUTE = np.array([[-0.06, 0.19, 0.03], [-0.07, 0.20, 0.05], [-0.03, 0.13, 0.03], [0.00, 0.02, 0.00]])
INFERIOR_OLD = np.array([[0.00, 0.02, 0.01], [0.00, 0.00, 0.02], [0.02, -0.16, 0.00], [0.03, -0.24, -0.02]])
LEFT_DISCORDANCE = np.array(
    [[-0.08, -0.03, -0.14], [-0.14, -0.04, -0.16], [-0.27, -0.10, -0.18], [-0.30, -0.13, -0.20]]
)
RIGHT_DISCORDANCE = np.array([[0.02, 0.00, 0.02], [0.03, 0.00, 0.07], [0.05, 0.01, 0.15], [0.05, 0.01, 0.17]])
STRAIN = np.array([[-0.07, -0.03, -0.02], [-0.11, -0.05, -0.04], [-0.22, -0.10, -0.05], [-0.33, -0.16, 0.00]])


@dataclass(frozen=True)
class Waves:
    """The waves of one kind of beat: `centre` and `width` [w] in seconds from the QRS onset, `vector` [w, 3] in mV.

    `recovery` [w] marks ST and T, given for a heart rate of 60/min: they come earlier at higher rates.
    """

    centre: np.ndarray
    width: np.ndarray
    vector: np.ndarray
    recovery: np.ndarray


def conducted_beat(patient: Patient) -> Waves:
    """The beat that comes from the atria."""
    has = patient.findings
    ventricles = _individual(_activation(patient), patient.quirks[2:8])
    usual = _turned(_individual(VENTRICLES, patient.quirks[2:8]), patient.turns)
    ventricles = _turned(ventricles, patient.turns)
    ventricles[:, 2:] *= patient.voltage / sokolow_lyon(patient.lead_field, usual)

    recovery = _individual(RECOVERY, patient.quirks[11:15])
    recovery[:, 2:] = recovery[:, 2:] * patient.t_size + _recovery_change(patient)
    # T's direction varies less between people than that of the QRS, and P's least.
    recovery = _turned(recovery, tuple(0.6 * turn for turn in patient.turns))
    atria = _turned(_individual(ATRIA, patient.quirks[:2]), tuple(0.4 * turn for turn in patient.turns))
    atria[:, :2] *= patient.p_duration / 1000
    atria[:, 0] -= patient.pr / 1000
    if "atrial_fibrillation" in has:
        atria = atria[:0]
    return _waves(atria, ventricles, recovery, patient.qrs, patient.qtc)


def premature_beat(patient: Patient) -> Waves:
    """The patient's premature ventricular beat: no P, slow from muscle to muscle, ST and T against it."""
    there = np.array(patient.focus)
    across = np.cross(there, np.array([0.2, 0.3, 0.9]))
    size = 1.25 * patient.voltage**0.5
    qrs = 152.0 + 8 * float(np.clip(patient.quirks[20, 0], -2, 2))
    rows = np.array([[0.22, 0.085, 0, 0, 0], [0.46, 0.11, 0, 0, 0], [0.72, 0.095, 0, 0, 0]])
    rows[:, 2:] = size * np.stack([0.5 * (there + 0.5 * across), there, 0.5 * (there - 0.5 * across)])
    ventricles = _individual(rows, patient.quirks[15:18])
    against = -0.33 * size * there
    recovery = RECOVERY.copy()
    recovery[:, 2:] = np.outer([0.2, 0.3, 0.7, 1.0], against)
    return _waves(ATRIA[:0], ventricles, recovery, qrs, patient.qtc + 30)


def fibrillation(patient: Patient, seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fibrillating atria over time [N] as a dipole [3, N]: a saw-tooth of 5 to 8 Hz, wandering in rate and size.

    Stridh & Sornmo, IEEE Trans Biomed Eng 2001;48:105; largest in V1 and II.
    """
    waves = []
    for size in (1.0, 0.6):  # two atria, neither in step with the other
        rate = np.clip(rng.normal(6.2, 0.8), 4.6, 8.4)
        turn = rng.uniform(0, 2 * np.pi, 4)
        phase = 2 * np.pi * rate * seconds + turn[0]
        phase += 1.8 * np.sin(2 * np.pi * rng.uniform(0.2, 0.4) * seconds + turn[1])
        phase += 0.8 * np.sin(2 * np.pi * rng.uniform(0.8, 1.5) * seconds + turn[2])
        swell = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * seconds + turn[3])
        waves.append(size * swell * (np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase)))
    coarse = 0.045 * np.exp(np.clip(rng.normal(0, 0.35), -0.7, 0.7))  # mV
    return coarse * np.array([[0.05, 0.30, -0.80], [0.40, 0.22, 0.10]]).T @ np.stack(waves)


def _activation(patient: Patient) -> np.ndarray:
    """The rows of the QRS before it is this patient's: which way the ventricles are reached, less what has died."""
    has = patient.findings
    rows = LEFT_BLOCK if "lbbb" in has else RIGHT_BLOCK if "rbbb" in has else VENTRICLES
    if "lvh" in has and rows is VENTRICLES:
        rows = VENTRICLES.copy()
        rows[:, 2:] *= THICK[:, None]
    early = np.array([min(1.0, 92 / patient.qrs)] * 2 + [1.0] * 3)  # dead walls are missed early, block or no block
    for name, loss in (("anterior_infarction", ANTERIOR_LOSS), ("inferior_infarction", INFERIOR_LOSS)):
        if name in has:
            loss = loss * early
            loss[:, 2:] *= patient.severity
            rows = np.concatenate([rows, loss])
    return rows


def _recovery_change(patient: Patient) -> np.ndarray:
    """What the findings add to ST and T [4, 3]."""
    has = patient.findings
    change = np.zeros((4, 3))
    if "anterior_infarction" in has:
        change += ANTERIOR_ACUTE if patient.acute else ANTERIOR_OLD
    if "inferior_infarction" in has:
        change += INFERIOR_ACUTE if patient.acute else INFERIOR_OLD
    if "lbbb" in has:
        change += LEFT_DISCORDANCE
    if "rbbb" in has:
        change += RIGHT_DISCORDANCE
    if "lvh" in has:
        change += STRAIN * (patient.severity - 0.4)  # from hardly any to a full strain pattern
    return change * patient.severity


def _individual(rows: np.ndarray, quirks: np.ndarray) -> np.ndarray:
    """The rows [w, 5] with the differences between one heart and another; waves beyond the quirks [k, 5] stay as they are."""
    rows = rows.copy()
    few = min(len(rows), len(quirks))
    quirk = np.clip(quirks[:few], -2, 2)
    rows[:few, 0] += 0.010 * quirk[:, 0]
    rows[:few, 1] *= 1 + 0.05 * quirk[:, 1]
    length = np.linalg.norm(rows[:few, 2:], axis=1, keepdims=True)
    rows[:few, 2:] += 0.15 * length * quirk[:, 2:]
    return rows


def _turned(rows: np.ndarray, turns: tuple[float, ...]) -> np.ndarray:
    """The rows with their vectors turned in the frontal (+ clockwise, towards vertical), horizontal and sagittal plane."""
    matrix = np.eye(3)
    for (a, b), degrees in zip(((0, 1), (0, 2), (1, 2)), turns, strict=True):
        turn = np.eye(3)
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn[a, a], turn[a, b], turn[b, a], turn[b, b] = cos, -sin, sin, cos
        matrix = turn @ matrix
    return np.concatenate([rows[:, :2], rows[:, 2:] @ matrix.T], axis=1)


def sokolow_lyon(lead_field: np.ndarray, ventricles: np.ndarray) -> float:
    """S in V1 plus the larger R of V5 and V6, mV, of QRS rows [w, 5] seen through a lead field [8, 3]."""
    time = np.linspace(0, 1, 60)
    shape = np.exp(-0.5 * ((time[:, None] - ventricles[:, 0]) / ventricles[:, 1]) ** 2)
    v1, v5, v6 = (shape @ ventricles[:, 2:] @ lead_field[[2, 6, 7]].T).T
    return float(-v1.min() + max(v5.max(), v6.max()))


def _waves(atria: np.ndarray, ventricles: np.ndarray, recovery: np.ndarray, qrs: float, qtc: float) -> Waves:
    """Rows in shares -> waves in seconds (P is in seconds already)."""
    rows = np.concatenate(
        [atria, ventricles * [qrs / 1000, qrs / 1000, 1, 1, 1], recovery * [qtc / 1000, qtc / 1000, 1, 1, 1]]
    )
    late = np.arange(len(rows)) >= len(atria) + len(ventricles)
    return Waves(rows[:, 0], rows[:, 1], rows[:, 2:], late)
