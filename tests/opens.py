"""Which files a piece of code opens, and files that cannot be read for a moment, by what the interpreter and the system calls themselves do."""

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
    """How often each path was opened within, by whatever call."""
    counter: Counter[str] = Counter()
    _counting.append(counter)
    try:
        yield counter
    finally:
        _counting.remove(counter)


@contextmanager
def unreadable(path: Path, number: int, calls: tuple[str, ...] = ("open",)) -> Iterator[None]:
    """A path that is there and of which the system gives the error of that number, to `open` or also to `stat`."""

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
