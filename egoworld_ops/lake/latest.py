"""When a lake's latest run changes.

A run that was only opened, that failed, or that processed only a part of the chain or of the videos does not become the latest: queries go on to use
the run before. A run becomes the latest once one of its videos is complete and it has results of as many videos as the run before, or when
a person pins it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from egoworld_ops import operators
from egoworld_ops.errors import ContractError
from egoworld_ops.files.whole import matching, names_in
from egoworld_ops.lake import pointer, runs, states
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.lake.pointer import Pointer


def use(run: Run) -> None:
    """Pin a run: it stays the latest until another is pinned or `follow` lets it go."""
    pointer.write(run.lake.root, Pointer(run.run_id, pinned=True))


def follow(store: Lake) -> Run:
    """Let the latest run change by itself again; returns the one it is now."""
    run = runs.latest(store)
    pointer.write(store.root, Pointer(run.run_id))
    return run


def is_pinned(store: Lake) -> bool:
    """Whether a person chose the latest run."""
    said = pointer.read(store.root)
    return said is not None and said.pinned


def advance(run: Run, video_ids: Iterable[str], without: Collection[str] = ()) -> bool:
    """Make a run the latest if these videos, which were just processed, complete it as said above; returns whether it is the latest now.

    Args:
        without: videos that a person forgot: they do not count in the comparison.

    Raises:
        StorageUnavailable: the storage refuses.
    """
    said = pointer.read(run.lake.root)
    if said is not None and (said.pinned or said.run_id == run.run_id):
        return said.run_id == run.run_id
    if not any(_is_whole(run, video_id) for video_id in video_ids):
        return False
    before = run.lake.latest_run()
    if before is not None:
        wanted = sum(1 for _ in islice(_counted(before, without), _folders(run) + 1))
        if wanted > sum(1 for _ in islice(_counted(run, without), wanted)):
            return False
    pointer.write(run.lake.root, Pointer(run.run_id))
    return True


def with_results(run: Run) -> Iterator[str]:
    """The videos of a run of which a clip has come to the end of the chain, by the names of the files alone."""
    last = {f"{stage}.parquet" for stage in operators.stages()}
    for folder in matching(run.path, "video_id=*"):
        if any(last.issubset(names_in(clip)) for clip in matching(folder, "clip_id=*")):
            yield folder.name.removeprefix("video_id=")


def _counted(run: Run, without: Collection[str]) -> Iterator[str]:
    return (video_id for video_id in with_results(run) if video_id not in without)


def _folders(run: Run) -> int:
    return sum(1 for _ in matching(run.path, "video_id=*"))


def _is_whole(run: Run, video_id: str) -> bool:
    """Whether every clip of a video came to an end in every stage, and each stage has a result of one at least."""
    try:
        video = states.video_state(run, video_id)
    except ContractError:
        return False
    if video is None or not video.clips:
        return False
    ended = all(state in ("done", "failed", "blocked") for clip in video.clips for state in clip.states.values())
    return ended and all(any(clip.states[stage] == "done" for clip in video.clips) for stage in operators.stages())
