"""Probing and decoding video by presentation time. Which files are opened at all, and how safely, is decided in `containers.py`.

A frame's index counts what the decoder gives out from the start of the file, in presentation order; its time is its PTS. Both `probe` and
`decode` count and time the same way, with any number of threads, so that a range found by one is a range of the other.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from egoworld_ops.errors import CorruptVideo, EmptyVideo, InputError
from egoworld_ops.types import Frame, sampled_frames
from egoworld_ops.video.avi import empty_ticks_after
from egoworld_ops.video.containers import LIBAV_FAULTS, Media, as_typed, check_size, open_media
from egoworld_ops.video.picture import PictureFacts, Upright, color_range, to_rgb
from egoworld_ops.video.timeline import Stamped, Timeline

DECODE_VERSION = "2"
"""Raised whenever the same file gives other pixels, times or counts: colour, rotation, scaling, timing, what is decoded around damage. Part
of every digest."""

Visitor = Callable[[int, float, av.VideoFrame], None]
"""Called with index, timestamp_s and the decoder's own frame, which is valid only during the call. Index 0 begins a pass over the file; where
a second one is needed, only that one counts, and what was seen before it is to be forgotten."""

_WITH_DTS = ("mov", "mpegts", "mpeg", "flv")
"""Demuxers of containers that store decoding times; of others libav makes them up."""
_DTS_KEPT = 256
_KEY, _DISCARD = 1, 2
_MOST_LEADING = 16
"""Frames that are decoded after a keyframe and shown before it are at most so many (H.264 and HEVC)."""
_LENGTH_TAG = re.compile(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d{1,9})?)\Z")
_SLOWEST_RATE = Fraction(1, 10**6)
_CURE = "Copy the file again from its source, or make the clips anew from the part that decodes"


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """What one full decode of a video showed.

    Args:
        codec: name of the codec (`h264`, `hevc`, `av1`, ...).
        pix_fmt: pixel format of the decoder.
        color_range: `limited`, `full` or `unspecified`.
        width, height: size in pixels of the picture shown, after crop, pixel aspect and rotation.
        rotation_deg: clockwise turn that shows the picture upright: 0, 90, 180 or 270.
        fps: exact frame rate; the mean rate where `vfr`.
        vfr: true where the timestamps are not evenly spaced to within one tick of the container's clock and half a frame.
        n_frames: frames that decode, counted.
        n_frames_expected: frames that the container lists or holds packets of; None where it only promises a length.
        decoded_share: share of what the container promises that decodes, 0 to 1: of its frames, or of its length where it lists none.
        duration_s: end of the last frame minus start of the first.
        audio_streams: number of audio streams.
        timestamps_s: (n_frames,) float64 presentation times, strictly increasing.
        warning: what is odd about a usable file, else None.
        damaged: true where frames are missing or broken: what decodes then depends on the decoder's threads and on where it starts.
        picture: what container and stream say of the picture.
    """

    codec: str
    pix_fmt: str
    color_range: str
    width: int
    height: int
    rotation_deg: int
    fps: Fraction
    vfr: bool
    n_frames: int
    n_frames_expected: int | None
    decoded_share: float
    duration_s: float
    audio_streams: int
    timestamps_s: np.ndarray
    warning: str | None
    damaged: bool
    picture: PictureFacts


def probe(path: str | Path, visit: Visitor | None = None, threads: int = 0, as_pinhole: bool = False) -> VideoProbe:
    """Decode the whole of a video once and say what it is.

    Args:
        path: the file.
        visit: sees each frame, in order (scene detection runs here); from its last call with index 0 on, exactly the `n_frames` frames.
        threads: decoder threads; 0 takes as many as there are cores.
        as_pinhole: take a picture that says it is stereo or spherical for that of a pinhole camera.

    Raises:
        NotAVideo, NoVideoStream, EmptyVideo, UnstableFile: as in `errors.py`.
        UnsupportedPicture: it is encrypted, its colours or pixels cannot be shown, or it is stereo or spherical.
        CorruptVideo: not one frame decodes.
    """
    path = Path(path)
    survey = _survey(path, threads, visit, as_pinhole)
    if survey.damaged_somewhere and threads != 1:
        # Around damage, threaded decoders drop frames in flight or hide errors: what one thread delivers is the truth.
        survey = _survey(path, 1, visit, as_pinhole)
    if not survey.times_s:
        raise survey.fault or EmptyVideo(path, "has a video stream without one frame that decodes", "Remove it, or copy it again")
    return survey.result()


def decode(
    path: str | Path,
    frame_start: int,
    frame_end: int,
    stride: int = 1,
    threads: int = 1,
    start_s: float | None = None,
    damaged: bool = False,
) -> Iterator[Frame]:
    """Decode the frames of `[frame_start, frame_end)` whose index is a multiple of `stride`, one at a time; there may be none.

    Counting from the start of the video, overlapping ranges share the frames they both hold. The result depends neither on `threads` nor
    on `start_s`.

    Args:
        path: the file.
        frame_start, frame_end: half-open range of frames, as `probe` counts them.
        stride: frames from one yielded frame to the next.
        threads: decoder threads.
        start_s: timestamp of `frame_start` as `probe` gave it. With it, decoding starts at the keyframe before instead of at the start of
            the file, if the container proves that this gives the same frames.
        damaged: as `probe` said. What a decoder makes of damage depends on its threads and on where it started, so that
            such a file is decoded by one thread from its start.

    Raises:
        ValueError: an empty or negative range, or a stride below 1.
        CorruptVideo: the file ends or breaks before the range does; it names the frame reached.
        InputError: the file cannot be opened, or changed while it was read.
    """
    if not 0 <= frame_start < frame_end or stride < 1:
        raise ValueError(f"decode: want 0 <= frame_start < frame_end and stride >= 1, got {frame_start}, {frame_end}, {stride}")
    if damaged:
        threads, start_s = 1, None
    return _decode(Path(path), range(frame_start, frame_end), stride, threads, start_s)


def _decode(path: Path, frames: range, stride: int, threads: int, start_s: float | None) -> Iterator[Frame]:
    """Try the fastest way first; where it ends before the range does, go on from there the next slower way."""
    wanted = sampled_frames(frames.start, frames.stop, stride)
    if not wanted:
        return
    ways: list[tuple[int, float | None]] = [(threads, start_s)] if start_s is not None and frames.start > 0 else []
    ways += [(n, None) for n in dict.fromkeys((threads, 1))]
    position = frames.start
    fault: CorruptVideo | None = None
    for n_threads, seek_s in ways:
        try:
            picture = Upright()
            if seek_s is not None:
                _observe_first(path, picture)
            with open_media(path, n_threads) as media:
                for index, timestamp_s, frame in _timed_frames(media, frames.start, seek_s):
                    picture.observe(frame, media)
                    if index < position:
                        continue
                    if index in wanted:
                        yield Frame(index, timestamp_s, _shown(path, frame, picture))
                    position = index + 1
                    if position > wanted[-1]:
                        return
        except CorruptVideo as error:
            fault = error
    reason = f"decoding stops at frame {position} of the range [{frames.start}, {frames.stop})"
    raise CorruptVideo(path, f"{reason}: {fault.reason if fault else 'the file ends there'}", _CURE) from fault


def _shown(path: Path, frame: av.VideoFrame, picture: Upright) -> np.ndarray:
    """As `to_rgb`; colours that no one can show, as damaged headers name them, are a fault of the file."""
    try:
        return to_rgb(frame, picture)
    except LIBAV_FAULTS as error:
        raise as_typed(path, error, "the picture cannot be shown") from error


def _observe_first(path: Path, picture: Upright) -> None:
    """Show `picture` the first frame of the file, which sets size and turn for all: a later frame may have others."""
    with open_media(path, threads=1) as media:
        for frame in _Frames(media):
            picture.observe(frame, media)
            return


def _timed_frames(media: Media, frame_start: int = 0, seek_s: float | None = None) -> Iterator[tuple[int, float, av.VideoFrame]]:
    """Index, time and picture of each frame; from `frame_start` on where `seek_s` is given, and none where that cannot be done exactly."""
    frames = _Frames(media)
    shown: Iterable[av.VideoFrame] = frames
    if seek_s is not None:
        keys = _seek_listed(media, frame_start)
        if keys:
            shown = _counted(frames, frame_start, keys, seek_s, media)
        elif (landing := _seek(media, frame_start, seek_s)) is not None:
            shown = _from(frames, landing)
        else:
            return
    timed = Timeline(media.path, trusted=seek_s is not None).times(map(frames.stamps.stamped, shown))
    for index, (timestamp_s, frame) in enumerate(timed, 0 if seek_s is None else frame_start):
        yield index, timestamp_s, frame


def _seek_listed(media: Media, frame_start: int) -> dict[int, int]:
    """Move to a keyframe before frame `frame_start` by the list of packets in the header, so that nothing before it is read.

    Returns:
        By the position of a keyframe in the file, how many shown packets lie before it; nothing where the header lists not all packets.
    """
    entries = media.stream.index_entries if media.demuxer == "mov" else None
    if not entries or len(entries) != media.stream.frames:
        return {}
    keys: dict[int, int] = {}
    n_shown, seek_to = 0, None
    for entry in entries:
        if n_shown + _MOST_LEADING > frame_start and keys:
            break
        if entry.flags & _KEY:
            keys[entry.pos], seek_to = n_shown, entry.timestamp
        n_shown += not entry.flags & _DISCARD
    if seek_to is None:
        return {}
    try:
        media.container.seek(seek_to, stream=media.stream)
    except LIBAV_FAULTS:
        return {}
    return keys


def _counted(frames: _Frames, frame_start: int, keys: dict[int, int], start_s: float, media: Media) -> Iterator[av.VideoFrame]:
    """The frames from number `frame_start` on, counted from the keyframe at which decoding began; none where it is not the one at `start_s`.

    Frames shown before the keyframe, but decoded after it, lie before it in both counts. What its PTS would place elsewhere is refused so.
    """
    decoded = iter(frames)
    n_seen = 0
    for frame in decoded:
        n_before = keys.get(frames.first_position) if frames.first_position is not None else None
        if frame.pts is None or frames.first_pts is None or n_before is None:
            return
        if frame.pts < frames.first_pts:
            continue
        if n_seen > (n_between := frame_start - n_before - frames.n_leading):
            return
        if n_seen == n_between:
            if seconds(frame.pts, media) == start_s:
                yield frame
                yield from decoded
            return
        n_seen += 1


def _from(frames: Iterable[av.VideoFrame], landing: int) -> Iterator[av.VideoFrame]:
    """The frames from the one with that PTS on; none where it is not among them."""
    skipped = itertools.dropwhile(lambda frame: frame.pts is not None and frame.pts < landing, frames)
    first = next(skipped, None)
    if first is not None and first.pts == landing:
        yield first
        yield from skipped


class _Frames:
    """Decodes a stream from where it is to its end, once; counts the packets it took for that."""

    def __init__(self, media: Media) -> None:
        self._media = media
        self.stamps = _Stamps(media)
        self.n_packets = 0
        self.first_pts: int | None = None
        self.first_position: int | None = None
        self.n_leading = 0
        """Packets whose frames are shown before that of the first packet."""
        self.last_packet: tuple[int | None, int] = (None, 0)
        """Where, in the file, the last packet begins, None where the container does not say; and its size."""

    def __iter__(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._media.container.demux(self._media.stream):
                if packet.size:
                    self._note(packet)
                for frame in packet.decode():
                    check_size(self._media.path, frame.width, frame.height)
                    yield frame
        except LIBAV_FAULTS as error:
            raise as_typed(self._media.path, error, "the stream does not decode") from error

    def _note(self, packet: av.Packet) -> None:
        self.stamps.note(packet)
        if not self.n_packets and self.first_pts is None:
            self.first_pts, self.first_position = packet.pts, packet.pos
        elif self.first_pts is not None and packet.pts is not None and packet.pts < self.first_pts:
            self.n_leading += not packet.is_discard
        self.n_packets += not packet.is_discard
        self.last_packet = (packet.pos, packet.size)


def _seek(media: Media, frame_start: int, start_s: float) -> int | None:
    """Move to a keyframe before frame `frame_start` and return that frame's PTS; None where the frame could not be told for sure.

    It can where every packet holds one shown frame with a PTS of its own: then a frame's rank by PTS is its index.
    """
    if not _Stamps(media).from_pts:
        return None
    shown, keys = [], []
    try:
        for packet in media.container.demux(media.stream):
            if packet.size and not packet.is_discard:
                if packet.pts is None:
                    return None
                shown.append(packet.pts)
                if packet.is_keyframe:
                    keys.append((packet.pts, packet.pts if packet.dts is None else min(packet.pts, packet.dts)))
        shown.sort()
        exact = frame_start < len(shown) == len(set(shown)) and seconds(shown[frame_start], media) == start_s
        before = [seek_to for pts, seek_to in keys if exact and pts <= shown[frame_start]]
        if not before:
            return None
        media.container.seek(max(before), stream=media.stream)
    except LIBAV_FAULTS:
        return None
    return shown[frame_start]


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
        self._dts: dict[int, int] = {}

    @property
    def from_pts(self) -> bool:
        """Whether a frame's time is the PTS of its packet."""
        return self._ticks is None

    def note(self, packet: av.Packet) -> None:
        """Take note of a packet that goes to the decoder."""
        if self._ticks is not None:
            tick = packet.dts if packet.dts is not None else self.last_tick + 1
            self._ticks.append(tick)
            self.last_tick = tick
        elif self._stores_dts and packet.pts is not None and packet.dts is not None:
            self._dts[packet.pts] = packet.dts
            if len(self._dts) > _DTS_KEPT:
                del self._dts[next(iter(self._dts))]

    def stamped(self, frame: av.VideoFrame) -> Stamped[av.VideoFrame]:
        """The frame with what is said of its time."""
        pts = frame.pts
        if self._ticks is not None:
            pts = self._ticks.popleft() if self._ticks else None
        dts = None if pts is None else self._dts.pop(pts, None)
        lag_s = None if pts is None or dts is None else seconds(pts - dts, self._media)
        time_s, duration_s = None if pts is None else seconds(pts, self._media), self._duration_s(frame)
        self.reach_s = max(self.reach_s, -math.inf if time_s is None else time_s + (duration_s or 0.0))
        return Stamped(frame, time_s, duration_s, lag_s)

    def _duration_s(self, frame: av.VideoFrame) -> float | None:
        if frame.duration > 0:
            return seconds(frame.duration, self._media)
        return float(1 / self._rate) if self._rate else None


@dataclass(slots=True)
class _Survey:
    """What one pass over a file has seen so far."""

    path: Path
    codec: str
    rates: tuple[Fraction, ...]
    tick_s: float
    listed: int
    ends_s: float | None
    audio_streams: int
    warnings: list[str]
    timeline: Timeline
    picture: Upright = field(default_factory=Upright)
    pix_fmt: str = ""
    color_range: str = ""
    times_s: list[float] = field(default_factory=list)
    last_duration_s: float = 0.0
    damaged: list[int] = field(default_factory=list)
    n_packets: int = 0
    reach_s: float = -math.inf
    fault: InputError | None = None

    @classmethod
    def start(cls, media: Media) -> _Survey:
        stream = media.stream
        return cls(
            path=media.path,
            codec=stream.codec_context.codec.canonical_name,
            rates=media.rates,
            tick_s=float(media.time_base),
            listed=stream.frames,
            ends_s=_promised_end_s(media),
            audio_streams=len(media.container.streams.audio),
            warnings=[],
            timeline=Timeline(media.path),
        )

    def see(self, index: int, timestamp_s: float, frame: av.VideoFrame, media: Media, as_pinhole: bool) -> None:
        self.picture.observe(frame, media)
        if not index:
            self.pix_fmt, self.color_range = frame.format.name, color_range(frame)
            if not as_pinhole:
                self.picture.check_pinhole(self.path)
        self.times_s.append(timestamp_s)
        self.last_duration_s = seconds(frame.duration, media) if frame.duration > 0 else 0.0
        if frame.is_corrupt:
            self.damaged.append(index)

    def end(self, media: Media, frames: _Frames) -> None:
        """Take note of what is known once all packets were read."""
        self.n_packets, self.reach_s = frames.n_packets, frames.stamps.reach_s
        position, size = frames.last_packet
        if media.demuxer == "avi" and position is not None:
            n_empty = empty_ticks_after(self.path, position, size)
            self.last_duration_s += n_empty * self.tick_s
            self.listed = max(self.listed - frames.stamps.last_tick - 1 - n_empty, 0) + self.n_packets
        elif media.demuxer == "mov" and (entries := media.stream.index_entries):
            self.listed = sum(not entry.flags & _DISCARD for entry in entries)

    @property
    def damaged_somewhere(self) -> bool:
        """True where decoding failed, frames are marked as damaged, or packets gave no frame."""
        return bool(self.fault or self.damaged) or len(self.times_s) != self.n_packets

    def result(self) -> VideoProbe:
        times_s, n = np.array(self.times_s), len(self.times_s)
        fps, vfr = _frame_rate(times_s, self.rates, self.tick_s, self.last_duration_s)
        duration_s = float(times_s[-1] - times_s[0]) + (self.last_duration_s or float(1 / fps))
        expected = max(self.listed, self.n_packets)
        missing_s = self._missing_s(duration_s)
        self._warn(duration_s, missing_s)
        width, height = self.picture.shown.size_px
        return VideoProbe(
            codec=self.codec,
            pix_fmt=self.pix_fmt,
            color_range=self.color_range,
            width=width,
            height=height,
            rotation_deg=self.picture.shown.rotation_deg,
            fps=fps,
            vfr=vfr,
            n_frames=n,
            n_frames_expected=None if missing_s else expected,
            decoded_share=min(n / expected, 1.0) * duration_s / (duration_s + missing_s),
            duration_s=duration_s,
            audio_streams=self.audio_streams,
            timestamps_s=times_s,
            warning="; ".join(self.warnings) or None,
            damaged=self.damaged_somewhere or self.listed > n,
            picture=self.picture.facts(),
        )

    def _missing_s(self, duration_s: float) -> float:
        """How much earlier the picture ends than the container promises, where it lists no frames; 0 where that is about right."""
        if self.listed or self.ends_s is None:
            return 0.0
        missing_s = self.ends_s - max(self.times_s[0] + duration_s, self.reach_s)
        return missing_s if missing_s > max(0.5, 0.02 * (duration_s + missing_s)) else 0.0

    def _warn(self, duration_s: float, missing_s: float) -> None:
        n = len(self.times_s)
        if self.listed > n:
            self.warnings.append(f"{n} of the {self.listed} frames in the header decode")
        if missing_s:
            promised = f"the header promises {duration_s + missing_s:.3f} s of picture"
            self.warnings.append(f"{promised}, it ends after {duration_s:.3f} s")
        if self.fault:
            self.warnings.append(f"decoding stops at frame {n}: {self.fault.reason}")
        if self.damaged:
            self.warnings.append(f"{len(self.damaged)} frames are damaged, the first is {self.damaged[0]}")
        if self.damaged_somewhere and not self.warnings:
            self.warnings.append(f"{self.n_packets} packets gave {n} frames")
        if placed := self.timeline.placed:
            which = f"frame {placed[0]} has" if len(placed) == 1 else f"{len(placed)} frames, the first is {placed[0]}, have"
            self.warnings.append(f"{which} no timestamp that fits those around; placed between its neighbours")
        if restarts := self.timeline.restarts:
            self.warnings.append(f"the timestamps start anew at frame {restarts[0]}; what follows is timed from there on")
        self.warnings += self.picture.all_warnings()


def _promised_end_s(media: Media) -> float | None:
    """When the container says that the stream ends, or that it ends itself, on the clock of the frames; None where it says neither."""
    container, stream = media.container, media.stream
    if stream.duration:
        return seconds((stream.start_time or 0) + stream.duration, media)
    if media.demuxer == "matroska" and (said := _LENGTH_TAG.match(stream.metadata.get("DURATION", ""))):
        hours, minutes, rest_s = said.groups()
        return 3600.0 * int(hours) + 60.0 * int(minutes) + float(rest_s)
    if not container.duration:
        return None
    starts = 0 if media.demuxer == "matroska" else container.start_time or 0
    return (starts + container.duration) / av.time_base


def _survey(path: Path, threads: int, visit: Visitor | None, as_pinhole: bool) -> _Survey:
    """One pass over the whole file."""
    with open_media(path, threads) as media:
        survey = _Survey.start(media)
        frames = _Frames(media)
        try:
            for index, (timestamp_s, frame) in enumerate(survey.timeline.times(map(frames.stamps.stamped, frames))):
                survey.see(index, timestamp_s, frame, media, as_pinhole)
                if visit is not None:
                    visit(index, timestamp_s, frame)
        except CorruptVideo as error:
            survey.fault = error
        survey.end(media, frames)
    return survey


def _standard(rate: Fraction) -> Fraction:
    """The whole or NTSC rate (n * 1000 / 1001) that a container's rounded rate stands for, if it is that near; else `rate`."""
    for candidate in (Fraction(round(rate)), Fraction(round(rate * 1001 / 1000) * 1000, 1001)):
        if abs(candidate / rate - 1) < Fraction(1, 10**5):
            return candidate
    return rate


def _frame_rate(times_s: np.ndarray, rates: tuple[Fraction, ...], tick_s: float, last_duration_s: float) -> tuple[Fraction, bool]:
    """Exact frame rate and whether it varies: the first rate that puts each frame within one tick of where it is, else the mean rate."""
    steps = np.arange(len(times_s))
    span_s = float(times_s[-1] - times_s[0])
    if not span_s:
        return (rates[0] if rates else Fraction(1 / last_duration_s if last_duration_s else 1).limit_denominator(1001)), False
    mean = Fraction(len(steps) - 1) / Fraction(span_s)
    for rate in [*map(_standard, rates), *rates, mean.limit_denominator(1001)]:
        slack_s = min(tick_s * 1.001, 0.501 / float(rate)) + 1e-9 if rate else 0.0  # where a tick is a frame, a tick off is a frame dropped
        if rate and np.abs(times_s - times_s[0] - steps / float(rate)).max() <= slack_s:
            return rate, False
    return max(mean, _SLOWEST_RATE).limit_denominator(_SLOWEST_RATE.denominator), True
