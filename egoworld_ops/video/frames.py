"""Decodes a stream from start to end; gives for each frame the packet it came in and the time that the container states."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av

from egoworld_ops.video.containers import LIBAV_FAULTS, Media, as_typed, check_size
from egoworld_ops.video.timeline import Stamped

_WITH_DTS = ("mov", "mpegts", "mpeg", "flv")
"""Demuxers of containers that store decoding times; of others libav makes them up."""
_IN_FLIGHT = 256
"""More packets than any decoder holds back before it outputs their frames."""


@dataclass(frozen=True, slots=True)
class _Said:
    """The time that the container states for a packet, in ticks of the stream's clock."""

    pts: int | None
    dts: int | None


class Frames:
    """Decodes a stream once, from start to end; counts the packets taken for that.

    The `pts` of a frame it yields is the number of the frame's packet in decoding order. Decoders pass `pts` through unchanged, so that
    a frame is identified whatever time its container states.

    Args:
        note: called with the number of each packet with data, and the packet, before it is decoded.
    """

    def __init__(self, media: Media, note: Callable[[int, av.Packet], None] | None = None) -> None:
        self._media, self._note = media, note
        self._n_numbered = 0
        self.n_packets = 0
        """Packets whose frames are to be shown."""
        self.stamps = _Stamps(media)
        self.last_packet: tuple[int | None, int] = (None, 0)
        """Offset in the file of the last packet, None if the container does not say; and its size."""

    def __iter__(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._media.container.demux(self._media.stream):
                if packet.size:
                    self._number(packet)
                for frame in packet.decode():
                    check_size(self._media.path, frame.width, frame.height)
                    yield frame
        except LIBAV_FAULTS as error:
            raise as_typed(self._media.path, error, "the stream does not decode") from error

    def _number(self, packet: av.Packet) -> None:
        if self._note is not None:
            self._note(self._n_numbered, packet)
        self.stamps.note(self._n_numbered, packet)
        self.n_packets += not packet.is_discard
        self.last_packet = (packet.pos, packet.size)
        packet.pts = self._n_numbered
        self._n_numbered += 1


def seconds(pts: int, media: Media) -> float:
    """Ticks of the stream's clock in seconds."""
    return pts * media.time_base.numerator / media.time_base.denominator


class _Stamps:
    """The times that the container states for the frames.

    AVI counts time in frames: each chunk, also an empty one, is a tick, and chunks are in decoding order. So the first frame shown has the
    tick of the first chunk with a picture, the second frame that of the second such chunk, and so on.
    """

    def __init__(self, media: Media) -> None:
        self._media = media
        self._rate = media.rates[0] if media.rates else None
        self._ticks: deque[int] | None = deque() if media.demuxer == "avi" else None
        self.last_tick = -1
        self.reach_s = -math.inf
        """The latest end of a frame that the container states."""
        self._stores_dts = media.demuxer in _WITH_DTS
        self._said: dict[int, _Said] = {}

    def note(self, number: int, packet: av.Packet) -> None:
        """Record a packet that goes to the decoder."""
        if self._ticks is not None:
            self.last_tick = packet.dts if packet.dts is not None else self.last_tick + 1
            self._ticks.append(self.last_tick)
            return
        self._said[number] = _Said(packet.pts, packet.dts if self._stores_dts else None)
        if len(self._said) > _IN_FLIGHT:
            del self._said[next(iter(self._said))]

    def stamped(self, frame: av.VideoFrame) -> Stamped[av.VideoFrame]:
        """The frame with the time that the container states for it."""
        said = _Said(None, None) if frame.pts is None else self._said.pop(frame.pts, _Said(None, None))
        pts = said.pts
        if self._ticks is not None:
            pts = self._ticks.popleft() if self._ticks else None
        lag_s = None if pts is None or said.dts is None else seconds(pts - said.dts, self._media)
        time_s, duration_s = None if pts is None else seconds(pts, self._media), self._duration_s(frame)
        self.reach_s = max(self.reach_s, -math.inf if time_s is None else time_s + (duration_s or 0.0))
        return Stamped(frame, time_s, duration_s, lag_s)

    def _duration_s(self, frame: av.VideoFrame) -> float | None:
        if frame.duration > 0:
            return seconds(frame.duration, self._media)
        return float(1 / self._rate) if self._rate else None
