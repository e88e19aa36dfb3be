"""Stage `detections`: hands and objects in each frame, the prompts for all that follows. One file a backend."""

from egoworld_ops.operators.base import Stage

STAGE = Stage(
    name="detections",
    doc="Hands (box, 21 points, left or right) and objects in or near them, tracked from frame to frame.",
    inputs=(),
    default_backend="mediapipe",
    sidecar=("objects",),
)
