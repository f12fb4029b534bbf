"""Every command and every piece of Python that the README, docs/ and configs/ show is run, in a small world that has what they
name, and leaves what its recipe promises.

The command is the page's own; fields behind it make it small. A recipe's own command is left out where a page has it with the
same fields and more. Launch lines are shown (--dry-run; tests/test_launch.py runs the scripts), recipes and fields that are
named in running text are read. Left out are installing and testing, which .ci/run does, and TPU programs (tests/benchmark/).
"""

from __future__ import annotations

import ast
import contextlib
import csv
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from data import tiny
from small_model import save_small, small_config

import lamae_jax
from lamae_jax.benchmark import growth
from lamae_jax.command import read_command
from lamae_jax.config import flat
from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.main import main
from lamae_jax.model.presets import preset
from lamae_jax.signal.contract import SignalContract

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "configs").glob("*.py"))
START = "python -m lamae_jax.main "

# What makes a task small, whatever the page says.
MODEL = {"width": 16, "heads": 2, "encoder_depth": 1, "latent_depth": 1, "decoder_width": 16, "decoder_heads": 2}
PRETRAINING = {"steps": 2, "dtype": "float32", "batch_size": 8, "eval_records": 8, "data.simulated_patients": 60, **{
    f"model.{name}": size for name, size in MODEL.items()}}  # fmt: skip
TUNING = {"steps": 2, "eval_every": 1}
STUDY = {"batch_size": 8, "resamples": 20} | {f"pretrain.{name}": value for name, value in PRETRAINING.items()}
SMALL = {
    "prepare": {"workers": 1},
    "labels": {"icd10.min_count": 1},
    "pretrain": PRETRAINING,
    "probe": {"batch_size": 8, "resamples": 20, "icd10.min_count": 5},
    "finetune": {"batch_size": 8, "resamples": 20, **TUNING},
    "label_efficiency": {"sizes": "20,0", "draws": 1, "resamples": 20, "batch_size": 8, "modes": "linear", "icd10.min_count": 5},
    "scaling": STUDY | {"sizes": "0", "icd10.min_count": 5},
    "study": STUDY | {"icd10.min_count": 5, "systems": "lamae,independent", "modes": "linear", **{
        f"tuning.{name}": value for name, value in TUNING.items()}},
    "embed": {"batch_size": 8, "workers": 1},
    "explain": {"batch_size": 8, "resamples": 20},
    "benchmark": {"rounds": 1, "seconds": 0.01, "presets": "nano", "batch_sizes": "2", "matmul": 64},
}  # fmt: skip
# What stands for the places that a page leaves to its reader, by the field that it is given to.
PLACES = {
    "--config.data.store=DIR": "--config.data.store=stores/ptb_xl100",
    "--config.pretrain.data.store=DIR": "--config.pretrain.data.store=stores/ptb_xl100",
    "--config.source=DIR": "--config.source=PTB_XL",
    "--config.store=DIR": "--config.store=new",
    "prepare.py:SOURCE": "prepare.py:wfdb",
    "--config.record=ID": "--config.record=6",
    "--config.record=6552": "--config.record=6",
}


# What a task leaves in its workdir: files and folders, none of them empty.
SCORED = "results.csv predictions.npz report.html summary.json figures"
LEFT = {
    "prepare": "summary.json",
    "prepare store": "manifest.json records.parquet rejected.csv shards",
    "labels": "labels.csv report.txt summary.json",
    "pretrain": "metrics.jsonl summary.json figures/reconstruction.png figures/curve.png checkpoints tensorboard "
    "model/config.json model/params.safetensors model/pretraining_records.npy model/README.md",
    "probe": f"{SCORED} model/config.json model/head.safetensors model/README.md",
    "finetune": f"{SCORED} model/config.json model/head.safetensors model/README.md",
    "label_efficiency": SCORED,
    "scaling": SCORED,
    "study": f"{SCORED} pretrain",
    "study ptb_xl": f"results.csv report.html summary.json pretrain {' '.join(f'ptbxl_all/{name}' for name in SCORED.split())}",
    "embed": "embeddings.parquet rejected.csv summary.json",
    "explain": "report.html summary.json alterations.csv attention.csv hidden.csv figures/robustness.png figures/robustness.svg",
    "explain record": "report.html summary.json figures/attention_rollout.png figures/attention_rollout.svg",
    "benchmark": "benchmark.json",
    "benchmark growth": "growth.json",
    "benchmark evaluation": "evaluation.json",
}
# Fields whose value is a place: any other would be as good.
WHERE = ("model", "models", "source", "store", "data.store", "pretrain.data.store", "table", "record")


def shown(text: str) -> list[str]:
    """The commands that a page shows on lines of their own."""
    found = re.findall(rf"^[ ]*(?:[^\n`]* && )?{re.escape(START)}(.*)$", text.replace("\\\n", " "), flags=re.MULTILINE)
    return [" ".join(shlex.split(line, comments=True)) for line in found if "TASK" not in line]


def commands() -> list[tuple[str, str]]:
    """The name of the page and the command, each command once."""
    found: dict[str, str] = {}
    for page in PAGES:
        for command in shown(page.read_text()):
            found.setdefault(command, page.name)
    for recipe in RECIPES:
        for command in shown(recipe.read_text()):
            if not any(fields(command) <= fields(other) for other in found):
                found[command] = recipe.name
    return [(page, command) for command, page in found.items()]


def fields(command: str) -> set[str]:
    """What a command asks for, as far as it is neither a place nor replaced to make it small."""
    words = command.split()
    task = words[0].removeprefix("--config=configs/").partition(".")[0]
    named = [(word, *word.removeprefix("--config.").split("=", 1)) for word in words[1:]]
    kept = {name if name in WHERE else word for word, name, _ in named if name not in SMALL[task]}
    return {words[0]} | kept - {"--workdir"}


def mentions() -> list[list[str]]:
    """Recipes in running text, tables and comments, each with the fields that stand behind it."""
    found = []
    for page in (*PAGES, *RECIPES):
        text = page.read_text().replace("\\\n", " ")
        found += re.findall(
            r"(?:--config=)?(configs/\w+\.py(?::\w+(?:,\w+)*)?)((?:[ ]+--config\.[\w.]+=[^\s`]+)*)", text
        )
    return [list(each) for each in dict.fromkeys(found) if each[0] != "configs/TASK.py"]


def test_recipes_variants_and_fields_that_are_named_anywhere_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert len(mentions()) > 40
    for recipe, behind in mentions():
        command = read_command([f"--config={begun(recipe)}", *behind.split()])
        assert f"configs/{command.task}.py" == recipe.partition(":")[0]
    configs = [read_command([f"--config={begun(f'configs/{recipe.name}')}"]).config for recipe in RECIPES]
    known = {f"--config.{name}" for config in configs for name in flat(config)}
    for page in PAGES:
        named = re.findall(r"`(--config\.[\w.]+)", page.read_text())
        assert set(named) - known <= {"--config.FIELD"}, page.name


def begun(recipe: str) -> str:
    """A recipe that can be read: prepare has no variant to begin with."""
    recipe = recipe.replace(":SOURCE", "")
    return f"{recipe}:wfdb" if recipe == "configs/prepare.py" else recipe


LAUNCHED = re.findall(r"\| `((?:\w+=\w+ )?launch/[^`]+)` \|", (ROOT / "docs/running.md").read_text())


@pytest.mark.parametrize("line", LAUNCHED)
def test_a_line_of_the_launch_table_shows_what_it_would_run(line: str) -> None:
    line = line.replace(
        "FLAGS...", "--config.seed=1" if "rehearsal" in line else "--config=configs/pretrain.py:base --config.seed=1"
    )
    line = re.sub(r"(launch/\w+\.sh)", r"bash \1 --dry-run", line.replace("--workdir=DIR", "--workdir=/mnt/nfs/run"))
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lamae_jax.main" in done.stdout and (
        "--config.seed=1" in done.stdout or "prepare.py:mimic_iv_ecg" in done.stdout
    )


def test_there_is_a_launch_line_for_every_script() -> None:
    assert {re.findall(r"launch/\w+\.sh", line)[0] for line in LAUNCHED} == {
        f"launch/{p.name}" for p in ROOT.glob("launch/*.sh")
    }


def test_the_files_that_a_recipe_promises_are_looked_for() -> None:
    for recipe in RECIPES:
        text = ast.get_docstring(ast.parse(recipe.read_text())) or ""
        promise = re.search(r"(?:run's\s+folder\s+go|Writes)\s(.*)", text, flags=re.DOTALL)
        names = set(re.findall(r"\b\w+\.(?:csv|npz|json|html|txt|parquet)\b", promise[1] if promise else ""))
        looked_for = " ".join(files for task, files in LEFT.items() if task.split()[0] == recipe.stem).split()
        assert names <= set(looked_for), recipe.name


# The pieces of Python of each page.
PYTHON = {page.name: re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) for page in PAGES}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PTB-XL's and MIMIC-IV-ECG's layouts with findings in turn, stores of both at the pages' rates, and models."""
    world = tmp_path_factory.mktemp("world")
    (world / "configs").symlink_to(ROOT / "configs")
    statements = ("NORM", "IMI", "STTC", "LVH", "AFIB", "SR", "INVT")
    tiny.write_ptb_xl(world / "PTB_XL", 120)
    path = world / "PTB_XL/ptbxl_database.csv"
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row, found in zip(rows, np.random.default_rng(0).integers(len(statements), size=(len(rows), 2)), strict=True):
        row["scp_codes"] = str({statements[each]: 100.0 for each in found})
        row["filename_hr"] = row["filename_lr"]  # at 100 Hz, too: what a record says of itself counts
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (world / "PTB_XL/scp_statements.csv").write_text(
        ",description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass\n"
        "NORM,normal,1.0,,,NORM,NORM\nIMI,infarction,1.0,,,MI,IMI\nSTTC,st,1.0,1.0,,STTC,STTC\nLVH,lvh,1.0,,,HYP,LVH\n"
        "AFIB,fibrillation,,,1.0,,\nSR,sinus,,,1.0,,\nINVT,inverted,,1.0,,,\n"
    )
    (world / "CSV_FILES").mkdir()
    for number in range(6):  # of three patients, uV at 500 Hz
        np.savetxt(world / f"CSV_FILES/p{7 + number // 2}_{number % 2 + 1}.csv", tiny.signal_of(number, 5000).T, "%d", ",",
                   header=",".join(tiny.LEADS), comments="")  # fmt: skip
    (world / "my_labels.csv").write_text("record_id,mine\n" + "".join(f"{n},{n // 3 % 2}\n" for n in range(1, 121)))
    listed, diagnosed = [], []
    for study in range(80):
        patient, place = divmod(study, 2)
        tiny.write_record(world / f"MIMIC/files/{study}/{study}", tiny.signal_of(study))
        listed.append([patient, study, f"files/{study}/{study}"])
        cell = "['I10', 'I509']" if patient % 2 else "['I4891']"
        fold = 0 if patient < 20 else 18 if patient < 30 else 19
        diagnosed.append([study, patient, cell, place, fold, fold, 50, "F"])
    columns = ["study_id", "subject_id", "all_diag_all", "ecg_no_within_stay", "fold", "strat_fold", "age", "gender"]
    for name, head, lines in (("record_list", ["subject_id", "study_id", "path"], listed),
                              ("records_w_diag_icd10", columns, diagnosed)):  # fmt: skip
        with open(world / f"MIMIC/{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([head, *lines])
    (world / "records_w_diag_icd10.csv").symlink_to(world / "MIMIC/records_w_diag_icd10.csv")
    (world / "store").symlink_to("stores/ptb_xl100")
    (world / "FOLDER_OF_WFDB_RECORDS").symlink_to(world / "PTB_XL")
    for kind, source, store, fs in (("ptb_xl", "PTB_XL", "ptb_xl", 250), ("ptb_xl", "PTB_XL", "ptb_xl100", 100),
                                    ("mimic_iv_ecg", "MIMIC", "mimic", 250)):  # fmt: skip
        prepare(
            PrepareConfig(kind, str(world / source), str(world / "stores" / store), fs, 10.0, "highpass_0.5", workers=1,
                          allow_upsampling=True, max_bad_fraction=0.0),
            world / f"prepared_{store}",
        )  # fmt: skip
    for seed, name in enumerate(("RUN", "RUN2", "runs/NAME")):
        save_small(world / name / "model", seed)
    # Of the sizes in SMALL: a run begins from it.
    pretrained = small_config(heads=2, decoder_heads=2, patch=20, positions="both")
    save_small(world / "runs/ptb_xl/model", config=pretrained)
    for name, depth in (
        ("runs/mimic", 1),
        ("runs/study/pretrain/lamae-0", 1),
        ("runs/study/pretrain/lamae_e_b-0", 1),
        ("runs/study/pretrain/mmvm-0-beta0.1", 0),
        ("runs/study/pretrain/independent-0", 0),
    ):
        config = small_config(samples=2500, patch=250, latent_depth=depth)
        save_small(world / name / "model", config=config, contract=SignalContract(fs=250))
    with contextlib.chdir(world):  # what the page's command prepares
        exec(compile(PYTHON["data.md"][0], "data.md", "exec"), {})
    return world


@pytest.mark.slow
@pytest.mark.parametrize("page, command", commands(), ids=[command[:70] for _, command in commands()])
def test_a_command_of_the_documents_does_what_it_says(
    page: str, command: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    words = command.split()
    config = re.match(r"--config=configs/(\w+)\.py:?(\S*)", words[0])
    assert config
    task = config[1]
    if task == "probe":  # the world's models but those in runs/study and runs/mimic are for 100 Hz
        words = [re.sub(r"stores/ptb_xl\b", "stores/ptb_xl100", word) for word in words]
    if task == "label_efficiency":
        words = [word.replace("stores/ptb_xl100", "stores/ptb_xl") for word in words]
    if task == "prepare":
        store = "stores/ptb_xl" if "verify_only" in command else f"{tmp_path}/store"
        words = [re.sub("(config.store=).*", rf"\1{store}", word) for word in words]
        words.append("--config.allow_upsampling=true")
    for place, stands_for in PLACES.items():
        words = [word.replace(place, stands_for) if word.endswith(place) or ".py:" in place else word for word in words]
    made = tmp_path / "run"
    replaced = SMALL[task]
    if config[2] == "evaluation":
        replaced = {"records": 500, "features": 5, "labels": 3, "test_records": 200, "test_labels": 4, "resamples": 20}
    if config[2] == "growth":
        replaced = {"records": 300, "rounds": 1, "seconds": 0.01}
        monkeypatch.setattr(growth, "STEPS", (growth.BASE | {"batch": 4, "patch": 250},))
        monkeypatch.setattr(growth, "BATCHES", 2)
        monkeypatch.setattr(growth, "preset", lambda name, **sizes: preset(name, **MODEL, **sizes))
    small = {f"--config.{name}": str(value) for name, value in replaced.items()} | {"--workdir": str(made)}
    if config[2] == "mimic" and task == "study":
        del small["--config.modes"]  # both, as Tables 1, 3 and 4 need them; elsewhere the cheaper one will do
    words = [word for word in words if word.split("=")[0] not in small]
    assert main([*words, *(f"{field}={value}" for field, value in small.items())]) == 0
    assert (made / "config.json").exists()
    other = f"{task} record" if "--config.record=" in command else f"{task} {config[2]}"
    left = [made / name for name in LEFT[other if other in LEFT else task].split()]
    if task == "prepare":
        left += [Path(store) / name for name in LEFT["prepare store"].split()]
    assert [str(path) for path in left if not filled(path)] == []


def filled(path: Path) -> bool:
    """Whether a file has anything in it, or a folder any such file."""
    return any(map(filled, path.iterdir())) if path.is_dir() else path.is_file() and path.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("page, block", [(page, n) for page, blocks in PYTHON.items() for n in range(len(blocks))])
def test_python_of_the_documents_runs(page: str, block: int, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's blocks in their order, with the names that it takes for granted."""
    monkeypatch.chdir(world)
    rng = np.random.default_rng(0)
    model = lamae_jax.load("runs/NAME/model")
    names = {"ecg": rng.normal(0, 0.3, (3, 5000)), "model": model, "bias": np.zeros(1, np.float32), "kernel": np.zeros(
        (16, 1), np.float32)} | {name: np.ones(16, np.float32) for name in ("mean", "scale", "fill")}  # fmt: skip
    code = PYTHON[page][block]
    if "program.bin" in code and not (world / "program.bin").exists():
        model.export(".", fs=500)
    exec(compile(code, f"{page}, block {block}", "exec"), names)
    if "made" in names:
        assert names["made"].cls.shape == (1, 16)
    if "out" in names:
        assert names["out"]["cls"].shape == (3, 16)
    if "mine" in names:
        due = model.embed(names["ecg"], fs=500, leads=names["leads"])
        np.testing.assert_allclose(names["mine"], due.cls, atol=1e-5)
        moved = np.abs(names["slope"][0]).max(axis=-1) > 0
        np.testing.assert_array_equal(moved, due.available[0])  # a lead that is not there moves nothing
    if "table" in names:
        assert names["first"].shape == (12, names["manifest"]["contract"]["fs"] * 10)
