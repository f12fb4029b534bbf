"""The model card: README.md of a model folder, written from what config.json holds. For people; nothing reads it back."""

from __future__ import annotations

from typing import Any

from lamae_jax.artifact.origin import as_store, complete, stores_of

CARD = "README.md"

OF_DATA = ("store", "records", "split")  # of a head's `about`: they stand under Data

FIGURES = {
    "val_mse": "the model",
    "val_mse_record_mean": "predicting each lead's mean",
    "val_mse_interpolation": "interpolating between visible patches",
    "val_mse_einthoven": "limb leads from one another (Einthoven, Goldberger)",
}


def model_card(config: dict[str, Any]) -> str:
    """The card of a model folder whose config.json holds `config`; a section for which nothing is known says so."""
    provenance = config["provenance"]
    parts = [
        "# A LAMAE model of 12-lead ECGs",
        f"Parameters `{config['params_sha256'][:12]}`, written by lamae_jax {_shown(provenance, 'version')}. Open it with\n"
        '`lamae_jax.load("THIS FOLDER").embed(ecg, fs=500, leads=[...], units="mV")`.',
        "## What it takes\n\n" + _signal(config),
        "## Data\n\n" + _data(config),
        "## Figures\n\n" + _figures(provenance),
    ]
    if config["head"] is not None:
        parts.append("## Labels\n\n" + _head(config["head"]))
    parts += [
        "## Intended use\n\nResearch on ECG representations: features for probes, fine-tuning, retrieval and grouping. "
        "It is not a medical device and must not decide about a patient.",
        "## Limits\n\n" + _limits(config),
    ]
    return "\n\n".join(parts) + "\n"


def _shown(values: dict[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "(not recorded)"


def _signal(config: dict[str, Any]) -> str:
    contract, model, inputs = config["contract"], config["model"], config["inputs"]
    tokens = model["samples"] // model["patch"]
    return (
        f"{contract['seconds']:g} s at {contract['fs']} Hz of {' '.join(contract['leads'])}, in any order, some of them or "
        f"one; band {contract['band']}; normalisation {inputs['normalisation']}. Other rates, units and longer recordings are "
        f"brought there by `embed`.\nWidth {model['width']}, {model['encoder_depth']} blocks in the lead encoder, "
        f"{model['latent_depth']} of latent attention; {tokens} tokens a lead."
    )


def _data(config: dict[str, Any]) -> str:
    provenance = config["provenance"]
    lines = [_store(store) for store in stores_of(provenance)] or ["- Not recorded."]
    records = provenance.get("records")
    if records and isinstance(records, dict):
        lines.append(
            "- Records: " + ", ".join(f"{count} {part}" for part, count in records.items()) + "; split by patient."
        )
    if config["pretraining_records"] is not None:
        count = config["pretraining_records"]
        lines.append(
            f"- `pretraining_records.npy`: hashes of the {count} records it was trained on; whoever has the ids can tell."
        )
    if "init" in provenance and provenance["init"]:
        known = (
            "its data are among these" if complete(provenance) else "what that learned from is not all recorded here"
        )
        lines.append(f"- Training began from the model `{str(provenance['init'])[:12]}`; {known}.")
    if config["head"] is not None:
        lines.append(_data_of_head(config["head"]["about"]))
    return "\n".join(lines)


def _store(store: dict[str, str]) -> str:
    return f"- `{store['name']}` (store sha256 `{store['sha256'][:12]}`). {store['licence']}."


def _data_of_head(about: dict[str, Any]) -> str:
    store, records = as_store(about.get("store")), about.get("records")
    if store is None:
        return "- The head's labels and recordings: not recorded."
    counts = (
        ", ".join(f"{count} {part}" for part, count in records.items()) if isinstance(records, dict) else "not counted"
    )
    split = about.get("split")
    by = f", split by `{split['column']}`" if isinstance(split, dict) and isinstance(split.get("column"), str) else ""
    return f"- The head was fitted on {_store(store)[2:]} Its records: {counts}{by}."


def _figures(provenance: dict[str, Any]) -> str:
    recorded = provenance.get("figures")
    figures = recorded if isinstance(recorded, dict) else {}
    lines = [
        f"| {text} | {figures[name]:.4f} |"
        for name, text in FIGURES.items()
        if isinstance(figures.get(name), int | float)
    ]
    if not lines:
        return "None recorded."
    text = "Mean squared error on hidden patches of validation records, in the model's units. "
    interval = figures.get("val_mse_interval")
    if isinstance(interval, list | tuple) and len(interval) == 2 and all(isinstance(v, int | float) for v in interval):
        low, high = interval
        text += f"95 % interval over patients: {low:.4f} to {high:.4f}, which holds nothing of another run's luck."
    else:
        text += "No interval is recorded."
    return "\n".join([text, "", "| | error |", "|---|---|", *lines])


def _head(head: dict[str, Any]) -> str:
    names = head["labels"]
    shown = ", ".join(names[:40]) + (f" and {len(names) - 40} more (config.json)" if len(names) > 40 else "")
    lines = [f"A linear head on `{head['readout']}` gives probabilities of {len(names)} labels: {shown}."]
    rows = [f"| {name} | {_figure(value)} |" for name, value in head["about"].items() if name not in OF_DATA]
    if rows:
        lines.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(lines)


def _figure(value: Any) -> str:
    """A number, `[value, low, high]` as a value with its interval, or text."""
    if isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) for v in value):
        return f"{value[0]:.4f} (95 % interval {value[1]:.4f} to {value[2]:.4f})"
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "/").replace("\n", " ")[:300]


def _limits(config: dict[str, Any]) -> str:
    lines = [
        "It has seen the recordings above and no others: other devices, filters, ages and diseases may be far from them.",
        "Clocks, pacing and electrode placement are not checked; swapped electrodes are not noticed.",
        "With fewer leads than it was trained on, features move; `warnings` says which leads were missing.",
        "Probabilities of a head hold for the population it was fitted on; they are not calibrated for yours.",
    ]
    if config["model"]["latent_depth"] == 0:
        lines.insert(0, "It has no latent attention: leads never meet in it.")
    return "\n".join(f"- {line}" for line in lines)
