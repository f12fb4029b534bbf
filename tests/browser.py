"""A page as a browser shows it: headless Chromium where one is installed, else the test is skipped."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

# Asked of the page itself, since an image that cannot be decoded is no error to the console.
QUESTION = """<script>addEventListener("load", () => { const all = [...document.images];
console.log("ASKED", all.filter((i) => i.complete && i.naturalWidth > 0).length, all.length,
document.documentElement.scrollWidth - innerWidth); });</script>"""


@dataclass(frozen=True)
class Seen:
    """`picture` [height, width, 3] from 0 to 1; `images` drawn `of` so many; `overhang`: pixels that stand out to the right;
    `console`: every line that the page's console printed."""

    picture: np.ndarray
    images: int
    of: int
    overhang: int
    console: tuple[str, ...]

    @property
    def inked(self) -> float:
        """The share of the picture that is not white."""
        return float((self.picture < 0.98).any(axis=-1).mean())


def look_at(page: Path, folder: Path) -> Seen:
    """Open a page that is one file; `folder` is for the browser's own."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium is installed to look at the page with: skipped")
    folder.mkdir(exist_ok=True)
    asked, picture = folder / "asked.html", folder / "picture.png"
    asked.write_text(page.read_text().replace("</body>", f"{QUESTION}</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
             "--virtual-time-budget=10000", "--window-size=1200,3000", f"--user-data-dir={folder / 'profile'}",
             f"--screenshot={picture}"]  # fmt: skip
    done = subprocess.run([browser, *flags, asked.as_uri()], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and picture.is_file(), done.stderr
    said = re.findall(r'CONSOLE.*?\] "(.*)", source: ', done.stderr)
    (answer,) = [line for line in said if line.startswith("ASKED")]
    images, of, overhang = map(int, answer.split()[1:])
    console = tuple(line for line in said if line != answer)
    return Seen(matplotlib.image.imread(picture)[..., :3], images, of, overhang, console)
