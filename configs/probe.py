"""Probe: what can be read from a model's frozen features.

    python -m lamae_jax.main --config=configs/probe.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.labels=ptbxl:super

The store is one prepared with `configs/prepare.py:ptb_xl` (for `ptbxl:` labels), with `:mimic_iv_ecg` and the diagnoses beside
the recordings (for `icd10:` labels, docs/labels.md), or any other (for `csv:FILE`, with a column `record_id` and one column a
label: 1, 0, or empty for unknown). Into the run's folder go results.csv (a line a system, readout and label), predictions.npz,
summary.json (`macro_auroc` and `macro_auroc_random`, the same figure for the model untrained, each by readout, with intervals)
and figures/. What is chosen is chosen on the validation fold; the test fold is scored once; a test record that the model was
pretrained on stops the run. More: docs/evaluating.md.
"""

from ml_collections import ConfigDict

from lamae_jax.errors import UserError


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    if variant:
        raise UserError(f"--config=configs/probe.py:{variant}: has no variants; leave {variant!r} out")
    config = ConfigDict()
    config.task = "probe"
    config.variant = ""
    config.model = ""  # a model folder (WORKDIR/model), or random:PRESET for an untrained model
    config.labels = ""  # icd10:chapter_ix, icd10:all, ptbxl:super (also sub, diag, form, rhythm, all), or csv:FILE
    config.mode = "linear"  # linear, attention (a learned query over the tokens) or knn
    config.readout = "all"  # all, la_cls, la_mean, encoder_mean or encoder_concat; attention has its own
    config.batch_size = 64  # records encoded at once: speed alone, no figure depends on it
    config.resamples = 1000  # of each bootstrap
    config.seed = 0  # of the untrained model beside it, the bootstraps and the attention probe
    # Features stay here, so that other labels or modes do not encode again; may be deleted at any time; empty: not kept.
    config.cache = "runs/features"
    config.data = ConfigDict()
    config.data.store = ""  # the prepared store that holds the recordings
    config.data.limit = (
        0  # at most so many training records, in whole patients; smaller limits are subsets of larger ones
    )
    config.icd10 = ConfigDict()  # for icd10: labels; configs/labels.py shows what they give
    config.icd10.digits = 5  # characters kept of a code, 3 to 7
    config.icd10.ancestors = True  # I4891 counts as I489 and I48 too
    config.icd10.min_count = 1000  # rows that a label needs
    config.icd10.count_on = "all"  # rows of the whole table, or train: those of the training folds
    config.icd10.letters = ""  # first letters of the codes that count; empty: I for chapter_ix, every letter for all
    config.icd10.fold_column = "fold"  # or strat_fold, which gives another test set
    return config
