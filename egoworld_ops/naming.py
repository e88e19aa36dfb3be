"""Suggestions for a name that does not exist, and whether an address is one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from urllib.parse import urlsplit

MOST_NAMED, ALIKE = 10, 0.65


def did_you_mean(written: str, known: Iterable[str]) -> str:
    """A cure for an unknown name: the nearest of those there are, or all of them where they are few."""
    names = list(known)
    near = _near(written.lower(), names)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    shown = ", ".join(names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"There are {shown}{more}." if names else "There are none."


def _near(written: str, names: list[str]) -> list[str]:
    """The names most like what was written, or that begin like it: a video's name ends with digits that nobody types."""
    if not written:
        return []
    stem = written.rpartition(".")[0] or written
    scored = [(max(_alike(written, name), _alike(stem, name[: len(stem)]) - 0.1), name) for name in names]
    return [name for score, name in sorted(scored, reverse=True) if score >= ALIKE][:3]


def _alike(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b.lower()).ratio()


def is_http_address(text: str) -> bool:
    """Whether a text is an address of http or https that can be asked as it stands: with a host, no spaces or line ends, and ASCII alone."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:  # of a port that is no number
        return False
    return whole and text.isascii() and text.isprintable() and " " not in text
