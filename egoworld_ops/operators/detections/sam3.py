"""Backend `sam3`: SAM 3 finds hands and objects by text and follows them, frame by frame; MediaPipe's landmark network sees the hands' points.

Each row has the pixels of the thing, and `masks.sam3` takes them from there: the network runs once. How the clip is streamed is in
`_sam3_session.py`, how hands get their points in `_boxed_hands.py`, which of them is the wearer's left or right in `_sides.py`.

Torch and `transformers` are imported only where a model is built: reading settings or digests does not load them.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
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
from egoworld_ops.operators.detections._boxed_hands import BoxedHands, evidence_of_mask
from egoworld_ops.operators.detections._landmarks import LandmarkNetwork
from egoworld_ops.operators.detections._phrases import Phrases, blamed, phrases_for
from egoworld_ops.operators.detections._text_rows import Looked, Thing, text_rows
from egoworld_ops.types import Frame, sampled_frames
from egoworld_ops.vision import rle

if TYPE_CHECKING:
    from egoworld_ops.operators.detections._sam3_model import Limits
    from egoworld_ops.operators.detections._sam3_session import Phrase, Sighting

log = logging.getLogger(__name__)

LANDMARKS = "hand_landmark_full"
_FILES = ("sam3", "sam3_config", "sam3_tokenizer")
_NETWORK_MB = {"float32": 3440, "bfloat16": 1720}
"""859,921,848 numbers."""
_OBJECT_MB = 24
"""Memory features of 12 frames that the tracker attends to, in float32."""
_FRAME_MB = 2500
"""Activations of one frame of 1008 px: a guess, not measured on a GPU."""
_PROCESS_MB = {"cpu": 700, "cuda": 1000}
_MAX_NETWORK_THREADS = 4
Share = Annotated[float, Field(gt=0, lt=1)]


class Settings(BackendSettings):
    """Options of `[stages.detections.sam3]`."""

    hands: str = "hand"
    """The phrase for hands; empty: no hands are looked for."""
    phrases: tuple[str, ...] = ()
    """Phrases to look for in every video, such as `cup`. The sidecar's objects are looked for too, by their `text`, or else by their label."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` means CUDA if there is one; the pool decides which workers see one, see `Operator.device`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the network's numbers. It changes masks, so it is never chosen by the machine: profiles for GPUs name bfloat16."""
    min_new_score: Share = 0.7
    """Of a detection that becomes an object."""
    min_score: Share = 0.5
    """Of a detection that confirms an object."""
    nms_iou: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of two detections of one phrase whose masks overlap more, the surer one counts."""
    max_objects: Annotated[int, Field(ge=1, le=1000)] = 16
    """Hands and objects that are followed at once; time and memory grow with them."""
    min_presence: Share = 0.5
    """Of a hand in its box, by the landmark network: below it the hand has no points, and its mask says which side it is."""
    random_weights_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """A small random network from this seed, to test the pipeline without weights. Rows then say `sam3-random` and mean nothing.

    Its scores are low: with min_new_score 0.3 and min_score 0.25 it finds things."""


class Backend(Operator):
    """SAM 3 (Carion et al., 2025) by `transformers`. `score` is the probability that the thing is visible in the frame, at most that of its first
    detection. A thing that is hidden has no row."""

    version: ClassVar[str] = "4"
    packages: ClassVar[tuple[str, ...]] = (
        "transformers",
        "tokenizers",
        "torch",
        "torchvision",
        "ai-edge-litert",
        "opencv-python-headless",
        "pycocotools",
    )
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 1.0
    """A compromise between a GPU and a CPU, as there is no figure by device; it plans the first clip only."""

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
        extras.require("transformers", "sam3", "detections.sam3")
        import torch

        from egoworld_ops.operators.detections import _sam3_model, _sam3_random

        device = accelerator.pick_device(options.device, "detections.sam3")
        dtype = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
        limits: Limits = _sam3_model.Limits(options.min_new_score, options.min_score, options.nms_iou, options.max_objects)
        seed = options.random_weights_seed
        self._label = "sam3" if seed is None else "sam3-random"
        self._tokenizer = None if seed is not None else models.path("sam3_tokenizer")
        with _out_of_memory("the model"):
            self._model = (
                _sam3_model.load(models.path("sam3"), models.path("sam3_config"), limits, device, dtype)
                if seed is None
                else _sam3_random.random(seed, limits, device, dtype)
            )
        self._landmarks = LandmarkNetwork(models.path(LANDMARKS), min(_MAX_NETWORK_THREADS, threads))

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """An estimate; see the figures it is made of."""
        options = cast("Settings", settings)
        if options.random_weights_seed is not None:
            return 0
        return _PROCESS_MB[cls.device(options)] + _NETWORK_MB[options.precision] + _FRAME_MB + _OBJECT_MB * options.max_objects

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The network, its configuration and tokenizer, none of them with random weights; and the landmark network."""
        return (*(_FILES if cast("Settings", settings).random_weights_seed is None else ()), LANDMARKS)

    def run(self, item: ClipInput) -> pa.Table:
        """Hands and objects of each processed frame in which they are seen.

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
        with blamed(phrases, item.clip.video_path), _out_of_memory(f"clip {item.clip.clip_id} of {item.clip.video_id}"):
            frames = list(self._watch(item, phrases))
        if self._model.n_dropped:
            clip, most = item.clip, self._options.max_objects
            log.warning(
                "%s %s: more than %d things were there at once, stages.detections.sam3.max_objects", clip.video_id, clip.clip_id, most
            )
        return schema.from_rows("detections", text_rows(item, self._label, phrases, frames))

    def _prompts(self, phrases: Phrases) -> list[Phrase]:
        from egoworld_ops.operators.detections import _sam3_model, _sam3_random

        if self._tokenizer is None:
            return _sam3_random.phrases(phrases.all)
        return _sam3_model.phrases(self._tokenizer, phrases.all)

    def _watch(self, item: ClipInput, phrases: Phrases) -> Iterator[Looked]:
        """One pass over the clip. Hands are looked at while their frame is at hand, and what is seen is given once it is sure."""
        from egoworld_ops.operators.detections import _hub_model, _sam3_model
        from egoworld_ops.operators.detections._sam3_session import Stream

        clip = item.clip
        stream = Stream(self._model, self._prompts(phrases), len(sampled_frames(clip.frame_start, clip.frame_end, item.sample_stride)))
        look = BoxedHands(self._landmarks, self._options.min_presence)
        waiting: deque[Looked] = deque()
        with _hub_model.quiet():
            for frame in item.frames():
                sure = stream.step(_sam3_model.preprocess(frame.rgb, self._model.config.image_size))
                waiting.append(_look_at_hands(frame, [s for s in stream.newest if s.phrase == phrases.hands], look))
                yield from (_shown(waiting.popleft(), seen, clip.width, clip.height) for seen in sure)
            yield from (_shown(waiting.popleft(), seen, clip.width, clip.height) for seen in stream.rest())


def _look_at_hands(frame: Frame, hands: Sequence[Sighting], look: BoxedHands) -> Looked:
    """The points of each hand, and what it says of its side."""
    height, width = frame.rgb.shape[:2]
    masks = {hand.number: (hand.logits > 0).cpu().numpy() for hand in hands}
    masks = {number: mask for number, mask in masks.items() if mask.any()}
    scale_px = {number: np.array([width / mask.shape[1], height / mask.shape[0]]) for number, mask in masks.items()}
    boxes_px = {number: rle.mask_bbox(mask) * np.tile(scale_px[number], 2) for number, mask in masks.items()}
    points = look(frame.rgb, boxes_px)
    sides = {
        number: evidence(points[number].points_px, points[number].right) if number in points else evidence_of_mask(mask, scale_px[number])
        for number, mask in masks.items()
    }
    return Looked(frame.index, frame.timestamp_s, [], sides, points)


def _shown(frame: Looked, seen: Sequence[Sighting], width: int, height: int) -> Looked:
    """With the things that have pixels in the frame."""
    from egoworld_ops.operators.detections._sam3_session import full_masks

    for sighting, mask in zip(seen, full_masks(seen, height, width), strict=True):
        if mask.any():
            box_px, age_s = np.asarray(rle.mask_bbox(mask), np.float32), None if sighting.capped else 0.0
            frame.things.append(Thing(sighting.number, sighting.phrase, box_px, sighting.score, rle.encode(mask), age_s))
    return frame


def _out_of_memory(culprit: str) -> AbstractContextManager[None]:
    return accelerator.out_of_memory(culprit, "SAM 3", "Free memory, or set a smaller max_objects or bfloat16 in stages.detections.sam3")
