"""The rows of things that were found by text: which hand is whose, one decision over the clip; and the track ids of objects."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.detections._arms import HandEvidence
from egoworld_ops.operators.detections._hand_rows import jumped, track_ids, verdict_columns
from egoworld_ops.operators.detections._landmarks import Landmarks
from egoworld_ops.operators.detections._phrases import Phrases
from egoworld_ops.operators.detections._proposals import FIRST_OBJECT_TRACK
from egoworld_ops.operators.detections._sides import Seen, assign
from egoworld_ops.operators.rows import common
from egoworld_ops.vision.rle import Rle

log = logging.getLogger(__name__)

MOST_HANDS = 4
"""At once: the wearer's and those of one other person. The ways of giving sides to more of them are too many to go through."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in one frame.

    Args:
        number: the thing's within the clip.
        phrase: what found it.
        box_px: (4,) x, y, width, height.
        score: 0 to 1.
        rle: its pixels at the picture's size, where they are known.
        age_s: of the score: how long before the frame its network was asked; None where nobody counts that.
    """

    number: int
    phrase: str
    box_px: np.ndarray
    score: float
    rle: Rle | None = None
    age_s: float | None = 0.0


@dataclass(slots=True)
class Looked:
    """What was found in one frame; of each hand by its number what it says of its side, and its points where they are seen."""

    index: int
    timestamp_s: float
    things: list[Thing] = field(default_factory=list)
    evidence: dict[int, HandEvidence] = field(default_factory=dict)
    points: dict[int, Landmarks] = field(default_factory=dict)


def text_rows(
    item: ClipInput, backend: str, phrases: Phrases, frames: Sequence[Looked], source: Literal["text", "detector"] = "text"
) -> list[dict[str, Any]]:
    """The rows of the table, frame by frame. `source` is the column."""
    hands = _hands_at_once(item, [[t for t in frame.things if t.phrase == phrases.hands] for frame in frames])
    seen = [Seen(f.timestamp_s, {t.number: f.evidence[t.number] for t in f.things if t.number in hands}) for f in frames]
    verdicts = assign(seen)
    ids = track_ids(verdicts)
    jumps = jumped(seen, ids)
    objects = {t.number: t.phrase for frame in frames for t in frame.things if t.phrase != phrases.hands}
    tracks = {number: FIRST_OBJECT_TRACK + i for i, number in enumerate(objects)}
    rows = []
    for i, frame in enumerate(frames):
        shared = common(item, frame.index, frame.timestamp_s, backend) | {"source": source}
        for thing in frame.things:
            row = shared | {"box_px": thing.box_px, "score": thing.score, "score_age_s": thing.age_s, "rle": thing.rle}
            if thing.number in hands:
                side = {"track_id": ids[i][thing.number], "jumped": jumps[i][thing.number], **verdict_columns(verdicts[i][thing.number])}
                rows.append(row | side | _point_columns(frame.points.get(thing.number)))
            elif thing.number in tracks:
                rows.append(row | {"role": "object", "track_id": tracks[thing.number], "label": phrases.labels[thing.phrase]})
    return rows


def _point_columns(seen: Landmarks | None) -> dict[str, Any]:
    return {} if seen is None else {"points_px": seen.points_px, "landmarks_m": seen.landmarks_m}


def _hands_at_once(item: ClipInput, frames: Sequence[Sequence[Thing]]) -> set[int]:
    """The numbers of the hands that count: the surest over the clip, of which no more than `MOST_HANDS` are there at once."""
    total: dict[int, float] = {}
    at: dict[int, list[int]] = {}
    for i, hands in enumerate(frames):
        for hand in hands:
            total[hand.number] = total.get(hand.number, 0.0) + hand.score
            at.setdefault(hand.number, []).append(i)
    present = np.zeros(len(frames), int)
    kept = set()
    for number in sorted(total, key=lambda n: (-total[n], n)):
        span = slice(at[number][0], at[number][-1] + 1)
        if present[span].max() < MOST_HANDS:
            present[span] += 1
            kept.add(number)
    if left_out := len(total) - len(kept):
        log.warning(
            "%s %s: %d hand(s) left out: %d surer ones are there with them",
            item.clip.video_id,
            item.clip.clip_id,
            left_out,
            MOST_HANDS,
        )
    return kept
