"""Labels: what a setting gives and how many records have each label, before any model is trained.

    python -m lamae_jax.main --config=configs/labels.py --config.table=records_w_diag_icd10.csv
    python -m lamae_jax.main --config=configs/labels.py --config.data.store=DIR --config.labels=ptbxl:super

With the table of MIMIC-IV-ECG-Ext-ICD alone, train, val and test count the whole table; with a store, the records whose waveform
is in it. Into the run's folder go labels.csv (label, level, description, rows, train, val, test), report.txt (what was repaired,
dropped, unusable) and summary.json. The rules, step by step: docs/labels.md.
"""

from ml_collections import ConfigDict

from lamae_jax.command import no_variant


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    no_variant(__file__, variant)
    config = ConfigDict()
    config.task = "labels"
    config.variant = ""
    config.labels = "icd10:chapter_ix"  # or icd10:all, ptbxl:super (also sub, diag, form, rhythm, all), csv:FILE
    config.table = ""  # records_w_diag_icd10.csv; for icd10: labels
    config.data = ConfigDict()
    config.data.store = ""  # or a prepared store
    config.icd10 = ConfigDict()
    config.icd10.digits = 5  # characters kept of a code, 3 to 7
    config.icd10.ancestors = True  # I4891 counts as I489 and I48 too
    config.icd10.min_count = 1000  # rows that a label needs
    config.icd10.count_on = "all"  # rows of the whole table, or train: those of the training folds
    config.icd10.letters = ""  # first letters of the codes that count; empty: I for chapter_ix, every letter for all
    config.icd10.fold_column = "fold"  # or strat_fold, which gives another test set
    return config
