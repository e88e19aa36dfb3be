"""Follows hands from frame to frame: the landmarks of one frame say where to look in the next; palms are searched for only when due.

MediaPipe's own graph searches for palms on every frame with fewer hands than it may follow, so a video of one hand pays for the search
all the time. Here a search is due while no hand is followed, in the frame that loses a hand and in those just after, and otherwise every
`search_interval_frames` processed frames while there may be another hand. The first search of a clip looks at all views of the image, successive
ones at successive views, and beyond its edges.

Which of the hands are the wearer's is decided over the whole clip (`_sides.py`). Where two followed hands cannot be the left and the right one of
one person, one of them is another's, and the search for the missing one goes on: two more hands may then be followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from egoworld_ops.operators.detections._landmarks import LandmarkNetworks, Landmarks
from egoworld_ops.operators.detections._palm import PALM_LANDMARKS, Palm, PalmDetector, views
from egoworld_ops.operators.detections._roi import Roi, roi_from_landmarks, roi_from_palm

_SAME_HAND = 0.5
"""Two sets of points are one hand where their mean distance is below this share of the palm's length (wrist to middle MCP)."""

_OTHERS = 2
"""Hands of other people that are followed beside the wearer's two."""
_MEMORY = 0.9
"""Weight of what was known of a track's side before this frame."""
_OPPOSED = -0.3
"""Two forearms are one person's where the cosine between them is above."""

_PART_SIZE = 0.6
_PART_INSIDE = 0.9
"""A hand with this share of its points within another hand's bounds, and smaller than `_PART_SIZE` of it, is a part of that hand: the networks
sometimes take bent fingers for a small hand."""


@dataclass(frozen=True, slots=True)
class TrackedHand:
    """One hand in one frame.

    Args:
        track: number of the track, from 0, never used again after a loss.
        landmarks: what the network saw.
        source: whether the palm search or the frame before gave the region.
    """

    track: int
    landmarks: Landmarks
    source: Literal["palm", "tracked"]


class HandTracker:
    """Follows hands through one clip. Build one per clip; call it once per processed frame, in order.

    Args:
        palms: the search.
        landmarks: the networks that follow; they say how many hands.
        workers: run the palm search while hands are followed.
        min_presence: a hand is lost where the network's presence falls below.
        search_interval_frames: see the module's docstring.
    """

    def __init__(
        self,
        palms: PalmDetector,
        landmarks: LandmarkNetworks,
        workers: Executor,
        min_presence: float,
        search_interval_frames: int,
    ) -> None:
        self._palms = palms
        self._landmarks = landmarks
        self._workers = workers
        self._own = landmarks.hands
        self._most = 1 if landmarks.hands == 1 else landmarks.hands + _OTHERS
        self._min_presence = min_presence
        self._interval = search_interval_frames
        self._rois: dict[int, Roi] = {}
        self._last: dict[int, Landmarks] = {}
        self._right: dict[int, float] = {}
        self._next_track = 0
        self._searches = 0
        self._since_search = 0
        self._since_loss = search_interval_frames

    def __call__(self, rgb: np.ndarray) -> list[TrackedHand]:
        """The hands of this frame, (H, W, 3) uint8, oldest track first."""
        self._since_search += 1
        self._since_loss += 1
        search = self._search(rgb) if self._search_is_due() else None
        hands = self._followed(rgb)
        if len(hands) < len(self._rois):
            self._since_loss = 0
            search = search or self._search(rgb)
        if search is not None:
            self._add_new(hands, rgb, search.result())
        hands = [h for h in hands if not any(_is_part_of(h.landmarks, other.landmarks) for other in hands)]
        self._rois = {h.track: roi_from_landmarks(h.landmarks.points_px) for h in hands}
        self._last = {h.track: h.landmarks for h in hands}
        self._right = {h.track: _MEMORY * self._right.get(h.track, h.landmarks.right) + (1 - _MEMORY) * h.landmarks.right for h in hands}
        return hands

    def _search_is_due(self) -> bool:
        if len(self._rois) >= self._most or (len(self._rois) >= self._own and self._has_pair()):
            return False
        return not self._rois or self._since_loss < self._interval or self._since_search >= self._interval

    def _has_pair(self) -> bool:
        """Whether two of the followed hands may be the left and the right one of one person."""
        return self._own == 1 or any(
            (self._right[a] >= 0.5) != (self._right[b] >= 0.5) and _forearm(self._last[a]) @ _forearm(self._last[b]) > _OPPOSED
            for a, b in combinations(self._last, 2)
        )

    def _search(self, rgb: np.ndarray) -> Future[list[Palm]]:
        """Palms in the next view, or in the next two where hands are followed, as their search is due less often; in a clip's first frame in all."""
        looks = views(rgb.shape[1], rgb.shape[0])
        count = len(looks) if not self._searches else 2 if self._rois else 1
        wanted = [looks[(self._searches + i) % len(looks)] for i in range(count)]
        self._searches += count
        self._since_search = 0
        return self._workers.submit(lambda: [palm for view in wanted for palm in self._palms(rgb, view)])

    def _followed(self, rgb: np.ndarray) -> list[TrackedHand]:
        """The known hands that are still seen. Of two tracks that come to sit on one hand, the one that moved less was there before."""
        looks = self._landmarks(rgb, list(self._rois.values()), self._workers)
        found = [TrackedHand(track, seen, "tracked") for track, seen in zip(self._rois, looks, strict=True)]
        hands: list[TrackedHand] = []
        for hand in sorted(found, key=lambda h: _distance(h.landmarks.points_px, self._last[h.track].points_px)):
            self._add(hands, rgb, hand)
        return sorted(hands, key=lambda h: h.track)

    def _add_new(self, hands: list[TrackedHand], rgb: np.ndarray, palms: Sequence[Palm]) -> None:
        """Append the hands of palms that do not belong to known hands."""
        for palm in palms:
            if len(hands) == self._most:
                return
            if not any(_is_palm_of(palm, h.landmarks) for h in hands):
                [seen] = self._landmarks(rgb, [roi_from_palm(palm.box_px, palm.keypoints_px)], self._workers)
                if self._add(hands, rgb, TrackedHand(self._next_track, seen, "palm")):
                    self._next_track += 1

    def _add(self, hands: list[TrackedHand], rgb: np.ndarray, hand: TrackedHand) -> bool:
        """Append a hand if its presence suffices, it touches the image, and it is none of `hands`."""
        seen = hand.landmarks
        if seen.presence < self._min_presence or not _touches(seen.points_px, rgb) or any(_is_same(seen, h.landmarks) for h in hands):
            return False
        hands.append(hand)
        return True


def _touches(points_px: np.ndarray, rgb: np.ndarray) -> bool:
    return bool(((points_px >= 0) & (points_px <= (rgb.shape[1] - 1, rgb.shape[0] - 1))).all(1).any())


def _is_same(one: Landmarks, other: Landmarks) -> bool:
    return _distance(one.points_px, other.points_px) < _SAME_HAND * _palm_length(other.points_px)


def _is_part_of(small: Landmarks, large: Landmarks) -> bool:
    low, high = large.points_px.min(0), large.points_px.max(0)
    inside = ((small.points_px >= low) & (small.points_px <= high)).all(1).mean()
    return bool(inside >= _PART_INSIDE and np.ptp(small.points_px, axis=0).max() < _PART_SIZE * (high - low).max())


def _is_palm_of(palm: Palm, hand: Landmarks) -> bool:
    return _distance(palm.keypoints_px, hand.points_px[PALM_LANDMARKS]) < _SAME_HAND * _palm_length(hand.points_px)


def _distance(a_px: np.ndarray, b_px: np.ndarray) -> float:
    return float(np.linalg.norm(a_px - b_px, axis=1).mean())


def _forearm(hand: Landmarks) -> np.ndarray:
    """(2,) from the knuckles towards the wrist, in palm lengths."""
    points_px = hand.points_px
    return np.asarray((points_px[0] - points_px[[5, 9, 13, 17]].mean(0)) / _palm_length(points_px))


def _palm_length(points_px: np.ndarray) -> float:
    """Wrist to middle MCP, or the width of the palm where that is foreshortened."""
    return float(max(np.linalg.norm(points_px[9] - points_px[0]), np.linalg.norm(points_px[17] - points_px[5])))
