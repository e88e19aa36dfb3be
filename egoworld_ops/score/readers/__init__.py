"""Readers of truth: one file a source, found by looking into this folder.

`readers/<name>.py` has `reads(folder)`, whether the path looks like one of its own, and `read(folder, camera)`, which returns the `Truth`. The first
line of its docstring says what it reads.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from egoworld_ops.errors import InputError
from egoworld_ops.score.truth import Truth


def names() -> tuple[str, ...]:
    """All sources that can be read."""
    return tuple(info.name for info in pkgutil.iter_modules(__path__))


def read(path: Path, stream: str | None = None) -> Truth:
    """The truth at a path, by the first reader that knows it.

    Args:
        stream: which camera, where the source has several.

    Raises:
        InputError: nothing there is known, or it is not what it looks like.
    """
    for name in names():
        reader = _reader(name)
        if reader.reads(path):
            truth: Truth = reader.read(path, stream)
            return truth
    known = "; ".join(f"{name}: {(_reader(name).__doc__ or '').splitlines()[0]}" for name in names())
    raise InputError(path, "is no truth that is known", f"Give one of these. {known}")


def _reader(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
