"""Stage `masks`: the pixels of hands and objects. One file a backend."""

from egoworld_ops.operators.base import Stage

STAGE = Stage(
    name="masks",
    doc="Masks of both hands and of objects, prompted by the detections, with stable track ids.",
    inputs=("detections",),
    default_backend="classical",
)
