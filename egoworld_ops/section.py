"""Base of the sections of the settings. Each section is declared in the package that reads it; `settings.py` combines them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


_PLAIN = {
    "missing": "is missing",
    "extra_forbidden": "there is no field of this name",
    "model_type": "want an object, {...}",
    "tuple_type": "want a list, [...]",
    "list_type": "want a list, [...]",
    "dict_type": "want an object, {...}",
}
"""What pydantic says in words of Python, by the type of its error."""


class Section(BaseModel):
    """Base of the sections: unknown names are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def first_fault(error: ValidationError) -> ErrorDetails:
    """The first thing that is wrong with values that somebody gave, in the words of the check that found it."""
    first = error.errors()[0]
    return {**first, "msg": _PLAIN.get(first["type"], first["msg"].removeprefix("Value error, "))}
