"""What a recording shows at a frame. An entity of Rerun stays as it is until something else is logged: what a frame does not show is cleared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import rerun as rr
    from rerun.urdf import UrdfTree

FRAME, TIME = "frame", "video_time"
"""The timelines: frames of the video as they are counted everywhere, and its presentation time in seconds."""
CENTRE_PX = 0.5
"""Rerun's pixel (0, 0) is the corner of the picture, ours the centre of its first pixel."""


class Shown:
    """Logs to one recording.

    Args:
        stream: the recording.
    """

    def __init__(self, stream: rr.RecordingStream) -> None:
        self._stream = stream
        self._before: set[str] = set()
        self._now: set[str] = set()

    @contextmanager
    def frame(self, frame: int, time_s: float) -> Iterator[None]:
        """All that is logged by `now` within is shown in this frame, and nothing that was before it and is not logged again."""
        import rerun as rr

        self._set_time(frame, time_s)
        yield
        for path in sorted(self._before - self._now):
            self._stream.log(path, rr.Clear(recursive=True))
        self._before, self._now = self._now, set()

    def now(self, path: str, *shown: Any) -> None:
        """Show this in the frame that is on, and in no other."""
        self._now.add(path)
        self._stream.log(path, *shown)

    def from_now(self, path: str, *shown: Any) -> None:
        """Show this from the frame that is on until something else is logged."""
        self._stream.log(path, *shown)

    def at(self, frame: int, time_s: float, path: str, *shown: Any) -> None:
        """Log this at some frame."""
        self._set_time(frame, time_s)
        self._stream.log(path, *shown)

    def always(self, path: str, *shown: Any) -> None:
        """Show this in all frames."""
        self._stream.log(path, *shown, static=True)

    def urdf(self, tree: UrdfTree) -> None:
        """Log the meshes of a robot."""
        tree.log_urdf_to_recording(self._stream)

    def scalars(self, path: Sequence[str], when: Sequence[tuple[int, float]], values: Sequence[float | None]) -> None:
        """Plot numbers at these frames and times; None is a gap."""
        import numpy as np
        import rerun as rr

        frames, times_s = [f for f, _ in when], [t for _, t in when]
        numbers = [float("nan") if value is None else value for value in values]
        indexes = [rr.TimeColumn(FRAME, sequence=frames), rr.TimeColumn(TIME, duration=np.array(times_s))]
        self._stream.send_columns(rr.new_entity_path(list(path)), indexes, rr.Scalars.columns(scalars=numbers))

    def _set_time(self, frame: int, time_s: float) -> None:
        self._stream.set_time(FRAME, sequence=frame)
        self._stream.set_time(TIME, duration=time_s)
