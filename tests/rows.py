"""Valid rows to start from in tests."""

from typing import Any

import numpy as np

PER_FRAME = {"video_id": "kitchen-0123456789ab", "clip_id": "f0000000_0000010", "sample_stride": 1, "backend": "test"}


def detection_row(frame_index: int, **change: Any) -> dict[str, Any]:
    """A hand found in one frame."""
    row = {
        "frame_index": frame_index,
        "timestamp_s": frame_index / 30,
        "role": "hand_left",
        "track_id": 1,
        "box_px": np.array([10.0, 20.0, 30.0, 40.0]),
        "points_px": np.tile([15.0, 25.0], (21, 1)),
        "landmarks_m": np.zeros((21, 3)),
        "score": 0.9,
        "handedness_score": 0.9,
        "source": "palm",
    }
    return PER_FRAME | row | change


def hand_pose_row(frame_index: int, **change: Any) -> dict[str, Any]:
    """A solved hand."""
    row = {
        "frame_index": frame_index,
        "timestamp_s": frame_index / 30,
        "hand": "left",
        "score": 0.9,
        "joints_px": np.tile([15.0, 25.0], (21, 1)),
        "joints_m": np.tile([0.0, 0.0, 0.5], (21, 1)),
        "joints_wrist_m": np.zeros((21, 3)),
        "qw": 1.0,
        "qx": 0.0,
        "qy": 0.0,
        "qz": 0.0,
        "x_m": 0.0,
        "y_m": 0.0,
        "z_m": 0.5,
        "reprojection_px": 1.0,
        "fx_px": 500.0,
        "fy_px": 500.0,
        "cx_px": 319.5,
        "cy_px": 239.5,
        "intrinsics_source": "file",
        "observed": True,
    }
    return PER_FRAME | row | change
