"""Backend `mediapipe`: MediaPipe's palm and landmark networks follow both hands; objects are proposed in and near them.

The networks, crops and decoding are those of MediaPipe 0.10 (Zhang et al., "MediaPipe Hands: On-device Real-time Hand Tracking", 2020),
run by ai-edge-litert. How hands are followed is in `_tracking.py`, which of them is the wearer's left or right in `_sides.py`, objects in
`_proposals.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, cast

import cv2
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.contract import schema
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.detections._arms import evidence
from egoworld_ops.operators.detections._hand_rows import hand_box, jumped, track_ids, verdict_columns
from egoworld_ops.operators.detections._landmarks import LandmarkNetworks
from egoworld_ops.operators.detections._palm import PalmDetector
from egoworld_ops.operators.detections._proposals import HandBox, ObjectProposer, Proposal, ProposalSettings, object_row
from egoworld_ops.operators.detections._sides import Seen, Verdict, assign
from egoworld_ops.operators.detections._tracking import HandTracker, TrackedHand
from egoworld_ops.operators.rows import common
from egoworld_ops.read_ahead import ReadAhead
from egoworld_ops.types import Frame

Probability = Annotated[float, Field(gt=0, lt=1)]
_DECODED_AHEAD = 3
_MAX_NETWORK_THREADS = 4
"""More threads do not make networks of this size faster."""


class Settings(BackendSettings):
    """Options of `[stages.detections.mediapipe]`."""

    model: Literal["full", "lite"] = "full"
    """`lite` is about twice as fast and less exact."""
    num_hands: Annotated[int, Field(ge=1, le=2)] = 2
    """The wearer's. With 2, hands of other people are followed too where they are seen, up to two. With 1, whatever hand is found first."""
    min_palm_score: Probability = 0.5
    min_presence: Probability = 0.5
    """A followed hand whose presence falls below this is lost."""
    search_interval_frames: Annotated[int, Field(ge=1)] = 8
    """Processed frames between two searches for another hand while fewer than num_hands are followed. MediaPipe itself searches at each frame (1);
    a larger number is faster, but a new hand may be found that many frames later. A lost hand is searched for at once."""
    objects: bool = True
    """Also propose objects."""
    proposals: ProposalSettings = ProposalSettings()


@dataclass(slots=True)
class _Seen:
    """Findings in one frame, before left and right are decided."""

    index: int
    timestamp_s: float
    size_px: tuple[int, int]
    hands: list[TrackedHand]
    objects: list[Proposal] = field(default_factory=list)


class Backend(Operator):
    """Hands by MediaPipe's networks, objects by motion and colour or from the sidecar. `score` of a hand is its presence."""

    version: ClassVar[str] = "8"
    packages: ClassVar[tuple[str, ...]] = ("ai-edge-litert", "opencv-python-headless")
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 0.025

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the networks.

        Raises:
            WeightsMissing, WeightsMismatch: a network's file is not there, or not the one in the registry.
        """
        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        palm, landmark = (models.path(name) for name in self.weights(options))
        self._palms = PalmDetector(palm, min(_MAX_NETWORK_THREADS, max(1, threads // 2)), options.min_palm_score)
        self._landmarks = LandmarkNetworks(landmark, min(_MAX_NETWORK_THREADS, threads), options.num_hands)

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The palm network and the landmark network."""
        model = cast("Settings", settings).model
        return f"palm_detection_{model}", f"hand_landmark_{model}"

    def run(self, item: ClipInput) -> pa.Table:
        """Hands and objects of each processed frame; no rows where there is nothing."""
        cv2.setNumThreads(max(1, self.threads // 2))
        seen = self._watch(item)
        hands = [Seen(s.timestamp_s, {h.track: evidence(h.landmarks.points_px, h.landmarks.right) for h in s.hands}) for s in seen]
        verdicts = assign(hands)
        tracks = track_ids(verdicts)
        jumps = jumped(hands, tracks)
        rows: list[dict[str, Any]] = []
        for i, frame in enumerate(seen):
            shared = common(item, frame.index, frame.timestamp_s, "mediapipe")
            for hand in frame.hands:
                about = {"track_id": tracks[i][hand.track], "jumped": jumps[i][hand.track]}
                rows.append(shared | about | _hand_row(hand, verdicts[i][hand.track], frame.size_px))
            rows += [shared | object_row(p) for p in frame.objects]
        return schema.from_rows("detections", rows)

    def _watch(self, item: ClipInput) -> list[_Seen]:
        """One pass over the clip. Decoding runs ahead; objects are proposed in one frame while hands are followed in the next."""
        options = self._options
        clip_frames = range(item.clip.frame_start, item.clip.frame_end)
        proposer = ObjectProposer(options.proposals, item.sidecar.objects, clip_frames, item.sample_stride) if options.objects else None
        proposed: Future[list[Proposal]] | None = None
        seen: list[_Seen] = []
        with ThreadPoolExecutor(self.threads, "hands") as workers, self._frames(item) as frames:
            tracker = HandTracker(self._palms, self._landmarks, workers, options.min_presence, options.search_interval_frames)
            for frame in frames:
                hands = tracker(frame.rgb)
                if proposed is not None:
                    seen[-1].objects = proposed.result()
                if proposer is not None:
                    proposed = workers.submit(proposer.update, frame, _hand_boxes(frame, hands))
                seen.append(_Seen(frame.index, frame.timestamp_s, (frame.rgb.shape[1], frame.rgb.shape[0]), hands))
            if proposed is not None:
                seen[-1].objects = proposed.result()
        if proposer is not None:
            earned = proposer.earned({found.index: found.objects for found in seen})
            for found in seen:
                found.objects = earned.get(found.index, [])
        return seen

    @contextmanager
    def _frames(self, item: ClipInput) -> Iterator[Iterable[Frame]]:
        """The clip's frames, decoded ahead where there is more than one thread to use."""
        if self.threads == 1:
            yield item.frames()
            return
        with closing(ReadAhead(item.frames(), _DECODED_AHEAD)) as frames:
            yield frames


def _hand_boxes(frame: Frame, hands: Sequence[TrackedHand]) -> list[HandBox]:
    size_px = (frame.rgb.shape[1], frame.rgb.shape[0])
    return [
        HandBox("hand_right" if h.landmarks.right >= 0.5 else "hand_left", hand_box(h.landmarks.points_px, size_px), h.landmarks.points_px)
        for h in hands
    ]


def _hand_row(hand: TrackedHand, found: Verdict, size_px: tuple[int, int]) -> dict[str, Any]:
    seen = hand.landmarks
    return {
        **verdict_columns(found),
        "box_px": hand_box(seen.points_px, size_px),
        "points_px": seen.points_px,
        "landmarks_m": seen.landmarks_m,
        "score": min(seen.presence, 1.0),
        "score_age_s": 0.0,
        "source": hand.source,
    }
