"""From the decoder's frame to an upright RGB picture: rotation metadata, colour matrix and range, bit depth."""

from __future__ import annotations

import math
import struct
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

_UNSPECIFIED = 2
_FULL_RANGE = 2
_SD_HEIGHT = 576


class Upright:
    """How the frames of one stream are shown: the first frame's size and the turn its display matrix asks for."""

    def __init__(self) -> None:
        self.coded_size_px: tuple[int, int] | None = None
        self.rotation_deg = 0
        self.mirrored = False
        self.warnings: list[str] = []
        self.reformatter = VideoReformatter()

    def observe(self, frame: av.VideoFrame) -> None:
        """Take size and turn from the first frame; note a later one of another size, which is scaled to the first's."""
        size = (frame.width, frame.height)
        if self.coded_size_px is None:
            self.coded_size_px = size
            self._turn(frame)
        elif size != self.coded_size_px and not any("changes size" in w for w in self.warnings):
            self.warnings.append(f"the picture changes size to {size[0]} x {size[1]} px; it is scaled to the first frame's")

    def _turn(self, frame: av.VideoFrame) -> None:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return
        a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
        self.mirrored = a * d - b * c < 0
        sign = -1 if self.mirrored else 1
        angle_deg = math.degrees(math.atan2(sign * b, sign * a))
        self.rotation_deg = round(angle_deg / 90) % 4 * 90
        if abs(angle_deg - 90 * round(angle_deg / 90)) > 1:
            self.warnings.append(f"the display matrix turns by {angle_deg:.1f} degrees, {self.rotation_deg} are applied")
        if self.mirrored:
            self.warnings.append("the display matrix mirrors the picture, which is undone")

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height after the turn."""
        width, height = self.coded_size_px or (0, 0)
        return (height, width) if self.rotation_deg in (90, 270) else (width, height)


def to_rgb(frame: av.VideoFrame, upright: Upright) -> np.ndarray:
    """(H, W, 3) uint8 upright RGB of a frame that `upright` has observed.

    The colour matrix is the stream's own; where it names none, BT.709 above 576 lines and BT.601 up to there, as players assume (ITU-R
    BT.709, BT.601). The range is the stream's own, limited where it names none.
    """
    width, height = upright.coded_size_px or (frame.width, frame.height)
    guess = (Colorspace.ITU709 if height > _SD_HEIGHT else Colorspace.ITU601) if frame.colorspace == _UNSPECIFIED else None
    picture = upright.reformatter.reformat(frame, width, height, "rgb24", src_colorspace=guess, threads=1).to_ndarray()
    if upright.mirrored:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(np.rot90(picture, -(upright.rotation_deg // 90)))


def color_range(frame: av.VideoFrame) -> str:
    """`limited`, `full` or `unspecified`, as the stream says."""
    if frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj") or frame.format.is_rgb:
        return "full"
    return "limited" if frame.color_range else "unspecified"
