"""Model folders from anywhere: damaged by chance or made to do harm, each is opened or refused in one line, soon, and nothing
outside the folder is read."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
from small_model import save_small

from lamae_jax.artifact.folder import load_model
from lamae_jax.artifact.head import Head
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file

FUZZED = 1000
LIMIT = 5  # seconds for each case


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=16).astype(np.float32) for name in ("mean", "scale", "fill")}
    kernel, bias = rng.normal(size=(16, 2)).astype(np.float32), np.zeros(2, np.float32)
    return save_small(tmp_path_factory.mktemp("model"), head=Head("la_mean", ("MI", "NORM"), kernel, bias, **arrays))


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edit(folder: Path, *path: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    branch = config
    for name in path[:-1]:
        branch = branch[name]
    branch[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config))


def put(folder: Path, file: str, data: bytes) -> None:
    """Replace a file and make its checksum fit, as someone would who means harm."""
    (folder / file).write_bytes(data)
    if file == "params.safetensors":
        edit(folder, "params_bytes", value=len(data))
        edit(folder, "params_sha256", value=sha256_file(folder / file))
    elif file == "head.safetensors":
        edit(folder, "head", "bytes", value=len(data))
        edit(folder, "head", "sha256", value=sha256_file(folder / file))
    else:
        edit(folder, "pretraining_records_sha256", value=sha256_file(folder / file))


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def headed(header: bytes) -> bytes:
    """How a safetensors file begins."""
    return struct.pack("<Q", len(header)) + header


def link_out(folder: Path) -> None:
    secret = folder.parent / "secret"
    shutil.move(folder / "params.safetensors", secret)
    (folder / "params.safetensors").symlink_to(secret)


def terabyte(folder: Path, file: str) -> None:
    """A file that takes no room and claims a terabyte, with every size in config.json made to fit, or left open."""
    os.truncate(folder / file, 10**12)
    if file == "params.safetensors":
        edit(folder, "params_bytes", value=None)
    if file == "head.safetensors":
        edit(folder, "head", "bytes", value=10**12)


HARM: dict[str, Callable[[Path], object]] = {
    "nested JSON": lambda f: (f / "config.json").write_text("[" * 200_000),
    "a list": lambda f: (f / "config.json").write_text("[]"),
    "no text": lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"),
    "a long number": lambda f: (f / "config.json").write_text('{"format": ' + "9" * 10_000 + "}"),
    "a file of 100 MB": lambda f: os.truncate(f / "config.json", 100_000_000),
    "very many samples": lambda f: edit(f, "model", "samples", value=10**15),
    "very many samples in both": lambda f: (
        edit(f, "model", "samples", value=10**15), edit(f, "contract", "seconds", value=10**13)
    ),
    "an hour of tokens": lambda f: (
        edit(f, "model", "samples", value=360_000), edit(f, "contract", "seconds", value=3600), edit(f, "model", "patch", value=1)
    ),
    "very wide": lambda f: edit(f, "model", "width", value=2**19),
    "very deep": lambda f: edit(f, "model", "encoder_depth", value=10**6),
    "infinite seconds": lambda f: edit(f, "contract", "seconds", value=float("inf")),
    "no floor": lambda f: edit(f, "inputs", "floor_mv", value=float("nan")),
    "contract is a number": lambda f: edit(f, "contract", value=5),
    "leads in lists": lambda f: edit(f, "contract", "leads", value=[["I"]]),
    "model is a list": lambda f: edit(f, "model", value=[1]),
    "checksum is a list": lambda f: edit(f, "params_sha256", value=[]),
    "records are many": lambda f: edit(f, "pretraining_records", value=10**12),
    "a link out of the folder": link_out,
    "a pipe for parameters": lambda f: hostile.pipe(f / "params.safetensors"),
    "a pipe for config.json": lambda f: hostile.pipe(f / "config.json"),
    "a pipe for the head": lambda f: hostile.pipe(f / "head.safetensors"),
    "a terabyte of parameters": lambda f: terabyte(f, "params.safetensors"),
    "a terabyte of parameters, sizes to fit": lambda f: (
        terabyte(f, "params.safetensors"), edit(f, "params_bytes", value=10**12),
        edit(f, "model", "width", value=16_384), edit(f, "model", "encoder_depth", value=1000),
    ),
    "a terabyte of records": lambda f: terabyte(f, "pretraining_records.npy"),
    "a terabyte of head": lambda f: terabyte(f, "head.safetensors"),
    "records are no number": lambda f: edit(f, "pretraining_records", value=2.0),
    "a pickle for parameters": lambda f: put(f, "params.safetensors", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "a header of 2^63 bytes": lambda f: put(f, "params.safetensors", struct.pack("<Q", 2**63) + b"{}"),
    "offsets beyond the file": lambda f: put(
        f, "params.safetensors", headed(b'{"encoder/cls":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}')
    ),
    "a type that numpy lacks": lambda f: put(
        f, "params.safetensors", headed(b'{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}') + b"0"
    ),
    "a pickled array": lambda f: put(
        f, "pretraining_records.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n") + b"cos\nsystem\n"
    ),
    "an array of terabytes": lambda f: put(
        f, "pretraining_records.npy", npy("{'descr': '<u8', 'fortran_order': False, 'shape': (999999999999,)}\n")
    ),
    "a header that is code": lambda f: put(f, "pretraining_records.npy", npy("__import__('os').getpid()\n")),
}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_refused_in_one_line_and_soon(harm: str, folder: Path) -> None:
    HARM[harm](folder)
    with hostile.within(LIMIT), pytest.raises(UserError) as caught:
        load_model(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 600


def fuzzed(data: bytes, rng: random.Random) -> bytes:
    """Cut short, a bit turned, or a stretch overwritten, moved or doubled."""
    at = rng.randrange(len(data))
    length = min(rng.randrange(1, 40), len(data) - at)
    kind = rng.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.randbytes(length) + data[at + length :]
    if kind == 3:
        return data[:at] + data[at + length :]
    return data[:at] + data[at : at + length] * 3 + data[at + length :]


def test_a_thousand_damaged_folders_are_opened_or_refused(folder: Path) -> None:
    """Half of them with a checksum that fits the damage. One folder, one file rewritten each time: quick."""
    rng, refused = random.Random(0), 0
    files = ("config.json", "params.safetensors", "pretraining_records.npy", "head.safetensors")
    good = {name: (folder / name).read_bytes() for name in files}
    for number in range(FUZZED):
        name = files[number % 4]
        data = fuzzed(good[name], rng)
        if name != "config.json" and number // 4 % 2:
            put(folder, name, data)
        else:
            (folder / name).write_bytes(data)
        try:
            with hostile.within(LIMIT):
                load_model(folder)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error), number
        for each in files:
            (folder / each).write_bytes(good[each])
    assert refused > 0.7 * FUZZED  # the others changed a number, or nothing that is read
