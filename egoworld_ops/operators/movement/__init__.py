"""Stage `movement`: how objects move and which hand holds them. One file a backend."""

from egoworld_ops.operators.base import Stage

STAGE = Stage(
    name="movement",
    doc="Velocity of each object, whether it moves relative to the background, and which hand holds it.",
    inputs=("masks", "hand_pose", "object_pose"),
    default_backend="classical",
    sidecar=("camera",),
)
