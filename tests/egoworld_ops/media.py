"""Makes tiny videos with known content, and damages them. Frame `i` shows its number, so that a decoded frame can be identified."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

Picture = Callable[[int, int, int], np.ndarray]
BITS = 8


def numbered(index: int, width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8: the frame's number as eight black or white bars on the upper half, a moving ramp below."""
    rgb = np.zeros((height, width, 3), np.uint8)
    edges = np.linspace(0, width, BITS + 1).astype(int)
    for bit in range(BITS):
        rgb[: height // 2, edges[bit] : edges[bit + 1]] = 235 if index >> bit & 1 else 20
    rgb[height // 2 :] = ((np.arange(width) * 2 + index * 3) % 160 + 40).astype(np.uint8)[None, :, None]
    return rgb


def number_of(rgb: np.ndarray) -> int:
    """The number that `numbered` wrote into a frame."""
    height, width = rgb.shape[:2]
    edges = np.linspace(0, width, BITS + 1).astype(int)
    rows = rgb[height // 8 : 3 * height // 8]
    return sum(1 << bit for bit in range(BITS) if rows[:, edges[bit] : edges[bit + 1]].mean() > 128)


def scenes(cuts: Sequence[int], first: int = 0) -> Picture:
    """A still, textured picture that changes wholly at each of `cuts`; the first of them has this number, and no number looks like another."""

    def picture(index: int, width: int, height: int) -> np.ndarray:
        scene = first + sum(index >= cut for cut in cuts)
        rng = np.random.default_rng(scene)
        coarse = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
        return np.kron(coarse, np.ones((height // 6, width // 8, 1), np.uint8))

    return picture


def make(
    path: Path,
    n_frames: int = 30,
    size: tuple[int, int] = (128, 96),
    fps: Fraction | int = 30,
    *,
    codec: str = "libx264",
    container: str | None = None,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    gop: int = 12,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    audio_tracks: int = 0,
    rotation_deg: int = 0,
    colorspace: int | None = None,
    color_range: int | None = None,
    color_trc: int | None = None,
    sample_aspect_ratio: Fraction | None = None,
    picture: Picture = numbered,
) -> Path:
    """Encode a video and return its path. `pts` are ticks of `time_base`; `rotation_deg` is the clockwise turn that shows it upright."""
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.gop_size = gop
        if codec == "libx264":
            stream.codec_context.max_b_frames = 3
        if rotation_deg:
            stream.set_display_rotation(-rotation_deg)
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if color_trc is not None:
            stream.codec_context.color_trc = color_trc
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if time_base is not None:
            stream.codec_context.time_base = time_base
        sounds = [out.add_stream("aac", rate=16000) for _ in range(audio_tracks)]
        for index in range(n_frames):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), "rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=colorspace, dst_color_range=color_range)
            frame.pts = index if pts is None else pts[index]
            frame.time_base = time_base or 1 / Fraction(fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for sound in sounds:
            _silence(out, sound)
    return aged(path)


def aged(path: Path) -> Path:
    """Make a file an hour old, so that intake does not wait to see whether it still changes."""
    then = time.time() - 3600
    os.utime(path, (then, then))
    return path


def excerpt(source: Path, path: Path, shots: Sequence[tuple[int, int]], size: tuple[int, int]) -> Path:
    """Frames of a real video, smaller, one shot after the other."""
    with av.open(str(source)) as video:
        frames = [frame.to_ndarray(format="rgb24", width=size[0], height=size[1]) for frame in video.decode(video=0)]
    chosen = [frames[i] for start, end in shots for i in range(start, end)]
    return make(path, len(chosen), size, picture=lambda index, width, height: chosen[index])


def make_audio(path: Path) -> Path:
    """An audio file in a video container."""
    with av.open(str(path), "w") as out:
        _silence(out, out.add_stream("aac", rate=16000))
    return aged(path)


def _silence(out: av.container.OutputContainer, stream: av.AudioStream) -> None:
    out.mux(list(silence(stream, 0)))


def silence(stream: av.AudioStream, length_s: float) -> Iterator[av.Packet]:
    """Packets of silence, from time 0 on; at least one frame of it."""
    for start in range(0, max(1, round(length_s * 16000)), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, start
        yield from stream.encode(frame)
    yield from stream.encode(None)
