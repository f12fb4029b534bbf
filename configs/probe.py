"""Linear probe: what a logistic regression reads from a model's frozen features.

    python -m lamae_jax.main --config=configs/probe.py --config.model=runs/NAME/model --config.data.store=DIR \\
        --config.labels=ptbxl:super

The store is one prepared with `configs/prepare.py:ptb_xl` (for `ptbxl:` labels) or any other (for `csv:FILE`, with a column
`record_id` and one column a label: 1, 0, or empty for unknown). Into the run's folder go summary.json (`macro_auroc` and
`macro_auroc_random`, the same figure for an untrained model, each by readout), results.csv (a line a readout and label) and
figures/probe.png. The test fold is scored once; a test record that the model was pretrained on stops the run.
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
    config.labels = ""  # ptbxl:super (also sub, diag, form, rhythm, all), or csv:FILE
    config.readout = "all"  # all, la_cls, la_mean, encoder_mean or encoder_concat
    config.batch_size = 64  # records encoded at once: speed alone, no figure depends on it
    config.seed = 0  # of the untrained model beside it
    config.data = ConfigDict()
    config.data.store = ""  # the prepared store that holds the recordings
    return config
