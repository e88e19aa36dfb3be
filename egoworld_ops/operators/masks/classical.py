"""Masks without a network: hands from their landmarks refined on colour and edges, objects from prompts carried by motion and colour.

`score` is the mean probability, by this backend's own evidence of colour, place and motion, that the mask's pixels belong to the thing;
of an object that was found automatically it is no higher than the confidence that there is an object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.masks._handover import Handover
from egoworld_ops.operators.masks._hands import HandPrompt, HandSegmenter
from egoworld_ops.operators.masks._motion import Motion
from egoworld_ops.operators.masks._objects import ObjectTrack, Sighting
from egoworld_ops.operators.masks._pixels import pixel_columns
from egoworld_ops.operators.masks._regions import Evidence
from egoworld_ops.operators.rows import by_frame, common
from egoworld_ops.types import Frame
from egoworld_ops.vision import rle
from egoworld_ops.vision.boxes import iou

_PROMPT_COLUMNS = ("frame_index", "role", "track_id", "label", "box_px", "points_px", "score", "source")
_HAND_TRACKS = {"hand_left": 1, "hand_right": 2}
_REPROMPT_IOU = 0.25
_SAME_REGION = 0.5
"""Two things that share more than this of the smaller one are seen as one: they look alike."""


class ClassicalSettings(BackendSettings):
    """Settings of the backend.

    `wrist_margin_m`: how far past the wrist joint a hand's mask may reach. `max_carried`: processed frames over which an object that is not
    seen is carried by motion before it is dropped. `warm_start`: objects go on with the masks that the clip before has of them, see `_handover`.
    """

    wrist_margin_m: Annotated[float, Field(ge=0, le=0.1)] = 0.03
    max_carried: Annotated[int, Field(ge=0)] = 8
    warm_start: bool = False


class Backend(Operator):
    """The default on laptops."""

    version = "8"
    packages = ("opencv-python-headless", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = ClassicalSettings
    seconds_per_frame: ClassVar[float] = 0.06

    @classmethod
    def continues(cls, settings: BackendSettings) -> bool:
        """With `warm_start`."""
        assert isinstance(settings, ClassicalSettings)
        return settings.warm_start

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Only if something is detected, or handed on."""
        return any(table.num_rows > 0 for table in tables.values())

    def run(self, item: ClipInput) -> pa.Table:
        """Masks of one clip; empty where nothing is detected or handed on."""
        assert isinstance(self.settings, ClassicalSettings)
        prompts = by_frame(item.tables["detections"], _PROMPT_COLUMNS)
        handover = Handover(item.tables.get("masks"), item.clip.frame_start, ("object",))
        if not prompts and not handover.frames:
            return schema.empty("masks")
        cv2.setNumThreads(self.threads)
        scene = _Scene(self.settings, handover)
        rows: list[dict[str, Any]] = []
        for frame in item.frames():
            shared = common(item, frame.index, frame.timestamp_s, "classical")
            rows += [shared | found for found in scene.advance(frame, prompts.get(frame.index, []))]
        return schema.from_rows("masks", handover.named(rows))


class _Scene:
    """Everything that is followed through one clip."""

    def __init__(self, settings: ClassicalSettings, handover: Handover) -> None:
        self._settings, self._handover = settings, handover
        self._hands = HandSegmenter(settings.wrist_margin_m)
        self._motion = Motion()
        self._tracks: dict[int, ObjectTrack] = {}
        self._hand_pixels: np.ndarray | None = None

    def advance(self, frame: Frame, prompts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The masks of the next frame, without the columns that all rows share."""
        rgb = frame.rgb
        self._motion.advance(rgb)
        hands = {
            int(p["track_id"]): HandPrompt(p["role"], np.asarray(p["points_px"], float)) for p in prompts if p["points_px"] is not None
        }
        found = self._segment_hands(rgb, hands)  # other people's hands too: their pixels belong to nothing else
        owner, logit = _compose(found, rgb.shape[:2])
        covered = owner > 0
        sightings = self._segment_objects(rgb, covered, [p for p in prompts if p["role"] == "object"], frame.index)
        self._hand_pixels = covered
        _compose({track: s.evidence for track, s in sightings.items()}, rgb.shape[:2], owner, logit)
        rows = [_row(track, role, None, owner == track, logit, True) for role, track in _HAND_TRACKS.items() if track in found]
        rows += [
            _row(t, "object", self._tracks[t].label, owner == t, logit, s.observed, self._tracks[t].surest) for t, s in sightings.items()
        ]
        return [row for row in rows if row is not None]

    def _segment_hands(self, rgb: np.ndarray, hands: Mapping[int, HandPrompt]) -> dict[int, Evidence]:
        known = [track.colors for track in self._tracks.values() if track.colors is not None]
        objects = np.mean(known, axis=0) if known else None
        found = {}
        for track, hand in hands.items():
            evidence = self._hands.segment(rgb, hand, [other for other in hands.values() if other is not hand], objects)
            if evidence is not None:
                found[track] = evidence
        return found

    def _segment_objects(
        self, rgb: np.ndarray, hands: np.ndarray, prompts: Sequence[Mapping[str, Any]], frame_index: int
    ) -> dict[int, Sighting]:
        sightings: dict[int, Sighting | None] = {}
        alive = {number: track for number, track in self._tracks.items() if track.alive}
        if alive and self._hand_pixels is not None:
            taken = np.logical_or.reduce([self._hand_pixels, *[t.whole for t in alive.values() if t.whole is not None]])
            A_background = self._motion.affine(~taken, hands)
            A_hand = self._motion.affine(self._hand_pixels, np.zeros_like(hands))
            for number, track in alive.items():
                sightings[number] = track.follow(rgb, hands, self._motion, A_background, A_hand)
        for begun in self._handover.at(frame_index, self._boxes_px()):
            track = self._tracks[begun.key] = ObjectTrack(begun.label, self._settings.max_carried)
            track.surest = begun.surest
            sightings[begun.key] = track.go_on(rgb, begun.mask, hands)
        seen = self._boxes_px()
        for prompt in prompts:
            box_px, source = np.asarray(prompt["box_px"], float), prompt["source"]
            number = self._handover.key(int(prompt["track_id"]), "object", prompt["label"], box_px, source == "sidecar", seen)
            track = self._tracks.setdefault(number, ObjectTrack(prompt["label"], self._settings.max_carried))
            exact = source != "motion_color"
            track.surest = 1.0 if exact else float(prompt["score"])
            if exact or not _still_there(track, sightings.get(number), box_px):
                sightings[number] = track.prompt(rgb, box_px, exact, hands)
        return _one_owner({number: sighting for number, sighting in sightings.items() if sighting is not None}, rgb.shape[:2])

    def _boxes_px(self) -> dict[int, np.ndarray]:
        """The boxes of all that is followed, by number, where tracks are handed on; nothing else asks for them."""
        followed = self._tracks.items() if self._handover.frames else ()
        return {number: rle.mask_bbox(track.whole) for number, track in followed if track.whole is not None}


def _one_owner(found: dict[int, Sighting], shape: tuple[int, int]) -> dict[int, Sighting]:
    """The sightings; of two that claim the same region the weaker one is not observed: it looks like the other thing, and may be anywhere."""
    claims = {}
    for number, sighting in found.items():
        claims[number] = np.zeros(shape, bool)
        claims[number][sighting.evidence.window] = sighting.evidence.logit > 0
    for one, other in combinations(found, 2):
        both, least = np.count_nonzero(claims[one] & claims[other]), min(np.count_nonzero(claims[n]) for n in (one, other))
        if both > _SAME_REGION * least:
            weaker = min((one, other), key=lambda n: _strength(found[n].evidence))
            found[weaker] = replace(found[weaker], observed=False)
    return found


def _strength(evidence: Evidence) -> float:
    """Mean log odds inside."""
    inside = evidence.logit[evidence.logit > 0]
    return float(inside.mean()) if inside.size else 0.0


def _still_there(track: ObjectTrack, sighting: Sighting | None, box_px: np.ndarray) -> bool:
    """Whether a followed object is seen where a prompt says it is."""
    if track.whole is None or sighting is None or not sighting.observed:
        return False
    return bool(iou(rle.mask_bbox(track.whole), box_px) >= _REPROMPT_IOU)


def _compose(
    found: Mapping[int, Evidence], shape: tuple[int, int], owner: np.ndarray | None = None, best: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Which thing owns each pixel (H, W) int32, 0 for none, and its logit (H, W) float32: the strongest evidence wins."""
    owner = np.zeros(shape, np.int32) if owner is None else owner
    best = np.zeros(shape, np.float32) if best is None else best
    for number, evidence in found.items():
        window = evidence.window
        wins = evidence.logit > best[window]
        owner[window][wins] = number
        best[window][wins] = evidence.logit[wins]
    return owner, best


def _row(
    track: int, role: str, label: str | None, mask: np.ndarray, logit: np.ndarray, observed: bool, surest: float = 1.0
) -> dict[str, Any] | None:
    pixels = pixel_columns(mask)
    if pixels is None:
        return None
    score = min(float((1 / (1 + np.exp(-logit[mask]))).mean()), surest)
    return {"track_id": track, "role": role, "label": label, "score": score, "observed": observed, **pixels}
