"""The environment variables of egoworld: which there are, which nobody reads, and which one an error of a setting came from."""

from __future__ import annotations

import difflib
import os
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from egoworld_ops.errors import BadSettings

PREFIX = "EGOWORLD_"
DELIMITER = "__"
OTHERS = ("PROFILE", "WEIGHTS", "WORKER_THREADS", "WORKER_OF")
"""What is read beside the settings: the profile, the folder of weights, and what the pool tells its workers."""
_NEAR = 0.8


def check_names(settings: type[BaseModel]) -> None:
    """Raise BadSettings where an environment variable has a name like ours and no setting has that name."""
    paths = {(name.lower(),): False for name in OTHERS} | dict(_paths(settings))
    known = {PREFIX + DELIMITER.join(path).upper() for path in paths}
    unread = [name for name in os.environ if _is_meant(name, known) and not _is_read(_parts(name), paths)]
    if unread:
        near = (difflib.get_close_matches(unread[0].upper(), sorted(known), 1, _NEAR) or [""])[0]
        meant = f"Did you mean {near}? " if near else ""
        others = f" (nor {', '.join(unread[1:])})" if unread[1:] else ""
        cure = f"{meant}Name a setting of docs/architecture.md, with two underscores before the name within a section, or unset it"
        raise BadSettings(f"environment variable {unread[0]}", f"is read by nobody{others}", cure)


def _is_read(parts: Sequence[str], paths: Mapping[tuple[str, ...], bool]) -> bool:
    """Whether a setting begins with these parts of a name and has parts of its own where they go on. Names in a section are checked with it."""
    return (parts[0],) in paths and all(paths.get(tuple(parts[:n]), True) for n in range(1, len(parts)))


def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.upper().removeprefix(PREFIX).lower().split(DELIMITER))


def _is_meant(name: str, known: set[str]) -> bool:
    """Whether a variable has our prefix, or is a misspelling of one of ours."""
    upper = name.upper()
    return upper.startswith(PREFIX) or (upper.startswith("EGO") and bool(difflib.get_close_matches(upper, known, 1, 0.9)))


def _paths(model: type[BaseModel]) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Names of all settings, those within sections as paths, and whether a setting has parts: a table of free names has, and is not gone into."""
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        yield (name,), section is not None or get_origin(field.annotation) is dict
        if section:
            yield from (((name, *path), parted) for path, parted in _paths(section))


def _section(kind: Any) -> type[BaseModel] | None:
    if get_origin(kind) in (Annotated, Union, types.UnionType):
        return next((found for part in get_args(kind) if (found := _section(part))), None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def variables_of(location: Sequence[int | str]) -> list[str]:
    """The variables that give a setting, a part of it, or the section that it is in; the setting itself first.

    Args:
        location: where an error is, as pydantic says it.
    """
    path = tuple(str(part).lower() for part in location)
    given = {name: _parts(name) for name in os.environ if name.upper().startswith(PREFIX)}
    found = [name for name, parts in given.items() if parts[: len(path)] == path or path[: len(parts)] == parts]
    return sorted(found, key=lambda name: given[name] != path)
