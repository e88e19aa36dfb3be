"""Cross-fades and fades through a plain colour: transitions in which no frame differs much from the one before, so that no cut is found.

In a dissolve every picture is a mixture of one before and one after it (Hampapur, Jain and Weymouth, "Production model based digital video
segmentation", 1995). A camera or hand that moves makes no mixtures: where something comes in, a pixel is the old picture or the new one. So
three pictures in between are fitted by those at both ends of a window that slides over the video; the ends must differ by more than brightness
and contrast. One end of a fade is plain: of a fade-out and the fade-in after it, the pictures beyond are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

SPANS_S = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5)
"""Lengths of windows. A transition is found by the one that is nearest to its own length."""
_CELLS = (16, 9)
_MIN_CHANGE = 14.0
"""Root mean square over the picture's cells and colours, of 255, by which the ends of a window must differ."""
_MAX_MISFIT = 0.22
"""Part of that change that the pictures in between may differ from their mixtures by."""
_MAX_LIKENESS = 0.75
"""Correlation of two pictures above which they may be one scene in another light."""
_FINE_CELLS = (64, 36)
_BLUR = (9, 9)
_MAX_SAME_DETAIL = 0.4
"""Correlation of the fine detail of two pictures above which they are one scene in another light: shots of different scenes reach 0.36 at most, one
shot before and after a lamp goes on 0.5 to 0.96."""
_RETURNS_S = 1.0
"""A scene that is back after so long was never left: a flash, or a hand before the lens."""
_BLACK, _CLIPPED = 6, 250
"""Grey levels: bars beside the picture say nothing of it, nor does what a flash makes white."""
_BLINDED = 0.75
"""Where more of a picture than this is white, nothing tells that it is another scene."""
_MIN_SHOWN = 0.05
_PLAIN = 5.0
"""Standard deviation over cells, of 255, below which a picture is plain."""
_MIDDLE = (0.15, 0.85)
"""Share of the later picture that the one in the middle has: at a hard cut it is 0 or 1."""
_MAX_PLAIN_S = 1.0
"""A picture that stays plain for longer between two fades is a scene of its own."""
_MORE = 0.25
"""By so much the scene must be more like the one that was left than it was in between: parts of a long dissolve are like what comes before them."""
_EVERY = 4
"""Every so many pictures are compared with those of a change."""
_QUARTERS = np.array([0.25, 0.5, 0.75])
_KEPT = 256
"""Pictures kept; above 170 a second the longest windows are left out."""
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


class _Picture:
    """One picture, and what is compared of it, computed once.

    Args:
        cells: (3 * 16 * 9,) float32 colours, by which mixtures are found.
        fine: (36, 64, 3) uint8 colours of fine cells, BGR.
    """

    def __init__(self, cells: np.ndarray, fine: np.ndarray) -> None:
        colours = cells.reshape(-1, 3)
        self.cells = cells
        self._colours = (colours - colours.mean(0)).reshape(-1)
        self._contrast = float(np.sqrt(self._colours @ self._colours / self._colours.size))
        self.plain = self._contrast < _PLAIN
        """Whether it shows next to nothing."""
        order = colours.mean(1).argsort(kind="stable").argsort(kind="stable")
        ranks = order - order.mean()
        self._ranks = ranks / np.sqrt(ranks @ ranks)
        grey = cv2.cvtColor(fine, cv2.COLOR_BGR2GRAY)
        self._black, self._white = grey < _BLACK, grey >= _CLIPPED
        self._blinded = self._white.mean() > _BLINDED
        light = grey.astype(np.float32)
        self._detail = light - cv2.blur(light, _BLUR)

    def like(self, other: _Picture) -> float:
        """How alike two pictures are, whatever the light; above 1 they may show one scene."""
        return max(self._cells_like(other) / _MAX_LIKENESS, self._detail_like(other) / _MAX_SAME_DETAIL)

    def _cells_like(self, other: _Picture) -> float:
        """Correlation over cells: of colours, or of the order of brightness, which a light that clips leaves as it was."""
        colours = float(self._colours @ other._colours) / self._colours.size / max(self._contrast * other._contrast, 1e-6)
        return max(colours, float(self._ranks @ other._ranks))

    def _detail_like(self, other: _Picture) -> float:
        """Correlation of brightness without its coarse light, where both show something; 1 where a flash blinds the camera, 0 where both have
        little else than bars beside the picture."""
        if self._blinded or other._blinded:
            return 1.0
        hidden = self._white | other._white
        if (bars := self._black & other._black).any():
            hidden |= cv2.dilate(bars.astype(np.uint8), np.ones(_BLUR, np.uint8)) > 0
        shown = ~hidden
        if shown.mean() < _MIN_SHOWN:
            return 0.0
        a, b = self._detail[shown], other._detail[shown]
        a, b = a - a.mean(), b - b.mean()
        return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), 1e-6 * a.size))


@dataclass(frozen=True, slots=True)
class _Mixture:
    """Frames `start` to `end` are mixtures of the first and the last picture; `middle` is the most even one."""

    start: int
    end: int
    start_s: float
    end_s: float
    middle: int
    change: float
    misfit: float
    first: _Picture
    last: _Picture

    @property
    def worth(self) -> float:
        """By which the best of overlapping mixtures is chosen."""
        return self.change * (1 - self.misfit)


class Dissolves:
    """Watches the pictures of a video, one after the other; then take `transitions()`."""

    def __init__(self) -> None:
        self._n = 0
        self._times_s = np.zeros(_KEPT)
        self._pictures = np.zeros((_KEPT, 3 * _CELLS[0] * _CELLS[1]), np.float32)
        self._fine = np.zeros((_KEPT, _FINE_CELLS[1], _FINE_CELLS[0], 3), np.uint8)
        self._known: list[_Picture | None] = [None] * _KEPT
        self._found: list[_Mixture] = []

    def __call__(self, timestamp_s: float, bgr: np.ndarray) -> None:
        """See the next picture, (H, W, 3) uint8 of any size."""
        at = self._n % _KEPT
        self._times_s[at] = timestamp_s
        cv2.resize(bgr, _FINE_CELLS, self._fine[at], interpolation=cv2.INTER_AREA)
        self._pictures[at] = cv2.resize(self._fine[at], _CELLS, interpolation=cv2.INTER_AREA).reshape(-1)
        self._known[at] = None
        self._n += 1
        if self._n % _EVERY == 0:
            self._forget_those_left_again(timestamp_s)
        starts = self._starts(timestamp_s)
        if len(starts):
            self._try(starts)

    def _picture(self, index: int) -> _Picture:
        at = index % _KEPT
        if (known := self._known[at]) is None:
            known = self._known[at] = _Picture(self._pictures[at].copy(), self._fine[at])
        return known

    def _was_seen_before(self, first: _Picture, last: _Picture, start: int) -> bool:
        """Whether the scene after a change was there shortly before it began."""
        oldest_s, enough = self._times_s[start % _KEPT] - _RETURNS_S, max(1.0, first.like(last) + _MORE)
        before = range(start - 1, max(self._n - _KEPT, 0) - 1, -_EVERY)
        return any(last.like(self._picture(i)) > enough for i in before if self._times_s[i % _KEPT] >= oldest_s)

    def _forget_those_left_again(self, now_s: float) -> None:
        """Forget changes, found shortly before, after which the old scene is back."""
        recent = [m for m in self._found if now_s - m.end_s <= _RETURNS_S and not m.first.plain and not m.last.plain]
        if recent:
            now = self._picture(self._n - 1)
            back = {id(m) for m in recent if m.first.like(now) > max(1.0, m.first.like(m.last) + _MORE)}
            self._found = [m for m in self._found if id(m) not in back]

    def _starts(self, now_s: float) -> np.ndarray:
        """First frames of the windows that end now: at least four frames earlier, and still kept."""
        oldest = max(0, self._n - _KEPT)
        kept = np.arange(oldest, self._n)
        starts = oldest + np.searchsorted(self._times_s[kept % _KEPT], now_s - np.array(SPANS_S) - _ROUNDING_S)
        reached = self._times_s[oldest % _KEPT] <= now_s - np.array(SPANS_S) + _ROUNDING_S
        return np.unique(starts[reached & (starts <= self._n - 5)])

    def _try(self, starts: np.ndarray) -> None:
        """Note the windows, from each of (N,) first frames to the newest one, in which what lies between the ends is a mixture of them."""
        end = self._n - 1
        first = self._pictures[starts % _KEPT]
        step = self._pictures[end % _KEPT] - first
        squares = np.einsum("ij,ij->i", step, step)
        changed = squares >= step.shape[1] * _MIN_CHANGE**2
        if not changed.any():
            return
        starts, first, step, squares = starts[changed], first[changed], step[changed], squares[changed]
        between = np.round(starts[:, None] + (end - starts)[:, None] * _QUARTERS).astype(int)
        away = self._pictures[between % _KEPT] - first[:, None]
        shares = np.einsum("ikj,ij->ik", away, step) / squares[:, None]
        away -= shares[:, :, None] * step[:, None]
        misfits = np.sqrt(np.einsum("ikj,ikj->ik", away, away).max(1) / squares)
        middle = shares[:, 1]
        fits = (misfits <= _MAX_MISFIT) & (middle > _MIDDLE[0]) & (middle < _MIDDLE[1])
        fits &= (shares[:, 0] > -0.05) & (shares[:, 0] < middle) & (middle < shares[:, 2]) & (shares[:, 2] < 1.05)
        for k in np.flatnonzero(fits):
            self._note(
                int(starts[k]),
                end,
                [starts[k], *between[k], end],
                [0, *shares[k], 1],
                float(np.sqrt(squares[k] / step.shape[1])),
                float(misfits[k]),
            )

    def _note(self, start: int, end: int, frames: Sequence[int], shares: Sequence[float], change: float, misfit: float) -> None:
        """Keep a window whose ends are not one scene; `shares` of the last picture are in five of its `frames`."""
        ends = [self._picture(start), self._picture(end)]
        fades = ends[0].plain or ends[1].plain
        if fades or not (ends[0].like(ends[1]) > 1 or self._was_seen_before(ends[0], ends[1], start)):
            where = float(np.interp(0.5, shares, frames))
            start_s, end_s = self._times_s[start % _KEPT], self._times_s[end % _KEPT]
            self._found.append(_Mixture(start, end, start_s, end_s, round(where), change, misfit, *ends))

    def transitions(self) -> list[Transition]:
        """Those found so far, in order."""
        between_scenes = _apart([m for m in self._found if not m.first.plain and not m.last.plain])
        with_plain = _apart([m for m in self._found if m.first.plain != m.last.plain])
        fades = [t for out, back in pairwise(with_plain) if out.last.plain and back.first.plain for t in _through_plain(out, back)]
        found = [t for m in between_scenes for t in [Transition(m.start, m.end, m.middle, m.change)] if not any(_meet(t, f) for f in fades)]
        return sorted([*found, *fades], key=lambda t: t.start)


def _apart(found: Sequence[_Mixture]) -> list[_Mixture]:
    """The best of those that overlap, in order."""
    best: list[_Mixture] = []
    for mixture in sorted(found, key=lambda m: -m.worth):
        if not any(_meet(mixture, other) for other in best):
            best.append(mixture)
    return sorted(best, key=lambda m: m.start)


def _meet(one: _Mixture | Transition, other: _Mixture | Transition) -> bool:
    return one.end > other.start and one.start < other.end


def _through_plain(out: _Mixture, back: _Mixture) -> list[Transition]:
    """A fade-out and the fade-in after it: nothing where the same scene comes back, two cuts where it stays plain for long."""
    if out.first.like(back.last) > 1:
        return []
    if back.start_s - out.end_s > _MAX_PLAIN_S:
        return [Transition(out.start, out.end, out.end, out.change), Transition(back.start, back.end, back.start, back.change)]
    return [Transition(out.start, back.end, (out.end + back.start + 1) // 2, min(out.change, back.change))]
