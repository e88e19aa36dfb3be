"""The video of a recording: its packets as they are where Rerun shows the frames that we decode, else its frames encoded anew. No sound, no tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from egoworld_ops.report.rendering import TICKS, encode, even
from egoworld_ops.types import Clip
from egoworld_ops.video.containers import LIBAV_FAULTS, open_media
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.frame_times import indexed_times
from egoworld_ops.video.index_file import IndexFile
from egoworld_ops.video.packet_index import IndexDiffers

if TYPE_CHECKING:
    import rerun as rr

_PLAYED: Mapping[str, Sequence[str]] = MappingProxyType(
    {"h264": ("yuv420p", "yuvj420p"), "hevc": ("yuv420p",), "av1": ("yuv420p",), "vp9": ("yuv420p",)}
)
"""Codecs and pixel formats that Rerun plays in MP4 (https://rerun.io/docs/reference/video)."""
_CRF = 20
_ENCODING: Mapping[str, str] = MappingProxyType({"g": "12", "bf": "0", "x264-params": "force-cfr=1"})
"""Seeks quickly. The last: the stream states a usual rate of frames; with the ticks of its times in their place Rerun's viewer shows nothing."""


def log(stream: rr.RecordingStream, path: str, clips: Sequence[Clip], temporary: Path, threads: int) -> dict[int, float]:
    """Log the video, and for each frame that the clips own the picture it has; returns the times of these frames in seconds.

    Args:
        path: the entity.
        clips: of one video, in order.
        temporary: where the MP4 is made; it is removed.
        threads: of decoder and encoder.

    Raises:
        InputError: the video cannot be decoded.
        StorageUnavailable: it cannot be read now, or the disk is full.
    """
    import rerun as rr

    whole = replace(clips[0], frame_start=0, own_start=clips[0].own_start, frame_end=clips[-1].own_end, own_end=clips[-1].own_end)
    try:
        asset, times_s = _as_it_is(whole, temporary) or _anew(whole, temporary, threads)
    finally:
        temporary.unlink(missing_ok=True)
    stream.log(path, asset, static=True)
    frames = [frame for frame in times_s if frame >= whole.own_start]
    stamps = dict(zip(times_s, asset.read_frame_timestamps_nanos().tolist(), strict=False))
    indexes = [rr.TimeColumn("frame", sequence=frames), rr.TimeColumn("video_time", duration=np.array([times_s[f] for f in frames]))]
    stream.send_columns(path, indexes, rr.VideoFrameReference.columns_nanos([stamps[f] for f in frames]))
    return times_s


def _as_it_is(whole: Clip, temporary: Path) -> tuple[Any, dict[int, float]] | None:
    """The video's own packets at the times of our frames, and these times; None where Rerun would show other frames than we decode."""
    import rerun as rr

    times_s = indexed_times(whole, 1)
    if sorted(times_s) != list(range(whole.frame_end)) or not _is_shown_as_stored(whole.packet_index):
        return None
    with open_media(whole.video_path, 1) as media:
        context = media.stream.codec_context
        if context.pix_fmt not in _PLAYED.get(context.name, ()):
            return None
        try:
            packets = (packet for packet in media.container.demux(media.stream) if packet.size)
            n = _mux(temporary, media.stream, packets, [round(time_s / TICKS) for time_s in times_s.values()])
        except LIBAV_FAULTS:
            return None
    return (rr.AssetVideo(path=temporary), dict(sorted(times_s.items()))) if n == len(times_s) else None


def _mux(path: Path, stream: av.VideoStream, packets: Iterable[av.Packet], pts: Sequence[int]) -> int:
    """Write packets at these times, ticks in decoding order, into an MP4; returns how many packets there were, also beyond those that have a time."""
    n, dts = 0, sorted(pts)
    early = max(shown - at for shown, at in zip(dts, pts, strict=True))
    with av.open(str(path), "w", format="mp4") as file:
        copied = file.add_stream_from_template(stream, opaque=True)
        for n, packet in enumerate(packets, 1):
            if n > len(pts):
                return n
            packet.pts, packet.dts, packet.time_base = pts[n - 1], dts[n - 1] - early, TICKS
            packet.stream = copied
            file.mux(packet)
    return n


def _is_shown_as_stored(index: Path | None) -> bool:
    """Whether the pixels of the stored picture are those of the one shown."""
    try:
        with IndexFile(index or Path()) as file:
            layout = file.about.layout
    except IndexDiffers:
        return False
    return layout.raster() is None and not layout.mirrored and layout.rotation_deg == 0


def _anew(whole: Clip, temporary: Path, threads: int) -> tuple[Any, dict[int, float]]:
    """The frames that the clips own, as H.264."""
    import rerun as rr

    times_s: dict[int, float] = {}

    def decoded() -> Iterator[tuple[float, np.ndarray]]:
        for frame in decode(whole.video_path, whole.own_start, whole.own_end, 1, threads, whole.damaged, whole.packet_index):
            times_s[frame.index] = frame.timestamp_s
            yield frame.timestamp_s - next(iter(times_s.values())), even(frame.rgb)

    encode(temporary, decoded(), whole.video_id, _CRF, threads, **_ENCODING)
    return rr.AssetVideo(path=temporary), times_s
