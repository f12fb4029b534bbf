"""What is installed from the wheel, away from the checkout, is the whole library: every file, every module, the same digits."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/serve/golden"

IMPORTED = """
import importlib, importlib.util, pkgutil, lamae_jax
assert lamae_jax.__file__.startswith({home!r}), lamae_jax.__file__
names = [module.name for module in pkgutil.walk_packages(lamae_jax.__path__, "lamae_jax.")]
for name in names:
    if name != "lamae_jax.benchmark.peer_torch" or importlib.util.find_spec("torch"):  # which is no dependency
        importlib.import_module(name)
print(len(names))
"""
EMBEDDED = """
import json, sys, numpy as np, lamae_jax
made = lamae_jax.load(sys.argv[1]).embed(np.load("recording.npy"), fs=500, leads=json.loads(sys.argv[2]), units="uV")
np.save("cls.npy", made.cls[0])
"""


def run(*command: object, cwd: Path) -> str:
    """Its output; fails with what it said."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: what an earlier build left in the checkout must not slip in."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    shutil.copytree(ROOT / "lamae_jax", tree / "lamae_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    try:
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", tree, cwd=folder)
    except AssertionError as error:
        if "No matching distribution found for setuptools" in str(error):
            pytest.skip("no package index is reached, from which pip takes what it builds with: skipped")
        raise
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a fresh environment with the wheel; its dependencies are this one's. A path file is not followed by others in the folder
    that it names, so a checkout that is installed here as editable stays out of sight."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    fresh = folder / "bin/python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        fresh,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return fresh


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lamae_jax").rglob("*") if path.is_file()}
    assert names == {name for name in there if "__pycache__" not in name}


@pytest.mark.slow
def test_every_module_can_be_imported_away_from_the_checkout(python: Path, tmp_path: Path) -> None:
    home = str(python.parents[1])
    assert int(run(python, "-I", "-c", IMPORTED.format(home=home), cwd=tmp_path)) > 100


@pytest.mark.slow
def test_the_kept_model_gives_the_kept_digits_from_the_wheel(python: Path, tmp_path: Path) -> None:
    from serve.test_golden import LEADS, recording

    np.save(tmp_path / "recording.npy", recording())
    run(python, "-I", "-c", EMBEDDED, GOLDEN, json.dumps(LEADS), cwd=tmp_path)
    kept = json.loads((GOLDEN / "embedding.json").read_text())["cls"]
    np.testing.assert_allclose(np.load(tmp_path / "cls.npy"), kept, rtol=0, atol=1e-5)
