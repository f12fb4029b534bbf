"""The project as a newcomer meets it: metadata, light imports, documents that point somewhere, recipes that say how to run."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lamae_jax

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "configs").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_version_is_one_and_the_command_line_says_it() -> None:
    answer = python("-m", "lamae_jax.main", "--version")
    assert answer.returncode == 0, answer.stderr
    assert lamae_jax.__version__ in answer.stdout


def test_help_names_the_flags() -> None:
    answer = python("-m", "lamae_jax.main", "--help")
    assert answer.returncode == 0, answer.stderr
    assert "--config" in answer.stdout and "--workdir" in answer.stdout


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_a_dependency_has_a_lower_and_an_upper_bound(requirement: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]+>=[0-9.]+,<[0-9.]+", requirement)


def test_what_the_package_imports_is_declared() -> None:
    distribution = {"orbax": "orbax-checkpoint"}  # where the two names differ
    declared = {re.split(r"[><=]", requirement)[0] for requirement in PROJECT["dependencies"]}
    # What benchmarks compare with and explanations draw with, where it is; test_rooms.py keeps them there.
    declared |= {"torch", "sklearn", "umap"}
    for file in [*ROOT.glob("lamae_jax/**/*.py"), *RECIPES]:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            for top in {name.split(".")[0] for name in names} - {"lamae_jax"} - set(sys.stdlib_module_names):
                assert distribution.get(top, top) in declared, f"{file.name} imports {top}: not in pyproject.toml"


@pytest.mark.parametrize("module", ["lamae_jax", "lamae_jax.signal.contract", "lamae_jax.data.prepare"])
def test_what_prepares_recordings_does_not_pay_for_jax(module: str) -> None:
    answer = python(
        "-c", f"import sys, {module}; print([name for name in sys.modules if name in ('jax', 'flax', 'matplotlib')])"
    )
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr


def test_public_names_are_there_and_others_are_not() -> None:
    assert {"load", "LAMAE", "presets"} <= set(dir(lamae_jax))
    assert callable(lamae_jax.load) and isinstance(lamae_jax.LAMAE, type)
    assert "nano" in lamae_jax.presets.PRESETS
    with pytest.raises(AttributeError, match="lode"):
        lamae_jax.lode  # noqa: B018


def test_the_top_level_holds_nothing_but_the_project() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout, so what belongs to the project is not known: skipped")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    known = {"pyproject.toml", "README.md", "LICENSE", "lamae_jax", "configs", "launch", "tests", "docs"}
    assert {name for name in top if not name.startswith(".")} <= known


def headings(document: Path) -> set[str]:
    """The anchors that a page offers, as GitHub names them."""
    lines = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<img [^>]*src=\"([^\"]+)\"", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        page = (document.parent / path) if path else document
        assert page.exists(), f"{document.name} points to {target}"
        assert not anchor or anchor in headings(page), f"{document.name} points to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_the_documents_name_exist(document: Path) -> None:
    named = set(re.findall(r"`((?:lamae_jax|configs|launch|tests|docs)/[\w./-]+\.(?:py|sh|md))`", document.read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_recipes_that_the_documents_run_exist(document: Path) -> None:
    for name in re.findall(r"--config=(configs/[a-z_]+\.py)", document.read_text()):
        assert (ROOT / name).is_file(), f"{document.name} runs {name}"


def test_messages_that_troubleshooting_explains_are_the_program_s() -> None:
    """Row by row: what stands in backticks, a piece at a time between what varies, is in a text of the package."""
    texts = []
    for file in (ROOT / "lamae_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    rows = [line.split("|")[1] for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines() if "|" in line]
    said = [
        piece.strip()
        for row in rows
        for text in re.findall("`(.*?)`", row)
        for piece in re.split(r"\bN\b|\.\.\.", text)
    ]
    assert len(said) > 12
    assert [piece for piece in said if not any(piece in text for text in texts)] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_says_how_to_run_it(recipe: Path) -> None:
    text = ast.get_docstring(ast.parse(recipe.read_text())) or ""
    assert f"python -m lamae_jax.main --config=configs/{recipe.name}" in text


@pytest.mark.parametrize(
    "script, flags, expected",
    [
        ("local.sh", ["2", "--config=configs/pretrain.py"], ["lamae_jax.main", "--config=configs/pretrain.py"]),
        ("prepare_array.sh", ["4", "--config.store=a b"], ["--array=0-3", "--config.merge=true", "afterok"]),
    ],
)
def test_a_launch_script_shows_what_it_would_do(script: str, flags: list[str], expected: list[str]) -> None:
    command = ["bash", str(ROOT / "launch" / script)]
    shown = subprocess.run([*command, "--dry-run", *flags], capture_output=True, text=True, check=True).stdout
    assert all(text in shown for text in expected)
    wrong = subprocess.run([*command, "--dry-run", "none", *flags], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: N=none")


@pytest.mark.parametrize("name, ends", [("main", "--config=configs/pretrain.py"), ("tests", "python -m pytest -n 2")])
def test_ci_finds_the_commands_of_the_readme(name: str, ends: str) -> None:
    found = re.findall(
        rf"^<!-- ci: {name} -->\n```bash\n(.*)\n```$", (ROOT / "README.md").read_text(), flags=re.MULTILINE
    )
    assert len(found) == 1 and found[0].startswith("pip install") and found[0].endswith(ends)
