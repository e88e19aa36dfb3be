"""Backend `hawor`: hands as MANO meshes by HaWoR (`_hawor_network.py`), which sees 16 frames of a hand together and where they lie before the camera.

Windows are of processed frames, from the clip's first one on, so that a frame has the same neighbours whatever else the clip holds. Where a hand is
not detected, the nearest frame of the window in which it is stands in for it; such frames have no row. The network is told the true focal length
and principal point, and says itself where the hand is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput
from egoworld_ops.operators.hand_pose import _mesh_backend
from egoworld_ops.operators.hand_pose._crops import HandCrop
from egoworld_ops.operators.hand_pose._mesh_backend import Detected, MeshBackend
from egoworld_ops.operators.hand_pose._weak_perspective import Placed, place_before
from egoworld_ops.types import Camera

if TYPE_CHECKING:
    from egoworld_ops.operators.hand_pose._mesh_model import Hands, Kind

_Window = dict[int, Detected]
"""The detected hands of one side in a window, by their place in it, in order."""


class Settings(_mesh_backend.Settings):
    """Options of `[stages.hand_pose.hawor]`: those of `hamer`, but for these."""

    micro_batch: Annotated[int, Field(ge=1, le=64)] = 1
    """Windows of 16 crops computed at once."""
    padding: Annotated[float, Field(ge=1, le=4)] = 1.2
    """By which the longer side of a box is grown; it is not widened."""


class Backend(MeshBackend):
    """HaWoR (Zhang et al., CVPR 2025), the network of hands alone: 692,700,474 numbers."""

    version: ClassVar[str] = "1"
    backend: ClassVar[str] = "hawor"
    network_mb: ClassVar[int] = 2771
    Settings: ClassVar[type[BackendSettings]] = Settings
    at_once: ClassVar[int] = 16
    aspect: ClassVar[float] = 1.0

    @classmethod
    def kind(cls) -> Kind:
        """HaWoR's network."""
        from egoworld_ops.operators.hand_pose._mesh_model import HAWOR

        return HAWOR

    def _batches(self, item: ClipInput) -> Iterator[list[_Window]]:
        """The clip's windows, as many at once as go through the network together."""
        found = self._hands(item.tables)
        waiting: list[_Window] = []
        window: dict[str, _Window] = {}
        for number, frame in enumerate(item.frames() if found else ()):
            if number % self.at_once == 0:
                waiting, window = [*waiting, *window.values()], {}
            for row in found.get(frame.index, ()):
                window.setdefault(row["role"], {})[number % self.at_once] = self._detected(item, frame, row)
            while len(waiting) >= self.micro_batch:
                yield waiting[: self.micro_batch]
                waiting = waiting[self.micro_batch :]
        waiting += window.values()
        for first in range(0, len(waiting), self.micro_batch):
            yield waiting[first : first + self.micro_batch]

    def _solved(self, batch: Sequence[_Window], camera: Camera) -> Iterator[dict[str, Any]]:
        cuts = [{at: d.crop for at, d in window.items() if isinstance(d.crop, HandCrop)} for window in batch]
        full = [[crops[min(crops, key=lambda at: abs(at - n))] for n in range(self.at_once)] for crops in cuts if crops]
        hands = None
        if full:
            images = np.stack([[crop.image for crop in crops] for crops in full])
            hands = self._model(images, np.array([[_where(crop) for crop in crops] for crops in full], np.float32))
        number = 0
        for window, crops in zip(batch, cuts, strict=True):
            for at, detected in window.items():
                yield from self._row(detected, hands, number * self.at_once + at, camera)
            number += bool(crops)

    def _placed(self, crop: HandCrop, hands: Hands, i: int) -> Placed | Reason:
        return place_before(crop, hands.joints_m[i], hands.camera[i])


def _where(crop: HandCrop) -> tuple[float, float, float]:
    """What the network is told of a crop."""
    from egoworld_ops.operators.hand_pose._hawor_network import where

    seen, size_px = crop.camera, crop.camera.width
    return where(size_px, (seen.fx_px + seen.fy_px) / 2, (size_px / 2, size_px / 2), (seen.cx_px, seen.cy_px))
