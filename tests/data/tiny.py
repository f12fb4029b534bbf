"""A small made source in PTB-XL's layout: quick to write, quick to prepare, with a few records that can't be used."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from lamae_jax.data.prepare import PrepareConfig

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
FS = 100
SAMPLES = 1000


def signal_of(number: int, samples: int = SAMPLES) -> np.ndarray:
    """int16 [12, samples] in uV, another for each number."""
    rng = np.random.default_rng(number)
    t = np.arange(samples) / FS
    rows = [900 * np.sin(2 * np.pi * (1 + lead / 12) * t + number) + rng.normal(0, 40, samples) for lead in range(12)]
    return np.round(rows).astype(np.int16)


def write_record(path: Path, signal: np.ndarray) -> None:
    """WFDB format 16 with PTB-XL's header; `path` has no extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".dat").write_bytes(signal.T.astype("<i2").tobytes())
    lines = [f"{path.name} 12 {FS} {signal.shape[1]}"]
    lines += [f"{path.name}.dat 16 1000.0(0)/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    path.with_suffix(".hea").write_text("\n".join(lines) + "\n")


def write_ptb_xl(
    folder: Path, count: int, absent: tuple[int, ...] = (), cut_short: tuple[int, ...] = (), seconds: int = 10
) -> Path:
    """Records 1 to `count`: two a patient, folds 1 to 10 in turn by patient; some absent, some with half a signal file."""
    rows = []
    for number in range(1, count + 1):
        patient = (number - 1) // 2
        path = f"records100/00000/{number:05d}_lr"
        rows.append(
            {
                "ecg_id": number,
                "patient_id": f"{1000 + patient}.0",
                "age": 40 + number % 50,
                "sex": number % 2,
                "scp_codes": "{'NORM': 100.0}",
                "strat_fold": patient % 10 + 1,
                "filename_lr": path,
                "filename_hr": path.replace("100", "500").replace("_lr", "_hr"),
            }
        )
        if number in absent:
            continue
        write_record(folder / path, signal_of(number, FS * seconds))
        if number in cut_short:
            dat = (folder / path).with_suffix(".dat")
            dat.write_bytes(dat.read_bytes()[: dat.stat().st_size // 2])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "ptbxl_database.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def config(source: Path, store: Path, **changes: object) -> PrepareConfig:
    """A configuration for such a source: 100 Hz, no filter, so that what is stored is what was written."""
    values: dict[str, object] = {
        "kind": "ptb_xl",
        "source": str(source),
        "store": str(store),
        "fs": FS,
        "seconds": 10.0,
        "band": "none",
        "long": "crop",
        "workers": 1,
        "max_bad_fraction": 0.5,
        "allow_upsampling": False,
        "verify_only": False,
        "shard": "",
        "merge": False,
        "simulated_patients": 10,
        "seed": 0,
    }
    return PrepareConfig(**(values | changes))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included, with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
