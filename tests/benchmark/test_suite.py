"""The benchmark's file: its keys are a contract, its shares lie between 0 and 1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamae_jax.benchmark import loading
from lamae_jax.main import main
from lamae_jax.model import presets


@pytest.fixture
def small_nano(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nano that compiles in seconds, and a store of a few records."""
    sizes = {"width": 16, "heads": 2, "encoder_depth": 1, "latent_depth": 1, "decoder_width": 16, "decoder_heads": 2}
    import dataclasses

    small = dataclasses.replace(presets.PRESETS["nano"], **sizes, decoder_depth=1)
    monkeypatch.setitem(presets.PRESETS, "nano", small)
    monkeypatch.setattr(loading, "RECORDS", 160)


def test_it_measures_step_features_and_loader_and_writes_them_down(small_nano: None, tmp_path: Path) -> None:
    fields = {"presets": "nano,nano", "batch_sizes": "2,4", "rounds": 1, "seconds": 0.01, "matmul": 64}
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    assert main(["--config=configs/benchmark.py", f"--workdir={tmp_path}", *flags]) == 0
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(result) == {"machine", "peak_flops", "train", "features", "loader"}
    assert [(row["preset"], row["batch_size"], row["dtype"]) for row in result["train"]] == [
        ("nano", 2, "float32"),
        ("nano", 4, "float32"),
    ]
    for row in result["train"]:
        assert row["mfu"] > 0 and row["flops_per_s"] > 0 and row["ecg_per_s"] > 0 and row["compile_seconds"] > 0
        assert row["memory_bytes"] > 2 * 12 * 2500 * 2  # the batch alone is so much
    assert result["features"][0]["ecg_per_s"] > 0
    assert 0 <= result["loader"]["stall_share"] <= 1
    assert not list(tmp_path.glob("store-*"))  # the made store is gone


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("presets", "nano,huge", "presets=nano,huge: huge must be one of"),
        ("batch_sizes", "16", "batch_sizes=16: must be one whole number for each of presets=nano,tiny,small"),
        ("rounds", "0", "rounds, seconds and matmul must be above 0"),
    ],
)
def test_mistakes_are_one_line(
    field: str, value: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config=configs/benchmark.py", f"--workdir={tmp_path}", f"--config.{field}={value}"]) == 2
    assert words in capsys.readouterr().err
