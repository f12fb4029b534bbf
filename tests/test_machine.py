"""How many cores there are is asked in one place, on machines that can't say which of them are ours, too."""

from __future__ import annotations

import os

import pytest

from lamae_jax.command import read_command
from lamae_jax.machine import cores

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
