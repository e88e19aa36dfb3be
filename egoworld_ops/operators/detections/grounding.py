"""Backend `grounding`: OWLv2 finds hands and objects by text every few frames; between, hands are followed by their points, objects by texture.

Objects have rows in the frames in which they were looked for: they prompt `masks.sam2`, which tracks them. Hands have rows in all frames in which
MediaPipe's landmark network sees them.

Torch and `transformers` are imported only where a model is built: reading settings or digests does not load them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.contract import schema
from egoworld_ops.operators import accelerator, extras
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.detections._arms import evidence
from egoworld_ops.operators.detections._box_tracks import BoxTracks, Track, each_once
from egoworld_ops.operators.detections._boxed_hands import BoxedHands, evidence_of_mask
from egoworld_ops.operators.detections._hand_rows import hand_box
from egoworld_ops.operators.detections._landmarks import LandmarkNetwork
from egoworld_ops.operators.detections._phrases import Phrases, blamed, phrases_for
from egoworld_ops.operators.detections._proposals import clip_box
from egoworld_ops.operators.detections._text_rows import Looked, Thing, text_rows
from egoworld_ops.types import Frame

if TYPE_CHECKING:
    from egoworld_ops.operators.detections._owlv2 import Owlv2

LANDMARKS = "hand_landmark_full"
_FILES = ("owlv2", "owlv2_config", "owlv2_vocabulary", "owlv2_merges")
_NETWORK_MB = 620
"""155 million numbers of 32 bits."""
_FRAME_MB = 1500
"""Activations of one picture of 960 px: a guess, not measured on a GPU."""
_PROCESS_MB = {"cpu": 700, "cuda": 1000}
_MAX_NETWORK_THREADS = 4
_GRID = 64
"""Cells along the longer side of the picture, for a hand of which only the box is known."""
Share = Annotated[float, Field(gt=0, lt=1)]


class Settings(BackendSettings):
    """Options of `[stages.detections.grounding]`."""

    hands: str = "hand"
    """The phrase for hands; empty: no hands are looked for."""
    phrases: tuple[str, ...] = ()
    """Phrases to look for in every video, such as `cup`. The sidecar's objects are looked for too, by their `text`, or else by their label."""
    interval_frames: Annotated[int, Field(ge=1)] = 15
    """Processed frames from one search to the next. What enters between is found that many frames later."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` means CUDA if there is one; the pool decides which workers see one, see `Operator.device`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network (autocast). It changes boxes, so it is never chosen by the machine."""
    min_new_score: Share = 0.3
    """Of a box that becomes an object. One that the next search does not find again is left out."""
    min_score: Share = 0.15
    """Of a box that confirms an object."""
    nms_iou: Share = 0.5
    """Of two boxes of one phrase that overlap more, the surer one counts."""
    min_iou: Share = 0.2
    """Overlap of a box with the object that it is, carried there from the search before."""
    max_missed: Annotated[int, Field(ge=0)] = 2
    """Searches in a row that may miss an object before its place is not followed any more."""
    min_presence: Share = 0.5
    """Of a hand in its box, by the landmark network: below it the hand has no points."""
    random_weights_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """A small random network from this seed, to test the pipeline without weights. Rows then say `grounding-random` and mean nothing."""


class Backend(Operator):
    """OWLv2 (Minderer et al., "Scaling Open-Vocabulary Object Detection", 2023) by `transformers`. `score` is that of the last search which
    found the thing, `score_age_s` how long ago that was."""

    version: ClassVar[str] = "4"
    packages: ClassVar[tuple[str, ...]] = (
        "transformers",
        "tokenizers",
        "torch",
        "torchvision",
        "ai-edge-litert",
        "opencv-python-headless",
        "pycocotools",
        "scipy",
    )
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 0.1

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the networks.

        Raises:
            SetupError: `transformers` is not installed.
            WeightsMissing, WeightsMismatch, WeightsUnreadable: a file is not there, or not the right one.
            BadSettings: CUDA is asked for and not there.
            NoDevice: there is a GPU, and torch cannot use it.
            OutOfMemory: memory ran out.
        """
        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        extras.require("transformers", "sam3", "detections.grounding")
        from egoworld_ops.operators.detections import _owlv2

        device = accelerator.pick_device(options.device, "detections.grounding")
        seed = options.random_weights_seed
        self._label = "grounding" if seed is None else "grounding-random"
        with _out_of_memory("the model"):
            self._find: Owlv2 = (
                _owlv2.load([models.path(name) for name in _FILES], device, options.precision)
                if seed is None
                else _owlv2.random(seed, device, options.precision)
            )
        self._landmarks = LandmarkNetwork(models.path(LANDMARKS), min(_MAX_NETWORK_THREADS, threads))

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """An estimate; see the figures it is made of."""
        options = cast("Settings", settings)
        if options.random_weights_seed is not None:
            return 0
        return _PROCESS_MB[cls.device(options)] + _NETWORK_MB + _FRAME_MB

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The network, its configuration and vocabulary, none of them with random weights; and the landmark network."""
        return (*(_FILES if cast("Settings", settings).random_weights_seed is None else ()), LANDMARKS)

    def run(self, item: ClipInput) -> pa.Table:
        """Objects of the frames in which they were looked for, hands of all frames.

        Raises:
            BadSettings, BadSidecar: a phrase is too long, blank, or that for hands.
            OutOfMemory: host or device memory ran out.
        """
        import torch

        torch.set_num_threads(self.threads)
        cv2.setNumThreads(max(1, self.threads // 2))
        phrases = phrases_for(self._options.hands, self._options.phrases, item.sidecar.objects)
        if not phrases.all and not phrases.useless:
            return schema.empty("detections")
        options = self._options
        tracks = BoxTracks(options.min_new_score, options.min_iou, options.max_missed)
        with blamed(phrases, item.clip.video_path), _out_of_memory(f"clip {item.clip.clip_id} of {item.clip.video_id}"):
            frames = list(self._watch(item, phrases, tracks))
        passing = tracks.passing()
        for frame in frames:
            frame.things = [thing for thing in frame.things if thing.number not in passing]
        return schema.from_rows("detections", text_rows(item, self._label, phrases, frames))

    def _watch(self, item: ClipInput, phrases: Phrases, tracks: BoxTracks) -> Iterator[Looked]:
        """One pass over the clip."""
        options = self._options
        look = BoxedHands(self._landmarks, options.min_presence)
        for count, frame in enumerate(item.frames()):
            tracks.follow(frame.rgb)
            found: list[Track] = []
            if count % options.interval_frames == 0:
                found = tracks.match(each_once(self._find(frame.rgb, phrases.all, options.min_score), options.nms_iou))
                for thing in found:
                    thing.found_s = frame.timestamp_s
            yield _looked(frame, found, [t for t in tracks.followed if t.phrase == phrases.hands], look)


def _looked(frame: Frame, found: list[Track], hands: list[Track], look: BoxedHands) -> Looked:
    """What was found in a frame, and the hands that are seen in it. A hand that shows its points is where they are."""
    size_px = (frame.rgb.shape[1], frame.rgb.shape[0])
    points = look(frame.rgb, {hand.number: hand.box_px for hand in hands})
    for hand in hands:
        if hand.number in points:
            hand.box_px = hand_box(points[hand.number].points_px, size_px).astype(np.float64)
    seen = {t.number: t for t in (*found, *(hand for hand in hands if hand.number in points))}
    boxes = {number: box for number, t in seen.items() if (box := clip_box(t.box_px.astype(np.float32), *size_px)) is not None}
    ages_s = {number: frame.timestamp_s - seen[number].found_s for number in boxes}
    things = [Thing(n, seen[n].phrase, box, seen[n].score, age_s=ages_s[n]) for n, box in sorted(boxes.items())]
    scale = max(size_px) / _GRID
    sides = {
        hand.number: evidence(points[hand.number].points_px, points[hand.number].right)
        if hand.number in points
        else evidence_of_mask(_drawn(boxes[hand.number] / scale, size_px, scale), np.full(2, scale))
        for hand in hands
        if hand.number in boxes
    }
    return Looked(frame.index, frame.timestamp_s, things, sides, points)


def _drawn(box: np.ndarray, size_px: tuple[int, int], scale: float) -> np.ndarray:
    """(h, w) bool with the cells of a box, at least one."""
    width, height = (max(1, round(side / scale)) for side in size_px)
    mask = np.zeros((height, width), bool)
    x, y = np.clip(np.floor(box[:2]).astype(int), 0, (width - 1, height - 1))
    mask[y : y + max(1, round(box[3])), x : x + max(1, round(box[2]))] = True
    return mask


def _out_of_memory(culprit: str) -> AbstractContextManager[None]:
    return accelerator.out_of_memory(culprit, "OWLv2", "Free memory, or set bfloat16 in stages.detections.grounding")
