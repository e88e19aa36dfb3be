"""Base of the sections of the settings. Each section is declared in the package that reads it; `settings.py` combines them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Section(BaseModel):
    """Base of the sections: unknown names are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def first_fault(error: ValidationError) -> ErrorDetails:
    """The first thing that is wrong with values that somebody gave, in the words of the check that found it."""
    first = error.errors()[0]
    return {**first, "msg": first["msg"].removeprefix("Value error, ")}
