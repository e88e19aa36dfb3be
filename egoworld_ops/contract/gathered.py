"""Collects the tables, metrics and references that stages declare, and the views made of their tables.

The contract is below the stages and imports none of them until it is asked.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def stages() -> Mapping[str, Any]:
    """The stages by name, each after those it reads: `egoworld_ops.operators.base.Stage`, with table, metrics and parents."""
    found: Mapping[str, Any] = importlib.import_module("egoworld_ops.operators").stages()
    return found


def views() -> Mapping[str, Any]:
    """The views that are made of tables, by name: `egoworld_ops.contract.world.WorldView`."""
    found: Mapping[str, Any] = importlib.import_module("egoworld_ops.contract.world").VIEWS
    return found
