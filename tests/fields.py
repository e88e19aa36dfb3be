"""The fields of types, found by reflection, and valid values in which one field is changed: for tests that must not forget a new field."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter
from pydantic_settings import BaseSettings

_UNLIKE_NONE: tuple[Any, ...] = (True, 1, 0.5, "x", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0, 4.0), {"x": "x"})


def paths(kind: Any) -> list[str]:
    """Dotted names of all fields of a type; those of nested types below the field that holds them, also in tuples and dicts."""
    return [".".join(path) for name, hint in _hints(kind).items() for path in _below(name, hint)]


def others(value: Any, path: str, candidates: Sequence[Any] = ()) -> list[Any]:
    """Valid values like `value` with another value in the field at `path`; of several items the first is changed.

    Args:
        candidates: values to put there; if none are given, those that the field's type and value suggest.

    Raises:
        AssertionError: there is no such field, or no other value is valid for it.
    """
    found = list(_others(value, path.split("."), candidates))
    assert found, f"{path}: {type(value).__name__} has no value there that could be another"
    return found


def _hints(kind: Any) -> dict[str, Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        hints = get_type_hints(kind, include_extras=True)
        return {name: hints[name] for name in kind.model_fields}
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _below(name: str, hint: Any) -> Iterator[list[str]]:
    inner = [kind for kind in _kinds(hint) if is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel))]
    if not inner:
        yield [name]
    for kind in inner:
        yield from ([name, *path] for below, deeper in _hints(kind).items() for path in _below(below, deeper))


def _kinds(hint: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif origin is Literal or origin is None:
        yield hint
    else:
        for part in get_args(hint):
            yield from _kinds(part)


def _others(value: Any, path: Sequence[str], given: Sequence[Any], hint: Any = Any) -> Iterator[Any]:
    if not path:
        for candidate in given or _candidates(value, hint):
            with suppress(ValueError):
                valid = TypeAdapter(hint).validate_python(candidate)
                if valid != value:
                    yield valid
    elif isinstance(value, tuple | list) and value:
        yield from ((item, *value[1:]) for item in _others(value[0], path, given))
    elif isinstance(value, Mapping) and value:
        key = next(iter(value))
        yield from ({**value, key: item} for item in _others(value[key], path, given))
    elif is_dataclass(value) or isinstance(value, BaseModel):
        name = path[0]
        for item in _others(getattr(value, name), path[1:], given, _hints(type(value))[name]):
            with suppress(ValueError):
                yield _with(value, name, item)


def _with(value: Any, name: str, item: Any) -> Any:
    if not isinstance(value, BaseModel):
        return replace(value, **{name: item})
    if isinstance(value, BaseSettings):  # validating it anew would read the environment
        return value.model_copy(update={name: item})
    held = {field: getattr(value, field) for field in type(value).model_fields} | (value.model_extra or {})
    return type(value).model_validate(held | {name: item})


def _candidates(value: Any, hint: Any) -> Iterator[Any]:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is not None and type(None) in options:
        yield None
    for kind in _kinds(hint):
        if get_origin(kind) is Literal:
            yield from get_args(kind)
    if value is None:
        yield from _UNLIKE_NONE
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float | Fraction):
        yield from (value + 1, value - 1, value * 2, value / 2, value + 64)
    elif isinstance(value, str):
        yield from (f"{value}x", "x", value[::-1])
    elif isinstance(value, Path):
        yield value.with_name("another.mp4")
    elif isinstance(value, tuple):
        yield from (value[:-1], value[::-1], (*value, *value[:1]))
        if value and isinstance(value[0], int | float):
            yield (value[0] * 1.5 + 1, *value[1:])
            yield (int(value[0]) + 1, *value[1:])
    elif isinstance(value, Mapping):
        yield {**value, "x": "x"}
