"""Backend `rtmpose`: OpenMMLab's RTMDet finds hands in each frame and RTMPose their points, on CPUs and small GPUs; objects as `mediapipe` does.

It is for hands that MediaPipe's palm network does not see: grasping, from behind, wired or gloved. RTMPose gives points in the picture alone:
metric landmarks, and whether a hand is a left or a right one, are those of MediaPipe's landmark network where it sees the hand there; elsewhere they
are null, and the arm tells the side. Boxes of neighbouring frames that overlap are one hand (`_overlapping.py`); which of them is the wearer's left
or right is in `_sides.py`.

onnxruntime is imported only where a model is built: reading settings or digests does not load it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, cast

import cv2
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.contract import schema
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.detections import _rtm_networks as rtm
from egoworld_ops.operators.detections._arms import evidence
from egoworld_ops.operators.detections._hand_rows import hand_box
from egoworld_ops.operators.detections._landmarks import LandmarkNetwork, Landmarks
from egoworld_ops.operators.detections._overlapping import Overlapping
from egoworld_ops.operators.detections._phrases import Phrases
from egoworld_ops.operators.detections._proposals import HandBox, ObjectProposer, Proposal, ProposalSettings, object_row
from egoworld_ops.operators.detections._roi import roi_from_landmarks
from egoworld_ops.operators.detections._text_rows import Looked, Thing, text_rows
from egoworld_ops.operators.onnx_network import OnnxNetwork, Shape
from egoworld_ops.operators.rows import common
from egoworld_ops.types import Frame

LANDMARKS = "hand_landmark_full"
_NETWORKS = ("rtmdet_hand", "rtmpose_hand")
_MAX_NETWORK_THREADS = 4
_CUDA_MB = 1200
_HAND = "hand"
Share = Annotated[float, Field(gt=0, lt=1)]


class Settings(BackendSettings):
    """Options of `[stages.detections.rtmpose]`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of both networks; `auto` means CUDA if there is one. CUDA needs onnxruntime-gpu."""
    min_score: Share = 0.3
    """Of a box."""
    min_points_score: Share = 0.2
    """Of the points in a box: below it there is no hand."""
    max_iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Of two boxes that overlap more, the surer one counts."""
    patience_frames: Annotated[int, Field(ge=0)] = 5
    """Processed frames in which a hand may be missed and is still the same one, where it is found again in its place."""
    min_presence: Share = 0.5
    """Of a hand, by the landmark network: below it the hand has no metric landmarks."""
    objects: bool = True
    """Also propose objects."""
    proposals: ProposalSettings = ProposalSettings()


class Backend(Operator):
    """Hands by RTMDet-nano and RTMPose-m, objects by motion and colour or from the sidecar. `score` of a hand is its box's."""

    version: ClassVar[str] = "3"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "ai-edge-litert", "opencv-python-headless", "scipy", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 0.1

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the networks.

        Raises:
            SetupError: onnxruntime is not installed.
            WeightsMissing, WeightsMismatch, WeightsUnreadable: a network's file is not there, or not the right one.
            BadSettings: CUDA is asked for and not there.
            NoDevice: there is a GPU, and onnxruntime cannot use it.
        """
        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        detector, points = _NETWORKS
        few = min(_MAX_NETWORK_THREADS, threads)

        def network(name: str, inputs: dict[str, Shape], outputs: dict[str, Shape | None]) -> OnnxNetwork:
            return OnnxNetwork(models.path(name), inputs, outputs, options.device, few, "detections.rtmpose", name)

        self._detector = network(detector, rtm.DETECTOR_INPUT, rtm.DETECTOR_OUTPUTS)
        self._points = network(points, rtm.POINTS_INPUT, rtm.POINTS_OUTPUTS)
        self._landmarks = LandmarkNetwork(models.path(LANDMARKS), few)

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """A guess of a GPU's: CUDA's context and workspaces of two small networks; nothing was measured."""
        return _CUDA_MB if cls.device(settings) == "cuda" else 0

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The detector, the network of points and the landmark network."""
        return (*_NETWORKS, LANDMARKS)

    def run(self, item: ClipInput) -> pa.Table:
        """Hands and objects of each processed frame; no rows where there is nothing.

        Raises:
            WeightsMismatch: a file is of another network.
            OutOfMemory: host or device memory ran out.
        """
        cv2.setNumThreads(max(1, self.threads // 2))
        options = self._options
        clip_frames = range(item.clip.frame_start, item.clip.frame_end)
        proposer = ObjectProposer(options.proposals, item.sidecar.objects, clip_frames, item.sample_stride) if options.objects else None
        frames: list[Looked] = []
        proposed: dict[int, list[Proposal]] = {}
        for frame, looked in self._watch(item):
            frames.append(looked)
            if proposer is not None:
                proposed[frame.index] = proposer.update(frame, _hand_boxes(frame, looked))
        rows = text_rows(item, "rtmpose", Phrases(_HAND, {}), frames, "detector")
        times = {looked.index: looked.timestamp_s for looked in frames}
        for index, things in (proposer.earned(proposed) if proposer is not None else {}).items():
            rows += [_object(item, index, times[index], thing) for thing in things]
        return schema.from_rows("detections", rows)

    def _watch(self, item: ClipInput) -> Iterator[tuple[Frame, Looked]]:
        """One pass over the clip."""
        hands = Overlapping(self._options.patience_frames)
        for frame in item.frames():
            seen = []
            for box in rtm.find_boxes(self._detector, frame.rgb, self._options.min_score, self._options.max_iou):
                points_px, sure = rtm.find_points(self._points, frame.rgb, box.box_px)
                if sure >= self._options.min_points_score:
                    seen.append((box, points_px))
            looked = Looked(frame.index, frame.timestamp_s)
            numbers = hands([box.box_px for box, _ in seen])
            for number, (box, points_px) in zip(numbers, seen, strict=True):
                size_px = (frame.rgb.shape[1], frame.rgb.shape[0])
                landmarks = self._landmarks(frame.rgb, roi_from_landmarks(points_px))
                is_hand = landmarks.presence >= self._options.min_presence
                looked.things.append(Thing(number, _HAND, hand_box(points_px, size_px), box.score))
                looked.evidence[number] = evidence(points_px, landmarks.right if is_hand else 0.5)
                looked.points[number] = Landmarks(
                    points_px, landmarks.landmarks_m if is_hand else None, landmarks.presence, landmarks.right
                )
            yield frame, looked


def _hand_boxes(frame: Frame, looked: Looked) -> list[HandBox]:
    size_px = (frame.rgb.shape[1], frame.rgb.shape[0])
    return [
        HandBox("hand_right" if looked.evidence[number].right >= 0.5 else "hand_left", hand_box(seen.points_px, size_px), seen.points_px)
        for number, seen in looked.points.items()
    ]


def _object(item: ClipInput, index: int, timestamp_s: float, found: Proposal) -> dict[str, Any]:
    return common(item, index, timestamp_s, "rtmpose") | object_row(found)
