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
    """What is made of tables, by name, each with the contract of its rows: views of the world, and links of clips."""
    world, links = (importlib.import_module(f"egoworld_ops.contract.{name}") for name in ("world", "links"))
    return {**world.VIEWS, **links.LINKS}
