"""A video with the layers of a run drawn over it, as an MP4 that any player shows: each owned frame once, at the time stamp of the video.

Memory does not grow with the video: one clip's tables and a few frames at a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from egoworld_ops.errors import SetupError
from egoworld_ops.files import locks
from egoworld_ops.files.whole import is_there, named_errors, sync_folder
from egoworld_ops.report._overlay import Hands
from egoworld_ops.report._tile import Look, tile
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.types import Clip, Frame
from egoworld_ops.video.decoding import decode

MADE_BY = "egoworld render"
"""How the comment begins that each of these files has."""
OVER = ("masks", "boxes", "objects", "hands")
"""The layers that are drawn over the picture; all others stand in the strip below it."""
DEFAULT = ("masks", "hands", "objects", "robots", "holds", "events", "flags", "camera")
"""What is drawn where no layers are named: `boxes` lie around masks."""
TICKS = Fraction(1, 90_000)
SMALL_PX = 640
"""The longer side of a picture whose thin lines are one pixel wide."""
_ABOUT_NOTHING = "found nothing"


@dataclass(frozen=True, slots=True)
class Rendering:
    """What is drawn, and how large.

    Args:
        layers: names of layers, see `layer_values.LAYERS`.
        hands: as they were found, after fusion, or both.
        robots_over: draw robot hands over those of the person too, in their own size.
        size_px: the longer side of the picture is at most this; a smaller video keeps its size.
        crf: quality of H.264, smaller is better and larger.
        threads: of decoder and encoder.
    """

    layers: Sequence[str] = DEFAULT
    hands: Hands = "both"
    robots_over: bool = False
    size_px: int = 1280
    crf: int = 23
    threads: int = 1


def render(
    clips: Sequence[Clip], layers_of: Callable[[Clip], ClipLayers], out: Path, rendering: Rendering, progress: Callable[[int], object]
) -> int:
    """Write the video that these clips are of, from the first owned frame to the last, with their layers; returns the number of frames.

    Only frames that were processed are shown. The file is there when it is whole: it is written beside its place and renamed.

    Args:
        clips: of one video.
        layers_of: reads the layers of one clip.
        progress: called with the number of frames of the video gone through, after each.

    Raises:
        SetupError: there is another file in its place, somebody else is writing it, or it would have no picture.
        StorageUnavailable: the disk is full, refuses, or has no locks.
        InputError: the video cannot be decoded.
    """
    refuse_others(out)
    drawn = pictures(clips, layers_of, rendering, progress)
    with named_errors(out), place(out) as temporary:
        n = encode(temporary, drawn, f"{MADE_BY} {clips[0].video_id}", rendering.crf, rendering.threads)
        if not n:
            frames = f"frames {min(clip.own_start for clip in clips)} to {max(clip.own_end for clip in clips) - 1}"
            cure = "Draw another clip, or lower sample_stride and process the video again"
            raise SetupError(out, f"would have no picture: of {frames} none was processed", cure)
        return n


def refuse_others(out: Path) -> None:
    """Leave files alone that were not made here.

    Raises:
        SetupError: there is one.
    """
    if not os.path.lexists(out):
        return
    try:
        with av.open(str(out), format="mp4") as there:
            ours = there.metadata.get("comment", "").startswith(MADE_BY)
    except (av.FFmpegError, OSError):
        ours = False
    if not ours:
        raise SetupError(out, f"is there, and was not made by `{MADE_BY}`", "Name another file with --out, or move this one away")


def pictures(
    clips: Sequence[Clip], layers_of: Callable[[Clip], ClipLayers], rendering: Rendering, progress: Callable[[int], object] = lambda _: None
) -> Iterator[tuple[float, np.ndarray]]:
    """Time in seconds and picture (H, W, 3) uint8 of each frame that is shown, all of one size; arguments and errors as of `render`."""
    waiting = sorted(clips, key=lambda clip: clip.own_start)
    start, end = waiting[0].own_start, waiting[-1].own_end
    first, current, layers, path = waiting[0], None, ClipLayers({}), {}
    for frame in decode(first.video_path, start, end, 1, rendering.threads, first.damaged, first.packet_index):
        while waiting and waiting[0].own_end <= frame.index:
            waiting.pop(0)
        clip = waiting[0] if waiting and waiting[0].own_start <= frame.index else None
        if clip != current:
            current, layers = clip, layers_of(clip) if clip else ClipLayers({})
            path = _from_above(layers) if "camera" in rendering.layers else {}
        if frame.index % layers.sample_stride == 0:
            notes = _notes(layers, rendering.layers) if clip else ["in no clip: nothing is known of this frame"]
            yield frame.timestamp_s, _picture(frame, layers, rendering, notes, path)
        progress(frame.index - start + 1)


def _notes(layers: ClipLayers, wanted: Sequence[str]) -> list[str]:
    """Which layers have nothing to draw because a table is not there; not those whose stages found nothing."""
    return [f"no {layer}: {why}" for layer, why in layers.without.items() if layer in wanted and _ABOUT_NOTHING not in why]


def _picture(frame: Frame, layers: ClipLayers, rendering: Rendering, notes: Sequence[str], path: dict[int, list[float]]) -> np.ndarray:
    height, width = frame.rgb.shape[:2]
    scale = min(rendering.size_px / max(height, width), 1.0)
    rgb = smaller(frame.rgb, scale)
    over = [layer for layer in rendering.layers if layer in OVER or (layer == "robots" and rendering.robots_over)]
    below = [layer for layer in rendering.layers if layer not in OVER]
    look = Look(over, below, rendering.hands, max(round(max(rgb.shape[:2]) / SMALL_PX), 1))
    seen = np.array([path[frame.index], *path.values()]) if frame.index in path else None
    whole = tile(rgb, scale, frame.timestamp_s, layers.frame(frame.index, rendering.layers), look, notes, seen)
    return even(whole)


def smaller(rgb: np.ndarray, scale: float) -> np.ndarray:
    """A picture (H, W, 3) uint8, its sides times `scale`, which is at most 1."""
    height, width = rgb.shape[:2]
    size = (max(round(width * scale), 2), max(round(height * scale), 2))
    return rgb if scale == 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def jpeg(rgb: np.ndarray, quality: int) -> bytes:
    """A picture (H, W, 3) uint8 as JPEG; `quality` is 0 to 100."""
    _, content = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return content.tobytes()


def even(rgb: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) without its last row and column where their number is odd, as 4:2:0 needs it."""
    return np.ascontiguousarray(rgb[: rgb.shape[0] // 2 * 2, : rgb.shape[1] // 2 * 2])


def _from_above(layers: ClipLayers) -> dict[int, list[float]]:
    """The camera's path by frame, seen across the two directions in which it is widest, within [0, 1]."""
    path = layers.camera_path
    if len(path) < 2:
        return {}
    places = np.array([at.position for at in path.values()])
    centred = places - places.mean(0)
    flat = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    flat = (flat - flat.min(0)) / max(np.ptp(flat, axis=0).max(), 1e-9)
    return dict(zip(path, flat.tolist(), strict=True))


@contextmanager
def place(out: Path) -> Iterator[Path]:
    """A name beside `out` that becomes `out` at the end, or is removed. What a killed process left there is written anew.

    Raises:
        SetupError, StorageUnavailable: as `_alone`.
    """
    temporary = out.with_name(f".{out.name}.part")
    while not locks.is_at(handle := _alone(temporary, out), temporary):
        os.close(handle)  # its writer ended meanwhile, and it is another file now, or none
    try:
        try:
            yield temporary
            os.fsync(handle)
            os.replace(temporary, out)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    finally:
        os.close(handle)
    sync_folder(out.parent)


def _alone(temporary: Path, out: Path) -> int:
    """The file to write to, opened, made where it is not there, and locked.

    Raises:
        SetupError: another process has it.
        StorageUnavailable: it cannot be locked; then it is as it was.
    """
    new = not is_there(temporary)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        locks.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, temporary)
    except BaseException as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise SetupError(out, "is being written by another process", "Wait for it, or name another file with --out") from error
        if new:
            temporary.unlink(missing_ok=True)
        raise
    return handle


def encode(path: Path, shown: Iterable[tuple[float, np.ndarray]], comment: str, crf: int, threads: int, **options: str) -> int:
    """H.264 in MP4, its index first so that a browser begins before it has all; returns the number of frames.

    Args:
        shown: time in seconds and picture (H, W, 3) uint8 with even sides, in order.
        options: of x264, by the names that FFmpeg has for them.
    """
    n, begins_s = 0, 0.0
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as file:
        file.metadata["comment"] = comment
        stream = file.add_stream("libx264", options={"crf": str(crf), "preset": "veryfast", **options})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICKS
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU709, ColorRange.MPEG
        stream.codec_context.thread_count = threads
        for time_s, rgb in shown:
            if not n:
                stream.height, stream.width = rgb.shape[:2]
                begins_s = min(time_s, 0.0)
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            frame.pts, frame.time_base = round((time_s - begins_s) / TICKS), TICKS
            file.mux(stream.encode(frame))
            n += 1
        if n:
            file.mux(stream.encode(None))
    return n
