"""The formats that rows can be exported to: found by looking into this folder and at what installed packages bring (`egoworld_ops.plugins`).

`exports/<format>.py` has a function `export(rows, target)`; the first line of its docstring says what comes of it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from egoworld_ops import plugins
from egoworld_ops.errors import BadSettings
from egoworld_ops.exports.base import Rows

Export = Callable[[Rows, Path], Sequence[Path]]
"""Writes rows below a folder that is there and empty, and returns the files that it wrote."""
_NO_FORMATS = ("base",)


@cache
def formats() -> tuple[str, ...]:
    """Names of all formats. Imports none of them."""
    built_in = _built_in()
    return (*built_in, *plugins.found(plugins.EXPORTS, built_in))


def load(name: str) -> Export:
    """The exporter of a format.

    Raises:
        BadSettings: there is no such format.
        BrokenPlugin: a package brings it, and it cannot be used.
    """
    if name in _built_in():
        built_in: Export = importlib.import_module(f"{__name__}.{name}").export
        return built_in
    plugin = plugins.found(plugins.EXPORTS, _built_in()).get(name)
    if plugin is None:
        raise BadSettings(f"format {name}", "there is no such format", f"Name one of {', '.join(formats())}")
    export: Export | None = getattr(plugin.load(), "export", None)
    if not callable(export):
        raise plugin.broken(f"{plugin.target} has no function `export`")
    return export


def described(name: str) -> str:
    """What an exporter says comes of it: the first line of its docstring."""
    return (inspect.getdoc(load(name)) or "it does not say").splitlines()[0]


@cache
def _built_in() -> tuple[str, ...]:
    return tuple(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NO_FORMATS)
