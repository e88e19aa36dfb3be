"""Whether a thing earns its place: it must stay by a hand and move as the hand does, where it would look otherwise had it stayed behind.

A place in the picture is compared with the last picture twice, moved with the hand and moved with the background. What the hand covered then
shows nothing: background that comes into view behind a hand resembles neither. Plain surfaces show nothing either: both agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_NOISE_LEVELS = 2.0
_SURE_LEVELS = 6.0
_MIN_PRINTED = 0.35
_LONGEST_LOOK_HANDS = 0.3
_DOUBT_HANDS = 0.12
_MIN_TRAVEL_HANDS = 0.3
_MIN_LOOKS = 2
_MIN_SCORE = 0.6


@dataclass(frozen=True, slots=True)
class Step:
    """The last step of one hand.

    Args:
        better: (h, w) float32, grey levels by which the hand's motion explains each pixel better than the background's does; 0 where neither can.
        travel_hands: how far the hand moved against the background, in its lengths.
    """

    better: np.ndarray
    travel_hands: float

    def shown_px(self, region: np.ndarray) -> int:
        """How many pixels of a region (h, w) bool moved with the hand beyond noise."""
        return int((self.better[region] > _NOISE_LEVELS).sum())

    def left_behind(self) -> np.ndarray:
        """(h, w) bool: what surely stayed with the background."""
        return np.asarray(self.better < -_SURE_LEVELS)


def step(still: np.ndarray, moved: np.ndarray, hidden: np.ndarray, travel_hands: float) -> Step:
    """The step of a hand from the differences (h, w) of the pictures under the background's and the hand's motion.

    `hidden` (h, w) bool: pixels of which one of the two motions says that a hand was there before.
    """
    better = cv2.subtract(still, moved)
    better[hidden] = 0
    return Step(better, travel_hands)


@dataclass(slots=True)
class Record:
    """How far one thing has moved with a hand, how far it stayed behind, and how far it was too plain to tell, in lengths of the hand.

    `score` is the confidence that it moves with the hand, 0 to 1, at the time when it was highest: a thing that is put down was held all the same.
    It is 0 until the thing has moved with the hand far and often enough to be called an object.
    """

    with_hand: float = 0.0
    behind: float = 0.0
    plain: float = 0.0
    looks: int = 0
    score: float = 0.0

    def add(self, last: Step, region: np.ndarray) -> None:
        """Add one step of the hand it is by; `region` (h, w) bool is where the thing is, with at least a pixel.

        A thing that stayed behind for longer than it went along begins anew: it may have lain there before it was picked up.
        """
        better = last.better[region]
        travel = min(last.travel_hands, _LONGEST_LOOK_HANDS)
        if (np.abs(better) > _NOISE_LEVELS).mean() < _MIN_PRINTED:
            self.plain += travel
            return
        pro, con = (float(np.maximum(sign * better - _NOISE_LEVELS, 0).sum()) for sign in (1, -1))
        share = pro / (pro + con)
        self.with_hand += travel * share
        self.behind += travel * (1 - share)
        self.looks += share > 0.5
        if self.behind > self.with_hand:
            self.with_hand, self.behind, self.plain, self.looks = 0.0, 0.0, 0.0, 0
        score = self.with_hand / (self.with_hand + self.behind + 0.5 * self.plain + _DOUBT_HANDS)
        if self.looks >= _MIN_LOOKS and self.with_hand >= _MIN_TRAVEL_HANDS and score >= _MIN_SCORE:
            self.score = max(self.score, score)
