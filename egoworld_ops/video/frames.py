"""Decodes a stream from its start to its end, and says of each frame which packet it came in and what the container says of its time."""

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
"""More packets than any decoder holds back before it gives out their frames."""


@dataclass(frozen=True, slots=True)
class _Said:
    """What the container says of a packet's time, in ticks of the stream's clock."""

    pts: int | None
    dts: int | None


class Frames:
    """Decodes a stream from its start to its end, once; counts the packets it took for that.

    The `pts` of the frames it gives out is the number of the packet each came in, counted in the order of decoding: decoders hand it through
    as it is, so that a frame is known for sure whatever its container says of its time.

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
        """Where, in the file, the last packet begins, None where the container does not say; and its size."""

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
    """Seconds of ticks of the stream's clock."""
    return pts * media.time_base.numerator / media.time_base.denominator


class _Stamps:
    """What the container says of each frame's time.

    AVI counts time in frames: each chunk, also an empty one, is a tick, and chunks lie in decoding order. There the first frame shown has the
    tick of the first chunk that holds a picture, the second that of the second, and so on.
    """

    def __init__(self, media: Media) -> None:
        self._media = media
        self._rate = media.rates[0] if media.rates else None
        self._ticks: deque[int] | None = deque() if media.demuxer == "avi" else None
        self.last_tick = -1
        self.reach_s = -math.inf
        """The latest end of a frame that the container speaks of."""
        self._stores_dts = media.demuxer in _WITH_DTS
        self._said: dict[int, _Said] = {}

    def note(self, number: int, packet: av.Packet) -> None:
        """Take note of a packet that goes to the decoder."""
        if self._ticks is not None:
            self.last_tick = packet.dts if packet.dts is not None else self.last_tick + 1
            self._ticks.append(self.last_tick)
            return
        self._said[number] = _Said(packet.pts, packet.dts if self._stores_dts else None)
        if len(self._said) > _IN_FLIGHT:
            del self._said[next(iter(self._said))]

    def stamped(self, frame: av.VideoFrame) -> Stamped[av.VideoFrame]:
        """The frame with what is said of its time."""
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
