"""Pretrain LAMAE.

    python -m lamae_jax.main --config=configs/pretrain.py                                          # nano, simulated ECGs
    python -m lamae_jax.main --config=configs/pretrain.py:small,hz100 --config.data.store=DIR      # your own, prepared

Variants, each with `,hz100` for stores at 100 Hz (a token is 200 ms either way, so cost and learning are the same):

    command                                                     cost                         result
    configs/pretrain.py                                         3 minutes on two CPU cores   docs/results.md, "The main job"
    configs/pretrain.py:nano,hz100 --config.data.store=DIR \\
        --config.steps=14000 --config.model.width=96 \\
        --config.model.heads=6 --config.model.latent_depth=3    an hour on two CPU cores     docs/results.md, "PTB-XL" (*)
    configs/pretrain.py:tiny --config.data.store=DIR            3 PFLOP: 8 hours on two cores   not measured
    configs/pretrain.py:small --config.data.store=DIR           0.64 EFLOP                   not measured
    configs/pretrain.py:base --config.data.store=DIR            6.8 EFLOP                    not measured
    configs/pretrain.py:large --config.data.store=DIR           25 EFLOP                     not measured

(*) measured with --config.model.positions=both, the default until November 2026.
An accelerator that sustains 300 TFLOP/s does an EFLOP (1e18) in 55 minutes.
"""

import difflib

from ml_collections import ConfigDict, config_dict

from lamae_jax.errors import UserError
from lamae_jax.model.presets import PRESETS

# Updates of each recipe. nano's is the three-minute job on simulated ECGs; the others are a night or more on real ones.
STEPS = {"nano": 1_600, "tiny": 20_000, "small": 100_000, "base": 200_000, "large": 300_000}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe of a variant: a preset, and `hz100` for 100 instead of 250 samples a second."""
    preset_name, *options = (variant or "nano").split(",")
    for word, known in [(preset_name, list(PRESETS)), *((option, ["hz100"]) for option in options)]:
        if word not in known:
            near = difflib.get_close_matches(word, known, 1, 0.0)[0]
            raise UserError(f"--config=configs/pretrain.py:{variant}: no variant {word}; did you mean {near}?")
    preset, hz100 = PRESETS[preset_name], "hz100" in options

    c = ConfigDict()
    c.task = "pretrain"
    c.variant = variant or "nano"

    # Data
    c.data = ConfigDict()
    c.data.store = ""  # a prepared store, or several of one contract, comma-separated; empty: simulated ECGs
    c.data.folds = "train"  # train, all (every fold but validation), or fold numbers: 0,1,2
    c.data.fold_column = ""  # which column holds the folds, such as MIMIC-IV-ECG's strat_fold; empty: the store's own
    c.data.limit = 0  # at most so many records, in whole patients; smaller limits are subsets of larger ones; 0: all
    c.data.workers = 1  # threads that read ahead
    c.data.simulated_patients = 800  # how many, where data.store is empty

    # What the model sees of a record
    c.signal = ConfigDict()
    c.signal.fs = 100 if hz100 else 250  # Hz; must be the store's
    # Longer records are cropped: at random in training, centred otherwise. Empty: 10, but 4 where ECGs are simulated, so that
    # three minutes on two cores show something.
    c.signal.seconds = config_dict.placeholder(float)
    c.signal.band = "highpass_0.5"  # must be the store's: highpass_0.5 or none
    c.signal.normalisation = "record"  # record, lead or fixed: model/inputs.py

    # lamae; independent: its latent attention's blocks go to the encoder instead, and leads never meet; mmvm: independent, and
    # an alignment loss pulls leads together.
    c.system = "lamae"
    c.align = ConfigDict()  # for mmvm
    c.align.form = (
        "pairwise"  # pairwise (1 - cos between tokens of one time) or mixture (KL to the mixture of all leads)
    )
    c.align.beta = 0.1  # its final weight; rises on a sigmoid after the warm-up

    # Model: sizes from the preset's row in model/presets.py
    c.model = ConfigDict(preset.sizes())
    c.model.patch = 20 if hz100 else 50  # samples: 200 ms
    c.model.decoder_reads = "tokens_and_cls"  # tokens_and_cls, tokens or cls_only
    c.model.positions = "rotary"  # rotary, sincos or both
    c.model.qk_norm = False  # LayerNorm on queries and keys
    c.model.remat = preset_name in ("base", "large")  # recompute blocks in the backward pass: less memory

    # Masks
    c.mask = ConfigDict()
    c.mask.alpha_E = 0.75  # share of a lead's patches hidden from the encoder
    c.mask.alpha_LA = 0.1  # share of visible tokens hidden from latent attention
    c.mask.mode = "independent"  # independent, shared (one set of times for all leads) or block
    c.mask.block = 5  # patches a run, for mode block
    c.mask.hidden_leads = 0  # whole leads hidden on top

    # Optimisation
    c.seed = 0  # of parameters, data order and masks, and of the simulated ECGs
    c.steps = STEPS[preset_name]
    c.batch_size = preset.batch_size
    c.learning_rate = config_dict.placeholder(float)  # peak; empty: the preset's rule
    c.optimizer = ConfigDict()
    c.optimizer.name = "adamw"  # adamw or muon
    c.optimizer.weight_decay = 0.05  # on matrices only
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.95
    c.optimizer.warmup = 0.05  # share of the steps
    c.optimizer.final = 0.01  # share of the peak rate that the cosine ends at
    c.optimizer.clip = 1.0  # global gradient norm
    c.target = "raw"  # raw, or normalised by each patch's mean and variance
    # Leads of each record, drawn at each step, that are decoded; 0: all. Cheaper, and the loss becomes an estimate.
    c.decode_leads = 0
    c.accumulate = 0  # microbatches a step, whose gradients are summed; 0: as many as are quickest on this device
    c.ema = 0.0  # decay of averaged parameters, which are then validated and exported; 0: none
    c.dtype = "float32" if preset_name in ("nano", "tiny") else "bfloat16"  # what blocks compute in
    c.init = ""  # a model folder to start from

    # Devices: sizes of the mesh, -1 = the rest
    c.mesh = ConfigDict()
    c.mesh.data = -1
    c.mesh.fsdp = 1
    c.mesh.tensor = 1

    # Looking and saving
    c.log_every = 20
    c.eval_every = config_dict.placeholder(int)  # empty: ten times a run
    c.eval_records = 512  # validation records at each evaluation; at the end up to 4,096
    c.checkpoint = ConfigDict()
    c.checkpoint.every = config_dict.placeholder(int)  # steps; empty: whenever it evaluates
    c.checkpoint.keep = 2  # newest; beside them the best of those saved at an evaluation
    # Leave hashes of the training records in the model, so that leaks can be found. Ids can be recovered from them.
    c.record_ids = True
    return c
