"""The benchmark's file: its keys are a contract, its shares lie between 0 and 1, and no failure loses what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from data import tiny

from lamae_jax.benchmark import loading, preparing, suite
from lamae_jax.command import read_command
from lamae_jax.config import pretrain_config
from lamae_jax.errors import Stopped, UserError
from lamae_jax.main import main
from lamae_jax.model import presets

FEW = [f"--config.{name}={value}" for name, value in {"rounds": 1, "seconds": 0.01, "matmul": 64}.items()]
TWO = ["--config.presets=nano,nano", "--config.batch_sizes=2,4"]
ROW = {"preset", "batch_size", "dtype", "remat", "ecg_per_s", "flops_per_s", "peak_flops", "mfu", "compile_seconds"}


@pytest.fixture
def small_nano(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nano that compiles in seconds, a store of a few records, a few simulated recordings."""
    sizes = {"width": 16, "heads": 2, "encoder_depth": 1, "latent_depth": 1, "decoder_width": 16, "decoder_heads": 2}
    import dataclasses

    small = dataclasses.replace(presets.PRESETS["nano"], **sizes, decoder_depth=1)
    monkeypatch.setitem(presets.PRESETS, "nano", small)
    monkeypatch.setattr(loading, "RECORDS", 160)
    monkeypatch.setattr(preparing, "PATIENTS", 3)


@pytest.mark.slow
def test_it_measures_step_features_loader_and_prepare_and_writes_them_down(small_nano: None, tmp_path: Path) -> None:
    flags = [*FEW, *TWO, "--config.remat=nano", "--config.profile=True"]
    assert main(["--config=configs/benchmark.py", f"--workdir={tmp_path}", *flags]) == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(result) == {"machine", "train", "features", "failed", "peak_flops", "loader", "prepare"}
    assert [(row["preset"], row["batch_size"], row["dtype"]) for row in result["train"]] == [
        ("nano", 2, "float32"),
        ("nano", 4, "float32"),
    ]
    for row in result["train"]:
        assert set(row) == ROW | {"memory_bytes"} and row["remat"]
        assert row["mfu"] > 0 and row["flops_per_s"] > 0 and row["ecg_per_s"] > 0 and row["compile_seconds"] > 0
        assert row["memory_bytes"] > 2 * 12 * 2500 * 2  # the batch alone is so much
    assert result["features"][0]["ecg_per_s"] > 0 and result["failed"] == []
    assert all(rate > 0 for rate in result["loader"]["records_per_s"].values())
    assert [(row["preset"], row["batch_size"]) for row in result["loader"]["fed"]] == [("nano", 2), ("nano", 4)]
    assert all(0 <= row["stall_share"] <= 1 for row in result["loader"]["fed"])
    assert result["prepare"]["files"] == preparing.SIMULATED and result["prepare"]["records"] >= 3
    assert set(result["prepare"]["records_per_s"]) == {"wfdb_rdrecord", "prepare", "prepare_without_band"}
    assert all(rate > 0 for rate in result["prepare"]["records_per_s"].values())
    assert all(list((tmp_path / "profile" / name).rglob("*.xplane.pb")) for name in ("nano-2", "nano-4"))
    assert not list(tmp_path.glob("store-*")) + list(tmp_path.glob("recordings-*"))  # what was made is gone


def test_prepare_is_measured_on_ones_own_recordings_those_left_out_that_it_rejects(tmp_path: Path) -> None:
    for number in range(3):
        tiny.write_record(tmp_path / f"files/{number}", tiny.signal_of(number))
    (tmp_path / "files/0.dat").write_bytes(b"")
    result = preparing.preparing(tmp_path / "work", str(tmp_path / "files"), 1)
    assert result["files"] == str(tmp_path / "files") and result["records"] == 2
    for number in range(3):
        (tmp_path / f"files/{number}.dat").write_bytes(b"")
    with pytest.raises(UserError, match=f"source={tmp_path}/files: none of the first"):
        preparing.preparing(tmp_path / "work", str(tmp_path / "files"), 1)


class MadeCase:
    """Stands for a compiled case; batches of 4 don't fit its memory. Notes how many rows are on disk when it begins."""

    written: list[int] = []
    folder: Path

    def __init__(self, model: Any, batch_size: int):
        file = self.folder / "benchmark.json"
        self.written.append(len(json.loads(file.read_text())["train"]) if file.exists() else 0)
        if batch_size == 4:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nAnd much more.")
        self.model, self.records = model, {"counts": np.zeros((batch_size, 12, 10))}
        self.flops, self.compile_seconds, self.memory_bytes = 1.0, 1.0, 1

    def train(self, seconds: float) -> float:
        return 1.0

    def extract(self) -> int:
        return 0


def test_a_case_that_fails_is_one_line_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(MadeCase, "folder", tmp_path, raising=False)
    monkeypatch.setattr(suite, "Case", MadeCase)
    for room in ("loading", "preparing"):
        monkeypatch.setattr(suite, room, lambda *_: {})
    three = ["--config.presets=nano,nano,nano", "--config.batch_sizes=2,4,6"]
    assert main(["--config=configs/benchmark.py", f"--workdir={tmp_path}", *FEW, *three]) == 0
    words = "JaxRuntimeError: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."
    assert "nano         4 failed: " + words in capsys.readouterr().out.splitlines()
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert result["failed"] == [{"preset": "nano", "batch_size": 4, "error": words}]
    assert [row["batch_size"] for row in result["train"]] == [2, 6] and "loader" in result
    assert MadeCase.written == [0, 1, 1]  # each row is on disk before the next case is begun


@pytest.mark.parametrize("error, code", [(MemoryError(), 2), (Stopped("by SIGTERM"), 75)])
def test_without_a_case_that_works_it_ends_with_one_line(
    error: Exception, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def case(model: Any, batch_size: int) -> Any:
        raise error

    monkeypatch.setattr(suite, "Case", case)
    assert main(["--config=configs/benchmark.py", f"--workdir={tmp_path}", *FEW, *TWO]) == code
    if code == 2:
        assert "presets=nano,nano: no case could be measured" in capsys.readouterr().err
        assert [row["error"] for row in json.loads((tmp_path / "benchmark.json").read_text())["failed"]] == [
            "MemoryError: "
        ] * 2


def test_an_accelerator_is_measured_on_the_models_that_are_trained_and_profiled() -> None:
    measured = suite.BenchmarkConfig(**read_command(["--config=configs/benchmark.py:accelerator"]).config)
    assert measured.profile and measured.cases
    for name, _ in measured.cases:
        command = ["--config.data.store=somewhere", f"--config=configs/pretrain.py:{name}"]
        assert measured.model(name) == pretrain_config(read_command(command).config).step.model


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("presets", "nano,huge", "presets=nano,huge: huge must be one of"),
        ("batch_sizes", "16", "batch_sizes=16: must be one whole number for each of presets=nano,tiny,small"),
        ("remat", "nano,huge", "remat=nano,huge: huge must be one of"),
        ("rounds", "0", "rounds, seconds and matmul must be above 0"),
    ],
)
def test_mistakes_are_one_line(
    field: str, value: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config=configs/benchmark.py", f"--workdir={tmp_path}", f"--config.{field}={value}"]) == 2
    assert words in capsys.readouterr().err
