"""Recordings as they might also have come: with leads missing, with the arm electrodes swapped, with noise.

A store is altered as it is read, before anything of the model: what encodes a store encodes an altered one. L leads, S samples.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lamae_jax.data.store import Store
from lamae_jax.signal.contract import LARGEST_COUNT
from lamae_jax.signal.leads import CHEST_LEADS, LIMB_LEADS

# Leads that smaller devices and published comparisons have (12, 6, 3 and 2: PhysioNet/CinC Challenge 2021; 8: those that are
# measured, of which the other four follow).
SUBSETS = {
    "8 leads": ("I", "II", *CHEST_LEADS),
    "6 limb leads": LIMB_LEADS,
    "3 leads": ("I", "II", "V2"),
    "2 leads": ("I", "II"),
}
# Right and left arm electrodes exchanged: I = LA - RA turns round, II = LL - RA and III = LL - LA change places, aVR and aVL
# too; aVF and the chest leads, against the mean of all three limbs, stay. Lead: where it comes from, with which sign.
ARMS_SWAPPED = {
    "I": ("I", -1),
    "II": ("III", 1),
    "III": ("II", 1),
    "aVR": ("aVL", 1),
    "aVL": ("aVR", 1),
    "aVF": ("aVF", 1),
}
SNRS = (20.0, 10.0, 5.0, 0.0)  # dB


@dataclass(frozen=True)
class Alteration:
    """What is done to every recording: `leads` that are left, arm electrodes `swapped`, white noise at `snr` dB in each lead.

    The noise of a recording is the same at every `snr`, but for its size.
    """

    name: str
    leads: tuple[str, ...]
    swapped: bool = False
    snr: float | None = None

    def counts(self, counts: np.ndarray, rows: np.ndarray, leads: Sequence[str], seed: int) -> np.ndarray:
        """`counts [n, L, S]` int16 of the store's `rows` [n] as altered; leads that are taken away are left to `Altered`."""
        if self.swapped:
            changed = counts.copy()
            for lead, (source, sign) in ARMS_SWAPPED.items():
                changed[:, leads.index(lead)] = sign * counts[:, leads.index(source)]
            counts = changed
        if self.snr is None:
            return counts
        noise = np.stack([np.random.default_rng([seed, int(row)]).standard_normal(counts.shape[1:]) for row in rows])
        deviation = counts.std(axis=2, keepdims=True) * 10 ** (-self.snr / 20)
        noisy = np.rint(counts + deviation * noise)
        return np.clip(noisy, -LARGEST_COUNT, LARGEST_COUNT).astype(np.int16)


class Altered(Store):
    """A store whose recordings are read with an alteration."""

    def __init__(self, store: Store, alteration: Alteration, seed: int):
        super().__init__(store.folder, store.manifest, store.contract)
        self.split, self.alteration, self.seed, self.original = store.split, alteration, seed, store

    @cached_property
    def hash(self) -> str:
        """The identity of what is read: the store's, the alteration's and the noise's."""
        return hashlib.sha256(f"{self.original.hash} {self.alteration} {self.seed}".encode()).hexdigest()

    @cached_property
    def available(self) -> np.ndarray:
        """As the store's, less the leads that were taken away."""
        leads = self.contract.leads
        available = self.original.available
        if self.alteration.swapped:
            source = [leads.index(ARMS_SWAPPED.get(lead, (lead, 1))[0]) for lead in leads]
            available = available[:, source]
        return available & np.isin(leads, self.alteration.leads)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """As the store's, altered."""
        return self.alteration.counts(super().read(rows), np.asarray(rows), self.contract.leads, self.seed)


def removals(leads: Sequence[str]) -> dict[str, Alteration]:
    """Each lead taken away from a recording of `leads`."""
    return {lead: Alteration(f"without {lead}", tuple(x for x in leads if x != lead)) for lead in leads}


def solos(leads: Sequence[str]) -> dict[str, Alteration]:
    """Each lead left alone."""
    return {lead: Alteration(f"{lead} alone", (lead,)) for lead in leads}


def hardships(leads: Sequence[str]) -> list[Alteration]:
    """The rows of the robustness matrix: fewer leads, arm electrodes swapped (where all limb leads are there), noise."""
    found = [Alteration(name, some) for name, some in SUBSETS.items() if set(some) < set(leads)]
    if "I" in leads and len(leads) > 1:
        found.append(solos(leads)["I"])
    if set(LIMB_LEADS) <= set(leads):
        found.append(Alteration("arm electrodes swapped", tuple(leads), swapped=True))
    return found + [Alteration(f"noise, {snr:g} dB", tuple(leads), snr=snr) for snr in SNRS]
