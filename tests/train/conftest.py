"""A small store to pretrain on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamae_jax.data.sources import Split
from lamae_jax.data.store import Store


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty made recordings at 100 Hz in PTB-XL's layout, prepared."""
    import sys

    sys.path.insert(0, str(Path(__file__).parent.parent / "data"))
    import tiny

    from lamae_jax.data.prepare import prepare

    folder = tmp_path_factory.mktemp("small")
    prepare(tiny.config(tiny.write_ptb_xl(folder / "source", 40), folder / "store"), folder / "run")
    assert isinstance(Store.open(folder / "store").split, Split)
    return folder / "store"
