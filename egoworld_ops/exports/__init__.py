"""The formats that rows can be exported to: found by looking into this folder and at what installed packages bring (`egoworld_ops.plugins`).

`exports/<format>.py` has a function `export(rows, target)`; the first line of its docstring says what comes of it.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from egoworld_ops import plugins
from egoworld_ops.errors import BadSettings, BrokenPlugin
from egoworld_ops.exports.base import Rows
from egoworld_ops.files.whole import is_there, make_folder, named_errors, remove, sync_folder, temporary_folder, write_bytes

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


def write(name: str, rows: Rows, target: Path) -> list[Path]:
    """Write rows in a format, and the truth cards that speak of them, to a new folder, which is durable before it takes its place in one step.

    Returns its files.

    A process that is killed leaves no `target`, only a folder `.tmp-export-*` beside it.

    Raises:
        BadSettings: there is no such format; or `target` is there already, or lies in the lake.
        BrokenPlugin: a package brings the format, and it cannot be used.
        ContractError, InputChanged: of the rows.
        StorageUnavailable: the storage refuses.
    """
    export = load(name)
    _refuse(rows, target)
    with named_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = temporary_folder(target.parent, "export")
        try:
            files = [_durable(name, path, folder) for path in export(rows, folder)]
            for place, content in rows.cards.files.items():
                files.append(folder / place)
                make_folder(files[-1].parent)
                write_bytes(files[-1], content)
            for inner in {path.parent for path in files} | {folder}:
                sync_folder(inner)
            _refuse(rows, target)
            os.rename(folder, target)
        except BaseException:
            remove(folder)
            raise
        sync_folder(target.parent)
    return [target / path.relative_to(folder) for path in files]


def _refuse(rows: Rows, target: Path) -> None:
    """Raise BadSettings where an export must not be written."""
    if is_there(target):
        raise BadSettings(target, "is there already", "Name a new folder: an export takes its place in one step")
    if target.resolve().is_relative_to(rows.run.lake.root.resolve()):
        raise BadSettings(
            target, f"lies in the lake {rows.run.lake.root}", "Name a folder outside: whatever lies in the lake is read as its own"
        )


def _durable(name: str, path: Path, folder: Path) -> Path:
    """A file that an exporter says it wrote, once it is on the disk."""
    if folder not in path.parents or not path.is_file():
        raise BrokenPlugin(f"format {name}", f"says that it wrote {path}, which is no file below {folder}", "Mend or uninstall its package")
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return path


def described(name: str) -> str:
    """What an exporter says comes of it: the first line of its docstring."""
    return (inspect.getdoc(load(name)) or "it does not say").splitlines()[0]


@cache
def _built_in() -> tuple[str, ...]:
    return tuple(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NO_FORMATS)
