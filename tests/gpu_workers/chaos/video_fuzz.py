"""Damaged copies of small real videos, and child processes that make manifests of them, so that a crash in libav is seen from outside."""

from __future__ import annotations

import resource
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Literal

from egoworld_ops.errors import EgoworldError
from egoworld_ops.video.containers import hash_file
from egoworld_ops.video.manifest import clips_from_tables, make_manifest
from egoworld_ops.video.settings import SceneSettings
from tests.egoworld_ops import media

_PATIENCE_S = 60.0
_MEMORY_BYTES = 8 << 30
_EXTREMES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_FAMILIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mp4", {}),
    ("mp4", {"options": {"movflags": "faststart"}, "audio_tracks": 1}),
    ("mov", {"rotation_deg": 90}),
    ("mkv", {}),
    ("avi", {"codec": "mpeg4"}),
    ("ts", {}),
    ("mpg", {"codec": "mpeg2video", "fps": 25}),
    ("flv", {"codec": "flv1"}),
    ("webm", {"codec": "libvpx", "fps": Fraction(24)}),
)


def originals(folder: Path, kitchen: Path) -> list[tuple[str, bytes]]:
    """Suffix and content of whole videos: one of each container, a few frames each, and some of the rendered scene."""
    found = []
    for number, (suffix, options) in enumerate(_FAMILIES):
        path = media.make(folder / f"original-{number}.{suffix}", 12, (64, 48), **options)
        found.append((suffix, path.read_bytes()))
    return [*found * 12, ("mp4", kitchen.read_bytes())]


def damaged(random: Random, whole: Sequence[tuple[str, bytes]]) -> tuple[str, bytes]:
    """One of the videos with a few things wrong; one in 50 is left as it is."""
    suffix, content = random.choice(whole)
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 5)) if random.random() > 0.02 else 0):
        random.choice(_DAMAGE)(random, data, whole)
    return suffix, bytes(data)


def _bits(random: Random, data: bytearray, whole: object) -> None:
    for _ in range(random.choice((1, 3, 20, 200))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _head_or_tail(random: Random, data: bytearray, whole: object) -> None:
    """Where the headers are."""
    start = random.choice((0, max(0, len(data) - 2000)))
    for _ in range(random.choice((1, 4, 16))):
        at = start + random.randrange(2000)
        if at < len(data):
            data[at] = random.randrange(256)


def _number(random: Random, data: bytearray, whole: object) -> None:
    """A length, count or size becomes an extreme one."""
    packed = struct.pack(random.choice((">I", "<I")), random.choice(_EXTREMES))
    at = random.randrange(max(1, len(data) - 4))
    data[at : at + 4] = packed


def _cut(random: Random, data: bytearray, whole: object) -> None:
    del data[random.randrange(len(data) + 1) :]


def _hole(random: Random, data: bytearray, whole: object) -> None:
    at = random.randrange(len(data) + 1)
    n_bytes = min(random.choice((16, 512, 4096)), len(data) - at)
    data[at : at + n_bytes] = random.choice((bytes(n_bytes), random.randbytes(n_bytes)))


def _missing(random: Random, data: bytearray, whole: object) -> None:
    at = random.randrange(len(data) + 1)
    del data[at : at + random.choice((1, 100, 3000))]


def _repeated(random: Random, data: bytearray, whole: object) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = data[at : at + random.choice((8, 100, 3000))]


def _spliced(random: Random, data: bytearray, whole: Sequence[tuple[str, bytes]]) -> None:
    """The end of another video."""
    other = random.choice(whole)[1]
    data[random.randrange(len(data) + 1) :] = other[random.randrange(len(other)) :]


_DAMAGE = (_bits, _head_or_tail, _number, _cut, _hole, _missing, _repeated, _spliced)


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a file: `ok` and its clips, `rejected` or `error` of a class, or one that must not be: `untyped`, `died`, `hung`."""

    how: Literal["ok", "rejected", "error", "untyped", "died", "hung"]
    what: str = ""
    clips: tuple[Any, ...] = ()


class Child:
    """A process that makes manifests, started anew where it dies."""

    def __init__(self) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def manifest(self, path: Path, number: int) -> Found:
        """What `make_manifest` makes of a file."""
        self._pipe.send((path, number))
        try:
            if self._pipe.poll(_PATIENCE_S):
                found: Found = self._pipe.recv()
                return found
        except (EOFError, ConnectionResetError):
            self._process.join(_PATIENCE_S)
            code = self._process.exitcode
            self._pipe.close()
            self._start()
            return Found("died", f"exit code {code}")
        self.close()
        self._start()
        return Found("hung", f"for {_PATIENCE_S:.0f} s")

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    while True:
        path, number = pipe.recv()
        pipe.send(_made(path, number))


def _made(path: Path, number: int) -> Found:
    try:
        videos, clips = make_manifest(path, f"fuzz-{number}", hash_file(path)[0], SceneSettings(), threads=2)
        [row] = videos.to_pylist()
        if row["status"] == "rejected":
            return Found("rejected", row["error_class"])
        return Found("ok", "damaged" if row["damaged"] else "whole", tuple(clips_from_tables(videos, clips)))
    except EgoworldError as error:
        return Found("error", type(error).__name__)
    except BaseException as error:
        return Found("untyped", f"{type(error).__name__}: {error}"[:500])
