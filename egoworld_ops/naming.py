"""What a person may have meant who wrote a name that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MOST_NAMED = 10


def did_you_mean(written: str, known: Iterable[str]) -> str:
    """A cure for an unknown name: the nearest of those there are, or all of them where they are few."""
    names = list(known)
    near = difflib.get_close_matches(written.lower(), names, 3, 0.6) or [name for name in names if written and name.startswith(written)][:3]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    shown = ", ".join(names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"There are {shown}{more}" if names else "There are none"
