"""How many cores there are is asked in one place, on machines that can't say which of them are ours, too; so is what they are."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from lamae_jax.command import read_command
from lamae_jax.machine import cores, processor

EVERY_DEFAULT = ["--config=configs/prepare.py:wfdb", "--config=configs/embed.py"]


@pytest.mark.parametrize("config_file", EVERY_DEFAULT)
def test_a_process_uses_the_cores_that_it_was_given(config_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 7}, raising=False)
    assert cores() == 3 == read_command([config_file]).config["workers"]


@pytest.mark.parametrize("config_file", EVERY_DEFAULT)
def test_where_there_is_no_telling_it_uses_all(config_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == 6 == read_command([config_file]).config["workers"]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_a_result_names_the_processor_and_not_its_family_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "processor\t: 0\nmodel name\t: Lovelace 7 @ 2.0GHz\n\nprocessor\t: 1\nmodel name\t: Lovelace 7 @ 2.0GHz\n"
    monkeypatch.setattr(Path, "read_text", lambda self: told)
    assert processor() == "Lovelace 7 @ 2.0GHz"


@pytest.mark.parametrize("told", ["processor\t: 0\nBogoMIPS\t: 50.00\n", None], ids=["says nothing", "no such file"])
def test_where_there_is_no_name_it_says_what_it_can(told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Path) -> str:
        if told is None:
            raise FileNotFoundError
        return told

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert processor() == "aarch64"
