"""Files of named arrays in the format safetensors: a length, a JSON header, the bytes. Nothing in it can be run.

The format is that of https://github.com/huggingface/safetensors (README, Format): 8 bytes little-endian N, N bytes of JSON
`{name: {dtype, shape, data_offsets}}` with offsets from the end of the header, then the data, row-major and little-endian, without holes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from egoworld_ops.errors import WeightsUnreadable

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""Of numpy; BF16 are the upper halves of float32, and are read as such."""
_HEADER_BYTES = 100_000_000
"""As the reference implementation allows."""
_ALIGNED = 8


def widened(halves: np.ndarray) -> np.ndarray:
    """bfloat16, given as uint16, as float32; exact."""
    return (halves.astype("<u4") << np.uint32(16)).view("<f4")


def chunks(arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> Iterator[memoryview | bytes]:
    """The bytes of a file of these arrays, in parts. The same arrays give the same bytes: names are sorted, and nothing says when.

    Args:
        about: lines for the header's `__metadata__`.
    """
    names = {kind: name for name, kind in DTYPES.items() if name != "BF16"}
    header: dict[str, Any] = {"__metadata__": dict(sorted(about.items()))}
    at = 0
    for name, array in sorted(arrays.items()):
        header[name] = {"dtype": names[array.dtype.str], "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    yield len(text).to_bytes(8, "little") + text
    for _, array in sorted(arrays.items()):
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of a file, by name; the arrays are not read.

    Raises:
        WeightsUnreadable: it is no such file.
    """
    with path.open("rb") as stream:
        entries, size, n_bytes = _entries(path, stream)
    if (end := 8 + size + max((place[-1] for _, _, place in entries.values() if place), default=0)) != n_bytes:
        raise _unreadable(path, f"its arrays end at byte {end}, the file at {n_bytes}")
    return {name: shape for name, (_, shape, _) in entries.items()}


def read(path: Path, stream: BinaryIO) -> dict[str, np.ndarray]:
    """All arrays of a file, by name; BF16 as float32.

    Raises:
        WeightsUnreadable: the header contradicts itself or the file's size.
    """
    entries, size, n_bytes = _entries(path, stream)
    arrays, at = {}, 0
    for name, (kind, shape, (begin, end)) in sorted(entries.items(), key=lambda item: item[1][2]):
        dtype = np.dtype(DTYPES[kind]) if kind in DTYPES else None
        if dtype is None:
            raise _unreadable(path, f"{name} is of type {kind}")
        whole = all(isinstance(n, int) and n >= 0 for n in shape) and end - begin == math.prod(shape) * dtype.itemsize
        if begin != at or not whole or 8 + size + end > n_bytes:
            raise _unreadable(path, f"{name} {list(shape)} is said to lie at bytes {begin} to {end}, which cannot be")
        array = np.empty(shape, dtype)
        stream.readinto(array.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
        arrays[name], at = widened(array) if kind == "BF16" else array, end
    if 8 + size + at != n_bytes:
        raise _unreadable(path, f"its arrays end at byte {8 + size + at}, the file at {n_bytes}")
    return arrays


def _entries(path: Path, stream: BinaryIO) -> tuple[dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]], int, int]:
    """Type, shape and place of each array, by name; how many bytes the header has, and the file. The stream is after the header then."""
    n_bytes = stream.seek(0, 2)
    stream.seek(0)
    size = int.from_bytes(stream.read(8), "little")
    if size > min(_HEADER_BYTES, n_bytes - 8):
        raise _unreadable(path, f"its header has {size} bytes, the file {n_bytes}")
    try:
        header = json.loads(stream.read(size))
        entries = {name: (e["dtype"], tuple(e["shape"]), tuple(e["data_offsets"])) for name, e in header.items() if name != "__metadata__"}
        if not all(len(place) == 2 and all(type(n) is int and n >= 0 for n in (*shape, *place)) for _, shape, place in entries.values()):
            raise ValueError("an array has a shape or a place that is none")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _unreadable(path, f"its header is none: {error}") from error
    return entries, size, n_bytes


def _unreadable(path: Path, reason: str) -> WeightsUnreadable:
    return WeightsUnreadable(path, f"a damaged safetensors file: {reason}", "Get the file again")
