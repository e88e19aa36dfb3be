"""The clips of a video, as its manifest in a run has them."""

from __future__ import annotations

from egoworld_ops.errors import UnknownVideo
from egoworld_ops.files.tables import read_result
from egoworld_ops.lake import lake, memo, states
from egoworld_ops.lake.lake import Run
from egoworld_ops.types import Clip, check_id

UNKNOWN_CURE = "Register the raw file (`egoworld register PATH`), which makes its partition; remove a partition that stands for no file"


def check_key(video_id: str) -> None:
    """Raise UnknownVideo where no video can have this name, such as a partition that was added by hand."""
    try:
        check_id("video_id", video_id)
    except ValueError as error:
        raise UnknownVideo(f"video {video_id!r}", f"cannot be the name of a video: {error}", UNKNOWN_CURE) from error


def has_manifest(run: Run, video_id: str) -> bool:
    """Whether a video has both tables of its manifest in a run."""
    return all(memo.file_state(run.video_table(name, video_id)) for name in lake.VIDEO_TABLES)


def no_manifest(run: Run, video_id: str) -> UnknownVideo:
    """The error of a video that has no manifest in a run."""
    cure = f"Materialize the asset `manifest` first, or `egoworld run --video {video_id} --from manifest --to manifest`"
    return UnknownVideo(f"video {video_id}", f"has no manifest in run {run.run_id}", cure)


def clips_of(run: Run, video_id: str) -> list[Clip]:
    """The clips of a video in its manifest in a run.

    Raises:
        UnknownVideo: it has none there.
        ContractError: it cannot be read.
    """
    from egoworld_ops.video import manifest

    check_key(video_id)
    if not has_manifest(run, video_id):
        raise no_manifest(run, video_id)
    (videos, said), (clips, of_clips) = (read_result(run.video_table(name, video_id), name) for name in lake.VIDEO_TABLES)
    if said.get("digest") != of_clips.get("digest"):
        raise states.half_a_manifest(run.video_table("videos", video_id))
    return manifest.clips_from_tables(videos, clips, run.packet_index(video_id))
