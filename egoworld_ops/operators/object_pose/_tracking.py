"""One pass over the frames: image points followed on each masked object, keyframes to solve by and others to check by, and small masks.

All pixels are of the object's working picture, see `_working`. Points are Shi and Tomasi's corners (1994) followed by pyramidal Lucas-Kanade, kept
if following them back returns to where they started.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from egoworld_ops.operators.object_pose._keyframes import MARGIN_PX, Glimpse, Keyframe, glimpse, near_to
from egoworld_ops.operators.object_pose._working import Region, region_around
from egoworld_ops.types import Frame
from egoworld_ops.vision.flow import Search, follow_and_return

MAX_POINTS = 140
MAX_KEYFRAMES = 24
FIRST_SPACING = 5
MIN_MASK_SHARE = 2e-4
"""Smaller masks, as shares of the picture's area, are too small to be posed."""
LEAST_CORNER = 4e-5
"""Of OpenCV's measure of a corner, the smaller eigenvalue of its gradients: 0.8 grey levels a pixel in every direction. Less may be noise."""
_CORNER_PX = 5
_ROUND_TRIP_PX = 0.7
_APART_PX = 6
_BORDER_PX = 5
_ROI_MARGIN_PX = 40
Box = tuple[int, int, int, int]
_SEARCH = Search(window_px=17, levels=3, steps=20, least_step_px=0.03)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One object in one frame: numbers (N,) of the points followed and where they are (N, 2), working pixels; and its mask in small."""

    frame_index: int
    timestamp_s: float
    segment: int
    ids: np.ndarray
    points_px: np.ndarray
    observed: bool
    seen: Glimpse


@dataclass
class Track:
    """One object over the clip. `position` in a keyframe counts `sightings`. `checks` are keyframes between those that poses are solved by.

    Args:
        scale: working pixels per pixel of the video.
    """

    track_id: int
    label: str | None
    scale: float
    sightings: list[Sighting] = field(default_factory=list)
    keyframes: list[Keyframe] = field(default_factory=list)
    checks: list[Keyframe] = field(default_factory=list)
    spacing: int = FIRST_SPACING

    def segment_of(self, keyframe: int) -> range:
        """Numbers of the keyframes of a keyframe's segment."""
        alike = [k for k, other in enumerate(self.keyframes) if other.segment == self.keyframes[keyframe].segment]
        return range(alike[0], alike[-1] + 1)

    def around(self, keyframe: int, most: int) -> range:
        """Numbers of at most so many keyframes of its segment about a keyframe."""
        whole = self.segment_of(keyframe)
        first = min(max(keyframe - most // 2, whole.start), max(whole.stop - most, whole.start))
        return range(first, min(first + most, whole.stop))


class Follower:
    """Follows the points of one object; feed it every frame the object is masked in."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self._rgb: np.ndarray | None = None
        self._box: Box = (0, 0, 0, 0)
        self._ids = np.zeros(0, np.int64)
        self._points = np.zeros((0, 2), np.float32)
        self._next_id = 0
        self._segment = -1
        self._since_keyframe = 0

    def lose(self) -> None:
        """The object is not masked in this frame: end its points."""
        self._rgb = None

    def see(self, frame: Frame, mask: np.ndarray, hands: np.ndarray, observed: bool) -> None:
        """Follow into a frame: also masks (H, W) bool of the object and of all that may hide it."""
        fresh, track = self._rgb is None, self.track
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        box, size = (int(x), int(y), int(w), int(h)), (mask.shape[0], mask.shape[1])
        if fresh:
            self._segment += 1
            self._ids, self._points = self._ids[:0], self._points[:0]
        elif len(self._ids):
            self._follow(frame.rgb, region_around([self._box, box], _ROI_MARGIN_PX, size, track.scale))
        region = region_around([box], MARGIN_PX, size, track.scale)
        own, other = region.mask_of(mask), region.mask_of(hands)
        self._drop_outside(own & ~other, region)
        if fresh or len(self._ids) < 0.8 * MAX_POINTS or self._since_keyframe == 0:
            self._add(grey_of(region.of(frame.rgb)), own & ~other, region)
        position, hidden = len(track.sightings), near_to(other)
        image = (round(size[1] * track.scale), round(size[0] * track.scale))
        seen = glimpse(own, hidden, region.origin_px, image)
        track.sightings.append(
            Sighting(frame.index, frame.timestamp_s, self._segment, self._ids.copy(), self._points.astype(np.float64), observed, seen)
        )
        self._rgb, self._box = frame.rgb, box
        solves, checks = fresh or self._since_keyframe >= track.spacing, self._since_keyframe == (track.spacing + 1) // 2
        if solves or checks:
            cut = Keyframe(position, self._segment, region.of(frame.rgb), own, hidden, region.origin_px, image)
            (track.keyframes if solves else track.checks).append(cut)
        if solves:
            self._since_keyframe = 0
            _thin(track)
        self._since_keyframe += 1

    def _follow(self, rgb: np.ndarray, region: Region) -> None:
        assert self._rgb is not None
        before, now = (grey_of(region.of(picture)) for picture in (self._rgb, rgb))
        shift = region.origin_px.astype(np.float32)
        there, good = follow_and_return(before, now, self._points - shift, _SEARCH, _ROUND_TRIP_PX)
        self._ids, self._points = self._ids[good], there[good] + shift

    def _drop_outside(self, free: np.ndarray, region: Region) -> None:
        column, row = np.round(self._points - region.origin_px).astype(int).T
        inside = (row >= 0) & (row < free.shape[0]) & (column >= 0) & (column < free.shape[1])
        inside[inside] = free[row[inside], column[inside]]
        self._ids, self._points = self._ids[inside], self._points[inside]

    def _add(self, grey: np.ndarray, free: np.ndarray, region: Region) -> None:
        where = cv2.erode(free.astype(np.uint8), np.ones((2 * _BORDER_PX + 1,) * 2, np.uint8), borderValue=0)
        for px, py in np.round(self._points - region.origin_px).astype(int):
            cv2.circle(where, (int(px), int(py)), _APART_PX, 0, -1)
        wanted = MAX_POINTS - len(self._ids)
        if wanted <= 0 or not where.any():
            return
        where[cv2.cornerMinEigenVal(grey, _CORNER_PX) < LEAST_CORNER] = 0
        found = cv2.goodFeaturesToTrack(grey, wanted, 0.01, _APART_PX, mask=where, blockSize=_CORNER_PX)
        if found is None:
            return
        ids = np.arange(self._next_id, self._next_id + len(found))
        self._next_id += len(found)
        self._ids = np.concatenate([self._ids, ids])
        self._points = np.concatenate([self._points, found.reshape(-1, 2) + region.origin_px.astype(np.float32)])


def _thin(track: Track) -> None:
    """Once there are too many keyframes, drop every second one, except those that open a segment; and every second of the others."""
    if len(track.keyframes) <= MAX_KEYFRAMES:
        return
    kept: list[Keyframe] = []
    for i, keyframe in enumerate(track.keyframes):
        opens = i == 0 or keyframe.segment != track.keyframes[i - 1].segment
        if opens or i % 2 == 0:
            kept.append(keyframe)
    track.keyframes = kept[-MAX_KEYFRAMES:]
    track.checks = track.checks[::2]
    track.spacing *= 2


def grey_of(rgb: np.ndarray) -> np.ndarray:
    """(H, W) uint8."""
    grey: np.ndarray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return grey
