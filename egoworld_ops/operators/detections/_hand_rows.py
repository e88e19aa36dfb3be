"""The columns that rows of hands have, whatever found them: boxes, and what follows from the decision on sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egoworld_ops.operators.detections._arms import HandEvidence, palms_apart
from egoworld_ops.operators.detections._proposals import FIRST_OBJECT_TRACK
from egoworld_ops.operators.detections._sides import Seen, Verdict

_BOX_MARGIN = 0.1
_TRACK_IDS = {"left": 1, "right": 2}
_OTHER_TRACKS = range(3, FIRST_OBJECT_TRACK)
_JUMP_PALMS, _JUMP_PALMS_S = 1.0, 45.0
"""A hand that is thrown reaches 4 m/s, some 45 palm lengths (wrist to knuckles, 9 cm) a second; and the points shake."""


def hand_box(points_px: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """(4,) box x, y, width, height around (21, 2) points, with a margin for the flesh around the joints, within the image."""
    low, high = points_px.min(0), points_px.max(0)
    margin = _BOX_MARGIN * float((high - low).max())
    low = np.clip(low - margin, 0, size_px)
    high = np.clip(high + margin, 0, size_px)
    return np.concatenate([low, high - low]).astype(np.float32)


def track_ids(verdicts: Sequence[Mapping[int, Verdict]]) -> list[dict[int, int]]:
    """The contract's track id of each hand of each frame. Of other people's hands each has the first id that none has at the same time."""
    others = [{v.chain for v in frame.values() if v.label == "other"} for frame in verdicts]
    last = {chain: i for i, now in enumerate(others) for chain in now}
    free_from = dict.fromkeys(_OTHER_TRACKS, 0)
    ids: dict[int, int] = {}
    for i, now in enumerate(others):
        for chain in sorted(now - ids.keys()):
            ids[chain] = next((t for t in _OTHER_TRACKS if free_from[t] <= i), min(_OTHER_TRACKS, key=lambda t: free_from[t]))
            free_from[ids[chain]] = last[chain] + 1
    return [{track: _TRACK_IDS.get(v.label) or ids[v.chain] for track, v in frame.items()} for frame in verdicts]


def jumped(frames: Sequence[Seen], ids: Sequence[Mapping[int, int]]) -> list[dict[int, bool | None]]:
    """Whether each hand of each frame is further from its place in the frame before than a hand moves; None where it was not there."""
    found: list[dict[int, bool | None]] = []
    before: dict[int, HandEvidence] = {}
    for i, frame in enumerate(frames):
        limit = _JUMP_PALMS + _JUMP_PALMS_S * (frame.timestamp_s - frames[i - 1].timestamp_s if i else 0.0)
        now = {ids[i][track]: hand for track, hand in frame.hands.items()}
        far = {number: palms_apart(before[number], hand) > limit for number, hand in now.items() if number in before}
        found.append({track: far.get(ids[i][track]) for track in frame.hands})
        before = now
    return found


def verdict_columns(found: Verdict) -> dict[str, Any]:
    """Role and owner."""
    return {"role": f"hand_{found.label}", "owner": found.owner, "owner_reason": found.why}
