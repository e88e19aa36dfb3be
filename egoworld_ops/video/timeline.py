"""Gives each frame a reliable time, also where a container omits, repeats or misstates some times.

A container's time is accepted if it agrees with the times of the frames around it. Otherwise it is replaced by one between its neighbours, and
no other frame shifts. If all later times lie before those already seen, the clock was reset: the later frames continue from there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from egoworld_ops.errors import CorruptVideo, EgoworldError

LOOK_AHEAD = 8
"""Frames examined to judge a time that is no usual step after the one before."""
USUAL_STEPS = (0.5, 1.5)
"""Minimum and maximum step, in frame durations, after which a time is accepted at once."""
LAG_SLACK = 0.5
"""If all other frames have the same lag, a frame whose lag differs by more than this many frame durations has a wrong time."""
LONGEST_LAG_S = 1.0
"""No frame is shown before it is decoded: one whose lag is below all others' by more than this has a wrong time."""
_ENOUGH_LAGS = 3
_FARTHEST_S = 1e9
"""30 years: later times are invalid, and seconds there can no longer resolve a microsecond."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stamped(Generic[T]):
    """A frame, in presentation order, with what its container says of its time.

    Args:
        item: the frame.
        time_s: presentation time, None where the container gives none.
        duration_s: the frame's own duration, else that of the frame rate; None where the container says neither.
        lag_s: presentation time minus decoding time, None where the container stores no decoding times.
    """

    item: T
    time_s: float | None
    duration_s: float | None
    lag_s: float | None = None


class Timeline:
    """Gives frames strictly increasing times; records where these differ from the container's.

    Args:
        path: the file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.placed: list[int] = []
        """Positions of frames without a credible time of their own."""
        self.restarts: list[int] = []
        """Positions of frames at which the container's clock was set back permanently."""
        self._last_s: float | None = None
        self._offset_s = 0.0
        self._lags_s: tuple[float, ...] = ()
        self._n_lags = 0
        self._n = 0

    def times(self, frames: Iterable[Stamped[T]]) -> Iterator[tuple[float, T]]:
        """Each frame with its time. At most LOOK_AHEAD frames are held; an error of `frames` is raised after the frames before it."""
        ahead = _Ahead(frames)
        while (head := ahead.take()) is not None:
            time_s = self._time_s(head, ahead)
            if self._last_s is not None and time_s <= self._last_s:
                time_s = math.nextafter(self._last_s, math.inf)
            self._last_s = time_s
            self._n += 1
            yield time_s, head.item
        if ahead.error is not None:
            raise ahead.error

    def _time_s(self, head: Stamped[T], ahead: _Ahead[T]) -> float:
        said = self._said(head)
        if said is not None and self._is_usual(said, head):
            return self._believe(said, head)
        following = ahead.peek()
        after = [t for frame in following if (t := self._said(frame)) is not None and self._is_after_last(t)]
        if said is not None and self._is_believed(said, after) and not self._lags_strangely(head, following):
            return self._believe(said, head)
        if rising := _longest_rise(after):
            self.placed.append(self._n)
            return self._between(rising[0], 1 + [self._said(frame) for frame in following].index(rising[0]), head)
        if said is None or self._last_s is None or self._is_after_last(said):
            self.placed.append(self._n)
            return 0.0 if self._last_s is None else self._last_s + self._duration_s(head)
        (self.restarts if following else self.placed).append(self._n)
        time_s = self._last_s + self._duration_s(head)
        self._offset_s += time_s - said
        return time_s

    def _said(self, frame: Stamped[T]) -> float | None:
        """The container's time, corrected for clock resets; None if it is no valid time."""
        return None if frame.time_s is None or not abs(frame.time_s) < _FARTHEST_S else frame.time_s + self._offset_s

    def _is_after_last(self, time_s: float) -> bool:
        return self._last_s is None or time_s > self._last_s

    def _is_usual(self, said: float, head: Stamped[T]) -> bool:
        if self._last_s is None or head.duration_s is None:
            return False
        least, most = USUAL_STEPS
        return least * head.duration_s < said - self._last_s <= most * head.duration_s

    def _is_believed(self, said: float, after: Sequence[float]) -> bool:
        """Whether more of the times around it can be accepted together with this one than without it."""
        return self._is_after_last(said) and 1 + len(_longest_rise([t for t in after if t > said])) > len(_longest_rise(after))

    def _lags_strangely(self, head: Stamped[T], following: Sequence[Stamped[T]]) -> bool:
        """Whether the frame's decoding time contradicts its time, unlike those of the other frames."""
        lags_s = [frame.lag_s for frame in following if frame.lag_s is not None]
        n_known, lags_s = self._n_lags + len(lags_s), [*self._lags_s, *lags_s]
        if head.lag_s is None or n_known < _ENOUGH_LAGS:
            return False
        if head.lag_s < min(lags_s) - LONGEST_LAG_S:
            return True
        return min(lags_s) == max(lags_s) and abs(head.lag_s - lags_s[0]) > LAG_SLACK * self._duration_s(head)

    def _believe(self, said: float, head: Stamped[T]) -> float:
        if head.lag_s is not None:
            lags_s = (head.lag_s, *self._lags_s)
            self._lags_s, self._n_lags = (min(lags_s), max(lags_s)), self._n_lags + 1
        return said

    def _duration_s(self, frame: Stamped[T]) -> float:
        if frame.duration_s is None:
            raise CorruptVideo(self._path, "has neither timestamps nor a frame rate", "Convert it to a container with timestamps")
        return frame.duration_s

    def _between(self, later_s: float, steps: int, head: Stamped[T]) -> float:
        """A time before the next accepted one, which is `steps` frames on: one frame duration after the frame before, if there is room."""
        duration_s = self._duration_s(head)
        if self._last_s is None:
            return later_s - steps * duration_s
        evenly_s = (later_s - self._last_s) / (steps + 1)
        return self._last_s + (duration_s if (steps + 0.5) * duration_s <= later_s - self._last_s else evenly_s)


class _Ahead(Generic[T]):
    """An iterator with lookahead. An error of the source is raised only after the items before it were taken."""

    def __init__(self, frames: Iterable[Stamped[T]]) -> None:
        self._frames = iter(frames)
        self._seen: deque[Stamped[T]] = deque()
        self.error: EgoworldError | None = None

    def take(self) -> Stamped[T] | None:
        """The next frame; None at the end."""
        self._fill(1)
        return self._seen.popleft() if self._seen else None

    def peek(self) -> list[Stamped[T]]:
        """Up to LOOK_AHEAD frames that follow, without taking them."""
        self._fill(LOOK_AHEAD)
        return list(self._seen)

    def _fill(self, n: int) -> None:
        try:
            while self.error is None and len(self._seen) < n and (frame := next(self._frames, None)) is not None:
                self._seen.append(frame)
        except EgoworldError as error:
            self.error = error


def _longest_rise(times_s: Sequence[float]) -> list[float]:
    """The longest strictly increasing subsequence of a few numbers; of several, the one that ends first."""
    best: list[list[float]] = []
    for time_s in times_s:
        best.append([*max((rise for rise in best if rise[-1] < time_s), key=len, default=[]), time_s])
    return max(best, key=len, default=[])
