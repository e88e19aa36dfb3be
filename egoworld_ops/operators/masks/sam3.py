"""Backend `sam3`: the masks that `detections.sam3` found with its boxes. It runs no network.

SAM 3 detects and follows by text in one pass, so the pixels are in the detections; here they become masks of the same tracks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSettings
from egoworld_ops.operators.base import ClipInput, Operator
from egoworld_ops.operators.masks._pixels import pixel_columns
from egoworld_ops.operators.rows import PASSED_ON
from egoworld_ops.vision import rle

_PASSED_ON = (*PASSED_ON, "role", "track_id", "label", "score", "backend")


class Backend(Operator):
    """Masks of the detections. `score` is the detection's."""

    version: ClassVar[str] = "1"
    packages: ClassVar[tuple[str, ...]] = ("pycocotools",)
    seconds_per_frame: ClassVar[float] = 0.005

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never: it works on tables alone."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """One mask for each detection of a hand of the wearer or of an object.

        Raises:
            BadSettings: the detections hold no pixels.
        """
        found = item.tables["detections"].filter(pc.field("role") != "hand_other")
        if found["rle"].null_count:
            backends = ", ".join(sorted(set(found["backend"].to_pylist())))
            reason = f"it is `sam3`, which takes the pixels of detections, and those of `{backends}` have none"
            raise BadSettings(
                "setting stages.masks.backend", reason, "Set stages.detections.backend to `sam3`, or name another backend of masks"
            )
        rows = []
        for detected in found.select([*_PASSED_ON, "rle"]).to_pylist():
            pixels = pixel_columns(np.asarray(rle.decode(detected.pop("rle"))))
            if pixels is not None:
                rows.append(detected | {"observed": True, **pixels})
        return schema.from_rows("masks", rows)
