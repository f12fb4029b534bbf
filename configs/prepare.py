"""Prepare a store from recordings.

    python -m lamae_jax.main --config=configs/prepare.py:SOURCE --config.source=DIR --config.store=DIR

SOURCE is mimic_iv_ecg, ptb_xl, wfdb (any folder of WFDB records), arrays (.npy, .npz, .h5 and a CSV of metadata) or simulated.
Safe to kill and to run again. What could not be used is in STORE/rejected.csv, with the reason. Rates: docs/speed.md.
On a cluster: one job for each i with --config.shard=i/n, then one with --config.merge=true (launch/prepare_array.sh).
"""

import difflib

from ml_collections import ConfigDict

from lamae_jax.errors import UserError
from lamae_jax.machine import cores

SOURCES = ("mimic_iv_ecg", "ptb_xl", "wfdb", "arrays", "simulated")


def get_config(variant: str = "") -> ConfigDict:
    """`variant` is the kind of source."""
    if variant not in SOURCES:
        near = difflib.get_close_matches(variant, SOURCES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(SOURCES)}"
        raise UserError(f"--config=configs/prepare.py:{variant}: no source {variant!r}; {hint}")
    c = ConfigDict()
    c.task = "prepare"
    c.variant = variant
    c.source = ""  # folder of the recordings; for simulated ones, where they are written
    c.store = ""  # folder of the store
    c.name = ""  # what the source is called, so that patient 1 of two hospitals stays two people; empty: SOURCE
    c.fs = 250  # Hz
    c.seconds = 10.0  # shorter recordings are rejected
    c.band = "highpass_0.5"  # or none
    c.long = "crop"  # longer recordings: crop (the middle) or windows (consecutive, each a record)
    c.workers = cores()  # processes; the store is the same for any number
    c.max_bad_fraction = 0.02  # more unreadable records than this is an error; absent ones don't count
    c.allow_upsampling = False  # take recordings of a lower rate than fs
    c.verify_only = False  # check the store's checksums and do nothing else
    c.shard = ""  # i/n: make only every n-th shard, from the i-th; for job arrays
    c.merge = False  # after all of them: make the tables and the manifest
    c.simulated_patients = 1000  # for simulated
    c.seed = 0  # for simulated
    return c
