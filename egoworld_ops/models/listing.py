"""The registry in lines, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from egoworld_ops.models import store
from egoworld_ops.models.entries import Licence, Weight
from egoworld_ops.models.registry import GROUPS, REGISTRY

_SHOWN = 12


def listed() -> Iterator[str]:
    """A line for each weight: its size, licence, whether it is here, its SHA-256 and its source; and one for each group."""
    yield f"{'name':22} {'size':>10}  {'licence':26} {'commercial':10} {'state':10} {'sha256':20} source"
    for entry in REGISTRY.values():
        size = f"{entry.bytes / 1e6:.1f} MB" if entry.bytes else "?"
        about = f"{entry.licence.name:26} {entry.licence.commercial:10} {store.state(entry.name):10}"
        yield f"{entry.name:22} {size:>10}  {about} {_digest(entry):20} {entry.source}"
    for group, names in GROUPS.items():
        yield f"{group:22} = {', '.join(names)}"


def _digest(entry: Weight) -> str:
    """How its SHA-256 begins, and who says so."""
    if entry.sha256 is not None:
        return entry.sha256[:_SHOWN]
    pin = store.pinned(entry.name)
    return f"{pin.sha256[:_SHOWN]} (pinned)" if pin else "pinned when fetched"


def licences(names: Iterable[str] = ()) -> dict[Licence, list[str]]:
    """The licences of these weights (of all, where none is named), each with the weights that are under it."""
    found: dict[Licence, list[str]] = {}
    for entry in store.named(names or REGISTRY):
        found.setdefault(entry.licence, []).append(entry.name)
    return found
