"""What the stages say of each thing in a frame, and how well it fits together there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.operators.rows import camera_of, pose_of
from egoworld_ops.vision import boxes, rle
from egoworld_ops.vision.lenses import project

HAND_TRACKS = {"left": 1, "right": 2}
"""As the contract numbers them."""
_COLLAPSED_M = 1e-3
_GRID = 40
_LEAST_SEEN = 0.3
"""Where less of the outline than this share is free of other things, it tells nothing."""
_CORNERS = np.array(list(product((-0.5, 0.5), repeat=3)))


@dataclass(frozen=True)
class Thing:
    """One thing in one frame: its rows, each None where a stage has none; and where the hand that `fusion` made of it is seen, (21, 2) px. Values are
    None where they cannot be told."""

    track_id: int
    role: str
    label: str | None
    detection: Mapping[str, Any] | None
    mask: Mapping[str, Any] | None
    pose: Mapping[str, Any] | None
    fused_px: np.ndarray | None = None

    @property
    def any_row(self) -> Mapping[str, Any]:
        """A row of it."""
        return next(row for row in (self.detection, self.mask, self.pose) if row is not None)

    @property
    def is_hand(self) -> bool:
        """Whether it is a hand."""
        return self.role != "object"

    @cached_property
    def box_px(self) -> np.ndarray | None:
        """(4,) the detection's box."""
        return None if self.detection is None else np.asarray(self.detection["box_px"], np.float64)

    @cached_property
    def found_px(self) -> np.ndarray | None:
        """(21, 2) the detection's points of a hand."""
        given = None if self.detection is None else self.detection["points_px"]
        return None if given is None else np.asarray(given, np.float64)

    @cached_property
    def mask_box_px(self) -> np.ndarray | None:
        """(4,) the mask's box."""
        return None if self.mask is None else np.asarray(self.mask["bbox_px"], np.float64)

    @cached_property
    def joints_px(self) -> np.ndarray | None:
        """(21, 2) image points of a hand's pose."""
        return np.asarray(self.pose["joints_px"], np.float64) if self.is_hand and self.pose is not None else None

    @cached_property
    def joints_m(self) -> np.ndarray | None:
        """(21, 3) joints of a hand's pose, camera frame."""
        given = self.pose["joints_m"] if self.is_hand and self.pose is not None else None
        return None if given is None else np.asarray(given, np.float64)

    @cached_property
    def projected_px(self) -> np.ndarray | None:
        """(21, 2) joints of a hand, or (8, 2) corners of an object, seen through the lens that its row states; NaN where it shows none."""
        if self.pose is None:
            return None
        if self.is_hand:
            return None if self.joints_m is None else project(camera_of(self.pose), self.joints_m)
        T = pose_of(self.pose)
        if T is None or self.pose["dimensions_m"] is None:
            return None
        corners_m = _CORNERS * np.asarray(self.pose["dimensions_m"], np.float64)
        return project(camera_of(self.pose), corners_m @ T[:3, :3].T + T[:3, 3])

    @cached_property
    def size_px(self) -> float | None:
        """Of a hand: the root of the area of the box of its joints; of an object, of its mask's box."""
        if self.joints_px is not None:
            return float(np.sqrt(np.ptp(self.joints_px, axis=0).prod())) or None
        return None if self.mask_box_px is None else float(np.sqrt(self.mask_box_px[2:].prod())) or None

    @property
    def has_mesh(self) -> bool:
        """Whether it is an object whose pose was solved with a mesh, not with a cuboid."""
        return not self.is_hand and self.pose is not None and self.pose["scale_source"] == "mesh"

    @property
    def expected_box_px(self) -> np.ndarray | None:
        """(4,) where the pose says that an object is in the picture, else where it was found."""
        if self.is_hand or self.projected_px is None or not np.isfinite(self.projected_px).all():
            return self.box_px
        low, high = self.projected_px.min(0), self.projected_px.max(0)
        return np.concatenate([low, high - low])

    @property
    def collapsed(self) -> bool:
        """Whether the joints of a hand lie in one point."""
        given = self.pose["joints_wrist_m"] if self.is_hand and self.pose is not None else None
        return given is not None and bool(np.ptp(np.asarray(given, np.float64), axis=0).max() < _COLLAPSED_M)

    @property
    def box_iou(self) -> float | None:
        """Overlap of the boxes of detection and mask."""
        if self.box_px is None or self.mask_box_px is None:
            return None
        return float(boxes.iou(self.box_px, self.mask_box_px))

    @cached_property
    def inside_share(self) -> float | None:
        """Share of the hand's joints in its own mask."""
        return None if self.mask is None or self.joints_px is None else self.inside(self.mask)

    @cached_property
    def fused_inside_share(self) -> float | None:
        """The same of its joints after fusion."""
        return None if self.mask is None or self.fused_px is None else float(in_mask(self.mask, self.fused_px).mean())

    def inside(self, mask: Mapping[str, Any]) -> float:
        """Share of the hand's joints in a mask."""
        assert self.joints_px is not None
        return float(in_mask(mask, self.joints_px).mean())

    @property
    def projection_share(self) -> float | None:
        """Distance of projected joints from image points, in hand sizes."""
        if self.joints_px is None or self.projected_px is None or self.size_px is None:
            return None
        away = np.linalg.norm(self.projected_px - self.joints_px, axis=1)
        return float(np.sqrt((away**2).mean()) / self.size_px) if np.isfinite(away).all() else None

    @property
    def filled_share(self) -> float | None:
        """Pixels of the mask over those of the detection's box, or, without one, of the box of the pose."""
        room_px: float | None = None if self.box_px is None else float(self.box_px[2:].prod())
        if room_px is None and self.projected_px is not None:
            room_px = float(np.ptp(self.projected_px, axis=0).prod())
        if self.mask is None or not room_px or not np.isfinite(room_px):
            return None
        return float(rle.area(self.mask["rle"]) / self.mask["mask_scale"] ** 2 / room_px)


def in_mask(mask: Mapping[str, Any], points_px: np.ndarray) -> np.ndarray:
    """(...,) bool: whether points (..., 2) of the video's pixels lie in a mask's row."""
    return rle.at(mask["rle"], (points_px + 0.5) * mask["mask_scale"] - 0.5)


def by_frame_and_track(tables: Mapping[str, pa.Table]) -> dict[int, dict[int, Thing]]:
    """The things of each frame by track, in order. Hands of other people are left out: no other stage speaks of them."""
    found: dict[int, dict[int, dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for kind, track_id, role, row in _rows(tables):
        found[row["frame_index"]][track_id].update({kind: row, "role": role})
    for index, track_id, fused_px in _fused(tables):
        if track_id in found.get(index, {}):
            found[index][track_id]["fused_px"] = fused_px
    return {index: {t: _thing(t, rows) for t, rows in sorted(of_frame.items())} for index, of_frame in sorted(found.items())}


def _fused(tables: Mapping[str, pa.Table]) -> Iterator[tuple[int, int, np.ndarray]]:
    """Frame, track and joints (21, 2) px of each hand of `fusion`. Its rows do not name the camera: it is that of `hand_pose`, the same in a clip."""
    camera = next((camera_of(row) for row in tables["hand_pose"].slice(0, 1).to_pylist()), None)
    for row in tables["fusion"].select(["frame_index", "hand", "joints_m"]).to_pylist():
        if camera is not None and row["joints_m"] is not None:
            yield row["frame_index"], HAND_TRACKS[row["hand"]], project(camera, np.array(row["joints_m"], np.float64))


def _rows(tables: Mapping[str, pa.Table]) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
    for kind, stage in (("detection", "detections"), ("mask", "masks"), ("pose", "hand_pose"), ("pose", "object_pose")):
        read = [name for name in tables[stage].column_names if name != "vertices_wrist_m"]
        for row in tables[stage].select(read).to_pylist():
            if stage == "hand_pose":
                yield kind, HAND_TRACKS[row["hand"]], f"hand_{row['hand']}", row
            elif row.get("role") != "hand_other":
                yield kind, row["track_id"], row.get("role", "object"), row


def _thing(track_id: int, rows: Mapping[str, Any]) -> Thing:
    detection, mask, pose = (rows.get(kind) for kind in ("detection", "mask", "pose"))
    label = next((row["label"] for row in (detection, mask, pose) if row is not None and row.get("label")), None)
    return Thing(track_id, rows["role"], label, detection, mask, pose, rows.get("fused_px"))


def fit(things: Mapping[int, Thing]) -> tuple[dict[int, int], dict[int, float]]:
    """Which mask each thing fits best, one to one, and how well each fits its own, 0 to 1; only of things that can be compared.

    A hand with a pose fits a mask as far as its joints lie in it, an object by the box of its projected pose, all else by the detection's box.
    Hands are matched with masks of hands.
    """
    from scipy.optimize import linear_sum_assignment

    matched: dict[int, int] = {}
    own: dict[int, float] = {}
    for hands in (True, False):
        of_kind = [t for t in things.values() if t.is_hand == hands and (t.joints_px is not None or t.expected_box_px is not None)]
        masked = [t for t in things.values() if t.is_hand == hands and t.mask is not None]
        if not of_kind or not masked:
            continue
        fits = np.array([[_fit(a, b) for b in masked] for a in of_kind])
        for i, j in zip(*linear_sum_assignment(-fits), strict=True):
            if fits[i, j] > 0:
                matched[of_kind[i].track_id] = masked[j].track_id
        own |= {a.track_id: float(fits[i, j]) for i, a in enumerate(of_kind) for j, b in enumerate(masked) if a.track_id == b.track_id}
    return matched, own


def _fit(thing: Thing, other: Thing) -> float:
    assert other.mask is not None
    if thing.joints_px is not None:
        return thing.inside(other.mask)
    return float(boxes.iou(np.asarray(thing.expected_box_px), np.asarray(other.mask_box_px)))


def doubled(things: Mapping[int, Thing], least_iou: float) -> set[int]:
    """Tracks whose pixels are those of an earlier track of the frame."""
    masked = [t for t in things.values() if t.mask is not None]
    found = set()
    for n, second in enumerate(masked):
        for first in masked[:n]:
            near = boxes.iou(np.asarray(first.mask_box_px), np.asarray(second.mask_box_px)) >= least_iou / 2
            if near and _mask_iou(first, second) >= least_iou:
                found.add(second.track_id)
    return found


def _mask_iou(first: Thing, second: Thing) -> float:
    assert first.mask is not None
    assert second.mask is not None
    a, b = first.mask["rle"], second.mask["rle"]
    return rle.iou(a, b) if list(a["size"]) == list(b["size"]) else 0.0


def outline(thing: Thing, things: Mapping[int, Thing]) -> dict[str, float]:
    """`outline_iou` and `mask_in_outline_share` of an object whose pose is verified and seen; nothing of others.

    The first is over pixels where no other thing's mask is. What is round fills its cuboid's outline by half; it is inside of it all the same.
    """
    pose = thing.pose
    if thing.is_hand or thing.mask is None or pose is None or not (pose["converged"] and pose["observed"]):
        return {}
    corners = thing.projected_px
    if corners is None or not np.isfinite(corners).all():
        return {}
    x, y, width, height = np.asarray(thing.mask_box_px)
    low, high = np.minimum(corners.min(0), (x, y)), np.maximum(corners.max(0), (x + width, y + height))
    points = np.stack(np.meshgrid(*(np.linspace(a, b, _GRID) for a, b in zip(low, high, strict=True))), -1).reshape(-1, 2)
    shape, mask = _in_hull(corners, points), in_mask(thing.mask, points)
    hidden = np.zeros(len(points), bool)
    for other in things.values():
        if other.track_id != thing.track_id and other.mask is not None:
            hidden |= in_mask(other.mask, points)
    hidden |= ~_in_picture(thing.mask, points)
    hidden &= ~mask
    if (shape & ~hidden).sum() < _LEAST_SEEN * shape.sum() or not mask.any():
        return {}
    both, either = (shape & mask).sum(), ((shape & ~hidden) | mask).sum()
    return {"outline_iou": float(both / either), "mask_in_outline_share": float(both / mask.sum())}


def _in_picture(mask: Mapping[str, Any], points_px: np.ndarray) -> np.ndarray:
    height, width = mask["rle"]["size"]
    return ((points_px >= 0) & (points_px <= np.array([width, height]) / mask["mask_scale"])).all(1)


def _in_hull(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N,) bool: which points (N, 2) are within the convex hull of corners (K, 2)."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        hull = ConvexHull(corners)
    except QhullError:  # seen from the edge: no area
        return np.zeros(len(points), bool)
    return (points @ hull.equations[:, :2].T + hull.equations[:, 2] <= 1e-9).all(1)
