"""Explain: what a model looks at, and what it withstands.

    python -m lamae_jax.main --config=configs/explain.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.labels=ptbxl:super
    python -m lamae_jax.main --config=configs/explain.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.record=ID --config.hidden=V4

The first takes the test fold: lead importance by CLS's attention and by taking leads away, AUROC with fewer leads, swapped arm
electrodes and noise, each lead drawn from the others, and a map of the records. The second takes one record: attention on its
ECG, leads drawn from the others, and with `labels` what is predicted as leads are taken away. Into the run's folder go
report.html, summary.json, tables (.csv) and figures/ (.png and .svg). More: docs/explaining.md.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lamae_jax.command import load_config, no_variant

HERE = Path(__file__).parent


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    no_variant(__file__, variant)
    config = ConfigDict()
    config.task = "explain"
    config.variant = ""
    config.model = ""  # a model folder (WORKDIR/model), or random:PRESET for an untrained model
    config.labels = ""  # icd10:chapter_ix, icd10:all, ptbxl:super (also sub, diag, form, rhythm, all), or csv:FILE
    config.record = ""  # a record's id, to explain that one; empty: the test fold
    config.hidden = ""  # of one record: leads to draw from the others, as V4 or V3,V4; leads it lacks are always drawn
    config.readout = ""  # la_cls, la_mean, encoder_mean or encoder_concat; empty: its head's, or the model's first
    config.records = (
        1000  # at most so many test records, in whole patients, as each is encoded some thirty times; 0: all
    )
    config.batch_size = 64  # records encoded at once: speed alone, no figure depends on it
    config.resamples = 1000  # of the bootstrap by patient
    config.seed = 0  # of noise, bootstrap, and an untrained model
    config.cache = "runs/features"  # features of the records as they are, shared with configs/probe.py; empty: not kept
    config.data = ConfigDict()
    config.data.store = ""  # the prepared store that holds the recordings
    config.icd10 = load_config(str(HERE / "labels.py")).icd10  # rules of icd10: labels: configs/labels.py
    return config
