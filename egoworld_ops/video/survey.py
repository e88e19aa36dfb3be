"""The result of one pass over a video: its frames and their times, its rate, and everything odd or damaged."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from egoworld_ops.errors import InputError
from egoworld_ops.types import StatedLens
from egoworld_ops.video.avi import empty_ticks_after
from egoworld_ops.video.camera_tags import focal_35mm
from egoworld_ops.video.containers import Media
from egoworld_ops.video.frames import Frames, seconds
from egoworld_ops.video.gopro import stated_lens
from egoworld_ops.video.picture import PictureFacts, Upright, color_range
from egoworld_ops.video.timeline import Timeline

_DISCARD = 2
_LENGTH_TAG = re.compile(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d{1,9})?)\Z")
_SLOWEST_RATE = Fraction(1, 10**6)
LONE_AFTER_S, LONE_AFTER_STEPS, _FEWEST_STEPS = 1.0, 10, 3
"""A first or last frame is reported if it is this many seconds, and this many usual steps, away from the others."""


@dataclass(frozen=True, slots=True)
class VideoProbe:
    """The result of one full decode of a video.

    Args:
        codec: name of the codec (`h264`, `hevc`, `av1`, ...).
        pix_fmt: pixel format of the decoder.
        color_range: `limited`, `full` or `unspecified`.
        width, height: size in pixels of the picture shown, after crop, pixel aspect and rotation.
        rotation_deg: clockwise turn that shows the picture upright: 0, 90, 180 or 270.
        fps: exact frame rate; the mean rate where `vfr`.
        vfr: true where the timestamps are not evenly spaced to within one tick of the container's clock and half a frame.
        n_frames: frames that decode, counted.
        n_frames_expected: frames that the container lists or holds packets of; None if it states only a length.
        decoded_share: share of what the container promises that decodes, 0 to 1: of its frames, or of its length if it lists none.
        duration_s: end of the last frame minus start of the first.
        audio_streams: number of audio streams.
        timestamps_s: (n_frames,) float64 presentation times, strictly increasing.
        warning: what is odd about a usable file, else None.
        damaged: true where frames are missing or broken: the output then depends on the decoder's threads and on where it starts.
        picture: what container and stream say of the picture.
        focal_35mm_mm: 35 mm equivalent focal length that the container states; None where it states none.
        lens: the whole lens, where the container states that.
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
    focal_35mm_mm: float | None
    lens: StatedLens | None


@dataclass(slots=True)
class Survey:
    """State of one pass over a file so far."""

    path: Path
    codec: str
    rates: tuple[Fraction, ...]
    tick_s: float
    listed: int
    ends_s: float | None
    audio_streams: int
    focal_35mm_mm: float | None
    lens: StatedLens | None
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
    def start(cls, media: Media) -> Survey:
        """Begin a pass over a file that was just opened."""
        stream = media.stream
        stated = stated_lens(media.descriptor, media.demuxer, stream.codec_context.width, stream.codec_context.height)
        return cls(
            path=media.path,
            codec=stream.codec_context.codec.canonical_name,
            rates=media.rates,
            tick_s=float(media.time_base),
            listed=stream.frames,
            ends_s=_promised_end_s(media),
            audio_streams=len(media.container.streams.audio),
            focal_35mm_mm=focal_35mm(media.descriptor, media.demuxer, stream.id),
            lens=stated.lens,
            warnings=[f"{stated.why}: the lens is not known"] if stated.why else [],
            timeline=Timeline(media.path),
        )

    def see(self, index: int, timestamp_s: float, frame: av.VideoFrame, media: Media, as_pinhole: bool) -> None:
        """Record the next frame."""
        self.picture.observe(frame, media)
        if not index:
            self.pix_fmt, self.color_range = frame.format.name, color_range(frame)
            if not as_pinhole:
                self.picture.check_pinhole(self.path)
        self.times_s.append(timestamp_s)
        self.last_duration_s = seconds(frame.duration, media) if frame.duration > 0 else 0.0
        if frame.is_corrupt:
            self.damaged.append(index)

    def end(self, media: Media, frames: Frames) -> None:
        """Record what is known once all packets are read."""
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
        """The result of the pass; there must be a frame."""
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
            focal_35mm_mm=self.focal_35mm_mm,
            lens=self.lens,
        )

    def _missing_s(self, duration_s: float) -> float:
        """Seconds by which the picture ends before the promised end, if the container lists no frames; 0 if that is about right."""
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
        self.warnings += [*_lone_ends(self.times_s), *self.picture.all_warnings()]


def _lone_ends(times_s: Sequence[float]) -> Iterator[str]:
    """Warnings about a first or last frame that a long pause separates from all others: no other time confirms the pause."""
    steps_s = np.diff(times_s)
    if len(steps_s) < _FEWEST_STEPS:
        return
    usual_s = float(np.median(steps_s))
    for step_s, where in ((steps_s[0], "after the first frame"), (steps_s[-1], "before the last frame")):
        if step_s > max(LONE_AFTER_S, LONE_AFTER_STEPS * usual_s):
            yield f"a pause of {step_s:.3f} s {where}: if there was none, the time of that frame is false, and the duration too long"


def _promised_end_s(media: Media) -> float | None:
    """The end of the stream that the container states, else that of the container itself, on the clock of the frames; None if it states neither."""
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


def _standard(rate: Fraction) -> Fraction:
    """The whole or NTSC rate (n * 1000 / 1001) that a container's rounded rate stands for, if near enough; else `rate`."""
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
        slack_s = min(tick_s * 1.001, 0.501 / float(rate)) + 1e-9 if rate else 0.0  # if ticks are frames, one tick off is a dropped frame
        if rate and np.abs(times_s - times_s[0] - steps / float(rate)).max() <= slack_s:
            return rate, False
    return max(mean, _SLOWEST_RATE).limit_denominator(_SLOWEST_RATE.denominator), True
