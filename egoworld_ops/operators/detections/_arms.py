"""What one frame says of a hand's side and owner: log-likelihoods from the network's handedness, the forearm's direction, size and order.

All values are log-likelihood ratios against a hand of which nothing is known, so that evidence adds up. `_sides.py` decides over the whole clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Label = Literal["left", "right", "other"]
LABELS: tuple[Label, ...] = get_args(Label)
"""`other` is a hand that is neither the wearer's left nor right."""
Edge = Literal["bottom", "top", "left", "right"]
EDGE_PRIORS: dict[Edge, float] = {"bottom": 0.97, "top": 0.01, "left": 0.01, "right": 0.01}
"""The edge of the picture that the forearms of the person come from: the bottom one for a camera that is worn upright. The others are cameras that
were turned, or that look at the person."""

_MIN_RIGHT = 0.02
"""The network is often sure and wrong: no probability counts as nearer to 0 or 1."""
_OTHER_PRIOR = -0.9
"""Another person's hand is rare: this much evidence is needed against each frame of a hand being the wearer's."""
_ARM_KAPPA, _OTHER_KAPPA = 1.5, 1.0
"""Concentration (von Mises) of forearm directions: of the wearer's about their edge, of people opposite about the other edge. Half of the other
people are beside the wearer: their arms come from anywhere."""
_OPPOSED_ARMS = 1.5
"""Against two forearms of one person that point in opposite directions."""
_SURE_LENGTH = 0.6
"""A palm that is foreshortened to less than this says less of the forearm."""
_OUTWARD_RAD = 0.4
"""A forearm comes from its own side of the wearer's edge: elbows are further apart than hands."""
_ORDER = 0.35
"""The left hand is left of the right one in this share of frames above one half, where they are apart."""
_SIZE = 0.3
_MCPS = [5, 9, 13, 17]
_PALM = [0, *_MCPS]


@dataclass(frozen=True, slots=True)
class HandEvidence:
    """What is seen of one hand in one frame.

    Args:
        centre_px: (2,) middle of the palm.
        elbow_px: (2,) a point on the forearm, one and a half palms behind the wrist.
        forearm: (2,) unit vector towards the elbow; shorter where the palm is foreshortened and says less.
        length_px: of the palm.
        right: the network's probability that it is a right hand.
    """

    centre_px: np.ndarray
    elbow_px: np.ndarray
    forearm: np.ndarray
    length_px: float
    right: float


def evidence(points_px: np.ndarray, right: float) -> HandEvidence:
    """From (21, 2) points and the network's probability of a right hand."""
    towards = points_px[0] - points_px[_MCPS].mean(0)
    along, across = float(np.linalg.norm(towards)), float(np.linalg.norm(points_px[17] - points_px[5]))
    length_px = max(along, 1.5 * across, 1.0)
    return HandEvidence(points_px[_PALM].mean(0), points_px[0] + 1.5 * towards, towards / length_px, length_px, right)


def palms_apart(one: HandEvidence, other: HandEvidence) -> float:
    """How far the palms' middles are from each other, in lengths of the longer palm."""
    return float(np.linalg.norm(one.centre_px - other.centre_px)) / max(one.length_px, other.length_px)


def handedness(hand: HandEvidence) -> np.ndarray:
    """(3,) log-likelihood of each of `LABELS` by what the network says, with the prior of another person's hand."""
    p = float(np.clip(hand.right, _MIN_RIGHT, 1 - _MIN_RIGHT))
    return np.array([np.log(2 * (1 - p)), np.log(2 * p), _OTHER_PRIOR])


def arm(hand: HandEvidence, edge: Edge) -> np.ndarray:
    """(3,) log-likelihood of each of `LABELS` by where the forearm comes from, if the wearer's arms come from `edge`."""
    x, y = _turned(hand.forearm, edge)
    outward = float(np.arctan2(x, y))
    own = _ARM_KAPPA * np.cos([outward + _OUTWARD_RAD, outward - _OUTWARD_RAD]) - np.log(np.i0(_ARM_KAPPA))
    other = np.log(0.5 + 0.5 * np.exp(-_OTHER_KAPPA * np.cos(outward)) / np.i0(_OTHER_KAPPA))
    return np.asarray(min(float(np.hypot(x, y)) / _SURE_LENGTH, 1.0) * np.append(own, other))


def order(left: HandEvidence, right: HandEvidence, edge: Edge) -> float:
    """Log-likelihood of how two hands lie, if they are the left and the right one of one person whose arms come from `edge`."""
    apart = _turned(right.elbow_px - left.elbow_px, edge)[0] / max(left.length_px, right.length_px)
    against = min(float(left.forearm @ right.forearm), 0.0)
    return float(np.log(1 + 2 * _ORDER * np.clip(apart, -1, 1))) + _OPPOSED_ARMS * against


def sizes(hands: Sequence[HandEvidence]) -> np.ndarray:
    """(N,) log-likelihood of each of the hands of a frame being the wearer's, by its size beside the largest: other people are further away."""
    lengths_px = np.array([h.length_px for h in hands])
    return np.asarray(_SIZE * np.clip(np.log2(lengths_px / lengths_px.max(initial=1.0)), -1, 0))


def _turned(direction: np.ndarray, edge: Edge) -> np.ndarray:
    """A direction of the image (x right, y down), turned so that the edge is at the bottom."""
    x, y = direction
    return np.array({"bottom": (x, y), "top": (-x, -y), "left": (y, -x), "right": (-y, x)}[edge])
