"""Which files a piece of code opens, and files that cannot be read for a moment, both at the level of the interpreter and of system calls."""

from __future__ import annotations

import builtins
import io
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_counting: list[Counter[str]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _counting and isinstance(arguments[0], (str, bytes, os.PathLike)):
        for counter in _counting:
            counter[os.fsdecode(arguments[0])] += 1


sys.addaudithook(_hook)


@contextmanager
def opened() -> Iterator[Counter[str]]:
    """How often each path was opened within the block, by any call."""
    counter: Counter[str] = Counter()
    _counting.append(counter)
    try:
        yield counter
    finally:
        _counting.remove(counter)


@contextmanager
def unreadable(path: Path, number: int, calls: tuple[str, ...] = ("open",)) -> Iterator[None]:
    """A path that exists, and for which `open`, or `stat` too, fails with that error number."""

    def broken(call: Any) -> Any:
        def instead(target: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(target, (str, bytes, os.PathLike)) and os.fsdecode(target) == str(path):
                raise OSError(number, os.strerror(number), str(path))
            return call(target, *arguments, **named)

        return instead

    with pytest.MonkeyPatch.context() as patch:
        if "open" in calls:
            for module, name in ((os, "open"), (io, "open"), (builtins, "open"), (os, "listdir"), (os, "scandir"), (os, "readlink")):
                patch.setattr(module, name, broken(getattr(module, name)))
        if "stat" in calls:
            for name in ("stat", "lstat"):
                patch.setattr(os, name, broken(getattr(os, name)))
        yield
