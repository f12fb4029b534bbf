"""Real recordings of PTB-XL and in MIMIC-IV-ECG's layout, where they are at hand, through the model that is kept in tests/."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lamae_jax
from lamae_jax.data.sources.wfdb_files import find_records, read_record
from lamae_jax.errors import UserError

GOLDEN = Path(__file__).resolve().parent / "golden"


def test_order_case_and_units_do_not_show_and_the_other_rate_hardly(real_ptb_xl: Path) -> None:
    model, rng = lamae_jax.load(GOLDEN), np.random.default_rng(0)
    high = find_records(real_ptb_xl / "records500")[:8]
    low = [path.replace("_hr", "_lr") for path in high]
    due = model.embed([real_ptb_xl / "records100" / path for path in low]).cls
    read = [read_record(real_ptb_xl / "records100", path) for path in low]
    orders = [rng.permutation(12) for _ in read]
    shuffled = [record.signal[order].astype(np.float64) * 1e3 for record, order in zip(read, orders, strict=True)]
    names = [[record.leads[i].swapcase() for i in order] for record, order in zip(read, orders, strict=True)]
    np.testing.assert_allclose(model.embed(shuffled, 100, names, "uV").cls, due, rtol=0, atol=1e-6)
    again = model.embed([real_ptb_xl / "records500" / path for path in high]).cls
    a, b = again - again.mean(0), due - due.mean(0)
    np.testing.assert_array_equal(np.linalg.norm(a[:, None] - b[None], axis=-1).argmin(axis=1), np.arange(len(high)))


def test_every_record_of_the_faulty_archive_is_embedded_or_refused_in_one_line(mimic_shaped: Path) -> None:
    model, refused, made = lamae_jax.load(GOLDEN), 0, 0
    for path in find_records(mimic_shaped)[::3]:
        try:
            assert np.isfinite(model.embed(mimic_shaped / path).cls).all()
            made += 1
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert made and refused
