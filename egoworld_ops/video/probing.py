"""Probing: decodes the whole of a video once and reports what it is.

A frame's index is its position in the decoder's output from the start of the file, in presentation order; its time is its PTS, if credible.
`decode` counts and times the same way, with any number of threads, so that a range of frames means the same to both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av

from egoworld_ops.errors import CorruptVideo, EmptyVideo
from egoworld_ops.video.containers import open_media
from egoworld_ops.video.frames import Frames
from egoworld_ops.video.indexing import IndexMaker
from egoworld_ops.video.picture import Layout, Upright
from egoworld_ops.video.survey import Survey, VideoProbe

Visitor = Callable[[int, float, av.VideoFrame], None]
"""Called with index, timestamp_s and the decoder's own frame, which is valid only during the call. Index 0 begins a pass over the file; if there
is a second pass, only that one counts, and what was seen before must be discarded."""


def probe(
    path: str | Path, visit: Visitor | None = None, threads: int = 0, as_pinhole: bool = False, index: IndexMaker | None = None
) -> VideoProbe:
    """Decode the whole of a video once and report what it is.

    Args:
        path: the file.
        visit: sees each frame, in order (scene detection runs here); from its last call with index 0 on, exactly the `n_frames` frames.
        threads: decoder threads; 0 means one per core.
        as_pinhole: treat a picture marked as stereo or spherical as that of a pinhole camera.
        index: records the packets; afterwards it has the index of the video, or the reason why there is none.

    Raises:
        NotAVideo, NoVideoStream, EmptyVideo, UnstableFile: as in `errors.py`.
        UnsupportedPicture: it is encrypted, its colours or pixels cannot be shown, or it is stereo or spherical.
        CorruptVideo: not one frame decodes.
    """
    path = Path(path)
    survey = _survey(path, threads, visit, as_pinhole, index)
    if survey.damaged_somewhere and threads != 1:
        # Around damage, threaded decoders drop frames in flight or hide errors: only the output of one thread is reliable.
        survey = _survey(path, 1, visit, as_pinhole, index)
    if not survey.times_s:
        raise survey.fault or EmptyVideo(path, "has a video stream without one frame that decodes", "Remove it, or copy it again")
    seen = survey.result()
    if index is not None:
        index.finish(path, survey.picture.shown, seen.damaged)
    return seen


def layout_at_start(path: Path) -> Layout:
    """How the picture of a video is shown, from its first frame that decodes.

    Raises:
        NotAVideo, NoVideoStream, EmptyVideo, CorruptVideo, UnsupportedPicture, UnstableFile: as `probe`.
    """
    with open_media(path, 1) as media:
        upright = Upright()
        for frame in Frames(media):
            upright.observe(frame, media)
            return upright.shown
    raise EmptyVideo(path, "has a video stream without one frame that decodes", "Remove it, or copy it again")


def _survey(path: Path, threads: int, visit: Visitor | None, as_pinhole: bool, maker: IndexMaker | None) -> Survey:
    """One pass over the whole file."""
    with open_media(path, threads) as media:
        survey = Survey.start(media)
        if maker is not None:
            maker.start(media)
        frames = Frames(media, maker.packet if maker is not None else None)
        try:
            for index, (timestamp_s, frame) in enumerate(survey.timeline.times(map(frames.stamps.stamped, frames))):
                survey.see(index, timestamp_s, frame, media, as_pinhole)
                if maker is not None:
                    maker.frame(index, timestamp_s, frame)
                if visit is not None:
                    visit(index, timestamp_s, frame)
        except CorruptVideo as error:
            survey.fault = error
        survey.end(media, frames)
    return survey
