"""Pictures of depth beside a video: which one belongs to a frame, and its metres. How the sidecar names them stands in `sidecar_depth.py`.

A frame is given the picture of its own number, or the nearest in time: depths are never mixed, since between two surfaces there is none.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.lib import format as npy

from egoworld_ops.errors import BadSidecar
from egoworld_ops.video.beside import CURE, read_regular
from egoworld_ops.video.sidecar_depth import MAX_FILE_BYTES, SidecarDepth

_PER_S = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_PNG, _GREY = b"\x89PNG\r\n\x1a\n", 0
_HEADER = struct.Struct(">IIBBBBB")
MAX_PIXELS = 2**26
"""Of a picture: twice as many as an 8K video has. A file of a few bytes can announce more than any memory holds."""
_INVERSE_COUNTS = 65535.0
_SHAPE = 0.01
"""By which share the picture of depth may be wider or narrower than the video's."""
_ALIGN = "Align it to the colour camera when it is exported (RealSense: `rs.align`; ZED: the left view)"


@dataclass(frozen=True, slots=True)
class DepthFolder:
    """The pictures of depth of a video, by number.

    Args:
        path: the folder.
        given: what the sidecar says of it.
        files: path of each, by frame of the video, or by time in seconds of the video.
        by_frame: which of these the numbers are.
    """

    path: Path
    given: SidecarDepth
    files: Mapping[float, Path]
    by_frame: bool

    def of(self, frame_index: int, timestamp_s: float, longest_gap_s: float) -> tuple[Path, float] | None:
        """The picture of a frame, and by how many seconds it was taken later; None where none has its number, or is near enough in time."""
        if self.by_frame:
            found = self.files.get(float(frame_index))
            return None if found is None else (found, 0.0)
        times = np.fromiter(self.files, np.float64)
        nearest = float(times[np.abs(times - timestamp_s).argmin()])
        return None if abs(nearest - timestamp_s) > longest_gap_s else (self.files[nearest], nearest - timestamp_s)

    def read(self, path: Path, width: int, height: int) -> np.ndarray:
        """Metres (h, w) float32 of one of the pictures, NaN where it has none, as the sidecar says that it measures.

        Args:
            path: the picture.
            width, height: of the video's picture, px, whose shape it must have.

        Raises:
            BadSidecar: it is damaged, of 8 bits, in colour, or of another shape.
            StorageUnavailable: it cannot be read now.
        """
        counts = _counts(path)
        rows, columns = counts.shape
        if abs(columns * height / (rows * width) - 1) > _SHAPE:
            turned = " It is that of the picture turned by a quarter." if abs(rows * height / (columns * width) - 1) <= _SHAPE else ""
            raise BadSidecar(path, f"is {columns}x{rows}, not of the shape of the video's {width}x{height}.{turned}".rstrip("."), _ALIGN)
        known = np.isfinite(counts) & (counts > 0)
        safe = np.where(known, counts, 1)
        with np.errstate(over="ignore"):
            metres = _INVERSE_COUNTS / safe - 1 if self.given.encoding == "inverse" else safe * self.given.metres_per_unit
        return np.where(known & (metres > 0) & (metres <= np.finfo(np.float32).max), metres, np.nan).astype(np.float32)


def depth_folder(folder: Path, given: SidecarDepth) -> DepthFolder:
    """The pictures of depth that a sidecar names, of a video in `folder`.

    Raises:
        BadSidecar: the folder is not there or holds none, or a name holds no number, or two hold the same.
        StorageUnavailable: it cannot be listed now.
    """
    files: dict[float, Path] = {}
    by_frame = given.numbered_by == "frame" and given.fps is None
    for path in given.files(folder):
        numbers = re.findall(r"\d+(?:\.\d+)?", path.stem)
        if not numbers:
            raise BadSidecar(path, "its name holds no number of a frame and no time", "Name each picture of depth after its frame")
        number = float(numbers[-1])
        if not by_frame:
            number = number / (given.fps or _PER_S[given.numbered_by]) - given.starts_at_s
        if number in files:
            raise BadSidecar(
                path, f"has the number of {files[number].name}", "Name the prefix of the depth, or give each picture its own number"
            )
        files[number] = path
    return DepthFolder(folder / given.folder, given, files, by_frame)


def _counts(path: Path) -> np.ndarray:
    """(h, w) float64 as they stand in the file."""
    content = read_regular(path, MAX_FILE_BYTES)
    return _npy(path, content) if path.suffix == ".npy" else _png(path, content)


def _npy(path: Path, content: bytes) -> np.ndarray:
    """The header is read alone, and compared with the file's size: numpy would take the memory that it announces before it looks."""
    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        shape, by_columns, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    except Exception as error:  # numpy reads the header as Python's text, and that raises errors of many classes
        raise BadSidecar(path, f"is no .npy: {error}", CURE) from error
    if len(shape) != 2 or not all(type(n) is int and n > 0 for n in shape) or dtype.kind not in "fu":
        raise BadSidecar(path, f"holds {shape} {dtype}, want (H, W) of a float or unsigned type", CURE)
    _check_size(path, *shape)
    numbers = content[stream.tell() :]
    if len(numbers) != math.prod(shape) * dtype.itemsize:
        raise BadSidecar(path, f"is cut off or damaged: {shape} {dtype} do not take {len(numbers)} bytes", CURE)
    return np.frombuffer(numbers, dtype).reshape(shape, order="F" if by_columns else "C").astype(np.float64)


def _png(path: Path, content: bytes) -> np.ndarray:
    """OpenCV shows a cut or damaged PNG in part and says nothing, so its chunks are checked first (PNG specification, ISO/IEC 15948)."""
    if not content.startswith(_PNG):
        raise BadSidecar(path, "is no PNG", CURE)
    columns, rows, bits, colour = _header(path, content)
    _check_size(path, rows, columns)
    if (bits, colour) != (16, _GREY):
        what = f"{bits} bits" if colour == _GREY else f"{bits} bits in colour"
        raise BadSidecar(path, f"has {what}, want 16 bits grey: this is a picture for the eye, not the depth", "Export the raw depth (Z16)")
    read = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None or read.dtype != np.uint16 or read.ndim != 2:
        raise BadSidecar(path, "is a damaged PNG", CURE)
    return read.astype(np.float64)


def _check_size(path: Path, rows: int, columns: int) -> None:
    if rows * columns > MAX_PIXELS:
        raise BadSidecar(
            path, f"has {columns}x{rows} pixels, more than {MAX_PIXELS}", "Export it at the size of the video's picture or less"
        )


def _header(path: Path, content: bytes) -> tuple[int, int, int, int]:
    """Columns, rows, bits and colour type of a PNG whose every chunk is whole."""
    at, header = len(_PNG), b""
    while True:
        size = int.from_bytes(content[at : at + 4], "big")
        body, check = content[at + 4 : at + 8 + size], content[at + 8 + size : at + 12 + size]
        if len(check) < 4 or zlib.crc32(body) != int.from_bytes(check, "big"):
            raise BadSidecar(path, f"is cut off or damaged at byte {at} of {len(content)}", CURE)
        if not header and (body[:4] != b"IHDR" or size != _HEADER.size):
            raise BadSidecar(path, "is a PNG without a header", CURE)
        header = header or body[4:]
        if body[:4] == b"IEND":
            columns, rows, bits, colour, *_ = _HEADER.unpack(header)
            return columns, rows, bits, colour
        at += 12 + size
