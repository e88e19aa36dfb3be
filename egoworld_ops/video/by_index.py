"""Decoding by the packet index: only the packets that a clip needs are read from the file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from egoworld_ops.video import transport
from egoworld_ops.video.containers import LIBAV_FAULTS, as_typed, check_size, open_media, open_regular
from egoworld_ops.video.packet_index import About, IndexDiffers, Section, Stored, picture_crc

_READ_BYTES = 1 << 20
_GAP_SHARE = 0.03
"""Maximum share of bytes of other streams, relative to those of the packets, that is read to get packets in one go."""
_MOST_HELD = 64
"""More frames than any decoder outputs ahead of the next one in presentation order."""


class Decoder(Protocol):
    """What makes frames of packets; the `pts` of a frame is that of its packet."""

    def decode(self, packet: av.Packet | None) -> Iterable[av.VideoFrame]:
        """The frames that a packet brings out; the last ones for None."""


def frames_by_index(
    path: Path, about: About, section: Section, wanted: range, threads: int, decoder: Decoder | None = None
) -> Iterator[tuple[int, float, av.VideoFrame]]:
    """Index, time and picture of the wanted frames, in order. Each has the checksum of the frame that the CPU decoded when the index was made.

    Args:
        threads: of the CPU's decoder.
        decoder: of this stream, in place of the CPU's.

    Raises:
        IndexDiffers: the file does not match the index.
        InputError: the file cannot be opened, does not decode, or changed while it was read.
        StorageUnavailable: it cannot be read now.
    """
    held: dict[int, tuple[float, av.VideoFrame]] = {}
    position = wanted.start
    for frame in _decoded(path, about, section, threads, decoder):
        check_size(path, frame.width, frame.height)
        if frame.pts is None or not 0 <= frame.pts - section.first < len(section.rows):
            raise IndexDiffers("a frame is of no packet that was decoded")
        row = section.rows[frame.pts - section.first]
        if (index := int(row["frame"])) not in wanted:
            continue
        if picture_crc(frame) != row["picture"]:
            raise IndexDiffers(f"frame {index} is another one")
        held[index] = (float(row["time_s"]), frame)
        while position in held:
            yield position, *held.pop(position)
            position += wanted.step
        if position >= wanted.stop:
            return
        if len(held) > _MOST_HELD:
            break
    raise IndexDiffers(f"frame {position} does not come out of its packet")


def _decoded(path: Path, about: About, section: Section, threads: int, decoder: Decoder | None) -> Iterator[av.VideoFrame]:
    """Frames of a section in the order the decoder outputs them; the `pts` of each is the number of its packet."""
    if about.stored.kind == "demuxed":
        if decoder is not None:
            raise IndexDiffers("its packets come out of the demuxer alone")
        yield from _demuxed(path, section, threads)
        return
    with open_regular(path) as descriptor:
        if os.fstat(descriptor).st_size != about.bytes:
            raise IndexDiffers(f"the file has {os.fstat(descriptor).st_size} bytes, not {about.bytes}")
        try:
            decoder = decoder or about.setup.decoder(threads)
            for number, data in enumerate(_packets(descriptor, about.stored, section.rows), section.first):
                packet = av.Packet(len(data))  # a copy: decoder threads that free a Python buffer wait for the GIL
                packet.update(bytes(data))
                packet.pts, packet.is_keyframe = number, bool(section.rows["key"][number - section.first])  # PNG's decoder relies on it
                yield from decoder.decode(packet)
            yield from decoder.decode(None)
        except LIBAV_FAULTS as error:
            raise as_typed(path, error, "the stream does not decode") from error


def _demuxed(path: Path, section: Section, threads: int) -> Iterator[av.VideoFrame]:
    """As `_decoded`, but through the demuxer, which reads the file from its start; only the section's packets are decoded."""
    end = section.first + len(section.rows)
    with open_media(path, threads) as media:
        try:
            packets = (packet for packet in media.container.demux(media.stream) if packet.size)
            for number, packet in zip(range(end), packets, strict=False):
                if number >= section.first:
                    _check(memoryview(packet), section.rows[number - section.first])
                    packet.pts = number
                    yield from packet.decode()
            yield from media.stream.codec_context.decode(None)
        except LIBAV_FAULTS as error:
            raise as_typed(path, error, "the stream does not decode") from error


def _packets(descriptor: int, stored: Stored, rows: np.ndarray) -> Iterator[memoryview]:
    """The data of each packet, checked."""
    if not np.all((rows["start"] >= 0) & (rows["start"] < rows["end"]) & (rows["end"] <= os.fstat(descriptor).st_size)):
        raise IndexDiffers("packets lie outside the file")
    for chunk in _chunks(rows):
        start, end = int(rows["start"][chunk].min()), int(rows["end"][chunk].max())
        read = memoryview(os.pread(descriptor, end - start, start))
        for row in rows[chunk]:
            held = read[int(row["start"]) - start : int(row["end"]) - start]
            data = taken_out(held, stored)[int(row["offset"]) : int(row["offset"]) + int(row["size"])]
            _check(data, row)
            yield data


def taken_out(held: memoryview, stored: Stored) -> memoryview:
    """The stream's bytes within a piece of the file."""
    return memoryview(transport.extract(bytes(held), stored.pid, stored.packet_bytes)) if stored.kind == "transport" else held


def _check(data: memoryview, row: np.void) -> None:
    if len(data) != row["size"] or zlib.crc32(data) != row["crc"]:
        raise IndexDiffers("a packet is not the one that was there")


def _chunks(rows: np.ndarray) -> Iterator[slice]:
    """Packets to read in one go: they lie close together in the file, in this order."""
    begin = 0
    for i in range(1, len(rows) + 1):
        if i < len(rows):
            start, end = int(rows["start"][begin]), int(rows["end"][i])
            held = int(rows["end"][begin : i + 1].sum() - rows["start"][begin : i + 1].sum())
            ascending = rows["start"][i] >= rows["start"][i - 1]
            if ascending and end - start <= _READ_BYTES and end - start - held <= _GAP_SHARE * held:
                continue
        yield slice(begin, i)
        begin = i
