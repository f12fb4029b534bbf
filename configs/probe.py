"""Probe: what can be read from a model's frozen features.

    python -m lamae_jax.main --config=configs/probe.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.labels=ptbxl:super

The store is one prepared with `configs/prepare.py:ptb_xl` (for `ptbxl:` labels), with `:mimic_iv_ecg` and the diagnoses beside
the recordings (for `icd10:` labels, docs/labels.md), or any other (for `csv:FILE`, with a column `record_id` and one column a
label: 1, 0, or empty for unknown). Into the run's folder go results.csv (a line a system, readout and label), predictions.npz,
report.html, model/ (of a linear probe, with its head), summary.json and figures/. In summary.json `macro_auroc` and
`macro_auroc_random`, the same figure for the model untrained, are by readout, with intervals. What is chosen is chosen on the
validation fold; the test fold is scored once; a test record that the model was pretrained on stops the run. More:
docs/evaluating.md.
"""

from pathlib import Path

from ml_collections import ConfigDict

from lamae_jax.command import load_config, no_variant

HERE = Path(__file__).parent


def get_config(variant: str = "") -> ConfigDict:
    """There are no variants."""
    no_variant(__file__, variant)
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
    config.icd10 = load_config(str(HERE / "labels.py")).icd10  # rules of icd10: labels: configs/labels.py
    return config
