"""One pass over the frames: image points followed on each masked object, and keyframes. Memory grows with point coordinates, not with pictures.

Points are Shi and Tomasi's corners (1994) followed by pyramidal Lucas-Kanade, kept if following them back returns to where they started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._keyframes import Keyframe, cut_out
from egoworld_ops.types import Frame
from egoworld_ops.vision.flow import Search, follow_and_return

MAX_POINTS = 140
MAX_KEYFRAMES = 24
FIRST_SPACING = 5
MIN_MASK_PX = 60
_ROUND_TRIP_PX = 0.7
_APART_PX = 6
_BORDER_PX = 5
_ROI_MARGIN_PX = 40
Box = Sequence[int]
_SEARCH = Search(window_px=17, levels=3, steps=20, least_step_px=0.03)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object in one frame: numbers (N,) of the points followed and where they are (N, 2), image pixels."""

    frame_index: int
    timestamp_s: float
    segment: int
    ids: np.ndarray
    points_px: np.ndarray
    observed: bool


@dataclass
class Track:
    """One object over the clip. `position` in a keyframe counts `sightings`."""

    track_id: int
    label: str | None
    sightings: list[Sighting] = field(default_factory=list)
    keyframes: list[Keyframe] = field(default_factory=list)
    spacing: int = FIRST_SPACING


class Follower:
    """Follows the points of one object; feed it every frame the object is masked in."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self._grey: np.ndarray | None = None
        self._box: Box = (0, 0, 0, 0)
        self._ids = np.zeros(0, np.int64)
        self._points = np.zeros((0, 2), np.float32)
        self._next_id = 0
        self._segment = -1
        self._since_keyframe = 0

    def lose(self) -> None:
        """The object is not masked in this frame: end its points."""
        self._grey = None

    def see(self, frame: Frame, grey: np.ndarray, mask: np.ndarray, hands: np.ndarray, observed: bool) -> None:
        """Follow into a frame: also its grey picture (H, W) uint8, and masks (H, W) bool of the object and of all hands."""
        fresh = self._grey is None
        box = cv2.boundingRect(mask.astype(np.uint8))
        if fresh:
            self._segment += 1
            self._ids, self._points = self._ids[:0], self._points[:0]
        elif len(self._ids):
            self._follow(grey, box)
            self._drop_outside(mask, hands)
        if fresh or len(self._ids) < 0.8 * MAX_POINTS or self._since_keyframe == 0:
            self._add(grey, mask, hands, box)
        track, position = self.track, len(self.track.sightings)
        track.sightings.append(
            Sighting(frame.index, frame.timestamp_s, self._segment, self._ids.copy(), self._points.astype(np.float64), observed)
        )
        self._grey, self._box = grey, box
        if fresh or self._since_keyframe >= track.spacing:
            track.keyframes.append(cut_out(position, self._segment, frame.rgb, mask, hands))
            self._since_keyframe = 0
            _thin(track)
        self._since_keyframe += 1

    def _follow(self, grey: np.ndarray, box: Box) -> None:
        assert self._grey is not None
        x0, y0 = (max(min(self._box[i], box[i]) - _ROI_MARGIN_PX, 0) for i in (0, 1))
        x1, y1 = (max(self._box[i] + self._box[i + 2], box[i] + box[i + 2]) + _ROI_MARGIN_PX for i in (0, 1))
        before, now = np.ascontiguousarray(self._grey[y0:y1, x0:x1]), np.ascontiguousarray(grey[y0:y1, x0:x1])
        there, good = follow_and_return(before, now, (self._points - (x0, y0)).astype(np.float32), _SEARCH, _ROUND_TRIP_PX)
        self._ids, self._points = self._ids[good], there[good] + np.array([x0, y0], np.float32)

    def _drop_outside(self, mask: np.ndarray, hands: np.ndarray) -> None:
        column, row = np.round(self._points).astype(int).T
        inside = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
        inside[inside] = mask[row[inside], column[inside]] & ~hands[row[inside], column[inside]]
        self._ids, self._points = self._ids[inside], self._points[inside]

    def _add(self, grey: np.ndarray, mask: np.ndarray, hands: np.ndarray, box: Box) -> None:
        x, y, w, h = box
        part = np.s_[y : y + h, x : x + w]
        where = cv2.erode((mask & ~hands)[part].astype(np.uint8), np.ones((2 * _BORDER_PX + 1,) * 2, np.uint8), borderValue=0)
        for px, py in np.round(self._points - (x, y)).astype(int):
            cv2.circle(where, (int(px), int(py)), _APART_PX, 0, -1)
        wanted = MAX_POINTS - len(self._ids)
        if wanted <= 0 or not where.any():
            return
        found = cv2.goodFeaturesToTrack(np.ascontiguousarray(grey[part]), wanted, 0.01, _APART_PX, mask=where, blockSize=5)
        if found is None:
            return
        ids = np.arange(self._next_id, self._next_id + len(found))
        self._next_id += len(found)
        self._ids = np.concatenate([self._ids, ids])
        self._points = np.concatenate([self._points, found.reshape(-1, 2) + np.array([x, y], np.float32)])


def _thin(track: Track) -> None:
    """Once there are too many keyframes, drop every second one, except those that open a segment."""
    if len(track.keyframes) <= MAX_KEYFRAMES:
        return
    kept: list[Keyframe] = []
    for i, keyframe in enumerate(track.keyframes):
        opens = i == 0 or keyframe.segment != track.keyframes[i - 1].segment
        if opens or i % 2 == 0:
            kept.append(keyframe)
    track.keyframes = kept[-MAX_KEYFRAMES:]
    track.spacing *= 2


def grey_of(rgb: np.ndarray) -> np.ndarray:
    """(H, W) uint8."""
    grey: np.ndarray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return grey
