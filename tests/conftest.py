"""Every test runs with eight virtual CPU devices, accidental broadcasts refused and a compilation cache.

The environment is set before anything imports jax, so this file imports nothing of ours at the top.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
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
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compilation_cache())
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
