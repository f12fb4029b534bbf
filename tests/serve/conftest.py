"""Tests of this room use the small sources that the tests of `data` write."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data"))
