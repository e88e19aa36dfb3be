"""Tracks that the clip before hands on (`warm_start`): its masks in frames that both clips have prompt this one.

Until this clip's own detections find the same thing, a track that was handed on has a number of its own, which is negative and so no detection's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.vision import rle
from egoworld_ops.vision.boxes import iou

LEAST_OVERLAP = 0.5
"""Of an object's box in the detections with that of the mask that is followed, for both to be one thing: as in view `track_links`."""
_COLUMNS = ["frame_index", "track_id", "role", "label", "rle", "bbox_px", "score", "observed"]


@dataclass(frozen=True, slots=True)
class Handed:
    """A track of the clip before, in the first frame of this clip in which that one saw it.

    Args:
        key: its number in this clip, negative.
        track_id, role, label: as there.
        mask: (H, W) bool.
        box_px: (4,) float64 [x, y, w, h] of the mask.
        surest: no mask of it is surer; 1 for hands and for things with a name.
    """

    key: int
    track_id: int
    role: str
    label: str | None
    mask: np.ndarray
    box_px: np.ndarray
    surest: float


@dataclass(frozen=True, slots=True)
class _Found:
    """A track of this clip's detections, as in its first one. `named`: whether the sidecar names it."""

    track_id: int
    role: str
    label: str | None
    named: bool

    def may_be(self, handed: Handed) -> bool:
        """Whether nothing speaks against its being this one."""
        return self.role == handed.role and self.label in (None, handed.label)

    def by_number(self, handed: Handed) -> bool:
        """Whether it is this one wherever they are."""
        return self.may_be(handed) and self.track_id == handed.track_id and (self.named or self.role != "object")


class Handover:
    """What one clip takes over from the one before, and under which numbers.

    Args:
        before: table `masks` of the clip before; None where this clip begins by itself.
        frame_start: first frame of this clip.
        roles: which tracks are taken over.
    """

    def __init__(self, before: pa.Table | None, frame_start: int, roles: Collection[str]) -> None:
        self._rows: dict[int, dict[str, Any]] = {}
        for row in before.select(_COLUMNS).to_pylist() if before is not None else ():
            if row["frame_index"] >= frame_start and row["observed"] and row["role"] in roles:
                self._rows.setdefault(row["track_id"], row)
        self.frames = frozenset(row["frame_index"] for row in self._rows.values())
        self._handed: dict[int, Handed] = {}
        self._keys: dict[int, int] = {}
        self._found: list[_Found] = []

    def at(self, frame_index: int, seen: Mapping[int, np.ndarray]) -> list[Handed]:
        """The tracks that begin in this frame; not those of things that this clip found before, and so follows already.

        Args:
            seen: boxes of the masks that are followed, by number, in this frame or the one before.
        """
        handed = [_handed(row) for row in self._rows.values() if row["frame_index"] == frame_index]
        begin = [h for h in handed if not any(found.by_number(h) or self._lies_on(found, h, seen) for found in self._found)]
        self._handed |= {h.key: h for h in begin}
        return begin

    def _lies_on(self, found: _Found, handed: Handed, seen: Mapping[int, np.ndarray]) -> bool:
        """Whether an object is the one that a detection began, by where their masks lie. What goes on with a handed mask is another track of it."""
        key = self._keys[found.track_id]
        if not (found.may_be(handed) and found.role == "object" and key == found.track_id and key in seen):
            return False
        return _overlap(seen[key], handed.box_px, guessed=False) >= LEAST_OVERLAP

    def key(self, track_id: int, role: str, label: str | None, box_px: np.ndarray, named: bool, seen: Mapping[int, np.ndarray]) -> int:
        """The number under which the thing of a detection is followed; asked in the order of frames.

        A hand is the one of its side that was handed on, and an object that the sidecar names is the one of its number; another object is the one
        whose mask lies where it was found. What has no name was found automatically, and its box is a guess.

        Args:
            box_px: (4,) [x, y, w, h].
            named: whether the sidecar names it.
            seen: boxes of the masks that are followed, by number, in this frame or the one before.
        """
        if track_id not in self._keys:
            found = _Found(track_id, role, label, named)
            free = [h for h in self._handed.values() if h.key not in self._keys.values() and found.may_be(h)]
            same = [h.key for h in free if found.by_number(h)]
            over = (
                {h.key: _overlap(seen[h.key], box_px, label is None) for h in free if h.key in seen}
                if role == "object" and not same
                else {}
            )
            near = max(over, key=lambda key: over[key], default=track_id)
            self._found.append(found)
            self._keys[track_id] = same[0] if same else near if over.get(near, 0.0) >= LEAST_OVERLAP else track_id
        return self._keys[track_id]

    def named(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """All rows of the clip under the numbers that the table has.

        A track that was handed on and found again has the number of the detection. One that was not keeps the number that it had; where that is
        another thing's in this clip, its rows are left out, since two things would have one number.
        """
        found = {key: track_id for track_id, key in self._keys.items()}
        kept = {key: handed.track_id for key, handed in self._handed.items() if key not in found and handed.track_id not in self._keys}
        names = kept | found
        numbered = ((row, names.get(row["track_id"], row["track_id"])) for row in rows)
        return [row | {"track_id": number} for row, number in numbered if number > 0]


def _overlap(mask_px: np.ndarray, box_px: np.ndarray, guessed: bool) -> float:
    """Intersection over union of two boxes; of a guessed one, which may bound a part of a thing, over the smaller of the two."""
    if not guessed:
        return float(iou(mask_px, box_px))
    end = np.minimum(mask_px[:2] + mask_px[2:], box_px[:2] + box_px[2:])
    both = np.maximum(end - np.maximum(mask_px[:2], box_px[:2]), 0).prod()
    return float(both / max(min(mask_px[2:].prod(), box_px[2:].prod()), 1e-9))


def _handed(row: Mapping[str, Any]) -> Handed:
    role, label = row["role"], row["label"]
    surest = 1.0 if role != "object" or label is not None else float(row["score"])
    mask, box_px = np.asarray(rle.decode(row["rle"]), bool), np.asarray(row["bbox_px"], float)
    return Handed(-row["track_id"], row["track_id"], role, label, mask, box_px, surest)
