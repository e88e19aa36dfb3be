"""The registry of stages and backends. It reads this folder and what installed packages bring (`egoworld_ops.plugins`), so that a new one
needs only a new file.

`operators/<stage>/__init__.py` holds a `STAGE`; every module beside it whose name does not start with `_` is a backend with a class `Backend`.
A package that brings a stage has the same two parts.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from graphlib import TopologicalSorter
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from egoworld_ops import plugins, sources
from egoworld_ops.contract import links, own_tables, schema, world
from egoworld_ops.environment import variables_of
from egoworld_ops.errors import BadSettings, BrokenPlugin, UnknownBackend
from egoworld_ops.operators.base import BackendSettings, Operator, Stage
from egoworld_ops.plugins import Plugin
from egoworld_ops.section import first_fault

_NAMES_TAKEN = ("manifest", *(table.name for table in own_tables.OWN_TABLES), *world.VIEWS, *links.LINKS)
_NAME = re.compile(r"[a-z][a-z_]*\Z")


@dataclass(frozen=True, slots=True)
class _Found:
    """Full name of a module, and the plug-in that provides it; None if it is built in."""

    module: str
    plugin: Plugin | None = None


@cache
def stages() -> dict[str, Stage]:
    """All stages by name, each after its inputs. Imports no backend."""
    found = {name: stage for name, (stage, _) in _stages().items()}
    order = TopologicalSorter({s.name: [i for i in s.above if i in found] for s in found.values()}).static_order()
    return {name: found[name] for name in order}


@cache
def backends(stage: str) -> tuple[str, ...]:
    """Names of a stage's backends. Imports none of them."""
    return tuple(_backends()[stage])


def load(stage: str, backend: str) -> type[Operator]:
    """The operator class of a backend.

    Raises:
        UnknownBackend: there is no such stage or backend.
        BrokenPlugin: a package brings it, and it cannot be used.
    """
    found = _find(stage, backend)
    if found.plugin is None:
        loaded: type[Operator] = importlib.import_module(found.module).Backend
        return loaded
    try:
        brought = getattr(importlib.import_module(found.module), "Backend", None)
    except Exception as error:
        raise found.plugin.broken(f"{found.module} cannot be loaded: {type(error).__name__}: {error}") from error
    if not (isinstance(brought, type) and issubclass(brought, Operator) and isinstance(getattr(brought, "version", None), str)):
        raise found.plugin.broken(f"{found.module} has no class `Backend` that is an `Operator` with a `version`")
    return brought


def module_of(stage: str, backend: str) -> str:
    """Full name of a backend's module, which is not imported.

    Raises:
        UnknownBackend: there is no such stage or backend.
    """
    return _find(stage, backend).module


def is_built_in(stage: str, backend: str) -> bool:
    """Whether a backend is egoworld's own, not that of a package."""
    return _find(stage, backend).plugin is None


def brought_by(stage: str, backend: str) -> tuple[str, ...]:
    """The distribution that provides a backend; none if it is built in."""
    plugin = _find(stage, backend).plugin
    return (plugin.package,) if plugin else ()


def packages_of_stages() -> tuple[str, ...]:
    """Full names of the packages in which the stages are declared."""
    return tuple(found.module for _, found in _stages().values())


@cache
def version_of(stage: str, backend: str) -> str:
    """The version of a backend's operator, read from its source: nothing is imported."""
    module = module_of(stage, backend)
    classes = [
        n for n in (sources.tree(module).body if sources.exists(module) else ()) if isinstance(n, ast.ClassDef) and n.name == "Backend"
    ]
    for node in classes[0].body if classes else ():
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
        first = first_fault(error)
        location = ("stages", stage, backend, *first["loc"])
        culprit = ", ".join([*(f"environment variable {v}" for v in variables_of(location)[:1]), f"setting {'.'.join(map(str, location))}"])
        known = ", ".join(operator.Settings.model_fields) or "none"
        near = get_close_matches(str(first["loc"][-1]), operator.Settings.model_fields, 1) if first["type"] == "extra_forbidden" else []
        meant = f"Did you mean {near[0]}? " if near else ""
        raise BadSettings(culprit, first["msg"], f"{meant}Options of this backend: {known}") from error


def _find(stage: str, backend: str) -> _Found:
    if stage not in stages():
        raise plugins.problem_with(plugins.STAGES, stage) or UnknownBackend(
            f"stage {stage}", "there is no such stage", f"Name one of {', '.join(stages())}"
        )
    if backend not in backends(stage):
        known = ", ".join(backends(stage))
        raise plugins.problem_with(plugins.BACKENDS, f"{stage}.{backend}") or UnknownBackend(
            f"stage {stage}, backend {backend}", "there is no such backend", f"Name one of {known} in the settings"
        )
    return _backends()[stage][backend]


@cache
def _stages() -> dict[str, tuple[Stage, _Found]]:
    found: dict[str, tuple[Stage, _Found]] = {}
    for info in pkgutil.iter_modules(__path__):
        if info.ispkg:
            package = importlib.import_module(f"{__name__}.{info.name}")
            found[package.STAGE.name] = package.STAGE, _Found(package.__name__)
    waiting: dict[str, tuple[Stage, Plugin]] = {}
    for name, plugin in plugins.found(plugins.STAGES, {*found, *_NAMES_TAKEN}).items():
        with suppress(BrokenPlugin):
            waiting[name] = _stage_of(plugin), plugin
    while ready := [name for name, (stage, _) in waiting.items() if set(stage.above) <= found.keys()]:
        for name in ready:
            stage, plugin = waiting.pop(name)
            found[name] = stage, _Found(plugin.module, plugin)
    for stage, plugin in waiting.values():
        missing = ", ".join(sorted(set(stage.above) - found.keys()))
        plugin.broken(f"it reads {missing}: no such stage, or one that cannot be used, or one that reads this one")
    return found


def _stage_of(plugin: Plugin) -> Stage:
    loaded = plugin.load()
    stage = getattr(loaded, "STAGE", None) if isinstance(loaded, ModuleType) else loaded
    if not isinstance(stage, Stage):
        raise plugin.broken(f"{plugin.target} has no `STAGE` that is an `egoworld_ops.operators.base.Stage`")
    if wrong := _wrong_with(plugin, stage):
        raise plugin.broken(wrong)
    return stage


def _wrong_with(plugin: Plugin, stage: Stage) -> str | None:
    """Why a stage cannot take its place beside the others; None where it can."""
    per_frame = [column.name for column in schema.per_frame()]
    names = [column.name for column in stage.table.columns]
    if {stage.name, stage.table.name} != {plugin.name}:
        return f"the stage is called {stage.name!r} and its table {stage.table.name!r}; both must have the name of the entry point"
    if not _NAME.match(stage.name):
        return f"the name {stage.name!r} must be of lower-case letters and `_`"
    if names[: len(per_frame) - 1] + names[-1:] != per_frame or stage.table.key[:3] != tuple(per_frame[:3]):
        return f"the columns of its table must be made by `schema.per_frame`, and its key must begin with {', '.join(per_frame[:3])}"
    if strange := {parent.table for parent in stage.parents} - set(stage.above):
        return f"its rows stand on those of {', '.join(sorted(strange))}, which it does not read"
    return None


@cache
def _backends() -> dict[str, dict[str, _Found]]:
    found: dict[str, dict[str, _Found]] = {}
    for stage, (_, package) in _stages().items():
        places = importlib.import_module(package.module).__path__
        names = [info.name for info in pkgutil.iter_modules(places) if not info.name.startswith("_")]
        found[stage] = {name: _Found(f"{package.module}.{name}", package.plugin) for name in names}
    taken = {f"{stage}.{name}" for stage, known in found.items() for name in known}
    for name, plugin in plugins.found(plugins.BACKENDS, taken).items():
        stage, _, backend = name.partition(".")
        if stage not in found or not backend.isidentifier():
            plugin.broken(f"its name must be `stage.backend`, with one of the stages {', '.join(found)}")
        elif ":" in plugin.target:
            plugin.broken(f"it names {plugin.target}, and must name a module, which has a class `Backend`")
        else:
            found[stage][backend] = _Found(plugin.module, plugin)
    return found
