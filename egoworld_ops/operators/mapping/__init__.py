"""Stage `mapping`: human hand poses retargeted to robot hands. One file a backend."""

from egoworld_ops.operators.base import Stage

STAGE = Stage(
    name="mapping",
    doc="Joint angles of a robot hand that follows each human hand.",
    inputs=("hand_pose",),
    default_backend="dex",
)
