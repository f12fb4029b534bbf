"""Looking at pages with a browser notices what is wrong with them; the reports are looked at where they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import look_at

from lamae_jax.evaluate.report import page, paragraph


@pytest.mark.slow
def test_a_page_that_is_whole(tmp_path: Path) -> None:
    page(tmp_path / "page.html", "A page", [paragraph("with words")])
    seen = look_at(tmp_path / "page.html", tmp_path / "browser")
    assert (seen.images, seen.of, seen.overhang, seen.console) == (0, 0, 0, ())
    assert 0 < seen.inked < 0.01


@pytest.mark.slow
def test_a_broken_image_a_script_that_fails_and_a_line_too_wide_are_seen(tmp_path: Path) -> None:
    broken = [
        '<img src="data:image/png;base64,AAAA">',
        "<script>nobody.knows()</script>",
        '<div style="width: 5000px">x</div>',
    ]
    page(tmp_path / "page.html", "A page", broken)
    seen = look_at(tmp_path / "page.html", tmp_path / "browser")
    assert (seen.images, seen.of) == (0, 1) and seen.overhang > 3000
    assert len(seen.console) == 1 and "nobody is not defined" in seen.console[0]
