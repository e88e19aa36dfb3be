"""Makes a video's packet index while all of it is decoded, and verifies that the index gives the same frames as the file."""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import av
import numpy as np

from egoworld_ops.errors import InputError
from egoworld_ops.video.by_index import frames_by_index
from egoworld_ops.video.containers import LIBAV_FAULTS, Media, open_media
from egoworld_ops.video.decoder import CHROMA_LOCATIONS, DecoderSetup
from egoworld_ops.video.frames import Frames
from egoworld_ops.video.locating import Locator, locator_of
from egoworld_ops.video.packet_index import NOT_SHOWN, ROW, About, IndexDiffers, PacketIndex, Stored, begins, picture_crc
from egoworld_ops.video.picture import Layout, Upright, to_rgb

_CHANGES: tuple[Literal["palette", "new_extradata", "param_change"], ...] = ("palette", "new_extradata", "param_change")
"""Side data of a packet that changes the decoder."""
_LEADS = (0, 1, 2, 4)
"""Decoding may have to begin this many keyframes before a frame's own: the numbers to try."""
_TRIED_KEYS, _TRIED_FRAMES = 4, 8


class IndexMaker:
    """Pass it to `probe`; afterwards it has the index, or the reason why there is none. It holds a few dozen bytes per packet."""

    def __init__(self) -> None:
        self.index: PacketIndex | None = None
        self.reason: str | None = "the video was not probed"
        """Why there is no index."""

    def start(self, media: Media) -> None:
        """Begin a pass over the file; discard what an earlier pass recorded."""
        self.index, self.reason = None, None
        self._bytes = os.fstat(media.descriptor).st_size
        self._locator: Locator | None = None
        self._stored = Stored("demuxed")
        self._setup: DecoderSetup | None = None
        try:
            self._setup = DecoderSetup.of(media.stream.codec_context)
            self._locator, self._stored = locator_of(media)
        except LIBAV_FAULTS as error:
            self.reason = f"the decoder cannot be described: {error}"
        self._places = tuple(array(kind) for kind in "qqii")
        self._checks = array("I")
        self._keys = array("b")
        self._numbers = array("i")
        self._times_s = array("d")
        self._pictures = array("I")

    def packet(self, number: int, packet: av.Packet) -> None:
        """Record the next packet, before it is decoded."""
        data = memoryview(packet)
        self._checks.append(zlib.crc32(data))
        self._keys.append(packet.is_keyframe)
        if beside := [kind for kind in _CHANGES if packet.has_sidedata(kind)]:
            self.reason = f"packet {number} changes the decoder ({beside[0]})"
        place = self._locator.locate(packet.pos, bytes(data)) if self._locator is not None else None
        for column, value in zip(
            self._places, (place.start, place.end, place.offset, place.size) if place else (0, 0, 0, len(data)), strict=True
        ):
            column.append(value)

    def frame(self, index: int, time_s: float, frame: av.VideoFrame) -> None:
        """Record the next frame; its `pts` is the number of its packet."""
        if frame.pts is None or index != len(self._numbers):
            self.reason = f"frame {index} is of no packet"
        self._numbers.append(-1 if frame.pts is None else frame.pts)
        self._times_s.append(time_s)
        self._pictures.append(picture_crc(frame))

    def finish(self, path: Path, layout: Layout, damaged: bool) -> None:
        """Make the index and verify it, at the end of the pass.

        Args:
            layout: how the frames are shown.
            damaged: as `probe` says.
        """
        if self._locator is not None and self._locator.reason is not None:
            self._stored = Stored("demuxed", reason=self._locator.reason)
        if damaged:
            self.reason = "the video is damaged, and what decodes of it depends on where decoding begins"
        if self.reason is not None or self._setup is None:
            return
        try:
            self.index = self._proven(path, layout, self._setup)
        except (IndexDiffers, InputError) as error:
            self.reason = f"frames by the index differ: {error}"

    def _rows(self) -> np.ndarray:
        rows = np.zeros(len(self._checks), ROW)
        for name, column in zip(("start", "end", "offset", "size"), self._places, strict=True):
            rows[name] = column
        rows["crc"], rows["key"], rows["frame"] = self._checks, self._keys, NOT_SHOWN
        numbers = np.array(self._numbers)
        if len(np.unique(numbers)) != len(numbers):
            raise IndexDiffers("a packet gives more than one frame")
        rows["frame"][numbers], rows["time_s"][numbers], rows["picture"][numbers] = np.arange(len(numbers)), self._times_s, self._pictures
        return rows

    def _proven(self, path: Path, layout: Layout, setup: DecoderSetup) -> PacketIndex:
        about, rows = About(self._bytes, self._stored, setup, layout), self._rows()
        rows["begin"] = begins(rows["key"], rows["frame"], 0)
        index = PacketIndex(about, rows)
        if about.stored.kind != "demuxed":
            index = _shown_alike(path, index)
        for lead in _LEADS:
            rows["begin"] = begins(rows["key"], rows["frame"], lead)
            if all(_comes_out(path, index, wanted) for wanted in _tried(rows)):
                return index
        raise IndexDiffers("keyframes do not decode without what lies before them")


def _tried(rows: np.ndarray) -> Iterator[range]:
    """Ranges of frames from some keyframes on, the first and the last keyframe among them."""
    starts = np.sort(rows["frame"][(rows["key"] == 1) & (rows["frame"] != NOT_SHOWN)])
    n_frames = int(rows["frame"].max()) + 1
    for start in {int(starts[i]) for i in np.linspace(0, len(starts) - 1, _TRIED_KEYS).astype(int)} if len(starts) else {0}:
        yield range(start, min(start + _TRIED_FRAMES, n_frames))


def _comes_out(path: Path, index: PacketIndex, wanted: range) -> bool:
    try:
        return len(list(frames_by_index(path, index.about, index.section(wanted), wanted, 1))) == len(wanted)
    except (IndexDiffers, InputError):
        return False


def _shown_alike(path: Path, index: PacketIndex) -> PacketIndex:
    """The index with a decoder whose frames are shown like those of the container's decoder; through the demuxer if no setup achieves that.

    PyAV does not expose all that decides how a frame is shown. Decoders are compared by how they show noise painted over the frame.
    """
    try:
        want = _first_shown(path, index.about.layout)
        for location in CHROMA_LOCATIONS:
            tried = PacketIndex(replace(index.about, setup=index.about.setup.with_chroma(location)), index.rows)
            _, _, frame = next(frames_by_index(path, tried.about, tried.section(range(1)), range(1), 1))
            if np.array_equal(want, _painted(frame, index.about.layout)):
                return tried
        reason = "its pictures are shown otherwise"
    except (IndexDiffers, InputError) as error:
        reason = str(error)
    reason = f"the decoder cannot be set up as the container sets it up: {reason}"
    return PacketIndex(replace(index.about, stored=Stored("demuxed", reason=reason)), index.rows)


def _first_shown(path: Path, layout: Layout) -> np.ndarray:
    with open_media(path, 1) as media:
        return _painted(next(iter(Frames(media))), layout)


def _painted(frame: av.VideoFrame, layout: Layout) -> np.ndarray:
    """(H, W, 3) uint8: how noise painted over the frame's picture is shown."""
    noise = np.random.default_rng(0)
    deep = frame.format.components[0].bits
    if deep > 16:
        raise IndexDiffers(f"noise in {frame.format.name} is no picture")
    for plane in frame.planes:
        if deep > 8:
            plane.update(noise.integers(0, 1 << deep, plane.buffer_size // 2, np.uint16).tobytes())
        else:
            plane.update(noise.integers(0, 256, plane.buffer_size, np.uint8).tobytes())
    return to_rgb(frame, Upright(layout))
