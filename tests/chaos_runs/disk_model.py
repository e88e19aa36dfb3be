"""A model of what a file system guarantees: names and content that were not synced may be lost with the power.

`Recorder` notes a process's changes of names below a folder and which of them it syncs; `crash` draws one of the states that a loss of power at
some moment could leave. The model is that of a journaled file system: an operation on names is whole or not at all, it is durable once a folder it
touches has been synced, and the operations of one that never was may be there in any choice. Content is durable once its file has been synced; before
that any part of it may be there, cut off or zero from some byte on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal

Kind = Literal["folder", "file", "link", "move", "symlink", "remove", "sync"]


@dataclass(slots=True)
class Content:
    """A file's bytes. `synced_at` is the operation at which they became durable."""

    data: bytes
    synced_at: int | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of names, or the syncing of a folder.

    Args:
        path: that is created, removed or synced.
        source: of a move.
        content: of a file; None for other things.
        text: of a symbolic link.
    """

    kind: Kind
    path: Path
    source: Path | None = None
    content: Content | None = None
    text: str = ""

    @property
    def folders(self) -> set[Path]:
        """Syncing one of them makes it durable."""
        return {p.parent for p in (self.path, self.source) if p is not None}


@dataclass(slots=True)
class Recorder:
    """The operations of this process below `root`, in order."""

    root: Path
    operations: list[Operation] = field(default_factory=list)
    _contents: dict[int, Content] = field(default_factory=dict)
    _kept_open: list[int] = field(default_factory=list)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Record what is done through `os` within the block."""
        names = ("fsync", "replace", "rename", "link", "symlink", "mkdir", "unlink")
        before = {name: getattr(os, name) for name in names}
        for name in names:
            setattr(os, name, self._wrapped(name, before[name]))
        try:
            yield
        finally:
            for name in names:
                setattr(os, name, before[name])
            for descriptor in self._kept_open:
                os.close(descriptor)

    def _wrapped(self, name: str, call: Any) -> Any:
        note = getattr(self, f"_{name}")

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if any(options.get(o) is not None for o in ("dir_fd", "src_dir_fd", "dst_dir_fd")):
                return call(*arguments, **options)  # shutil.rmtree, of temporary folders
            with note(*arguments):
                return call(*arguments, **options)

        return wrapped

    def _add(self, kind: Kind, path: Any, **more: Any) -> None:
        if (absolute := Path(os.path.abspath(os.fsdecode(path)))).is_relative_to(self.root):
            self.operations.append(Operation(kind, absolute, **more))

    def _content(self, path: Any) -> Content:
        """The content of a file, known by its inode, which is kept from being used again."""
        descriptor = os.open(path, os.O_RDONLY)
        inode = os.fstat(descriptor).st_ino
        if inode in self._contents:
            os.close(descriptor)
        else:
            self._kept_open.append(descriptor)
            self._contents[inode] = Content(Path(path).read_bytes())
            self._add("file", path, content=self._contents[inode])
        return self._contents[inode]

    @contextmanager
    def _fsync(self, descriptor: int) -> Iterator[None]:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        yield
        if path.is_dir():
            self._add("sync", path)
        elif path.is_relative_to(self.root):
            content = self._content(path)
            assert content.data == path.read_bytes(), f"{path} was changed after it had been seen"
            if content.synced_at is None:
                content.synced_at = len(self.operations)

    @contextmanager
    def _replace(self, source: Any, target: Any) -> Iterator[None]:
        content = self._content(source) if Path(source).is_file() and not Path(source).is_symlink() else None
        yield
        self._add("move", target, source=Path(os.path.abspath(source)), content=content)

    _rename = _replace

    @contextmanager
    def _link(self, source: Any, target: Any) -> Iterator[None]:
        content = self._content(source)
        yield
        self._add("link", target, content=content)

    @contextmanager
    def _symlink(self, text: Any, target: Any, *_: Any) -> Iterator[None]:
        yield
        self._add("symlink", target, text=os.fspath(text))

    @contextmanager
    def _mkdir(self, path: Any, *_: Any) -> Iterator[None]:
        yield
        self._add("folder", path)

    @contextmanager
    def _unlink(self, path: Any) -> Iterator[None]:
        yield
        self._add("remove", path)


def crash(operations: list[Operation], at: int, random: Random) -> int:
    """Create in the recorded folder, which is empty, one of the possible states after a power loss just before operation `at`.

    Returns:
        How many operations on names were lost and how many files were torn, together.
    """
    losses, contents = 0, {}
    keep = random.choice((0.0, 0.5, 0.9, 1.0))
    for number, operation in enumerate(operations[:at]):
        if operation.kind == "sync":
            continue
        durable = any(later.kind == "sync" and later.path in operation.folders for later in operations[number + 1 : at])
        if not durable and random.random() >= keep:
            losses += 1
            continue
        if (content := operation.content) is not None and id(content) not in contents:
            synced = content.synced_at is not None and content.synced_at <= at
            contents[id(content)] = content.data if synced else _torn(content.data, random)
            losses += contents[id(content)] != content.data
        _apply(operation, contents.get(id(operation.content), b""))
    return losses


def _torn(data: bytes, random: Random) -> bytes:
    cut = random.choice((0, len(data), random.randrange(len(data) + 1)))
    return data[:cut] + (bytes(len(data) - cut) if random.random() < 0.3 else b"")


def _apply(operation: Operation, data: bytes) -> None:
    """Repeat an operation, if its folder exists."""
    path, source = operation.path, operation.source
    if not path.parent.is_dir():
        return
    if operation.kind == "folder":
        path.mkdir(exist_ok=True)
    elif operation.kind == "symlink":
        path.symlink_to(operation.text)
    elif operation.kind == "remove":
        path.unlink(missing_ok=True)
    elif operation.kind == "move" and operation.content is None:
        if source is not None and os.path.lexists(source):
            source.rename(path)
    else:
        if source is not None:
            source.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
