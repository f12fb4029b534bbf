"""Every command and every piece of Python that the README and docs/ show is run, in a small world that has what they name.

The command is the page's own; fields behind it make it small. Left out are installing and testing, which .ci/run does, TPU
programs and growth (tests/benchmark/), and the launch scripts (tests/test_launch.py).
"""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from data import tiny
from small_model import save_small, small_config

import lamae_jax
from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.main import main
from lamae_jax.signal.contract import SignalContract

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    "scaling": STUDY | {"sizes": "20,0", "icd10.min_count": 5},
    "study": STUDY | {"icd10.min_count": 5, "systems": "lamae,independent", "modes": "linear"},
    "embed": {"batch_size": 8, "workers": 1},
    "explain": {"batch_size": 8, "resamples": 20},
    "benchmark": {"rounds": 1, "seconds": 0.01, "presets": "nano", "batch_sizes": "2", "matmul": 64},
}  # fmt: skip
# What stands for the places that a page leaves to its reader, by the field that it is given to.
PLACES = {
    "--config.data.store=DIR": "--config.data.store=stores/ptb_xl100",
    "--config.source=DIR": "--config.source=PTB_XL",
    "--config.store=DIR": "--config.store=new",
    "prepare.py:SOURCE": "prepare.py:wfdb",
    "--config.record=ID": "--config.record=6",
    "--config.record=6552": "--config.record=6",
}


def commands() -> list[tuple[str, str]]:
    """The name of the page and the command, each command once."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(rf"^[ ]*(?:[^\n`]* && )?{re.escape(START)}(.*)$", text, flags=re.MULTILINE):
            words = shlex.split(line, comments=True)
            if "TASK" not in line and "growth" not in line:
                found.setdefault(" ".join(words), page.name)
    return [(page, command) for command, page in found.items()]


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
    for seed, name in enumerate(("RUN", "RUN2", "runs/NAME", "runs/ptb_xl")):
        save_small(world / name / "model", seed)
    for name, depth in (
        ("runs/mimic", 1),
        ("runs/study/pretrain/lamae-0", 1),
        ("runs/study/pretrain/independent-0", 0),
    ):
        config = small_config(samples=2500, patch=250, latent_depth=depth)
        save_small(world / name / "model", config=config, contract=SignalContract(fs=250))
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
    if task in ("probe", "study") or "stores/ptb_xl" in command and config[2].endswith("hz100"):
        words = [word.replace("stores/ptb_xl", "stores/ptb_xl100") for word in words]
    if task == "prepare":
        words = [re.sub("(config.store=).*", rf"\1{tmp_path}/store", word) for word in words]
        words.append("--config.allow_upsampling=true")
    for place, stands_for in PLACES.items():
        words = [word.replace(place, stands_for) if word.endswith(place) or ".py:" in place else word for word in words]
    made = tmp_path / "run"
    small = {f"--config.{name}": str(value) for name, value in SMALL[task].items()} | {"--workdir": str(made)}
    words = [word for word in words if word.split("=")[0] not in small]
    assert main([*words, *(f"{field}={value}" for field, value in small.items())]) == 0
    assert (made / "config.json").exists() and len(list(made.iterdir())) > 1


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
    if "table" in names:
        assert names["first"].shape == (12, names["manifest"]["contract"]["fs"] * 10)
