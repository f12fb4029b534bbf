"""Alterations are what an electrode, a missing cable or noise would have done to the recording."""

from __future__ import annotations

import numpy as np
import pytest

from lamae_jax.data.prepare import PrepareConfig, prepare
from lamae_jax.data.store import Store
from lamae_jax.serve.explain.altered import SNRS, Alteration, Altered, hardships, removals, solos
from lamae_jax.signal.leads import LIMB_LEADS, STANDARD_LEADS

ROWS = np.array([0, 2])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("altered")
    config = PrepareConfig(kind="simulated", source="", store=str(folder / "store"), fs=100, seconds=4.0, workers=1,
                           band="none", max_bad_fraction=0.0, simulated_patients=3)  # fmt: skip
    prepare(config, folder / "prepared")
    return Store.open(folder / "store")


def potentials(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What three limb and six chest electrodes feel, in uV."""
    return {name: rng.normal(0, 500, 100) for name in ("RA", "LA", "LL", *STANDARD_LEADS[6:])}


def leads_of(felt: dict[str, np.ndarray]) -> np.ndarray:
    """The twelve leads by their definitions, [1, 12, S] int16."""
    ra, la, ll = felt["RA"], felt["LA"], felt["LL"]
    central = (ra + la + ll) / 3
    limb = [la - ra, ll - ra, ll - la, ra - (la + ll) / 2, la - (ra + ll) / 2, ll - (ra + la) / 2]
    chest = [felt[name] - central for name in STANDARD_LEADS[6:]]
    return np.rint(np.stack([*limb, *chest]))[None].astype(np.int16)


def test_swapped_arms_are_the_leads_that_swapped_electrodes_give() -> None:
    felt = potentials(np.random.default_rng(0))
    swapped = felt | {"RA": felt["LA"], "LA": felt["RA"]}
    alteration = Alteration("arm electrodes swapped", STANDARD_LEADS, swapped=True)
    made = alteration.counts(leads_of(felt), np.array([0]), STANDARD_LEADS, 0)
    assert np.abs(made - leads_of(swapped)).max() <= 1  # half microvolts are rounded to even
    assert np.abs(made - leads_of(felt)).max() > 100


def test_noise_has_the_power_that_was_asked_for(store: Store) -> None:
    clean = store.read(ROWS).astype(float)
    for snr in SNRS:
        noisy = Altered(store, Alteration("noise", STANDARD_LEADS, snr=snr), 0).read(ROWS)
        power = clean.var(axis=2), (noisy - clean).var(axis=2)
        np.testing.assert_allclose(10 * np.log10(power[0] / power[1]), snr, atol=1.5)


def test_noise_of_a_record_is_its_own_whatever_is_read_with_it(store: Store) -> None:
    noise = Alteration("noise", STANDARD_LEADS, snr=10.0)
    both, one = Altered(store, noise, 0).read(ROWS), Altered(store, noise, 0).read(ROWS[1:])
    np.testing.assert_array_equal(both[1], one[0])
    added = (both - store.read(ROWS)).reshape(2, -1)
    assert abs(np.corrcoef(added)[0, 1]) < 0.1
    assert np.any(Altered(store, noise, 1).read(ROWS) != both)


def test_a_lead_taken_away_is_marked_and_the_others_are_as_they_were(store: Store) -> None:
    altered = Altered(store, removals(STANDARD_LEADS)["V3"], 0)
    assert altered.available[:, 8].sum() == 0
    others = [lead for lead in range(12) if lead != 8]
    np.testing.assert_array_equal(altered.available[:, others], store.available[:, others])
    np.testing.assert_array_equal(altered.read(ROWS), store.read(ROWS))
    assert altered.split == store.split and altered.hash != store.hash
    assert solos(STANDARD_LEADS)["V3"].leads == ("V3",)


def test_a_store_is_known_by_what_is_done_to_it(store: Store) -> None:
    noise = [Alteration("noise", STANDARD_LEADS, snr=snr) for snr in SNRS]
    hashes = {
        Altered(store, each, seed).hash for each in (*noise, *removals(STANDARD_LEADS).values()) for seed in (0, 1)
    }
    assert len(hashes) == 2 * (len(SNRS) + 12)


def test_the_matrix_has_the_rows_that_the_leads_allow() -> None:
    names = [each.name for each in hardships(STANDARD_LEADS)]
    assert names == ["8 leads", "6 limb leads", "3 leads", "2 leads", "I alone", "arm electrodes swapped",
                     "noise, 20 dB", "noise, 10 dB", "noise, 5 dB", "noise, 0 dB"]  # fmt: skip
    limb = [each.name for each in hardships(LIMB_LEADS)]
    assert limb[:3] == ["2 leads", "I alone", "arm electrodes swapped"]
    assert [each.name for each in hardships(("V1",))] == names[-4:]
