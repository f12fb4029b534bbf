"""The data that a model was made of: which stores, with their licences, how many records, which model before it.

In a model folder's `provenance` (of its parameters), and under `store` and `records` in a head's `about`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamae_jax.data.store import Store

if TYPE_CHECKING:
    from lamae_jax.artifact.folder import Model

# What a source's own pages say (docs/data.md); of any other source only its user can know.
LICENCES = {
    "ptb_xl": "PTB-XL 1.0.3: CC BY 4.0; Wagner et al., Scientific Data 7:154 (2020), doi:10.1038/s41597-020-0495-6",
    "mimic_iv_ecg": "MIMIC-IV-ECG 1.0: see its page on PhysioNet; Gow et al., PhysioNet (2023), doi:10.13026/4nqg-sb35",
    "simulated": "simulated by lamae_jax: no recording of a person, free of any data licence",
}
UNKNOWN_LICENCE = "licence not known to lamae_jax: ask whoever gave you the data"


def described(store: Store) -> dict[str, str]:
    """A store as provenance and heads name it: `name`, `kind` of its source, `sha256`, `licence`."""
    return entry(store.name, store.manifest["config"]["kind"], store.hash)


def entry(name: str, kind: str, sha256: str) -> dict[str, str]:
    """The same of a store that is known by these alone."""
    licence = LICENCES[kind] if kind in LICENCES else UNKNOWN_LICENCE
    return {"name": name, "kind": kind, "sha256": sha256, "licence": licence}


def provenance_of(
    stores: Sequence[dict[str, str]], records: dict[str, int], before: Model | None = None
) -> dict[str, Any]:
    """Provenance of parameters that learned from `records` (counts by part) of `stores` (as `described`), after `before`."""
    return {"records": records, **(learned(stores, before) if before else {"stores": list(stores), "init": None})}


def learned(stores: Sequence[dict[str, str]], before: Model) -> dict[str, Any]:
    """Of parameters that began as those of the model `before`: its sha256 under `init`, and its stores behind the new ones.

    `origin_known` says whether these are all that it had learned from.
    """
    theirs = stores_of(before.provenance)
    known = bool(theirs) and complete(before.provenance)
    return {"stores": united(stores, theirs), "init": before.sha256, "origin_known": known}


def united(stores: Sequence[dict[str, str]], more: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Each store once, `stores` first."""
    known = {store["sha256"] for store in stores}
    return [*stores, *(store for store in more if store["sha256"] not in known)]


def stores_of(provenance: dict[str, Any]) -> list[dict[str, str]]:
    """The stores that a provenance lists, which may be any JSON object; those of older folders have no `licence`."""
    listed = provenance.get("stores")
    found = [as_store(each) for each in (listed if isinstance(listed, list) else [])]
    return [store for store in found if store is not None]


def as_store(values: object) -> dict[str, str] | None:
    """A store out of a JSON value; None where it is none."""
    if not isinstance(values, dict) or not all(isinstance(values.get(name), str) for name in ("name", "sha256")):
        return None
    kind, licence = (values.get(name) for name in ("kind", "licence"))
    made = entry(values["name"], kind if isinstance(kind, str) else values["name"], values["sha256"])
    return made | {"licence": licence} if isinstance(licence, str) else made


def complete(provenance: dict[str, Any]) -> bool:
    """Whether the stores listed are all that the parameters learned from, as far as that is recorded."""
    return not provenance.get("init") or provenance.get("origin_known") is True
