"""A model as one StableHLO program with its preprocessing inside, to run where JAX is and lamae_jax is not.

program.bin    jax.export's own format: parameters inside, any number of records, for CPU, CUDA and TPU
program.json   what goes in and what comes out
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from lamae_jax import __version__
from lamae_jax.artifact.head import logits
from lamae_jax.files import write_bytes, write_json
from lamae_jax.model.inputs import model_input
from lamae_jax.model.lamae import encode
from lamae_jax.model.readouts import readout
from lamae_jax.serve.conditioning import conditioned, samples_at
from lamae_jax.serve.functions import summarise, summary_readout

if TYPE_CHECKING:
    from lamae_jax.artifact.folder import Model

PROGRAM, DESCRIPTION = "program.bin", "program.json"
PLATFORMS = ("cpu", "cuda", "tpu")


def whole_program(model: Model, fs: float) -> Any:
    """`signal [B, L, N]` -> what program.json says, as one function; parameters are constants in it."""
    config, params = model.config, jax.tree.map(jnp.asarray, model.params)

    def program(signal: jax.Array) -> dict[str, jax.Array]:
        counts, available = conditioned(signal, fs, model.contract)
        x, _ = model_input(counts, available, model.inputs)
        tokens = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), encode(config, params, x, available))
        out = summarise(config, tokens, available) | {"available": available}
        if model.head is not None:
            values = readout(tokens, model.head.readout, available)
            out["probabilities"] = jax.nn.sigmoid(logits(model.head.arrays, values, available))
        return out

    return program


def export_program(model: Model, folder: Path | str, fs: float | None = None) -> dict[str, Any]:
    """Write PROGRAM and DESCRIPTION for recordings at `fs` Hz (the contract's rate unless said); returns the description.

    Raises UserError for a rate that is not taken.
    """
    folder, contract, shape = Path(folder), model.contract, model.config
    fs = contract.fs if fs is None else fs
    samples = samples_at(contract, fs)
    (records,) = jax.export.symbolic_shape("n", constraints=("n >= 1",))
    signal = jax.ShapeDtypeStruct((records, shape.leads, samples), jnp.float32)
    exported = jax.export.export(jax.jit(whole_program(model, fs)), platforms=PLATFORMS)(signal)
    width, patches = shape.width, shape.patches
    description: dict[str, Any] = {
        "lamae_jax": __version__,
        "jax": jax.__version__,
        "model": model.sha256,
        "platforms": list(PLATFORMS),
        "input": {
            "shape": ["n", shape.leads, samples],
            "dtype": "float32",
            "leads": list(contract.leads),
            "fs": fs,
            "unit": "mV",
            "missing": "NaN, a whole row for a lead that is not there",
        },
        "output": {
            "cls": {"shape": ["n", width], "readout": summary_readout(shape)},
            "leads": {"shape": ["n", shape.leads, width]},
            "tokens": {"shape": ["n", shape.leads, patches, width]},
            "available": {
                "shape": ["n", shape.leads],
                "dtype": "bool",
                "meaning": "a record of which none is has no meaning",
            },
        },
    }
    if model.head is not None:
        labels = list(model.head.labels)
        description["output"]["probabilities"] = {"shape": ["n", len(labels)], "labels": labels}
    write_bytes(folder / PROGRAM, bytes(exported.serialize()))
    write_json(folder / DESCRIPTION, description)
    return description
