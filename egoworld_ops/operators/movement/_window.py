"""Finds which frames lie within a time of each frame, also if they are unevenly spaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

_ROUNDING_S = 1e-6


class Window:
    """Takes frames one by one; each frame's reach is known once the frames after it have been seen.

    The reach of a frame goes to the frames nearest in time to `half_s` before and after it, and to one neighbour at least; it never goes over
    a step longer than `longest_s`.
    """

    def __init__(self, half_s: float, longest_s: float) -> None:
        self._half_s, self._longest_s = half_s, longest_s
        self._times_s: deque[float] = deque()
        self._next = 0
        self.oldest = 0
        """The first position that a later reach may include."""

    def see(self, time_s: float) -> Iterator[tuple[int, tuple[int, int]]]:
        """Add the next frame's time, seconds. Yields each position whose reach is now known, with the reach's first and last position."""
        self._times_s.append(time_s)
        while self._next < self._end and time_s - self._time_s(self._next) > self._half_s + _ROUNDING_S:
            yield self._settled()

    def end(self) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yields the same for all remaining positions: no frame follows."""
        while self._next < self._end:
            yield self._settled()

    @property
    def _end(self) -> int:
        return self.oldest + len(self._times_s)

    def _time_s(self, position: int) -> float:
        return self._times_s[position - self.oldest]

    def _settled(self) -> tuple[int, tuple[int, int]]:
        position = self._next
        reach = (self._reach(position, -1), self._reach(position, 1))
        self._next += 1
        while self.oldest < reach[0]:
            self._times_s.popleft()
            self.oldest += 1
        return position, reach

    def _reach(self, position: int, way: int) -> int:
        at = position
        while self.oldest <= (following := at + way) < self._end:
            of_at_s, of_following_s = (abs(self._time_s(p) - self._time_s(position)) for p in (at, following))
            nearer = at == position or abs(of_following_s - self._half_s) < abs(of_at_s - self._half_s)
            if not nearer or of_following_s - of_at_s > self._longest_s:
                return at
            at = following
        return at
