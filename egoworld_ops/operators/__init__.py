"""The registry of stages and backends: found by looking into this folder, so that a new one is a new file and nothing else.

`operators/<stage>/__init__.py` holds a `STAGE`; every module beside it whose name does not start with `_` is a backend with a class `Backend`.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from egoworld_ops.errors import BadSettings, UnknownBackend
from egoworld_ops.operators.base import BackendSettings, Operator, Stage


@cache
def stages() -> dict[str, Stage]:
    """All stages by name, each after those it reads. Imports no backend."""
    found: dict[str, Stage] = {}
    for info in pkgutil.iter_modules(__path__):
        if info.ispkg:
            stage = importlib.import_module(f"{__name__}.{info.name}").STAGE
            found[stage.name] = stage
    order = TopologicalSorter({s.name: [i for i in s.inputs if i in found] for s in found.values()}).static_order()
    return {name: found[name] for name in order}


@cache
def backends(stage: str) -> tuple[str, ...]:
    """Names of a stage's backends. Imports none of them."""
    package = importlib.import_module(f"{__name__}.{stage}")
    return tuple(i.name for i in pkgutil.iter_modules(package.__path__) if not i.name.startswith("_"))


def load(stage: str, backend: str) -> type[Operator]:
    """The operator class of a backend.

    Raises:
        UnknownBackend: there is no such stage or backend.
    """
    if stage not in stages():
        raise UnknownBackend(f"stage {stage}", "there is no such stage", f"Name one of {', '.join(stages())}")
    if backend not in backends(stage):
        known = ", ".join(backends(stage))
        raise UnknownBackend(f"stage {stage}, backend {backend}", "there is no such backend", f"Name one of {known} in the settings")
    loaded: type[Operator] = importlib.import_module(f"{__name__}.{stage}.{backend}").Backend
    return loaded


def version_of(stage: str, backend: str) -> str:
    """The version of a backend's operator, read from its source: nothing is imported."""
    package = importlib.import_module(f"{__name__}.{stage}")
    source = (Path(package.__path__[0]) / f"{backend}.py").read_text("utf-8")
    [backend_class] = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Backend"]
    for node in backend_class.body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(t, ast.Name) and t.id == "version" for t in targets):
            return str(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    raise UnknownBackend(f"stage {stage}, backend {backend}", "its operator has no version", "Give the class a `version`")


def check_options(operator: type[Operator], stage: str, backend: str, options: Mapping[str, Any]) -> BackendSettings:
    """The options of a backend in its own settings type.

    Raises:
        BadSettings: an option is unknown or out of range.
    """
    try:
        return operator.Settings.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in (stage, backend, *first["loc"]))
        known = ", ".join(operator.Settings.model_fields) or "none"
        raise BadSettings(f"setting stages.{where}", first["msg"], f"Options of this backend: {known}") from error
