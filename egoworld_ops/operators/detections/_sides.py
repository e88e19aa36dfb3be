"""Which hand is the left and which the right: one decision over the whole clip, so that sides do not flip when the network wavers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from egoworld_ops.types import Hand

_SWITCH_COST = 12.0
"""Log-odds needed before one followed hand is taken to have become the other (the tracker jumped from hand to hand)."""
_MAX_LOG_ODDS = 3.0
"""Maximum evidence of a single frame: the network is often sure and wrong, and neighbouring frames share their errors."""


def assign_sides(frames: Sequence[Mapping[int, float]]) -> list[dict[int, Hand]]:
    """The most likely side of each hand in each frame, two hands of one frame always on different sides.

    The most likely path (Viterbi) over the frames: each hand's probability of being a right hand is evidence for its side, a change of side
    within one track costs `_SWITCH_COST`, a new track starts free.

    Args:
        frames: for each frame, probability of a right hand by track; at most two tracks in a frame.
    """
    options = [_options(sorted(frame)) for frame in frames]
    scores: list[np.ndarray] = []
    origins: list[np.ndarray] = []
    for i, frame in enumerate(frames):
        said = np.array([sum(_log_odds(frame[t], side) for t, side in option.items()) for option in options[i]])
        if i == 0:
            scores.append(said)
            continue
        costs = np.array([[_switch_cost(before, now) for before in options[i - 1]] for now in options[i]])
        reached = scores[-1][None] - costs
        origins.append(reached.argmax(1))
        scores.append(said + reached.max(1))
    if not scores:
        return []
    path = [int(scores[-1].argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return [options[i][s] for i, s in enumerate(reversed(path))]


def _options(tracks: Sequence[int]) -> list[dict[int, Hand]]:
    if not tracks:
        return [{}]
    if len(tracks) == 1:
        return [{tracks[0]: "left"}, {tracks[0]: "right"}]
    if len(tracks) == 2:
        return [{tracks[0]: "left", tracks[1]: "right"}, {tracks[0]: "right", tracks[1]: "left"}]
    raise ValueError(f"want at most two hands in a frame, got tracks {list(tracks)}")


def _log_odds(right: float, side: Hand) -> float:
    clipped = float(np.clip(np.log(max(right, 1e-6) / max(1 - right, 1e-6)), -_MAX_LOG_ODDS, _MAX_LOG_ODDS)) / 2
    return clipped if side == "right" else -clipped


def _switch_cost(before: Mapping[int, Hand], now: Mapping[int, Hand]) -> float:
    return _SWITCH_COST * sum(before.get(track, side) != side for track, side in now.items())
