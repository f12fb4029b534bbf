"""What is written while a run trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamae_jax.train.metrics import Metrics, read_metrics


@pytest.mark.parametrize("start, kept", [(0, []), (4, [0, 4])])
def test_a_run_goes_on_where_its_checkpoint_is_and_one_without_begins_again(
    start: int, kept: list[int], tmp_path: Path
) -> None:
    """Step 0 is measured again when there is no checkpoint, so its old line would stand there twice."""
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "val/loss": 1.0}) for step in (0, 4, 8)]
    path.write_text("\n".join(lines) + '\n{"step": 9, "tr')
    with Metrics(tmp_path, start, 10, 8, 1, writes=True):
        pass
    assert [line["step"] for line in read_metrics(path)] == kept
