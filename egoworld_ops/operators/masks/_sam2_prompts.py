"""Turns the detections of a clip into SAM 2 prompts. Which of them are used, and when, is the backend's policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

_COLUMNS = ["frame_index", "role", "track_id", "label", "box_px", "points_px", "score", "source"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt for one track in one frame.

    Args:
        track_id, role, label: as in the detections.
        box_px: (4,) float32, corners [x0, y0, x1, y1], within the image.
        points_px: (N, 2) float32, points on the thing, within the image; N may be 0.
        surest: no mask of it is surer: of a thing that was found automatically, the confidence that there is one.
        named: whether the sidecar names it.
    """

    track_id: int
    role: str
    label: str | None
    box_px: np.ndarray
    points_px: np.ndarray
    surest: float = 1.0
    named: bool = False


def prompts_by_frame(detections: pa.Table, hand_joints: tuple[int, ...], width: int, height: int) -> Mapping[int, Mapping[int, Prompt]]:
    """Prompts by `frame_index` and `track_id`. Left out: a detection whose box lies outside the image or is not finite,
    and hands that are not the left or right one of the person whose video it is.

    Args:
        detections: a table of the contract.
        hand_joints: which of a hand's 21 points are used beside its box.
        width, height: of the video, px.
    """
    found: dict[int, dict[int, Prompt]] = {}
    for row in detections.select(_COLUMNS).to_pylist():
        prompt = _prompt(row, hand_joints, width, height) if row["role"] != "hand_other" else None
        if prompt is not None:
            found.setdefault(row["frame_index"], {})[prompt.track_id] = prompt
    return found


def _prompt(row: Mapping[str, Any], hand_joints: tuple[int, ...], width: int, height: int) -> Prompt | None:
    x, y, w, h = row["box_px"]
    box = np.array([x, y, x + w, y + h], np.float32)
    box = np.clip(box, 0, np.array([width, height, width, height], np.float32) - 1)
    if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
        return None
    points = np.empty((0, 2), np.float32)
    if row["points_px"] is not None:
        points = np.asarray(row["points_px"], np.float32)[list(hand_joints)].reshape(-1, 2)
        points = points[((points >= 0) & (points <= [width - 1, height - 1])).all(1)]
    surest = float(row["score"]) if row["source"] == "motion_color" else 1.0
    return Prompt(row["track_id"], row["role"], row["label"], box, points, surest, row["source"] == "sidecar")
