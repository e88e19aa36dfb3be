"""Presentation times of frames without decoding them, from the packet index of the video."""

from __future__ import annotations

from egoworld_ops.types import Clip, sampled_frames
from egoworld_ops.video.decoding import DECODE_VERSION
from egoworld_ops.video.index_file import IndexFile
from egoworld_ops.video.packet_index import IndexDiffers, is_wanted


def indexed_times(clip: Clip, stride: int) -> dict[int, float]:
    """The time in seconds of each processed frame of a clip, as decoding gives it; empty where no index has them all.

    Raises:
        StorageUnavailable: the index exists but cannot be read now.
    """
    wanted = sampled_frames(clip.frame_start, clip.frame_end, stride)
    if clip.packet_index is None or clip.damaged or not wanted:
        return {}
    try:
        with IndexFile(clip.packet_index) as file:
            if file.decode_version != DECODE_VERSION:
                return {}
            rows = file.section(wanted).rows
    except IndexDiffers:
        return {}
    shown = rows[is_wanted(rows["frame"], wanted)]
    return dict(zip(shown["frame"].tolist(), shown["time_s"].tolist(), strict=True))
