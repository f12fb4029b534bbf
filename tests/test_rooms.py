"""The table of rooms: who may import whom, read from the source without running it."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "lamae_jax"

# In the order in which data flows. A room imports itself, the ground floor and the rooms before it.
GROUND = ["errors", "files", "machine", "progress"]
ROOMS = ["signal", "data", "model", "artifact", "train", "evaluate", "serve", "benchmark"]
ROOF = ["config", "command", "workdir", "main"]

# Libraries (or modules of them) that live in one place alone. Paths relative to the package; a folder ends with a slash.
HOMES = {
    "flax.linen": ["model/"],
    "flax": ["model/", "train/"],  # train/ for `struct` alone
    "orbax": ["train/checkpoint.py"],
    "grain": ["data/loader.py"],
    "optax": ["train/", "evaluate/"],
    "matplotlib": ["signal/ecg_paper.py", "train/figures.py", "evaluate/figures.py", "serve/explain/figures.py"],
    "wfdb": ["signal/simulated.py", "data/sources/", "benchmark/preparing.py"],
    "pandas": [],
    "tensorboardX": ["train/"],
    "ml_collections": ["config.py", "command.py"],
    "absl": ["main.py"],
    "umap": ["serve/explain/plane.py"],  # no dependency: used where it is
    "torch": ["benchmark/peer.py", "benchmark/peer_torch.py"],  # no dependency: there to be compared with
    "sklearn": ["benchmark/evaluating.py"],  # likewise
}
WITHOUT_JAX = ["errors", "files", "machine", "progress", "signal", "data"]
LONGEST = 330

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(file: Path) -> str:
    """`lamae_jax/data/store.py` -> `data`; `lamae_jax/main.py` -> `main`; the package's own `__init__.py` -> ``."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def imports(file: Path) -> list[tuple[str, int]]:
    """Every module that a file imports, also inside functions, with its line."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            found.append((node.module or "", node.lineno))
            # `from lamae_jax import data` imports a room just as `import lamae_jax.data` does.
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def allowed_rooms(room: str) -> list[str]:
    """What a file of this room may import of our own."""
    if room == "" or room in ROOF:
        return GROUND + ROOMS + ROOF
    if room in GROUND:
        return GROUND
    return GROUND + ROOMS[: ROOMS.index(room) + 1]


def faults_of(file: Path) -> list[str]:
    """What is wrong with one file's imports, in words."""
    room, faults = room_of(file), []
    name = file.relative_to(PACKAGE).as_posix()
    for module, line in imports(file):
        top, _, rest = module.partition(".")
        if top == "lamae_jax":
            other = rest.split(".")[0]
            if other in GROUND + ROOMS + ROOF and other not in allowed_rooms(room):
                faults.append(f"{name}:{line}: {room} may not import {other}")
        for library, homes in HOMES.items():
            inside = any(name == home or (home.endswith("/") and name.startswith(home)) for home in homes)
            if not inside and (module == library or module.startswith(library + ".")):
                faults.append(f"{name}:{line}: {library} lives in {', '.join(homes) or 'no file of ours'}")
        if top in ("jax", "jaxlib") and room in WITHOUT_JAX:
            faults.append(f"{name}:{line}: {room} runs in processes without jax")
    return sorted(set(faults))


def test_every_file_stands_in_a_known_room() -> None:
    assert {room_of(file) for file in FILES} <= {"", *GROUND, *ROOMS, *ROOF}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_rooms_before_it(file: Path) -> None:
    assert faults_of(file) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_files_stay_short_and_are_named_for_what_they_hold(file: Path) -> None:
    lines = len(file.read_text().splitlines())
    assert lines <= LONGEST, f"{file.name} has {lines} lines: split it"
    assert file.stem not in ("utils", "util", "helpers", "misc", "common")


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room).is_dir()])
def test_a_room_says_what_it_is_for(room: str) -> None:
    door = PACKAGE / room / "__init__.py"
    assert door.is_file(), f"{room}/ has no __init__.py"
    text = ast.get_docstring(ast.parse(door.read_text()))
    assert text and len(text.splitlines()) <= 4


@pytest.mark.parametrize(
    "name, source, fault",
    [
        ("data/x.py", "import jax.numpy as jnp", "without jax"),
        ("data/x.py", "def f():\n    from lamae_jax.model.lamae import LAMAE", "may not import model"),
        ("model/x.py", "from lamae_jax import config", "may not import config"),
        ("train/x.py", "from flax import linen as nn", "flax.linen lives in model/"),
        ("train/step.py", "import orbax.checkpoint as ocp", "orbax lives in"),
    ],
)
def test_the_table_is_held(name: str, source: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    file = tmp_path / name
    file.parent.mkdir()
    file.write_text(source)
    faults = faults_of(file)
    assert faults and all(fault in line for line in faults)
