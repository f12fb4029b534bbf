"""The twelve leads: their names, their order, and the laws that bind the six limb leads.

Leads are known by name, never by position: MIMIC-IV-ECG lists aVF before aVL, PTB-XL writes AVR.
"""

from __future__ import annotations

import numpy as np

STANDARD_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LIMB_LEADS, CHEST_LEADS = STANDARD_LEADS[:6], STANDARD_LEADS[6:]

# Einthoven (III = II - I) and Goldberger: each limb lead from the two measured ones. Row: limb lead; columns: I, II.
LIMB_PROJECTION = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]])  # [6, 2]
LIMB_PROJECTION.setflags(write=False)

_BY_LOWER_CASE = {name.lower(): name for name in STANDARD_LEADS}


def canonical_lead(name: str) -> str | None:
    """The standard spelling of a lead's name in any case, with blanks around it; None when it is not one of the twelve."""
    return _BY_LOWER_CASE.get(name.strip().lower())
