"""The model folder gives back what was put in, and refuses in one line whatever is not exactly that."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_model import CONFIG, CONTRACT, KEYS, random_params, save_small

from lamae_jax.artifact.folder import load_model, save_model
from lamae_jax.errors import UserError
from lamae_jax.files import sha256_file
from lamae_jax.model.inputs import InputConfig

INPUTS = InputConfig(normalisation="lead")
PROVENANCE = {
    "version": "0.1.0",
    "stores": [
        {"name": "ward 3", "kind": "ptb_xl", "sha256": "ab" * 32},
        {"name": "own", "kind": "wfdb", "sha256": "cd" * 32},
    ],
    "records": {"training": 70, "validation": 10},
    "figures": {"val_mse": 0.25, "val_mse_record_mean": 1.0},
}


def save(folder: Path, seed: int = 0, keys: np.ndarray | None = KEYS) -> Path:
    return save_small(folder, seed, keys, inputs=INPUTS, provenance=PROVENANCE)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"))


def test_a_folder_from_before_a_field_was_added_still_loads(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    edit(tmp_path / "model", lambda config: config["model"].pop("posterior"))
    assert load_model(tmp_path / "model").config == CONFIG


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def fit(folder: Path, name: str) -> None:
    """Make size and checksum in config.json those of the file."""
    path = folder / f"{name}.safetensors"
    facts = {"sha256": sha256_file(path), "bytes": path.stat().st_size}
    edit(
        folder,
        lambda config: (
            config["head"].update(facts)
            if name == "head"
            else config.update({f"{name}_{k}": v for k, v in facts.items()})
        ),
    )


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    """Change the parameters and make the checksum fit, as someone would who writes such a folder by other means."""
    flat = load_file(folder / "params.safetensors")
    change(flat)
    save_file(flat, folder / "params.safetensors")
    fit(folder, "params")


def test_what_goes_in_comes_out(saved: Path) -> None:
    model = load_model(saved)
    assert (model.config, model.inputs, model.contract, model.provenance) == (CONFIG, INPUTS, CONTRACT, PROVENANCE)
    jax.tree.map(np.testing.assert_array_equal, model.params, random_params())
    np.testing.assert_array_equal(model.pretraining_records, KEYS)
    assert model.sha256 == sha256_file(saved / "params.safetensors")


def test_the_parameters_file_depends_on_the_parameters_alone(saved: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    save_model(other, dict(reversed(random_params().items())), CONFIG, InputConfig(), CONTRACT, {"steps": 4}, None)
    assert (other / "params.safetensors").read_bytes() == (saved / "params.safetensors").read_bytes()
    assert load_model(save(tmp_path / "seed", seed=1)).sha256 != load_model(saved).sha256


def test_any_safetensors_reader_sees_plain_float32_under_readable_names(saved: Path) -> None:
    flat = load_file(saved / "params.safetensors")
    assert "encoder/cls" in flat and {array.dtype for array in flat.values()} == {np.dtype("float32")}


def test_the_card_says_what_it_takes_what_it_was_made_of_and_what_for(saved: Path, tmp_path: Path) -> None:
    card = (saved / "README.md").read_text()
    for text in ("10 s at 100 Hz of I II III", "`ward 3`", "CC BY 4.0", "`own`", "licence not known", "70 training",
                 "| the model | 0.2500 |", "No interval", "not a medical device", "hashes of the 2 records"):  # fmt: skip
        assert text in card
    bare = (save_small(tmp_path / "bare", keys=None) / "README.md").read_text()
    assert "Not recorded" in bare and "None recorded" in bare and "hashes" not in bare


def test_saving_again_replaces_and_records_can_be_left_out(tmp_path: Path) -> None:
    folder = save(save(tmp_path / "model"), seed=1, keys=None)
    model = load_model(folder)
    assert model.pretraining_records is None and not (folder / "pretraining_records.npy").exists()
    jax.tree.map(np.testing.assert_array_equal, model.params, random_params(seed=1))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "unfinished": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "a run's config": (lambda f: (f / "config.json").write_text('{"seed": 0}'), "not a model folder"),
    "newer format": (lambda f: edit(f, lambda c: c.update(format=99)), "format 99, this version reads 1"),
    "field missing": (lambda f: edit(f, lambda c: c["model"].pop("patch")), "model: lacks patch"),
    "field unknown": (lambda f: edit(f, lambda c: c["model"].update(color=1)), "model: has unknown color"),
    "wrong type": (lambda f: edit(f, lambda c: c["model"].update(width="16")), "model.width='16': must be int"),
    "impossible": (lambda f: edit(f, lambda c: c["model"].update(patch=7)), "model.patch=7: does not divide"),
    "contract": (lambda f: edit(f, lambda c: c["contract"].pop("fs")), "fs is missing"),
    "contract of another length": (
        lambda f: edit(f, lambda c: c["contract"].update(seconds=5.0)),
        "12 leads of 1000 samples, its contract has 12 of 500",
    ),
    "cut short": (lambda f: (f / "params.safetensors").write_bytes(b"x"), "altered or cut short"),
    "no params": (lambda f: (f / "params.safetensors").unlink(), "params.safetensors: missing"),
    "no records": (lambda f: (f / "pretraining_records.npy").unlink(), "pretraining_records.npy: missing"),
    "other records": (lambda f: np.save(f / "pretraining_records.npy", KEYS[:1]), "altered or cut short"),
    "params missing": (lambda f: rewrite(f, lambda p: p.pop("encoder/cls")), "lacks encoder/cls"),
    "params unknown": (lambda f: rewrite(f, lambda p: p.update(more=KEYS)), "has unknown more"),
    "params misshapen": (
        lambda f: rewrite(f, lambda p: p.update({"mask_token": p["mask_token"][:3]})),
        r"mask_token is float32 \(3,\), .* needs float32 \(16,\)",
    ),
    "params of another type": (
        lambda f: rewrite(f, lambda p: p.update({"mask_token": p["mask_token"].astype(np.float16)})),
        "mask_token is float16",
    ),
    "another model's config": (
        lambda f: edit(f, lambda c: c["model"].update(latent_depth=0)),
        "has unknown latent_attention",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_as_written_is_refused_in_one_line(fault: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_model(tmp_path / "nowhere")


def test_a_save_that_dies_half_way_leaves_no_folder_that_looks_whole(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lamae_jax.artifact.folder.write_npy", full)
    with pytest.raises(OSError, match="No space"):
        save(folder, seed=1)
    with pytest.raises(UserError, match="not a finished model folder"):
        load_model(folder)
