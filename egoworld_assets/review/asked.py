"""What a browser asks, checked: numbers within bounds, names as names are; and links that keep the rest of the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import QueryParams

from egoworld_ops.errors import EgoworldError

MOST_TEXT = 200
PAGE_SIZES = (50, 100, 200)
MOST_PAGES = 100_000


class BadRequest(EgoworldError):
    """An address that no page links to."""


class NotThere(EgoworldError):
    """What the address names is not in the lake."""


class Asked:
    """The parameters of an address."""

    def __init__(self, path: str, params: QueryParams) -> None:
        self._path, self._params = path, params

    def text(self, name: str, default: str = "") -> str:
        """A parameter's text.

        Raises:
            BadRequest: it is longer than any filter.
        """
        value = self._params.get(name, default)
        if len(value) > MOST_TEXT:
            raise BadRequest(f"parameter {name}", f"has {len(value)} characters", f"Write at most {MOST_TEXT}")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A parameter's whole number.

        Raises:
            BadRequest: it is none, or out of bounds.
        """
        given = self._params.get(name, "") or str(default)
        if not given.isascii() or not given.lstrip("-").isdecimal() or len(given) > 18 or not least <= int(given) <= most:
            raise BadRequest(f"parameter {name}", f"is {given[:20]!r}", f"Give a whole number from {least} to {most}")
        return int(given)

    def one_of(self, name: str, known: Mapping[str, Any] | tuple[str, ...], default: str = "") -> str:
        """A parameter that is one of some words; the default where it is not given.

        Raises:
            BadRequest: it is another word.
        """
        value = self.text(name) or default
        if value and value not in known:
            raise BadRequest(f"parameter {name}", f"is {value!r}", f"Choose one of {', '.join(list(known)[:40])}")
        return value

    def link(self, **changed: Any) -> str:
        """This address with some parameters changed; those that become empty are left out, and paging starts again unless it is set."""
        params = {**dict(self._params), "page": "", **{name: str(value) for name, value in changed.items()}}
        query = urlencode({name: value for name, value in params.items() if value})
        return f"{quote(self._path)}{'?' if query else ''}{query}"


@dataclass(frozen=True, slots=True)
class Paging:
    """Which rows of a list are shown; `number` counts from 1."""

    number: int
    size: int

    @classmethod
    def of(cls, asked: Asked) -> Paging:
        """What the address says.

        Raises:
            BadRequest: a size that is not offered, or a page far beyond any list.
        """
        size = asked.number("size", PAGE_SIZES[0], 1, PAGE_SIZES[-1])
        if size not in PAGE_SIZES:
            raise BadRequest("parameter size", f"is {size}", f"Choose one of {PAGE_SIZES}")
        return cls(asked.number("page", 1, 1, MOST_PAGES), size)

    @property
    def offset(self) -> int:
        """Rows before it."""
        return (self.number - 1) * self.size
