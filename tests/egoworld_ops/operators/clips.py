"""Clip inputs for tests of operators."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from egoworld_ops.operators.base import ClipInput
from egoworld_ops.types import Clip, Frame
from egoworld_ops.video import decoding, intrinsics
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar, read_sidecar


def clip_input(path: Path, start: int, end: int, width: int, height: int, open_frames: Callable[[], Iterator[Frame]]) -> ClipInput:
    """Frames [start, end) of a video of that size; camera and objects from the sidecar, where there is one."""
    sidecar = read_sidecar(path)
    clip = Clip("v-0123456789ab", "c", path, "0" * 64, start, end, start, end, start / 30, end / 30, Fraction(30), width, height)
    return ClipInput(clip, {}, sidecar, intrinsics.resolve(width, height, sidecar, CameraSettings(), path), 1, open_frames)


def video_input(path: Path, start: int, end: int, width: int, height: int) -> ClipInput:
    """Frames [start, end) of a video file."""
    return clip_input(path, start, end, width, height, lambda: decoding.decode(path, start, end, threads=2))


def pictures_input(pictures: list[np.ndarray]) -> ClipInput:
    """Frames made by the test: (H, W, 3) uint8 each."""
    height, width = pictures[0].shape[:2]
    frames = [Frame(i, i / 30, rgb) for i, rgb in enumerate(pictures)]
    item = clip_input(Path("pictures.mp4"), 0, len(frames), width, height, lambda: iter(frames))
    assert item.sidecar == Sidecar()
    return item
