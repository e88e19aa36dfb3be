"""Settings of how videos are cut and of assumptions about their cameras."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from egoworld_ops.section import Section


class SceneSettings(Section):
    """Cuts and windows. Thresholds are PySceneDetect's own."""

    detector: Literal["adaptive", "content", "threshold"] = "adaptive"
    threshold: Annotated[float, Field(gt=0)] | None = None
    """None means PySceneDetect's default for the detector."""
    dissolves: bool = True
    """Also split scenes at cross-fades and at fades through a plain colour."""
    min_scene_s: Annotated[float, Field(gt=0)] = 0.6
    max_clip_s: Annotated[float, Field(gt=0)] = 30.0
    overlap_s: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _overlap_is_shorter_than_a_clip(self) -> SceneSettings:
        if self.overlap_s >= self.max_clip_s:
            raise ValueError(f"overlap_s ({self.overlap_s:g}) must be below max_clip_s ({self.max_clip_s:g})")
        return self


class CameraSettings(Section):
    """Assumptions for a video without intrinsics. `assumed_hfov_deg` is the field of view along the picture's longer side."""

    assumed_hfov_deg: Annotated[float, Field(gt=0, lt=180)] = 70.0
    require_known: bool = False
