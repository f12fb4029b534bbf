"""Every test runs with eight virtual CPU devices, accidental broadcasts refused and a compilation cache.

The environment is set before anything imports jax, so this file imports nothing of ours at the top.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared" / "data"


def _compilation_cache() -> str:
    """A folder for compiled programs, one for each kind of processor and Python: code for one CPU may not run on another."""
    try:
        cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    key = hashlib.sha256(f"{cpu} {sys.version}".encode()).hexdigest()[:12]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "lamae_jax-tests" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)
    except OSError:  # no home to write to
        return tempfile.mkdtemp(prefix="lamae_jax-tests-")


os.environ["JAX_PLATFORMS"] = "cpu"
# Most of the time goes into compiling small programs that run once: half of it is saved by compiling them plainly.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compilation_cache())
os.environ.setdefault(
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"
)  # many small ones are half of the next run's time
os.environ.setdefault("MPLBACKEND", "Agg")

import jax  # noqa: E402  (after the environment)
from absl import flags  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()  # grain reads absl flags; under pytest nobody has parsed them


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def _real_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHARED / "unpack.py").is_file():
        pytest.skip("../shared/data is not here: skipped")
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python is older than 3.11.4, which ../shared/data/unpack.py needs: skipped")
    folder = tmp_path_factory.mktemp("real")
    command = [sys.executable, str(SHARED / "unpack.py"), str(folder), "--folds", "1", "9", "10", "--limit", "20"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(scope="session")
def real_ptb_xl(_real_recordings: Path) -> Path:
    """PTB-XL as published: 60 records (20 each of folds 1, 9 and 10) at 100 Hz, some of them at 500 Hz too."""
    return _real_recordings / "ptb-xl"


@pytest.fixture(scope="session")
def mimic_shaped(_real_recordings: Path) -> Path:
    """MIMIC-IV-ECG's layout with the deliberate faults that its FAULTS.csv lists. Read only: tests that change it copy it."""
    return _real_recordings / "mimic-iv-ecg-shaped"


# The made stays of `mimic_store`: 20 patients with one stay of two ECGs each, folds 0 (8 patients), 18 and 19 (6 each).
MIMIC_PATIENTS, MIMIC_FS, MIMIC_SECONDS = 20, 100, 4
LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")


@pytest.fixture(scope="session")
def mimic_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store in MIMIC-IV-ECG's layout: studies 100 to 139, patient p has 100 + 2p (the first of the stay) and 101 + 2p.

    Even patients have I4891 and fast ECGs, odd ones E119 and slow ones. Patient 7 (training) and patient 13 (validation) have no
    diagnosis, the second ECG of patient 0 a cell that is no list. In strat_fold one ECG of patient 1 stands in the test fold. The
    table has 60 more studies, with I10, whose waveforms are not there.
    """
    import csv

    import numpy as np

    from lamae_jax.data.prepare import PrepareConfig, prepare

    folder = tmp_path_factory.mktemp("mimic")
    rng, time = np.random.default_rng(0), np.arange(MIMIC_FS * MIMIC_SECONDS) / MIMIC_FS
    listed, diagnosed = [], []
    for study in range(100, 100 + 2 * MIMIC_PATIENTS):
        patient, place = divmod(study - 100, 2)
        path = folder / "source" / "files" / str(study) / str(study)
        path.parent.mkdir(parents=True)
        phases = rng.random((12, 1))
        wave = np.sin(2 * np.pi * ((2 if patient % 2 else 8) * time + phases)) + rng.normal(0, 0.2, (12, len(time)))
        path.with_suffix(".dat").write_bytes((100 * wave).T.astype("<i2").tobytes())
        header = [f"{study} 12 {MIMIC_FS} {len(time)}"]
        header += [f"{study}.dat 16 200.0(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
        path.with_suffix(".hea").write_text("\n".join(header) + "\n")
        listed.append([patient, study, f"files/{study}/{study}"])
        cell = "['E119', 'R42']" if patient % 2 else "['I4891', 'E785']"
        cell = "[]" if patient in (7, 13) else "I4891" if study == 101 else cell
        fold = 0 if patient < 8 else 18 if patient < 14 else 19
        diagnosed.append([study, patient, cell, place, fold, 19 if study == 103 else fold, 50, "F"])
    diagnosed += [
        [1000 + number, 1000 + number, "['I10']", 0, number % 20, number % 20, 50, "M"] for number in range(60)
    ]
    tables: dict[str, list[list[object]]] = {
        "record_list.csv": [["subject_id", "study_id", "path"], *listed],
        "records_w_diag_icd10.csv": [
            ["study_id", "subject_id", "all_diag_all", "ecg_no_within_stay", "fold", "strat_fold", "age", "gender"],
            *diagnosed,
        ],
    }
    for name, rows in tables.items():
        with open(folder / "source" / name, "w", newline="") as file:
            csv.writer(file).writerows(rows)
    config = PrepareConfig(
        kind="mimic_iv_ecg", source=str(folder / "source"), store=str(folder / "store"), fs=MIMIC_FS,
        seconds=float(MIMIC_SECONDS), band="none", workers=1, max_bad_fraction=0.0,
    )  # fmt: skip
    prepare(config, folder / "prepared")
    return folder / "store"
