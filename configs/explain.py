"""Explain: what a model looks at, and what it stands.

    python -m lamae_jax.main --config=configs/explain.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.labels=ptbxl:super
    python -m lamae_jax.main --config=configs/explain.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.record=ID --config.hidden=V4

The first takes the test fold: lead importance by CLS's attention and by taking leads away, AUROC with fewer leads, swapped arm
electrodes and noise, each lead drawn from the others, and a map of the records. The second takes one record: attention on its
ECG, leads drawn from the others, and with `labels` what is predicted as leads are taken away. Into the run's folder go
report.html, summary.json, tables (.csv) and figures/ (.png and .svg). More: docs/explaining.md.
"""

from ml_collections import ConfigDict

from lamae_jax.errors import UserError


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    if variant:
        raise UserError(f"--config=configs/explain.py:{variant}: has no variants; leave {variant!r} out")
    config = ConfigDict()
    config.task = "explain"
    config.variant = ""
    config.model = ""  # a model folder (WORKDIR/model), or random:PRESET for an untrained model
    config.labels = ""  # icd10:chapter_ix, icd10:all, ptbxl:super (also sub, diag, form, rhythm, all), or csv:FILE
    config.record = ""  # a record's id, to explain that one; empty: the test fold
    config.hidden = ""  # of one record: leads to draw from the others, as V4 or V3,V4; leads it lacks are always drawn
    config.readout = ""  # la_cls, la_mean, encoder_mean or encoder_concat; empty: the model's first
    config.records = (
        1000  # at most so many test records, in whole patients, as each is encoded some thirty times; 0: all
    )
    config.batch_size = 64  # records encoded at once: speed alone, no figure depends on it
    config.resamples = 1000  # of the bootstrap by patient
    config.seed = 0  # of noise, bootstrap, and an untrained model
    config.cache = "runs/features"  # features of the records as they are, shared with configs/probe.py; empty: not kept
    config.data = ConfigDict()
    config.data.store = ""  # the prepared store that holds the recordings
    config.icd10 = ConfigDict()  # for icd10: labels; configs/labels.py shows what they give
    config.icd10.digits = 5  # characters kept of a code, 3 to 7
    config.icd10.ancestors = True  # I4891 counts as I489 and I48 too
    config.icd10.min_count = 1000  # rows that a label needs
    config.icd10.count_on = "all"  # rows of the whole table, or train: those of the training folds
    config.icd10.letters = ""  # first letters of the codes that count; empty: I for chapter_ix, every letter for all
    config.icd10.fold_column = "fold"  # or strat_fold, which gives another test set
    return config
