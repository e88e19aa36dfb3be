"""The raw file of a clip while a stage is planned and computed: whether it exists, and is the one that was registered."""

from __future__ import annotations

from pathlib import Path

from egoworld_ops import errors
from egoworld_ops.errors import EgoworldError, InputError, NotAVideo, RawFileAway, StorageUnavailable, UnstableFile
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import intake
from egoworld_ops.raw.intake import Registered
from egoworld_ops.types import Clip

RawState = list[int] | None
"""Size and time of change."""


def raw_state(clip: Clip) -> RawState:
    """Size and time of change of the raw file; None where it is not there, or cannot be looked at now."""
    try:
        state = clip.video_path.stat()
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns]


def of_raw_file(error: EgoworldError, clip: Clip) -> EgoworldError:
    """RawFileAway instead of an error about the content: the manifest found a video in this content, so only the file's state is at fault.

    If the file is missing, files beside it, such as a sidecar, are missing too.
    """
    if isinstance(error, InputError) and (away := _away(clip.video_path)) is not None:
        return away
    unread = isinstance(error, StorageUnavailable) and error.culprit == errors.printable(clip.video_path)
    return RawFileAway(error.culprit, error.reason, error.cure) if unread or isinstance(error, NotAVideo) else error


def _away(path: Path) -> RawFileAway | None:
    try:
        path.stat()
    except OSError as error:
        if (unread := errors.unreadable(error, path)) is not None:
            return RawFileAway(path, unread.reason, unread.cure)
        return RawFileAway(path, "is not there", "Put the file back")
    return None


class RawFiles:
    """Whether raw files hold what was registered. A file whose size or time of change differ is read once, and the registry gets its new state.

    Args:
        lake: the lake with the registry; None leaves the registry as it is.
    """

    def __init__(self, lake: Lake | None) -> None:
        self._lake = lake
        self._read: dict[Path, tuple[RawState, str]] = {}

    def check(self, clip: Clip, entry: Registered | None) -> None:
        """Look at the raw file of a clip.

        Raises:
            UnstableFile: it holds something else.
            RawFileAway: it is not there, or cannot be read.
        """
        state, path = raw_state(clip), clip.video_path
        known = entry is not None and entry.path == path
        if known and entry is not None and state == [entry.bytes, entry.mtime_ns]:
            return
        if state is None or self._read.get(path, (None, ""))[0] != state:
            self._read[path] = state, _hash(clip)
            if known and entry is not None and state is not None and self._read[path][1] == clip.video_sha256 and self._lake is not None:
                intake.touched(self._lake, entry, *state)
        if self._read[path][1] != clip.video_sha256:
            raise UnstableFile(path, "holds other content than when it was registered", "Restore the file, or register it again")


def _hash(clip: Clip) -> str:
    from egoworld_ops.video.containers import hash_file

    try:
        return hash_file(clip.video_path)[0]
    except EgoworldError as error:
        raise of_raw_file(error, clip) from error
