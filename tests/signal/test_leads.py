"""Leads are known by name, and the limb leads obey Einthoven and Goldberger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamae_jax.signal.leads import CHEST_LEADS, LIMB_LEADS, LIMB_PROJECTION, STANDARD_LEADS, canonical_lead


@pytest.mark.parametrize(
    "written, lead",
    [("I", "I"), ("iii", "III"), ("AVR", "aVR"), ("avl", "aVL"), (" aVF ", "aVF"), ("v1", "V1"), ("V6\t", "V6")],
)
def test_case_and_blanks_around_a_name_do_not_matter(written: str, lead: str) -> None:
    assert canonical_lead(written) == lead


@pytest.mark.parametrize("written", ["", "X", "V7", "V1R", "MLII", "a VR", "1", "RESP"])
def test_other_channels_are_no_leads(written: str) -> None:
    assert canonical_lead(written) is None


def test_the_twelve_are_six_limb_and_six_chest_leads() -> None:
    assert LIMB_LEADS + CHEST_LEADS == STANDARD_LEADS
    assert LIMB_LEADS == ("I", "II", "III", "aVR", "aVL", "aVF")
    assert CHEST_LEADS == ("V1", "V2", "V3", "V4", "V5", "V6")


def test_limb_leads_follow_from_i_and_ii_in_real_recordings(real_ptb_xl: Path) -> None:
    # Electrode potentials define the leads; three potentials leave two free ones, so all six are known from I and II.
    checked = 0
    for file in sorted(real_ptb_xl.glob("records100/*/*.dat"))[:20]:
        counts = np.fromfile(file, "<i2").reshape(-1, 12).T[:6]  # 1 uV a count
        error = np.abs(LIMB_PROJECTION @ counts[:2] - counts)
        assert np.median(error, axis=1).max() <= 2, file.name
        checked += 1
    assert checked == 20
