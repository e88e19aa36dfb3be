"""The rows of a clip, gathered map by map: each is compressed as it comes, and the clip's one scale is known at the end."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.depth._scale import Evidence
from egoworld_ops.operators.depth_maps import MOST_COUNTS, DepthMap, columns
from egoworld_ops.operators.rows import common, intrinsics
from egoworld_ops.types import Camera

FIT_ERROR_SHARE = 0.1
"""Between the errors of sizes that a person gives, and those of hands whose size a network assumes."""


class Rows:
    """Rows of table `depth` of one clip.

    Args:
        item: the clip.
        backend: what the rows say made them.
        source: column `depth_source`.
        camera: of the maps, from `depth_maps.map_camera`.
        step_m: what depths are rounded to.
        fit_error_share: largest error of the scale with which the depths are multiplied by it; None: never.
    """

    def __init__(
        self,
        item: ClipInput,
        backend: str,
        source: Literal["given", "network"],
        camera: Camera,
        step_m: float,
        fit_error_share: float | None = None,
    ) -> None:
        self._item, self._backend, self._camera, self._step_m = item, backend, camera, step_m
        self._error_share = item.sidecar.depth.error_share if source == "given" and item.sidecar.depth else None
        self._fit_error_share = fit_error_share
        self._every = intrinsics(item.camera) | {"depth_source": source}
        if source == "given" and item.sidecar.depth and item.sidecar.depth.measures == "z":
            self._every["metric"] = True  # what was measured does not rest on the focal length; z of a range rests on the ray
        self._evidence = Evidence(item)
        self._rows: list[dict[str, Any]] = []

    def add(self, frame_index: int, timestamp_s: float, z_m: np.ndarray | Reason, later_s: float | None = None) -> None:
        """A frame's map (h, w) in metres, NaN where unknown, or why there is none."""
        row = common(self._item, frame_index, timestamp_s, self._backend) | self._every | {"later_s": later_s}
        held = {} if isinstance(z_m, Reason) else columns(z_m, self._camera, self._step_m)
        if not isinstance(z_m, Reason) and not held["valid_share"]:
            beyond = f", all of it is beyond {MOST_COUNTS * self._step_m:.3g} m" if np.isfinite(z_m).any() else ""
            z_m = Reason("no_depth", f"the map holds no depth at all{beyond}")
        if isinstance(z_m, Reason):
            row |= z_m.columns()
        else:
            row |= held
            self._evidence.add(DepthMap(frame_index, z_m.astype(np.float32), self._camera, self._step_m))
        self._rows.append(row)

    def table(self) -> pa.Table:
        """Table `depth`; empty where no row was added."""
        if not self._rows:
            return schema.empty("depth")
        scale, error_share = self._evidence.fitted(), self._error_share
        applied, by_hands = 1.0, False
        if error_share is None and self._fit_error_share is not None:
            applied, error_share = scale.beside(self._fit_error_share)
            by_hands = scale.source == "hands"
        every = scale.columns() | {"scale_applied": applied != 1.0, "depth_error_share": error_share}
        if error_share is not None and not by_hands:
            every |= self._evidence.of_hands(applied, error_share)
        lengths = ({name: row[name] * applied for name in ("step_m", "median_m") if name in row} for row in self._rows)
        return schema.from_rows("depth", [row | every | of_row for row, of_row in zip(self._rows, lengths, strict=True)])
