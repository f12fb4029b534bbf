"""The embed task: a whole store or folder of WFDB records to one file, the same as `embed` gives, safe to kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
from small_model import save_small

import lamae_jax
from lamae_jax import main
from lamae_jax.data import shards
from lamae_jax.data.prepare import prepare
from lamae_jax.data.store import Store
from lamae_jax.errors import UserError
from lamae_jax.serve import archive
from lamae_jax.serve.archive import EmbedConfig, embed_archive

RECORDS = 11


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_ptb_xl(tmp_path_factory.mktemp("source"), RECORDS, cut_short=(5,))


@pytest.fixture(scope="module")
def store(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "store"
    prepare(tiny.config(source, folder, band="highpass_0.5"), folder.parent / "work")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of four recordings, so that eleven make three."""
    monkeypatch.setattr(archive, "STORE_PART", 4)
    monkeypatch.setattr(shards, "RECORDS_PER_SHARD", 4)


def config(model: Path, **changes: object) -> EmbedConfig:
    values = {
        "model": str(model),
        "store": "",
        "source": "",
        "readout": "",
        "format": "parquet",
        "batch_size": 8,
        "workers": 1,
    }
    return EmbedConfig(**(values | changes))  # type: ignore[arg-type]


def vectors(table: object) -> np.ndarray:
    return np.stack(table.column("embedding").to_numpy())  # type: ignore[attr-defined]


def test_a_store_becomes_a_table_of_ids_and_vectors(model: Path, store: Path, tmp_path: Path) -> None:
    summary = embed_archive(config(model, store=str(store)), tmp_path)
    table = pq.read_table(tmp_path / "embeddings.parquet")
    assert table.column("record_id").to_pylist() == Store.open(store).record_ids.tolist()
    due = lamae_jax.load(model).embed(store)
    np.testing.assert_allclose(vectors(table), due.cls, rtol=0, atol=1e-5 * np.abs(due.cls).max())
    assert summary["recordings"] == 10 and summary["readout"] == "la_cls"
    assert json.loads(table.schema.metadata[b"lamae_jax"])["model"] == lamae_jax.load(model).sha256
    assert not (tmp_path / "parts").exists()


def test_a_folder_of_records_gives_the_same_and_names_what_it_could_not_use(
    model: Path, source: Path, store: Path, tmp_path: Path
) -> None:
    made = main.main(
        ["--config=configs/embed.py", f"--config.model={model}", f"--config.source={source}", "--config.format=npz",
         "--config.workers=1", "--config.batch_size=8", f"--workdir={tmp_path}"]
    )  # fmt: skip
    assert made == 0
    out = np.load(tmp_path / "embeddings.npz", allow_pickle=False)
    ids = [f"records100/00000/{number:05d}_lr" for number in range(1, RECORDS + 1) if number != 5]
    assert out["record_id"].tolist() == ids
    due = lamae_jax.load(model).embed(store).cls
    np.testing.assert_allclose(out["embedding"], due, rtol=0, atol=1e-5 * np.abs(due).max())
    rejected = (tmp_path / "rejected.csv").read_text().splitlines()
    assert len(rejected) == 2 and "00005_lr" in rejected[1] and ",size," in rejected[1]


@pytest.mark.parametrize("origin", ["store", "source"])
def test_killed_and_begun_again_it_makes_only_what_is_missing(
    origin: str, model: Path, source: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(model, **{origin: str(store if origin == "store" else source)})
    embed_archive(asked, tmp_path / "whole")
    write, written = archive.write_part, []

    def dies(path: Path, *rest: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write(path, *rest)  # type: ignore[arg-type]
        written.append(path.name)

    monkeypatch.setattr(archive, "write_part", dies)
    with pytest.raises(KeyboardInterrupt):
        embed_archive(asked, tmp_path / "killed")
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "parts").glob("*.npz")}
    assert list(kept) and not (tmp_path / "killed" / "embeddings.parquet").exists()
    monkeypatch.setattr(archive, "write_part", lambda path, *rest: (write(path, *rest), written.append(path.name)))
    embed_archive(asked, tmp_path / "killed")
    assert len(written) == 3 == len(set(written))
    whole, again = (pq.read_table(tmp_path / name / "embeddings.parquet") for name in ("whole", "killed"))
    assert whole.equals(again)


def test_a_model_that_changed_meanwhile_is_noticed(
    model: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = Path(shutil.copytree(model, tmp_path / "model"))
    monkeypatch.setattr(archive, "write_part", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        embed_archive(config(changing, store=str(store)), tmp_path / "run")
    save_small(changing, seed=1)
    with pytest.raises(UserError, match="begun with model"):
        embed_archive(config(changing, store=str(store)), tmp_path / "run")


def test_a_finished_run_is_not_taken_for_that_of_another_model_or_other_recordings(
    model: Path, source: Path, store: Path, tmp_path: Path
) -> None:
    changing = Path(shutil.copytree(model, tmp_path / "model"))
    records = Path(shutil.copytree(source, tmp_path / "source"))
    asked = config(changing, source=str(records))
    made = embed_archive(asked, tmp_path / "run")
    assert embed_archive(asked, tmp_path / "run") == made  # nothing has changed: nothing to do
    tiny.write_record(records / "one_more", tiny.signal_of(99))
    with pytest.raises(UserError, match="begun with recordings 11 records, .* now it is 12 .* name another --workdir"):
        embed_archive(asked, tmp_path / "run")
    embed_archive(config(changing, store=str(store)), tmp_path / "of_store")
    save_small(changing, seed=1)
    with pytest.raises(UserError, match="begun with model .* name another --workdir"):
        embed_archive(config(changing, store=str(store)), tmp_path / "of_store")


@pytest.mark.parametrize("form", ["parquet", "npz"])
def test_where_every_recording_is_rejected_it_says_so_and_why(form: str, model: Path, tmp_path: Path) -> None:
    for number, seconds in enumerate((4, 4, 4, 10)):
        tiny.write_record(tmp_path / "in" / f"r{number}", tiny.signal_of(number, seconds * tiny.FS))
    (tmp_path / "in" / "r3.dat").unlink()
    asked = config(model, source=str(tmp_path / "in"), format=form)
    for _ in range(2):  # the same command says the same again
        with pytest.raises(
            UserError, match=r"all 4 recordings were rejected, 3 of them for too_short; .*rejected\.csv"
        ):
            embed_archive(asked, tmp_path / "out")
    assert len((tmp_path / "out" / "rejected.csv").read_text().splitlines()) == 1 + 4
    assert not (tmp_path / "out" / "summary.json").exists()


def test_leads_side_by_side_have_no_numbers_where_a_lead_is_missing(model: Path, tmp_path: Path) -> None:
    signal = tiny.signal_of(1)
    signal[3] = 0
    tiny.write_record(tmp_path / "in" / "a", signal)
    embed_archive(config(model, source=str(tmp_path / "in"), readout="encoder_concat"), tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "embeddings.parquet")
    values = vectors(table).reshape(12, 16)
    assert table.column("missing").to_pylist() == ["aVR"] and "lead_flat" in table.column("flags")[0].as_py()
    assert np.isnan(values[3]).all() and np.isfinite(np.delete(values, 3, axis=0)).all()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": ""}, "model is empty"),
        ({}, "both are empty"),
        ({"store": "a", "source": "b"}, "both are given"),
        ({"store": "a", "format": "csv"}, "format=csv: must be one of parquet, npz"),
        ({"store": "a", "batch_size": 0}, "batch_size=0"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict, message: str, model: Path) -> None:
    with pytest.raises(UserError, match=message):
        config(**({"model": model} | change))  # type: ignore[arg-type]


def test_a_readout_that_the_model_lacks_and_a_store_of_another_contract_are_refused(
    model: Path, store: Path, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="readout=la_max"):
        embed_archive(config(model, store=str(store), readout="la_max"), tmp_path / "a")
    prepare(tiny.config(source, tmp_path / "store"), tmp_path / "work")
    with pytest.raises(UserError, match="band: store none, model highpass_0.5"):
        embed_archive(config(model, store=str(tmp_path / "store")), tmp_path / "b")
