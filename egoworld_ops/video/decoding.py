"""Decodes a clip: by the packet index if there is one, else from the start of the file. Both give the same frames and times.

`probing.py` defines a frame's index and time. `containers.py` decides which files are opened, and how safely.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np

from egoworld_ops.errors import CorruptVideo
from egoworld_ops.types import Clip, DecodesOn, Frame, sampled_frames
from egoworld_ops.video.by_index import Decoder, frames_by_index
from egoworld_ops.video.containers import LIBAV_FAULTS, as_typed, open_media
from egoworld_ops.video.frames import Frames
from egoworld_ops.video.index_file import IndexFile
from egoworld_ops.video.nvdec import GpuDecoder
from egoworld_ops.video.packet_index import About, IndexDiffers, Section
from egoworld_ops.video.picture import Upright, to_rgb
from egoworld_ops.video.timeline import Timeline

DECODE_VERSION = "2"
"""Increased whenever the same file gives other pixels, times or counts: colour, rotation, scaling, timing, frames decoded around damage. Part
of every digest."""

_CURE = "Copy the file again from its source, or make the clips anew from the part that decodes"
_MOST_LEVELS = 2
"""Of 255, by which a pixel of the GPU's may differ. The checksums allow none, but see every 16th row alone."""
_SAID: set[str] = set()
"""Why a GPU was of no use in this process."""
_LOG = logging.getLogger(__name__)


def decode_clip(clip: Clip, stride: int = 1, threads: int = 1, frame_end: int | None = None, on: DecodesOn = "cpu") -> Iterator[Frame]:
    """Decode a clip, by the index of its video where there is one; see `decode`.

    Args:
        frame_end: where to stop; None means the clip's end.
    """
    end = clip.frame_end if frame_end is None else frame_end
    return decode(clip.video_path, clip.frame_start, end, stride, threads, clip.damaged, clip.packet_index, on)


def decode(
    path: str | Path,
    frame_start: int,
    frame_end: int,
    stride: int = 1,
    threads: int = 1,
    damaged: bool = False,
    index: Path | None = None,
    on: DecodesOn = "cpu",
) -> Iterator[Frame]:
    """Decode the frames of `[frame_start, frame_end)` whose index is a multiple of `stride`, one at a time; there may be none.

    Multiples count from the start of the video, so overlapping ranges give the same frames in their overlap. The result depends neither on
    `threads` nor on `index` nor on `on`.

    Args:
        path: the file.
        frame_start, frame_end: half-open range of frames, as `probe` counts them.
        stride: frames from one yielded frame to the next.
        threads: decoder threads.
        damaged: as `probe` reported. Output around damage depends on the decoder's threads and on where it started, so such a file is
            decoded by one thread from its start.
        index: file of the video's packet index. With it only the packets that these frames need are read. If it is missing or unreadable,
            or does not match the file, the video is decoded from its start.
        on: `cuda` decodes on the GPU, if there is an index: its checksums tell whether the frames are those of the CPU, and its first picture is
            compared whole. Where the GPU cannot, or gives others, the CPU decodes, and the log says so once.

    Raises:
        ValueError: an empty or negative range, or a stride below 1.
        CorruptVideo: the file ends or breaks before the end of the range; the error names the frame reached.
        InputError: the file cannot be opened, or changed while it was read.
        StorageUnavailable: the file or its index exists but cannot be read now.
    """
    if not 0 <= frame_start < frame_end or stride < 1:
        raise ValueError(f"decode: want 0 <= frame_start < frame_end and stride >= 1, got {frame_start}, {frame_end}, {stride}")
    wanted = sampled_frames(frame_start, frame_end, stride)
    return _decode(Path(path), range(frame_start, frame_end), wanted, 1 if damaged else threads, None if damaged else index, on)


_Way = Callable[[range], Iterator[tuple[int, Frame | None]]]
"""Yields the index of each frame it passes, with the frame itself if still wanted. Of the wanted frames it may yield only the first ones."""


def _decode(path: Path, frames: range, wanted: range, threads: int, index: Path | None, on: DecodesOn) -> Iterator[Frame]:
    """Try the fastest way first; if it ends before the range does, continue from there with the next slower one."""
    ways: list[_Way] = [partial(_on_gpu, path, index)] if on == "cuda" and index is not None else []
    ways += [partial(_by_index, path, threads, index)] if index is not None else []
    ways += [partial(_from_start, path, n_threads) for n_threads in dict.fromkeys((threads, 1))]
    fault: CorruptVideo | None = None
    reached = frames.start
    for way in ways:
        if not wanted:
            return
        try:
            for number, frame in way(wanted):
                reached = max(reached, number + 1)
                if frame is not None:
                    wanted = wanted[1:]
                    yield frame
        except CorruptVideo as error:
            fault = error
    if wanted:
        reason = f"decoding stops at frame {reached} of the range [{frames.start}, {frames.stop})"
        raise CorruptVideo(path, f"{reason}: {fault.reason if fault else 'the file ends there'}", _CURE) from fault


def decode_clip_on_gpu(clip: Clip, stride: int = 1) -> Iterator[Frame]:
    """Decode a clip on the GPU alone.

    Raises:
        IndexDiffers: there is no GPU that decodes it, it has no packet index, or the frames are not those of the CPU.
        InputError, StorageUnavailable: as `decode`.
    """
    if clip.packet_index is None or clip.damaged:
        raise IndexDiffers("the video has no packet index" if clip.packet_index is None else "the video is damaged")
    wanted = sampled_frames(clip.frame_start, clip.frame_end, stride)
    if wanted:
        yield from (frame for _, frame in _by_gpu(clip.video_path, clip.packet_index, wanted))


def _on_gpu(path: Path, index: Path, wanted: range) -> Iterator[tuple[int, Frame]]:
    try:
        yield from _by_gpu(path, index, wanted)
    except (IndexDiffers, CorruptVideo) as difference:
        _say_once(path, str(getattr(difference, "reason", difference)))


def _by_gpu(path: Path, index: Path, wanted: range) -> Iterator[tuple[int, Frame]]:
    """The first frame is decoded by the CPU as well, and compared pixel by pixel."""
    about, section = _opened(index, wanted)
    [first] = decode(path, wanted.start, wanted.start + 1, index=index)
    for number, frame in _of_section(path, about, section, wanted, 1, GpuDecoder(about.setup)):
        if number == first.index and (off := int(np.abs(frame.rgb.astype(int) - first.rgb).max())) > _MOST_LEVELS:
            raise IndexDiffers(f"frame {number} differs from the CPU's by {off} of 255")
        yield number, frame


def _say_once(path: Path, why: str) -> None:
    if why not in _SAID:
        _SAID.add(why)
        _LOG.warning(
            f"{path}: decoded on the CPU, though pool.decode_on is cuda, and so are others, of which that is not said again: {why}"
        )


def _by_index(path: Path, threads: int, index: Path, wanted: range) -> Iterator[tuple[int, Frame]]:
    try:
        yield from _of_section(path, *_opened(index, wanted), wanted, threads)
    except IndexDiffers as difference:
        _LOG.warning(f"{path}: decoded from its start, its packet index {index} is of no use: {difference}")


def _opened(index: Path, wanted: range) -> tuple[About, Section]:
    with IndexFile(index) as file:
        if file.decode_version != DECODE_VERSION:
            raise IndexDiffers(f"it is of version {file.decode_version} of decoding, not {DECODE_VERSION}")
        return file.about, file.section(wanted)


def _of_section(
    path: Path, about: About, section: Section, wanted: range, threads: int, decoder: Decoder | None = None
) -> Iterator[tuple[int, Frame]]:
    picture = Upright(about.layout)
    for number, time_s, frame in frames_by_index(path, about, section, wanted, threads, decoder):
        yield number, Frame(number, time_s, _shown(path, frame, picture))


def _from_start(path: Path, threads: int, wanted: range) -> Iterator[tuple[int, Frame | None]]:
    with open_media(path, threads) as media:
        picture, frames = Upright(), Frames(media)
        for index, (timestamp_s, frame) in enumerate(Timeline(path).times(map(frames.stamps.stamped, frames))):
            picture.observe(frame, media)
            yield index, Frame(index, timestamp_s, _shown(path, frame, picture)) if index in wanted else None
            if index >= wanted[-1]:
                return


def _shown(path: Path, frame: av.VideoFrame, picture: Upright) -> np.ndarray:
    """As `to_rgb`; colours that cannot be shown, as from damaged headers, are a fault of the file."""
    try:
        return to_rgb(frame, picture)
    except LIBAV_FAULTS as error:
        raise as_typed(path, error, "the picture cannot be shown") from error
