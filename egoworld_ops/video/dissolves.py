"""Cross-fades and fades through a plain colour: transitions in which no frame differs much from the one before, so that no cut is found.

In a dissolve every picture is a mixture of one before and one after it (Hampapur, Jain and Weymouth, "Production model based digital video
segmentation", 1995). A camera or hand that moves makes no mixtures: where something comes in, a pixel is the old picture or the new one. So
three pictures in between are fitted by those at both ends of a window that slides over the video; the ends must differ by more than brightness
and contrast. One end of a fade is plain: of a fade-out and the fade-in after it, the pictures beyond are compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from egoworld_ops.video.likeness import Picture

SPANS_S = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)
"""Lengths of windows. A transition is found by the one that is nearest to its own length."""
_CELLS = (16, 9)
_MIN_CHANGE = 14.0
"""Root mean square over the picture's cells and colours, of 255, by which the ends of a window must differ."""
_MAX_MISFIT = 0.22
"""Part of that change that the pictures in between may differ from their mixtures by."""
_RETURNS_S = 1.0
"""A scene that is back after so long was never left: a flash, or a hand before the lens."""
_MIDDLE = (0.15, 0.85)
"""Share of the later picture that the one in the middle has: at a hard cut it is 0 or 1."""
_MAX_PLAIN_S = 1.0
"""A picture that stays plain for longer between two fades is a scene of its own."""
_MORE = 0.25
"""By so much the scene must be more like the one that was left than it was in between: parts of a long dissolve are like what comes before them."""
_EVERY = 4
"""Every so many pictures are compared with those of a change."""
_QUARTERS = np.array([0.25, 0.5, 0.75])
_AT_ONCE = 16
"""Pictures searched at once, as numpy's calls cost more than what they compute of one."""
_KEPT = 256 + _AT_ONCE
"""Pictures kept; above 170 a second the longest windows are left out."""
_UNSETTLED = 64
"""Mixtures above which it is chosen among them, before the video ends: in some videos the light changes all the time."""
_ROUNDING_S = 1e-4


@dataclass(frozen=True, slots=True)
class Transition:
    """A gradual change of the whole picture.

    Args:
        start, end: the last frame of the old scene and the first of the new one.
        cut: the frame from which on the new scene prevails.
        change: see `_MIN_CHANGE`.
    """

    start: int
    end: int
    cut: int
    change: float


@dataclass(frozen=True, slots=True)
class _Window:
    """Kept pictures `start` to `end`, which are mixtures of the first and the last; of the last, those at the quarters have `shares`."""

    start: int
    end: int
    shares: Sequence[float]
    change: float
    misfit: float


@dataclass(frozen=True, slots=True)
class _Mixture:
    """Frames `start` to `end` are mixtures of the first and the last picture; of the last, those at the quarters have `shares`.

    Args:
        back: how alike to its first picture a later one must be for the old scene to be there again; infinite for a fade.
    """

    start: int
    end: int
    start_s: float
    end_s: float
    shares: Sequence[float]
    change: float
    misfit: float
    first: Picture
    last: Picture
    back: float

    @property
    def fades(self) -> bool:
        """Whether one of its ends is plain."""
        return self.first.plain or self.last.plain

    @property
    def middle(self) -> int:
        """The most even mixture."""
        return round(float(np.interp(0.5, [0, *self.shares, 1], [self.start, *_quarters(self.start, self.end), self.end])))

    @property
    def worth(self) -> float:
        """By which the best of overlapping mixtures is chosen."""
        return self.change * (1 - self.misfit)


class Dissolves:
    """Watches the pictures of a video, one after the other; then take `transitions()`."""

    def __init__(self) -> None:
        self._dropped, self._searched, self._n = 0, 0, 0
        self._times_s = np.zeros(_KEPT)
        self._cells = np.zeros((_KEPT, 3 * _CELLS[0] * _CELLS[1]), np.float32)
        self._pictures: list[Picture] = []
        self._found: list[_Mixture] = []
        self._settled: list[_Mixture] = []

    def __call__(self, timestamp_s: float, bgr: np.ndarray) -> None:
        """See the next picture, (H, W, 3) uint8 of any size, which must not change afterwards."""
        if self._n == _KEPT:
            self._drop_oldest()
        self._times_s[self._n] = timestamp_s
        cells = cv2.resize(bgr, _CELLS, interpolation=cv2.INTER_AREA)
        self._cells[self._n] = cells.reshape(-1)
        self._pictures.append(Picture(cells, bgr))
        self._n += 1
        if self._n - self._searched == _AT_ONCE:
            self._search()

    def _drop_oldest(self) -> None:
        for of_pictures in (self._times_s, self._cells):
            of_pictures[:-_AT_ONCE] = of_pictures[_AT_ONCE:]
        del self._pictures[:_AT_ONCE]
        self._dropped += _AT_ONCE
        self._searched -= _AT_ONCE
        self._n -= _AT_ONCE

    def _search(self) -> None:
        """Note the windows that end at the pictures which came since the last search."""
        windows = self._mixed(*self._windows())
        for now in range(self._searched, self._n):
            if (self._dropped + now + 1) % _EVERY == 0:
                self._forget_those_left_again(now)
            for window in windows.get(now, ()):
                self._note(window)
        self._searched = self._n
        if len(self._found) > _UNSETTLED:
            self._settle()

    def _was_seen_before(self, last: Picture, start: int, back: float) -> bool:
        """Whether the scene after a change was there shortly before it began."""
        oldest = int(np.searchsorted(self._times_s[: self._n], self._times_s[start] - _RETURNS_S))
        return any(last.is_like(self._pictures[at], back) for at in range(start - 1, oldest - 1, -_EVERY))

    def _forget_those_left_again(self, now: int) -> None:
        """Forget changes, found shortly before, after which the old scene is back."""
        recent = [m for m in self._found if self._times_s[now] - m.end_s <= _RETURNS_S and math.isfinite(m.back)]
        if recent:
            picture = self._pictures[now]
            left_again = {id(m) for m in recent if m.first.is_like(picture, m.back)}
            self._found = [m for m in self._found if id(m) not in left_again]

    def _windows(self) -> tuple[np.ndarray, np.ndarray]:
        """First and last pictures of the windows, of five pictures or more, that end at new pictures."""
        ends = np.arange(self._searched, self._n)[:, None]
        starts_s = self._times_s[ends] - np.array(SPANS_S)
        starts = np.searchsorted(self._times_s[: self._n], starts_s - _ROUNDING_S)
        wanted = (self._times_s[0] <= starts_s + _ROUNDING_S) & (starts <= ends - 4)
        wanted[:, 1:] &= starts[:, 1:] != starts[:, :-1]
        return starts[wanted], np.broadcast_to(ends, starts.shape)[wanted]

    def _mixed(self, starts: np.ndarray, ends: np.ndarray) -> Mapping[int, Sequence[_Window]]:
        """Of windows, (N,) first and last pictures, those in which what lies between is a mixture of these, by the last."""
        step = self._cells[ends] - self._cells[starts]
        squares = np.einsum("ij,ij->i", step, step)
        quarters = _quarters(starts, ends)

        def at_quarter(quarter: int, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Shares of the last picture, and squared misfits, in one picture of each window."""
            away = self._cells[quarters[quarter, of]] - self._cells[starts[of]]
            shares = np.einsum("ij,ij->i", away, step[of]) / squares[of]
            return shares, np.einsum("ij,ij->i", away, away) / squares[of] - shares**2

        of = np.flatnonzero(squares >= step.shape[1] * _MIN_CHANGE**2)
        middle, misfits = at_quarter(1, of)
        fits = (middle > _MIDDLE[0]) & (middle < _MIDDLE[1]) & (misfits <= _MAX_MISFIT**2)
        of, middle, misfits = of[fits], middle[fits], misfits[fits]
        (early, early_misfits), (late, late_misfits) = at_quarter(0, of), at_quarter(2, of)
        misfits = np.sqrt(np.maximum.reduce([misfits, early_misfits, late_misfits, np.zeros_like(misfits)]))
        fits = (misfits <= _MAX_MISFIT) & (early > -0.05) & (early < middle) & (middle < late) & (late < 1.05)
        found: dict[int, list[_Window]] = {}
        for i in np.flatnonzero(fits):
            start, end, change = int(starts[of[i]]), int(ends[of[i]]), math.sqrt(squares[of[i]] / step.shape[1])
            found.setdefault(end, []).append(_Window(start, end, (early[i], middle[i], late[i]), change, float(misfits[i])))
        return found

    def _note(self, window: _Window) -> None:
        """Keep a window whose ends are not one scene."""
        first, last = self._pictures[window.start], self._pictures[window.end]
        if first.plain and last.plain:
            return
        back = math.inf
        if not (first.plain or last.plain):
            if first.is_like(last):
                return
            back = max(1.0, first.like(last) + _MORE)
            if self._was_seen_before(last, window.start, back):
                return
        start, end = self._dropped + window.start, self._dropped + window.end
        start_s, end_s = float(self._times_s[window.start]), float(self._times_s[window.end])
        self._found.append(_Mixture(start, end, start_s, end_s, window.shares, window.change, window.misfit, first, last, back))

    def _settle(self) -> None:
        """Choose among the mixtures found so far, as far as none to come can overlap the chosen ones, and these are no longer forgotten."""
        now_s = self._times_s[self._n - 1]
        begun = self._dropped + int(np.searchsorted(self._times_s[: self._n], now_s - SPANS_S[-1] - _ROUNDING_S))
        best, self._found = _best(self._found, lambda m: m.end <= begun and m.end_s < now_s - _RETURNS_S)
        self._settled += best

    def transitions(self) -> list[Transition]:
        """Those found so far, in order."""
        if self._searched < self._n:
            self._search()
        found = sorted([*self._settled, *_best(self._found)[0]], key=lambda m: m.start)
        with_plain = [m for m in found if m.fades]
        fades = [t for out, back in pairwise(with_plain) if out.last.plain and back.first.plain for t in _through_plain(out, back)]
        between_scenes = [Transition(m.start, m.end, m.middle, m.change) for m in found if not m.fades]
        return sorted([*(t for t in between_scenes if not any(_meet(t, f) for f in fades)), *fades], key=lambda t: t.start)


def _quarters(start: int | np.ndarray, end: int | np.ndarray) -> np.ndarray:
    """(3,) or (3, N) pictures at the quarters between others."""
    return np.asarray(np.round(start + np.multiply.outer(_QUARTERS, end - start)).astype(int))


def _best(found: Sequence[_Mixture], known: Callable[[_Mixture], bool] = lambda _: True) -> tuple[list[_Mixture], list[_Mixture]]:
    """The best of those that overlap, fades and others apart, and those of which that cannot be told yet, in order.

    Args:
        known: whether all that a mixture may overlap is among those found.
    """
    best: list[_Mixture] = []
    untold: list[_Mixture] = []
    for mixture in sorted(found, key=lambda m: -m.worth):
        if not any(mixture.fades == other.fades and _meet(mixture, other) for other in best):
            told = known(mixture) and not any(mixture.fades == other.fades and _meet(mixture, other) for other in untold)
            (best if told else untold).append(mixture)
    return best, sorted(untold, key=lambda m: m.end)


def _meet(one: _Mixture | Transition, other: _Mixture | Transition) -> bool:
    return one.end > other.start and one.start < other.end


def _through_plain(out: _Mixture, back: _Mixture) -> list[Transition]:
    """A fade-out and the fade-in after it: nothing where the same scene comes back, two cuts where it stays plain for long."""
    if out.first.like(back.last) > 1:
        return []
    if back.start_s - out.end_s > _MAX_PLAIN_S:
        return [Transition(out.start, out.end, out.end, out.change), Transition(back.start, back.end, back.start, back.change)]
    return [Transition(out.start, back.end, (out.end + back.start + 1) // 2, min(out.change, back.change))]
