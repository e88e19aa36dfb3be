"""The file of a packet index. A clip reads its head and the few blocks with its packets; every byte is checked before use.

Layout after the magic word: the length and CRC-32 of the head, 4 bytes each; the head, JSON; the list of blocks (`_BLOCK`), whose CRC-32 is
in the head. A block is `ROWS` rows (`packet_index.ROW`), column by column, compressed with zlib. Not Parquet: a part of a Parquet file can be
read but not verified, see docs/adr/0029.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import zlib
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from egoworld_ops.errors import unreadable
from egoworld_ops.files import regular
from egoworld_ops.video.boxes import Crop
from egoworld_ops.video.decoder import DecoderSetup
from egoworld_ops.video.packet_index import FORMAT, NOT_SHOWN, ROW, About, IndexDiffers, PacketIndex, Section, Stored, is_wanted, section_of
from egoworld_ops.video.picture import Layout

ROWS = 256
_MAGIC = b"egoworld packet index\n"
_HEAD = struct.Struct("<II")
_BLOCK = np.dtype([("at", "<i8"), ("bytes", "<i4"), ("crc", "<u4"), ("first_frame", "<i4"), ("last_frame", "<i4")])
"""A block: offset, length and CRC-32; the first and last frame it shows, swapped if it shows none."""
_READ_FIRST = 4096
_COLUMNS = ROW.names or ()


def to_bytes(index: PacketIndex, decode_version: str) -> bytes:
    """The content of an index's file.

    Args:
        decode_version: version of the decoding that counted and timed the frames.
    """
    blocks = [index.rows[i : i + ROWS] for i in range(0, len(index.rows), ROWS)]
    packed = [zlib.compress(b"".join(block[name].tobytes() for name in _COLUMNS), 6) for block in blocks]
    listed = np.zeros(len(blocks), _BLOCK)
    at = 0
    for entry, block, content in zip(listed, blocks, packed, strict=True):
        shown = block["frame"][block["frame"] != NOT_SHOWN]
        entry["at"], entry["bytes"], entry["crc"] = at, len(content), zlib.crc32(content)
        entry["first_frame"], entry["last_frame"] = (shown.min(), shown.max()) if len(shown) else (0, NOT_SHOWN)
        at += len(content)
    about = index.about
    said = {
        "format": FORMAT,
        "decode": decode_version,
        "packets": len(index.rows),
        "blocks_crc": zlib.crc32(listed.tobytes()),
        "bytes": about.bytes,
        "stored": asdict(about.stored),
        "setup": asdict(about.setup) | {"extradata": base64.b64encode(about.setup.extradata).decode()},
        "layout": asdict(about.layout) | {"sample_aspect_ratio": str(about.layout.sample_aspect_ratio)},
    }
    head = json.dumps(said).encode()
    return b"".join([_MAGIC, _HEAD.pack(len(head), zlib.crc32(head)), head, listed.tobytes(), *packed])


def fault(path: Path) -> str | None:
    """What is wrong with an index, read as a whole; None if it is sound.

    Raises:
        StorageUnavailable: it exists but cannot be read now.
    """
    try:
        with IndexFile(path) as file:
            file.rows()
    except IndexDiffers as difference:
        return str(difference)
    return None


class IndexFile:
    """An open index.

    Raises:
        IndexDiffers: on entering, if there is no usable index.
        StorageUnavailable: it exists but cannot be read now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> IndexFile:
        try:
            self._descriptor = regular.descriptor(self._path)
        except OSError as error:
            if (away := unreadable(error, self._path)) is not None:
                raise away from error
            raise IndexDiffers("it is not there") from error
        try:
            self._read_head()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def section(self, wanted: range) -> Section:
        """The packets to decode for these frames.

        Raises:
            IndexDiffers: the index does not have them all.
        """
        [holding] = np.nonzero((self._blocks["first_frame"] < wanted.stop) & (self._blocks["last_frame"] >= wanted.start))
        if not len(holding):
            raise IndexDiffers(f"it has no frame from {wanted.start} to {wanted.stop}")
        first, last = int(holding[0]), int(holding[-1])
        rows = self._rows(first, last)
        begin = int(rows["begin"][is_wanted(rows["frame"], wanted)].min(initial=first * ROWS)) // ROWS
        if begin < first:
            first, rows = begin, np.concatenate([self._rows(begin, first - 1), rows])
        return section_of(rows, first * ROWS, wanted)

    def rows(self) -> np.ndarray:
        """The rows of all packets."""
        return self._rows(0, len(self._blocks) - 1)

    def _read_head(self) -> None:
        start = len(_MAGIC) + _HEAD.size
        read = self._pread(_READ_FIRST, 0)
        if len(read) < start or not read.startswith(_MAGIC):
            raise IndexDiffers("it is no packet index")
        length, crc = _HEAD.unpack_from(read, len(_MAGIC))
        head = read[start : start + length] if start + length <= len(read) else self._pread(length, start)
        if zlib.crc32(head) != crc:
            raise IndexDiffers("its head is damaged")
        said = json.loads(head)
        if said["format"] != FORMAT:
            raise IndexDiffers(f"it has format {said['format']}, not {FORMAT}")
        self.decode_version, self._n_packets = said["decode"], said["packets"]
        size = -(-self._n_packets // ROWS) * _BLOCK.itemsize
        begin = start + length
        listed = read[begin : begin + size] if begin + size <= len(read) else self._pread(size, begin)
        if zlib.crc32(listed) != said["blocks_crc"]:
            raise IndexDiffers("its list of blocks is damaged")
        self._blocks, self._data_start = np.frombuffer(listed, _BLOCK), begin + size
        self.about = _about(said)

    def _rows(self, first: int, last: int) -> np.ndarray:
        """The rows of blocks `first` to `last`, both included."""
        if first < 0:
            raise IndexDiffers("packets before the first are needed")
        start = int(self._blocks["at"][first])
        read = self._pread(int(self._blocks["at"][last] + self._blocks["bytes"][last]) - start, self._data_start + start)
        return np.concatenate([self._unpacked(read, i, start) for i in range(first, last + 1)])

    def _unpacked(self, read: bytes, number: int, start: int) -> np.ndarray:
        at, length = int(self._blocks["at"][number]) - start, int(self._blocks["bytes"][number])
        if zlib.crc32(packed := read[at : at + length]) != self._blocks["crc"][number]:
            raise IndexDiffers("a block of it is damaged")
        content, rows, at = zlib.decompress(packed), np.zeros(min(ROWS, self._n_packets - number * ROWS), ROW), 0
        for name in _COLUMNS:
            rows[name] = np.frombuffer(content, ROW[name], len(rows), at)
            at += rows[name].nbytes
        return rows

    def _pread(self, size: int, at: int) -> bytes:
        try:
            return os.pread(self._descriptor, min(size, os.fstat(self._descriptor).st_size), at)
        except OSError as error:
            raise unreadable(error, self._path) or IndexDiffers(f"it cannot be read: {error.strerror}") from error


def _about(said: dict[str, Any]) -> About:
    setup = DecoderSetup(**said["setup"] | {"extradata": base64.b64decode(said["setup"]["extradata"])})
    aspect = Fraction(said["layout"]["sample_aspect_ratio"])
    layout = Layout(**said["layout"] | {"sample_aspect_ratio": aspect, "crop": Crop(*said["layout"]["crop"])})
    return About(said["bytes"], Stored(**said["stored"]), setup, layout)
