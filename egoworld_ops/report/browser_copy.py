"""A copy of a clip's pictures that every browser plays and seeks in quickly, for videos that a browser cannot play or does not show as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from egoworld_ops.report.rendering import encode, even, smaller
from egoworld_ops.types import Clip
from egoworld_ops.video.decoding import decode_clip

SIZE_PX = 1280
"""The longer side of its picture, at most."""
KEY_EVERY_FRAMES = 12
CRF = 23


def write_copy(clip: Clip, out: Path, threads: int, progress: Callable[[int], object]) -> list[float]:
    """Write every frame of a clip as H.264 in MP4; returns the time of each in the copy, in seconds from the first.

    Args:
        progress: called with the number of frames written, after each; what it raises ends the copy.

    Raises:
        InputError: the video cannot be decoded.
        StorageUnavailable: it cannot be read now.
    """
    times_s: list[float] = []

    def shown() -> Iterator[tuple[float, np.ndarray]]:
        first_s = None
        for frame in decode_clip(clip, threads=threads):
            first_s = frame.timestamp_s if first_s is None else first_s
            times_s.append(round(frame.timestamp_s - first_s, 6))
            yield times_s[-1], even(smaller(frame.rgb, min(SIZE_PX / max(frame.rgb.shape[:2]), 1.0)))
            progress(len(times_s))

    encode(out, shown(), f"{clip.video_id} {clip.clip_id}", CRF, threads, g=str(KEY_EVERY_FRAMES), bf="0")
    return times_s
