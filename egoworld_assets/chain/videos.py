"""What all clips of a video share, read once while its files stay as they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from egoworld_assets.chain.clips import clips_of
from egoworld_ops.errors import InputError
from egoworld_ops.lake import lake, memo
from egoworld_ops.lake.lake import Run
from egoworld_ops.types import Clip
from egoworld_ops.video.sidecar import Sidecar, read_sidecar, sidecar_path

_MOST_VIDEOS = 16


@dataclass(frozen=True, slots=True)
class Video:
    """Data that all clips of a video share, and the states of the files it was read from."""

    files: list[memo.FileState]
    clips: Mapping[str, Clip]
    sidecar: Sidecar | InputError


class Videos:
    """The videos of a run that were asked for last."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: OrderedDict[str, Video] = OrderedDict()

    def of(self, video_id: str) -> Video:
        """A video's clips and sidecar, read once as long as their files stay as they are.

        Raises:
            SetupError, ContractError, StorageUnavailable: as `clips_of`.
        """
        files = [memo.file_state(self._run.video_table(name, video_id)) for name in lake.VIDEO_TABLES]
        known = self._known.get(video_id)
        if known is None or known.files != [*files, _sidecar_state(known.clips)]:
            clips = {clip.clip_id: clip for clip in clips_of(self._run, video_id)}
            files.append(_sidecar_state(clips))
            sidecar = _sidecar_or_error(next(iter(clips.values()))) if clips else Sidecar()
            known = self._known[video_id] = Video(files, clips, sidecar)
            while len(self._known) > _MOST_VIDEOS:
                self._known.popitem(last=False)
        return known


def _sidecar_or_error(clip: Clip) -> Sidecar | InputError:
    try:
        return read_sidecar(clip.video_path)
    except InputError as error:
        return error


def _sidecar_state(clips: Mapping[str, Clip]) -> memo.FileState:
    """Of the sidecar of the video that these clips are of."""
    return memo.file_state(sidecar_path(next(iter(clips.values())).video_path)) if clips else None
