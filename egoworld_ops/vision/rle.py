"""Masks as COCO run lengths: `{"size": [h, w], "counts": ASCII}`, column-major, runs alternate starting with zeros.

Encoding looks only at the mask's own box. Decoding trusts nothing: run lengths from a foreign file are parsed and summed before
pycocotools, which does not check that they fill the image, sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
from pycocotools import mask as coco

from egoworld_ops.errors import ContractError

MAX_PIXELS = 2**28
_FIRST_CHARACTER = 48
_VALUE_BITS = 5
_CONTINUES = 0x20
_NEGATIVE = 0x10
_MAX_CHARACTERS = 7


class Rle(TypedDict):
    """One mask: `size` is [height, width] in pixels."""

    size: list[int]
    counts: str


def encode(mask: np.ndarray) -> Rle:
    """The run lengths of a mask (H, W) bool. The same text as pycocotools makes, in time that grows with the mask's box only."""
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise ValueError(f"mask: want (H, W) bool with at least a pixel, got {mask.shape} {mask.dtype}")
    x, y, width, height = mask_bbox(mask).astype(int)
    return encode_crop(mask[y : y + height, x : x + width], x, y, mask.shape)


def encode_crop(crop: np.ndarray, left: int, top: int, size_px: tuple[int, int]) -> Rle:
    """The run lengths of a mask of size (height, width) that is all in the part (h, w) bool whose first pixel is at `left`, `top`."""
    height, width = size_px
    starts, ends = _runs(crop, left, top, height)
    edges = np.stack([starts, ends], 1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    packed = coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def decode(rle: Mapping[str, Any]) -> np.ndarray:
    """The mask (H, W) bool, C-contiguous.

    Raises:
        ContractError: the run lengths are malformed, do not fill `size`, or `size` is absurd.
    """
    (height, width), counts = _parse(rle)
    pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return np.ascontiguousarray(pixels.reshape(width, height).T)


def decode_at(rle: Mapping[str, Any], size_px: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool at the size of a picture, (height, width); one stored at another size is resized by nearest neighbour.

    Raises:
        ContractError: as `decode`.
    """
    mask = decode(rle)
    if mask.shape == size_px:
        return mask
    rows, columns = (np.arange(new) * old // new for new, old in zip(size_px, mask.shape, strict=True))
    return mask.take(rows, 0).take(columns, 1)


def area(rle: Mapping[str, Any]) -> int:
    """Pixels in the mask. Raises ContractError as `decode`."""
    return int(_parse(rle)[1][1::2].sum())


def at(rle: Mapping[str, Any], points_px: np.ndarray) -> np.ndarray:
    """Whether the pixels at points (..., 2), x and y in the mask's own pixels, are in the mask; false outside of it and for NaN. Decodes nothing.

    Raises:
        ContractError: as `decode`.
    """
    (height, width), counts = _parse(rle)
    points = np.asarray(points_px, np.float64)
    with np.errstate(invalid="ignore"):
        within = np.asarray(((points > -0.5) & (points < (width - 0.5, height - 0.5))).all(-1))
    x, y = np.moveaxis(np.rint(np.where(within[..., None], points, 0)).astype(np.int64), -1, 0)
    run = np.searchsorted(np.cumsum(counts), x * height + y, side="right")
    return np.asarray(within & (run % 2 == 1))


def iou(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    """Intersection over union of two masks of one size; 0 where both are empty. Raises ContractError as `decode`, or on unequal sizes."""
    if list(first["size"]) != list(second["size"]):
        raise _broken(f"masks of sizes {list(first['size'])} and {list(second['size'])} cannot be compared")
    return float(coco.iou([_checked(first)], [_checked(second)], [0])[0, 0]) if area(first) + area(second) else 0.0


def mask_bbox(mask: np.ndarray) -> np.ndarray:
    """The tight box (4,) float32 [x, y, width, height] of a mask (H, W) bool; zeros for an empty one."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return np.zeros(4, np.float32)
    return np.array([xs[0], ys[0], xs[-1] - xs[0] + 1, ys[-1] - ys[0] + 1], np.float32)


def _runs(crop: np.ndarray, left: int, top: int, mask_height: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last column-major index of each run of ones in the whole mask."""
    height, width = crop.shape
    columns = np.zeros((width, height + 1), np.int8)
    columns[:, :height] = crop.T
    change = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0))
    column, row = np.divmod(change, height + 1)
    index = (left + column) * mask_height + top + row
    starts, ends = index[::2], index[1::2]
    apart = starts[1:] != ends[:-1]
    return starts[np.append(True, apart)[: len(starts)]], ends[np.append(apart, True)[: len(ends)]]


def _checked(rle: Mapping[str, Any]) -> dict[str, Any]:
    """The same mask in pycocotools' form, once it is verified."""
    (height, width), _ = _parse(rle)
    return {"size": [height, width], "counts": rle["counts"].encode("ascii")}


def _parse(rle: Mapping[str, Any]) -> tuple[tuple[int, int], np.ndarray]:
    """Size and run lengths (int64), proven to fill the image. The text format is `rleFrString` of the COCO API."""
    height, width = _size(rle)
    counts = _counts(rle.get("counts"))
    if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
        raise _broken(f"the runs do not add up to {height} x {width} pixels")
    return (height, width), counts


def _size(rle: Mapping[str, Any]) -> tuple[int, int]:
    size = rle.get("size")
    if not isinstance(size, (list, tuple, np.ndarray)) or len(size) != 2 or not all(isinstance(n, (int, np.integer)) for n in size):
        raise _broken(f"size: want [height, width], got {size!r}")
    height, width = int(size[0]), int(size[1])
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise _broken(f"size: want 1 to {MAX_PIXELS} pixels, got {height} x {width}")
    return height, width


def _counts(text: object) -> np.ndarray:
    if not isinstance(text, str) or not text or not text.isascii():
        raise _broken("counts: want ASCII text")
    digits = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if (digits < 0).any() or (digits >= 2 * _CONTINUES).any() or digits[-1] & _CONTINUES:
        raise _broken("counts: not COCO's compressed run lengths")
    last = np.flatnonzero(digits & _CONTINUES == 0)
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > _MAX_CHARACTERS:
        raise _broken("counts: a run length of more than 32 bits")
    place = np.arange(len(digits)) - np.repeat(last - lengths + 1, lengths)
    values = np.add.reduceat((digits & 0x1F) << (_VALUE_BITS * place), last - lengths + 1)
    values -= np.where(digits[last] & _NEGATIVE, np.int64(1) << (_VALUE_BITS * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _broken(reason: str) -> ContractError:
    return ContractError("run-length mask", reason, "Delete the file it came from, or make it anew")
