"""Object proposals: prompts for the masks, given in the sidecar or found in and near the hands. Streaming, no look-ahead.

Belongs here: what a detections backend calls once per processed frame, track ids, and the sidecar's prompts. How an unknown object is
found by motion and colour is in `_motion_color.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from egoworld_ops.operators.base import BackendSettings
from egoworld_ops.operators.detections._motion_color import MotionColorFinder
from egoworld_ops.types import Frame
from egoworld_ops.video.sidecar import Prompt, SidecarObject

FIRST_OBJECT_TRACK = 10
_GROW_SIDE_PX = 320
_GROW_TOLERANCES = (24, 16, 10, 6, 3)
_GROW_MAX_SHARE = 0.25


class ProposalSettings(BackendSettings):
    """Settings of the proposals.

    `automatic`: look for objects by motion and colour never, always, or only in clips for which the sidecar has no prompt. `every_frames`:
    processed frames from one search to the next. `repeat_frames`: processed frames after which an object that is still there is proposed again.
    """

    automatic: Literal["without_sidecar", "always", "never"] = "without_sidecar"
    every_frames: Annotated[int, Field(ge=1)] = 3
    repeat_frames: Annotated[int, Field(ge=1)] = 45


@dataclass(frozen=True, slots=True)
class HandBox:
    """One hand found in the frame.

    Args:
        role: `hand_left` or `hand_right`.
        box_px: (4,) x, y, width, height.
        points_px: (21, 2) image points in the contract's order.
    """

    role: str
    box_px: np.ndarray
    points_px: np.ndarray

    def __post_init__(self) -> None:
        if self.box_px.shape != (4,) or self.points_px.shape != (21, 2):
            raise ValueError(f"hand: want box_px (4,) and points_px (21, 2), got {self.box_px.shape} and {self.points_px.shape}")


@dataclass(frozen=True, slots=True)
class Proposal:
    """One object prompt in one frame: a row of the detections table.

    Args:
        track_id: from 10; the same object keeps it within the clip.
        label: the sidecar's name for it; None where found automatically.
        box_px: (4,) float32 x, y, width, height.
        score: 1 for a box a person drew; for a box grown from points or found by motion and colour the confidence in it, 0 to 1.
        source: `sidecar` or `motion_color`, as in the contract.
    """

    track_id: int
    label: str | None
    box_px: np.ndarray
    score: float
    source: Literal["motion_color", "sidecar"]


def object_row(found: Proposal) -> dict[str, Any]:
    """Columns of a proposal in table `detections`."""
    return {
        "role": "object",
        "track_id": found.track_id,
        "label": found.label,
        "box_px": found.box_px,
        "score": found.score,
        "source": found.source,
    }


class ObjectProposer:
    """Proposes objects for one clip, frame by frame. Build one per clip; call `update` once per processed frame, in order.

    Args:
        settings: see `ProposalSettings`.
        objects: the sidecar's objects; object i has track id 10 + i, objects found automatically follow. An object prompted only in other
            clips of the video is unknown in this one: it may be found automatically, and then has no label.
        clip_frames: `[frame_start, frame_end)` of the clip; prompts outside are not for it.
        sample_stride: frames from one processed frame to the next.
    """

    def __init__(self, settings: ProposalSettings, objects: tuple[SidecarObject, ...], clip_frames: range, sample_stride: int) -> None:
        self._objects = objects
        self._clip_end = clip_frames.stop
        self._next_index = clip_frames.start
        self._sample_stride = sample_stride
        prompted = any(prompt.frame_index in clip_frames for item in objects for prompt in item.prompts)
        automatic = settings.automatic == "always" or (settings.automatic == "without_sidecar" and not prompted)
        self._finder = MotionColorFinder(settings.every_frames, settings.repeat_frames) if automatic else None
        self._frames: list[int] = []

    def update(self, frame: Frame, hands: Sequence[HandBox]) -> list[Proposal]:
        """The prompts of this frame: the sidecar's exactly at its frames (if a stride skips one, at the next processed frame, or at the clip's
        last), and objects that are new, found again after a loss, or due for repetition. About a millisecond a frame on average.
        """
        last = frame.index + self._sample_stride >= self._clip_end
        due = range(self._next_index, self._clip_end if last else frame.index + 1)
        found = [p for i, item in enumerate(self._objects) for p in _from_sidecar(frame, FIRST_OBJECT_TRACK + i, item, due)]
        self._next_index = due.stop
        self._frames.append(frame.index)
        if self._finder is not None:
            first = FIRST_OBJECT_TRACK + len(self._objects)
            sightings = self._finder.update(frame.rgb, [hand.points_px for hand in hands])
            found += [Proposal(first + s.number, None, s.box_px, s.score, "motion_color") for s in sightings]
        return found

    def earned(self, found: Mapping[int, Sequence[Proposal]]) -> dict[int, list[Proposal]]:
        """Of the proposals by frame index those that count, once the clip has been seen: a person's, and things that moved with a hand, with the
        score of all that was seen of them. A thing that only lay or hung where a hand passed is left out; one that was picked up is proposed where it
        lay before, and its parts are it.
        """
        if self._finder is None:
            return {index: list(proposals) for index, proposals in found.items()}
        first, scores = FIRST_OBJECT_TRACK + len(self._objects), self._finder.scores()
        earlier, part_of = self._finder.earlier()
        kept: dict[int, list[Proposal]] = {}
        for index, proposals in found.items():
            kept[index] = [p for p in proposals if p.source == "sidecar"]
            for p in proposals:
                number = part_of.get(p.track_id - first, p.track_id - first)
                if p.source != "sidecar" and number in scores and first + number not in {k.track_id for k in kept[index]}:
                    kept[index].append(replace(p, track_id=first + number, score=scores[number]))
        for count, s in earlier:
            kept.setdefault(self._frames[count], []).append(Proposal(first + s.number, None, s.box_px, s.score, "motion_color"))
        return kept


def _from_sidecar(frame: Frame, track_id: int, item: SidecarObject, due: range) -> list[Proposal]:
    """The prompt of an object nearest to this frame among those of the frames `due`; none if there is none."""
    prompts = [p for p in item.prompts if p.frame_index in due]
    if not prompts:
        return []
    located = box_of_prompt(frame.rgb, min(prompts, key=lambda p: abs(p.frame_index - frame.index)))
    if located is None:
        return []
    box_px, score = located
    return [Proposal(track_id, item.label, box_px, score, "sidecar")]


def box_of_prompt(rgb: np.ndarray, prompt: Prompt) -> tuple[np.ndarray, float] | None:
    """The box (4,) of a person's prompt, clipped to the image, and its score; None where nothing of it lies in the image."""
    height, width = rgb.shape[:2]
    if prompt.box_px is not None:
        box_px = clip_box(np.asarray(prompt.box_px, np.float32), width, height)
        return None if box_px is None else (box_px, 1.0)
    points = np.asarray(prompt.points_px, float).reshape(-1, 2)
    inside = points[((points >= 0) & (points <= (width - 1, height - 1))).all(1)]
    return grow_box(rgb, inside) if len(inside) else None


def clip_box(box_px: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """The part of a box [x, y, w, h] within an image; None where less than a pixel of either side is left."""
    x0, y0 = np.clip(box_px[:2], 0, (width, height))
    x1, y1 = np.clip(box_px[:2] + box_px[2:], 0, (width, height))
    return np.array([x0, y0, x1 - x0, y1 - y0], np.float32) if x1 - x0 >= 1 and y1 - y0 >= 1 else None


def grow_box(rgb: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, float]:
    """The box (4,) of the region of similar colour around points (N, 2) on one object, and its score.

    The region grows over neighbours of similar colour; the widest tolerance that does not leak into a quarter of the image is taken. The
    score is the share of it that a narrower tolerance keeps: near 1 where clear edges bound the object.
    """
    height, width = rgb.shape[:2]
    scale = min(1.0, _GROW_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    lab = cv2.cvtColor(cv2.medianBlur(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), 5), cv2.COLOR_RGB2LAB)
    factor = np.array([width / size[0], height / size[1]])
    seeds = np.clip(np.round((points_px + 0.5) / factor - 0.5).astype(int), 0, np.array(size) - 1)
    regions = [_flood(lab, seeds, tolerance) for tolerance in _GROW_TOLERANCES]
    tight = [i for i, region in enumerate(regions) if region.mean() <= _GROW_MAX_SHARE]
    chosen = tight[0] if tight else len(regions) - 1
    narrower = regions[min(chosen + 1, len(regions) - 1)]
    x, y, w, h = cv2.boundingRect(regions[chosen].astype(np.uint8))
    box_px = np.array([x * factor[0], y * factor[1], w * factor[0], h * factor[1]], np.float32)
    return box_px, float(narrower.sum() / max(1, regions[chosen].sum()))


def _flood(lab: np.ndarray, seeds: np.ndarray, tolerance: int) -> np.ndarray:
    """(H, W) bool: pixels joined to a seed (N, 2) through pixels within a tolerance of the seed's own colour."""
    height, width = lab.shape[:2]
    region = np.zeros((height, width), bool)
    for x, y in seeds:
        mask = np.zeros((height + 2, width + 2), np.uint8)
        flags = 4 | (255 << 8) | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE
        cv2.floodFill(lab, mask, (int(x), int(y)), 0, (tolerance,) * 3, (tolerance,) * 3, flags)
        region |= mask[1:-1, 1:-1] > 0
    return region
