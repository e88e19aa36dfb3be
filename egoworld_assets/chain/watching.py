"""The clips of a video that somebody wants to see: at the place where their raw file is known to be, and only while it is what it was."""

from __future__ import annotations

from dataclasses import replace

from egoworld_assets.chain.clips import clips_of
from egoworld_assets.chain.raw_files import RawFiles
from egoworld_ops.errors import UnknownVideo
from egoworld_ops.lake.lake import Run
from egoworld_ops.naming import did_you_mean
from egoworld_ops.raw.intake import registered
from egoworld_ops.types import Clip


def clips_to_watch(run: Run, video_id: str, clip_id: str | None = None) -> list[Clip]:
    """The clips of a video, or one of them, in order.

    Raises:
        UnknownVideo: there is none.
        ContractError, StorageUnavailable: the manifest cannot be read.
    """
    known = sorted(clips_of(run, video_id), key=lambda clip: clip.own_start)
    if not known:
        raise UnknownVideo(f"video {video_id}", "has no clips: it was rejected", "`egoworld videos` says why")
    wanted = [clip for clip in known if clip_id in (None, clip.clip_id)]
    if not wanted:
        raise UnknownVideo(f"clip {clip_id}", f"is not one of video {video_id}", did_you_mean(str(clip_id), [c.clip_id for c in known]))
    entry = registered(run.lake).get(video_id)
    return [replace(clip, video_path=entry.path) if entry else clip for clip in wanted]


def check_raw_file(run: Run, clip: Clip, raw_files: RawFiles) -> None:
    """Make sure that the raw file of a clip is there, with the content that it had.

    Raises:
        UnstableFile, RawFileAway: it is not.
    """
    raw_files.check(clip, registered(run.lake).get(clip.video_id))
