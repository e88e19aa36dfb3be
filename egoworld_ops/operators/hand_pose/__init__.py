"""Stage `hand_pose`: metric hand joints in the camera frame. One file a backend."""

from egoworld_ops.operators.base import Stage

STAGE = Stage(
    name="hand_pose",
    doc="3D joints of each hand in the camera frame and in its own wrist frame.",
    inputs=("detections",),
    default_backend="mediapipe",
    sidecar=("camera",),
)
