"""What a browser plays of a clip: the raw file where it plays it as we decode it, else a copy, which is made when a player asks for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from egoworld_ops.errors import EgoworldError, SetupError, classify
from egoworld_ops.report import browser_copy
from egoworld_ops.types import Clip
from egoworld_ops.video.frame_times import indexed_times

PLAYED: Mapping[str, str] = MappingProxyType(
    {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm", ".mkv": "video/webm"}
)
"""Containers that browsers open, and the type that they are told."""
_CODECS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"h264": ("yuv420p", "yuvj420p"), "av1": ("yuv420p",), "vp8": ("yuv420p",), "vp9": ("yuv420p",)}
)
"""Codecs and pixel formats that browsers decode."""
COPY_TYPE = "video/mp4"


def raw_times(clip: Clip, video: Mapping[str, Any]) -> list[float] | None:
    """The time in seconds of each frame of a clip in its raw file; None where browsers do not play that file frame by frame as we decode it.

    A browser begins its clock at the first frame. So a file whose first frame has another time than 0 is not offered, nor is one whose frames
    are not those of its packet index. The page looks again: at the size of the picture, and at the time of each frame that it shows.

    Args:
        video: its row of `videos`.
    """
    plain = clip.video_path.suffix.lower() in PLAYED and not video["damaged"] and not video["mirrored"]
    if not plain or video["pix_fmt"] not in _CODECS.get(video["codec"] or "", ()):
        return None
    first = indexed_times(replace(clip, frame_start=0, own_start=0, own_end=1, frame_end=1), 1)
    times_s = indexed_times(clip, 1)
    return [round(times_s[frame], 6) for frame in sorted(times_s)] if times_s and first == {0: 0.0} else None


@dataclass(slots=True)
class Copy:
    """One copy: how many of its frames are written, and, once it is whole, their times in seconds; or why it cannot be made."""

    path: Path
    total: int
    done: int = 0
    times_s: list[float] = field(default_factory=list)
    error: EgoworldError | None = None
    dropped: threading.Event = field(default_factory=threading.Event)

    def to_json(self) -> dict[str, Any]:
        """What a player waits for."""
        return {"done": self.done, "total": self.total, "times_s": self.times_s, "error": str(self.error) if self.error else None}


class _Dropped(Exception):
    """Nobody waits for this copy any more."""


class Copies:
    """Copies of clips, made one after the other in a folder of this process; those asked for least lately are removed.

    Args:
        folder: for their files.
        threads: of decoder and encoder.
    """

    MOST = 8

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._known: dict[tuple[str, int, int], Copy] = {}
        self._locked, self._n_made = threading.Lock(), 0
        self._maker = ThreadPoolExecutor(1, "review-copies")

    def of(self, clip: Clip) -> Copy:
        """The copy of a clip, which is begun where there is none, and where the last try failed."""
        key = (clip.video_sha256, clip.frame_start, clip.frame_end)
        with self._locked:
            copy = self._known.pop(key, None)
            if copy is None or copy.error is not None:
                self._n_made += 1
                copy = Copy(self._folder / f"copy-{self._n_made}.mp4", clip.n_frames)
                self._maker.submit(self._make, clip, copy)
            self._known[key] = copy
            for old in list(self._known)[: -self.MOST]:
                self._drop(self._known.pop(old))
        return copy

    def whole(self, clip: Clip) -> Path:
        """The file of a copy that is whole.

        Raises:
            SetupError: it is not yet.
        """
        copy = self.of(clip)
        if not copy.times_s:
            raise SetupError(f"the copy of clip {clip.clip_id}", "is not made yet", "Open the page of the clip, and wait for it")
        return copy.path

    def close(self) -> None:
        """Stop making copies."""
        with self._locked:
            for copy in self._known.values():
                copy.dropped.set()
        self._maker.shutdown(cancel_futures=True)

    def _make(self, clip: Clip, copy: Copy) -> None:
        def progress(done: int) -> None:
            copy.done = done
            if copy.dropped.is_set():
                raise _Dropped

        try:
            if not copy.dropped.is_set():
                copy.times_s = browser_copy.write_copy(clip, copy.path, self._threads, progress)
        except _Dropped:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the page says it
            copy.error = classify(error, f"the copy of clip {clip.clip_id}")
        if copy.dropped.is_set() or copy.error is not None:
            copy.path.unlink(missing_ok=True)

    @staticmethod
    def _drop(copy: Copy) -> None:
        copy.dropped.set()
        with suppress(FileNotFoundError):
            copy.path.unlink()
