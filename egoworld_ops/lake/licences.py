"""Which weights the rows of a run rest on, and under which licences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from egoworld_ops.lake import runs
from egoworld_ops.lake.lake import Run
from egoworld_ops.models.registry import REGISTRY


def weights_of(run: Run) -> list[str]:
    """Names of the weights that a run's stages and their fallbacks load.

    Raises:
        SetupError: its `run.json` cannot be read.
    """
    frozen = runs.described(run).get("frozen") or {}
    stages = [*(frozen.get("stages") or {}).values(), *(frozen.get("fallbacks") or {}).values()]
    return sorted({name for stage in stages for name in stage.get("weights") or {}})


def licences_of(run: Run) -> Mapping[str, Mapping[str, Any]]:
    """The licences behind the rows of a run by name: address, commercial use (`yes`, `no`, `ask`), and the weights under it.

    Raises:
        SetupError: its `run.json` cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in weights_of(run):
        entry = REGISTRY.get(name)
        licence = (entry.licence.name, entry.licence.url, entry.licence.commercial) if entry else ("unknown", "", "ask")
        under: Sequence[str] = found.get(licence[0], {}).get("weights", [])
        found[licence[0]] = {"url": licence[1], "commercial": licence[2], "weights": [*under, name]}
    return found
