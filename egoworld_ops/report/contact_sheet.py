"""The contact sheet: frames of a clip with all that was found in them, as one small PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.types import Frame

GAP_PX = 4
MAX_BYTES = 400_000
PALETTES = (256, 128, 64, 32, 16, 8)
"""Numbers of colours that are tried until the PNG is small enough."""
OVER, BELOW = ("masks", "objects", "hands"), ("robots", "holds")
"""The layers that are drawn onto a picture, and those that stand below it."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """A frame scaled down to its tile. `scale` is tile pixels over frame pixels."""

    index: int
    timestamp_s: float
    rgb: np.ndarray
    scale: float


def contact_sheet(
    frames: Iterable[Frame], layers: ClipLayers, columns: int = 4, n: int = 8, tile_px: int = 320, max_bytes: int = MAX_BYTES
) -> bytes:
    """A PNG with up to `n` frames, evenly spaced over `frames`, and what was found in them.

    Masks are outlined and tinted by role; hands are drawn as skeletons after fusion (coloured where solved in 3D from the frame, grey where filled
    in or seen only), with thin grey lines as they were found where that differs; objects as axes and cuboids; a picture says so where lengths rest on
    an assumed focal length. Below each stand the robot hands in the camera's view with their residual, and which hand holds what. Frames are read
    once and one at a time; at most 2 n small pictures are kept.

    Args:
        frames: decoded frames of one clip, in order.
        layers: of that clip; one that has nothing draws nothing.
        columns: pictures a row.
        n: pictures at most.
        tile_px: the longer side of a picture.
        max_bytes: colours are reduced until the PNG is no larger, or 8 are left.

    Returns:
        The PNG; one that says so where there are no frames. The same input gives the same bytes.
    """
    pictures = _spread(frames, n, tile_px)
    if not pictures:
        return _png(_message("no frames", tile_px), max_bytes)
    from egoworld_ops.report._tile import Look, tile

    look = Look(OVER, BELOW)
    tiles = [tile(p.rgb, p.scale, p.timestamp_s, layers.frame(p.index, (*OVER, *BELOW)), look) for p in pictures]
    return _png(_grid(tiles, columns), max_bytes)


def _spread(frames: Iterable[Frame], n: int, tile_px: int) -> list[_Picture]:
    """At most `n` frames, evenly spaced, of a sequence whose length is not known beforehand."""
    kept: list[_Picture] = []
    stride = 1
    for i, frame in enumerate(frames):
        if i % stride:
            continue
        if len(kept) == 2 * n:
            kept, stride = kept[::2], stride * 2
            if i % stride:
                continue
        kept.append(_shrink(frame, tile_px))
    if len(kept) <= n:
        return kept
    return [kept[i] for i in np.linspace(0, len(kept) - 1, n).round().astype(int)]


def _shrink(frame: Frame, tile_px: int) -> _Picture:
    import cv2

    height, width = frame.rgb.shape[:2]
    scale = min(tile_px / max(height, width), 1.0)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return _Picture(frame.index, frame.timestamp_s, cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA), scale)


def _grid(tiles: list[np.ndarray], columns: int) -> np.ndarray:
    from egoworld_ops.report._tile import BACKGROUND

    height, width = max(t.shape[0] for t in tiles), max(t.shape[1] for t in tiles)
    columns = max(min(columns, len(tiles)), 1)
    n_rows = -(-len(tiles) // columns)
    sheet = np.full((n_rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 3), BACKGROUND, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (height + GAP_PX), i % columns * (width + GAP_PX)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _message(message: str, width_px: int) -> np.ndarray:
    from egoworld_ops.report import _overlay
    from egoworld_ops.report._tile import BACKGROUND, TEXT

    picture = np.full((48, width_px, 3), BACKGROUND, np.uint8)
    _overlay.text(picture, message, (8, 28), TEXT)
    return picture


def _png(rgb: np.ndarray, max_bytes: int) -> bytes:
    """A PNG with a palette: a third of the size of one in full colour."""
    from PIL import Image

    png = b""
    for colors in PALETTES:
        buffer = io.BytesIO()
        indexed = Image.fromarray(rgb).quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        indexed.save(buffer, "PNG", optimize=True)
        png = buffer.getvalue()
        if len(png) <= max_bytes:
            break
    return png
