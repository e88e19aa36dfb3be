"""What the stages say of their own tables, gathered: the contract stands below the stages, names none of them, and asks for all by need."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def stages() -> Mapping[str, Any]:
    """The stages by name, each after those it reads: `egoworld_ops.operators.base.Stage`, with table, metrics and parents."""
    found: Mapping[str, Any] = importlib.import_module("egoworld_ops.operators").stages()
    return found
