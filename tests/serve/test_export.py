"""The exported program: the same numbers where lamae_jax cannot be imported, preprocessing included."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from small_model import save_small

import lamae_jax
from lamae_jax.artifact.head import Head
from lamae_jax.errors import UserError
from lamae_jax.serve.conditioning import conditioned
from lamae_jax.serve.model import EcgModel
from lamae_jax.signal.contract import SignalContract, condition
from lamae_jax.signal.leads import STANDARD_LEADS

LEADS = list(STANDARD_LEADS)


def recordings(fs: int, seconds: float = 10) -> np.ndarray:
    """[3, 12, N] float32 in mV: noisy beats; the second with gaps, edges, a missing and a flat lead, the third out of range."""
    t = np.arange(round(fs * seconds)) / fs
    rng = np.random.default_rng(0)
    x = np.sin(np.arange(36) * 1.3).reshape(3, 12, 1) * np.exp(-(((t % 0.8) - 0.3) ** 2) / 0.001)
    x = (x + 0.3 * np.cos(t * 2) + rng.normal(0, 0.02, x.shape)).astype(np.float32)
    gap = int(0.2 * fs)
    x[1, 0, 30 : 30 + gap] = x[1, 1, : gap - 1] = x[1, 2, -5:] = x[1, 3, 40 : 41 + gap] = x[1, 4] = np.nan
    x[1, 5, 50], x[1, 6] = np.inf, 0.25
    x[2] *= 12
    x[2, 3] += np.where(t > 5, 60, 0).astype(np.float32)
    return x


@pytest.mark.parametrize("fs, contract", [
    (100, SignalContract(fs=100)), (360, SignalContract(fs=250)), (100, SignalContract(fs=250)),
    (500, SignalContract(fs=250, seconds=4, band="none")),
])  # fmt: skip
def test_the_program_conditions_to_the_very_counts_of_the_contract(fs: int, contract: SignalContract) -> None:
    x = recordings(fs, contract.seconds)
    counts, available = jax.jit(lambda signal: conditioned(signal, fs, contract))(x)
    assert counts.dtype == np.int16 and not jax.config.jax_enable_x64
    for k, signal in enumerate(x):
        due = condition(signal, fs, LEADS, "mV", contract, allow_upsampling=True)
        np.testing.assert_array_equal(available[k], due.available)
        np.testing.assert_array_equal(counts[k], due.counts)


def head(readout: str, features: int) -> Head:
    """Of two labels; `fill` is far from what any lead has, so that a lead that is not there must take it to be right."""
    rng, zero, one = np.random.default_rng(0), np.zeros(features, np.float32), np.ones(features, np.float32)
    kernel = (rng.normal(size=(features, 2)) / np.sqrt(features / 16)).astype(np.float32)
    fill = rng.normal(3, 1, features).astype(np.float32)
    return Head(readout, ("MI", "NORM"), kernel, np.zeros(2, np.float32), zero, one, fill)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EcgModel:
    return lamae_jax.load(save_small(tmp_path_factory.mktemp("model"), head=head("la_mean", 16)))


ALONE = """
import sys
class Nothing:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("lamae_jax", "flax", "safetensors", "wfdb", "grain"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Nothing())
try:
    import lamae_jax
except ImportError:
    import jax, jax.export, numpy as np
    program = jax.export.deserialize(open("program.bin", "rb").read())
    np.savez("out.npz", **jax.jit(program.call)(np.load("in.npy")))
"""


@pytest.mark.parametrize("readout", ["la_mean", "encoder_concat"])
def test_it_runs_where_lamae_jax_cannot_be_imported_and_agrees(readout: str, model: EcgModel, tmp_path: Path) -> None:
    """To 1e-5 as they stand; the largest numbers of this model are .8 to .9."""
    model = dataclasses.replace(model, head=head(readout, 16 * (12 if readout == "encoder_concat" else 1)))
    x = recordings(500)
    model.export(tmp_path, fs=500)
    np.save(tmp_path / "in.npy", x)
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    out, due = np.load(tmp_path / "out.npz"), model.embed(x, 500, LEADS)
    np.testing.assert_array_equal(out["available"], due.available)
    assert not due.available[1].all() and due.available[0].all()
    for name in ("cls", "leads", "tokens"):
        assert 0.5 < np.nanmax(np.abs(getattr(due, name))) < 1
        np.testing.assert_allclose(out[name], getattr(due, name), rtol=0, atol=1e-5)
    predicted = model.predict(x, 500, LEADS).probabilities
    np.testing.assert_allclose(out["probabilities"], predicted, rtol=0, atol=1e-5)
    if readout == "encoder_concat":  # the fill counts, where a lead is missing and nowhere else
        assert model.head is not None
        other = dataclasses.replace(model, head=dataclasses.replace(model.head, fill=-model.head.fill))
        moved = np.abs(other.predict(x, 500, LEADS).probabilities - predicted).max(axis=1)
        assert moved[1] > 1e-3 and moved[0] == 0


def test_it_says_what_goes_in_and_comes_out_and_for_what_devices(model: EcgModel, tmp_path: Path) -> None:
    said = model.export(tmp_path, fs=500)
    assert (
        said["input"]["shape"] == ["n", 12, 5000] and said["input"]["leads"] == LEADS and said["input"]["unit"] == "mV"
    )
    assert said["output"]["probabilities"]["labels"] == ["MI", "NORM"]
    program = jax.export.deserialize((tmp_path / "program.bin").read_bytes())
    assert program.platforms == ("cpu", "cuda", "tpu") and str(program.in_avals[0].shape) == "(n, 12, 5000)"


@pytest.mark.parametrize("fs, message", [(50, "100 to 1000 Hz"), (100.03, "no whole number of samples")])
def test_a_rate_that_is_not_taken(fs: float, message: str, model: EcgModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        model.export(tmp_path, fs=fs)
