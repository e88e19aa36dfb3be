"""Stage `object_pose`: 6D poses of masked objects. One file a backend."""

from egoworld_ops.operators.base import Stage

STAGE = Stage(
    name="object_pose",
    doc="6D pose of each masked object in the camera frame, with what fixed its scale.",
    inputs=("masks", "hand_pose"),
    default_backend="classical",
    sidecar=("camera", "objects"),
)
