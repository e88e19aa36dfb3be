"""Which hand is the wearer's left, which the right, and which is neither: one decision over the whole clip, by the most likely labels.

Tracks that continue each other are joined (`chains`). In each frame the chains have one of few combinations of labels, of which two never have the
same side. What a frame says of them is in `_arms.py`; a chain keeps its label from frame to frame unless much speaks against it. The most likely path
(Viterbi) gives the labels, for the edge of the picture that the person's arms most likely come from: there all paths together are likeliest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from typing import Literal

import numpy as np

from egoworld_ops.operators.detections._arms import (
    EDGE_PRIORS,
    LABELS,
    Edge,
    HandEvidence,
    Label,
    arm,
    handedness,
    order,
    palms_apart,
    sizes,
)

Owner = Literal["wearer", "other", "unknown"]
Came = Literal["followed", "found", "jumped"]

_FRAME_WEIGHT = 0.1
"""Neighbouring frames share their errors: a frame counts as this part of an independent look."""
_SWITCH = {"followed": 1e-3, "found": 1e-2, "jumped": 0.2}
"""Probability that a chain is another hand than in the frame before: where it was followed, where it was lost and found in its place, and where it is
elsewhere."""
_LINK_S = 0.5
_LINK_PALMS = 2.0
"""A new track continues one that ended so many seconds before, so many palm lengths away."""
_JUMP_PALMS = 1.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The hands of one frame, by track."""

    timestamp_s: float
    hands: Mapping[int, HandEvidence]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whose hand it is.

    Args:
        label: left or right hand of the person whose video it is, or neither.
        owner: `wearer` where the arm comes from the bottom of the picture, `other` where it comes from elsewhere than the wearer's, else `unknown`: a
            third hand, a second of one side, or the hands of a person whose arms do not come from the bottom.
        chain: which tracks it continues.
        why: of an owner that is `unknown`: see column `owner_reason`.
    """

    label: Label
    owner: Owner
    chain: int
    why: str | None = None


def assign(frames: Sequence[Seen]) -> list[dict[int, Verdict]]:
    """Label and owner of each hand of each frame, by track."""
    steps = _steps(frames)
    if not any(frame.hands for frame in frames):
        return [{} for _ in frames]
    trellises = [_Trellis(steps, edge) for edge in EDGE_PRIORS]
    return max(trellises, key=lambda t: t.log_evidence + float(np.log(EDGE_PRIORS[t.edge]))).verdicts()


@dataclass(frozen=True, slots=True)
class _Step:
    """One frame: the hands seen, by chain; which of the chains are between two sightings; how those of before came here."""

    tracks: Mapping[int, int]
    hands: Mapping[int, HandEvidence]
    missing: tuple[int, ...]
    came: Mapping[int, Came]


def _steps(frames: Sequence[Seen]) -> list[_Step]:
    """Join tracks to chains, and note where they are between two sightings."""
    chain_of: dict[int, int] = {}
    last: dict[int, tuple[int, HandEvidence]] = {}
    tracks: list[dict[int, int]] = []
    came: list[dict[int, Came]] = []
    gaps: list[set[int]] = [set() for _ in frames]
    for i, frame in enumerate(frames):
        tracks.append({})
        came.append({})
        for track, hand in frame.hands.items():
            if track not in chain_of:
                ended = {c: (frames[at].timestamp_s, seen) for c, (at, seen) in last.items() if c not in _held(chain_of, frame.hands)}
                chain_of[track] = _continued(ended, frame.timestamp_s, hand, default=track)
            chain = chain_of[track]
            if chain in last:
                at, before = last[chain]
                for between in range(at + 1, i):
                    gaps[between].add(chain)
                came[i][chain] = "jumped" if palms_apart(before, hand) > _JUMP_PALMS else "followed" if at == i - 1 else "found"
            tracks[i][chain] = track
            last[chain] = (i, hand)
    return [
        _Step(t, {c: frame.hands[track] for c, track in t.items()}, tuple(sorted(g)), how)
        for frame, t, g, how in zip(frames, tracks, gaps, came, strict=True)
    ]


def _held(chain_of: Mapping[int, int], tracks: Iterable[int]) -> set[int]:
    """Chains that other tracks of the frame belong to."""
    return {chain_of[track] for track in tracks if track in chain_of}


def _continued(ended: Mapping[int, tuple[float, HandEvidence]], now_s: float, hand: HandEvidence, default: int) -> int:
    """The chain that a new track continues: the nearest of those that ended just before; `default` where none did."""
    apart = {c: palms_apart(seen, hand) for c, (at_s, seen) in ended.items() if now_s - at_s <= _LINK_S}
    near = {c: palms for c, palms in apart.items() if palms <= _LINK_PALMS}
    return min(near, key=lambda c: near[c]) if near else default


class _Trellis:
    """All combinations of labels in all frames, for arms that come from one edge of the picture."""

    def __init__(self, steps: Sequence[_Step], edge: Edge) -> None:
        self.edge = edge
        self._steps = steps
        self._chains = [(*sorted(step.hands), *step.missing) for step in steps]
        self._labels = [_combinations(len(step.hands), len(step.missing)) for step in steps]
        self._emissions = [_FRAME_WEIGHT * _emission(step, labels, edge) for step, labels in zip(steps, self._labels, strict=True)]
        self._moves = [self._move(i) for i in range(1, len(steps))]
        forward = self._emissions[0]
        for move, emission in zip(self._moves, self._emissions[1:], strict=True):
            forward = emission + _log_sum(forward[:, None] + move, 0)
        self.log_evidence = float(_log_sum(forward, 0))

    def verdicts(self) -> list[dict[int, Verdict]]:
        """The most likely labels."""
        path = self._best_path()
        strangers = self._strangers(path)
        pair = any({0, 1} <= set(labels[k, : len(step.hands)]) for labels, k, step in zip(self._labels, path, self._steps, strict=True))
        elsewhere = f"{'arms' if pair else 'one_arm'}_from_{self.edge}"
        found = []
        for i, step in enumerate(self._steps):
            verdicts = {}
            for k, chain in enumerate(sorted(step.hands)):
                label = int(self._labels[i][path[i], k])
                owner: Owner = "wearer" if self.edge == "bottom" else "unknown"
                why = elsewhere
                if LABELS[label] == "other":
                    owner, why = "other" if chain in strangers else "unknown", "second_of_one_side"
                verdicts[step.tracks[chain]] = Verdict(LABELS[label], owner, chain, why if owner == "unknown" else None)
            found.append(verdicts)
        return found

    def _move(self, i: int) -> np.ndarray:
        """(combinations before, combinations now) log-probabilities of the labels' changes."""
        before, now = self._chains[i - 1], self._chains[i]
        total = np.zeros((len(self._labels[i - 1]), len(self._labels[i])))
        for k, chain in enumerate(now):
            if chain in before:
                switch = _SWITCH[self._steps[i].came.get(chain, "followed")]
                same = self._labels[i - 1][:, [before.index(chain)]] == self._labels[i][None, :, k]
                total += np.where(same, np.log(1 - switch), np.log(switch / 2))
        return total

    def _best_path(self) -> list[int]:
        reached, origins = self._emissions[0], []
        for move, emission in zip(self._moves, self._emissions[1:], strict=True):
            ways = reached[:, None] + move
            origins.append(ways.argmax(0))
            reached = emission + ways.max(0)
        path = [int(reached.argmax())]
        for origin in reversed(origins):
            path.append(int(origin[path[-1]]))
        return path[::-1]

    def _strangers(self, path: Sequence[int]) -> set[int]:
        """Chains that come from elsewhere than the wearer's arms do, over the frames in which they are neither left nor right."""
        away: dict[int, float] = {}
        for i, step in enumerate(self._steps):
            for k, (chain, hand) in enumerate(sorted(step.hands.items(), key=lambda item: item[0])):
                if LABELS[self._labels[i][path[i], k]] == "other":
                    left, right, other = arm(hand, self.edge)
                    away[chain] = away.get(chain, 0.0) + other - max(left, right)
        return {chain for chain, total in away.items() if total > 0}


@cache
def _combinations(seen: int, missing: int) -> np.ndarray:
    """(N, seen + missing) indices of `LABELS`: no two hands that are seen in one frame have the same side."""
    all_labels = product(range(len(LABELS)), repeat=seen + missing)
    allowed = [labels for labels in all_labels if all(labels[:seen].count(side) <= 1 for side in (0, 1))]
    return np.array(allowed, int).reshape(len(allowed), seen + missing)


def _emission(step: _Step, labels: np.ndarray, edge: Edge) -> np.ndarray:
    """(N,) log-likelihood of what a frame shows, for each combination of labels."""
    hands = [step.hands[chain] for chain in sorted(step.hands)]
    if not hands:
        return np.zeros(len(labels))
    alone = np.array([handedness(h) + arm(h, edge) for h in hands])
    alone[:, :2] += sizes(hands)[:, None]
    total = alone[np.arange(len(hands)), labels[:, : len(hands)]].sum(1)
    for i, j in permutations(range(len(hands)), 2):
        total[(labels[:, i] == 0) & (labels[:, j] == 1)] += order(hands[i], hands[j], edge)
    return np.asarray(total)


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    most = values.max(axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - most).sum(axis)) + most.squeeze(axis))
