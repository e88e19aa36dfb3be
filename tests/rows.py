"""Valid rows to start from in tests: those that the stages declare as samples, at a frame of a clip."""

from typing import Any

from egoworld_ops import operators

PER_FRAME = {"video_id": "kitchen-0123456789ab", "clip_id": "f0000000_0000010", "sample_stride": 1, "backend": "test"}


def sample_row(stage: str, frame_index: int, **change: Any) -> dict[str, Any]:
    """The first row that a stage declares as a sample."""
    at = {"frame_index": frame_index, "timestamp_s": frame_index / 30}
    return PER_FRAME | at | dict(operators.stages()[stage].sample[0]) | change


def detection_row(frame_index: int, **change: Any) -> dict[str, Any]:
    """A hand found in one frame."""
    return sample_row("detections", frame_index, **change)


def fusion_row(frame_index: int, **change: Any) -> dict[str, Any]:
    """A hand in the frames of a clip."""
    return sample_row("fusion", frame_index, **change)


def hand_pose_row(frame_index: int, **change: Any) -> dict[str, Any]:
    """A solved hand."""
    return sample_row("hand_pose", frame_index, **change)
