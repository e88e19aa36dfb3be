"""Object poses without learned weights: followed points, edges and outlines against a known shape; shape from motion where none is known.

With `dimensions_m` or `mesh` in the sidecar the size is metric by itself. Without either, shape and motion are recovered up to one factor, and depth
of known error, or a hand that holds the object, gives that factor; where neither does, the pose is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.object_pose._shapes import Shape, cuboid, read_mesh
from egoworld_ops.operators.object_pose._solve import Estimate, Solved, solve
from egoworld_ops.operators.object_pose._structure import Measured, Structured, solve_unknown
from egoworld_ops.operators.object_pose._tracking import MIN_MASK_SHARE, Follower, Track
from egoworld_ops.operators.object_pose._twins import exchangeable
from egoworld_ops.operators.object_pose._verify import UNVERIFIED, Judged, held_between, judge_track
from egoworld_ops.operators.object_pose._working import SIDE_PX, scale_of, scaled
from egoworld_ops.operators.rectifying import run_rectified
from egoworld_ops.operators.rows import by_frame, common, depth_error_share, intrinsics, pose_columns
from egoworld_ops.types import Camera
from egoworld_ops.video.sidecar import SidecarObject, mesh_path
from egoworld_ops.vision import rle

NAME = "classical"
_MASK_COLUMNS = ("frame_index", "track_id", "role", "label", "rle", "area_px", "observed")
HAND_ERROR_SHARE = 0.2
"""Standard error of an object's size where a hand fixes it that is as long as the network says."""
MASK_ERROR_SHARE = 0.02
"""Standard error of the size that a mask shows a thing with: its border lies a pixel or two beside the thing's, all around. Masks of a real ball are
3.5 % too large (`benchmarks.bench_rgbd`), and the true ones of rendered scenes are exact; points do not tell, as they are lifted onto the pose."""
MAX_CONVERGED_PX = 2.0


class Backend(Operator):
    """The `classical` backend of object_pose."""

    version = "16"
    packages = ("opencv-python-headless", "scipy", "trimesh", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = BackendSettings
    seconds_per_frame: ClassVar[float] = 0.06
    handles_lenses: ClassVar[bool] = True

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Only if an object is masked."""
        return "object" in tables["masks"]["role"].unique().to_pylist()

    def run(self, item: ClipInput) -> pa.Table:
        """Table `object_pose`: one row for every frame in which an object is masked.

        Raises:
            BadSidecar: a mesh named in the sidecar holds no closed surface.
        """
        table = run_rectified("object_pose", item, self._solved)
        unposed = _unposed(item, table)
        if not unposed:
            return table
        rows = sorted(table.to_pylist() + unposed, key=lambda row: (row["track_id"], row["frame_index"]))
        return schema.from_rows("object_pose", rows)

    def _solved(self, item: ClipInput) -> pa.Table:
        """The rows of a clip that a pinhole camera sees."""
        cv2.setNumThreads(self.threads)
        tracks, given = observe(item), described(item.sidecar.objects, _labels(item.tables["masks"]))
        shapes = {track.track_id: _shape(item, given.get(track.track_id)) for track in tracks}
        twins = exchangeable(tracks, shapes)
        measured = cache(lambda: Measured.of(item, HAND_ERROR_SHARE))
        rows: list[dict[str, Any]] = []
        for track in tracks:
            shape, camera, judged = shapes[track.track_id], scaled(item.camera, track.scale), None
            reasons: list[Reason | None] = []
            if shape is None:
                solved = solve_unknown(camera, track, measured())
                reasons = [_unsure(solved)] * len(track.sightings)
            else:
                posed = solve(camera, shape, track)
                solved = Structured(posed.outcomes, shape.dimensions_m, shape.scale_source)
                judged, reasons = _judge(camera, shape, track, posed)
                reasons = [reason or _twin(twins, track, s.frame_index) for reason, s in zip(reasons, track.sightings, strict=True)]
            rows += [_row(item, track, i, solved, judged, reasons[i]) for i in range(len(track.sightings))]
        return schema.from_rows("object_pose", rows) if rows else schema.empty("object_pose")


def _judge(camera: Camera, shape: Shape, track: Track, posed: Solved) -> tuple[Judged, list[Reason | None]]:
    """The poses beside all masks, frames that they were not solved by, and some of those they were; and of each frame why it is not to be trusted."""
    poses = [None if isinstance(outcome, Reason) else outcome.T_camera_object for outcome in posed.outcomes]
    times_s, seen = [s.timestamp_s for s in track.sightings], [s.seen for s in track.sightings]
    judged = judge_track(camera, shape, poses, times_s, seen, track.checks, track.keyframes, posed.runners_up, posed.found)
    alone = [o if isinstance(o, Reason) else judged.reason(i, o.turn_sd_deg) or _misfit(o) for i, o in enumerate(posed.outcomes)]
    return judged, held_between(shape, poses, times_s, alone)


def _unsure(solved: Structured) -> Reason | None:
    """What speaks against a pose of a shape that was itself found from the pictures; None where no scale was found, and so no pose."""
    if solved.scale_source == "none":
        return None
    fixes = "depth" if solved.scale_source == "depth" else "a hand's size"
    share = f"{100 * solved.size_error_share:.0f} %"
    return Reason(
        "scale_uncertain", f"no size is given to check the pose by; {fixes}, which fixes the scale, is known to some {share} only"
    )


def _twin(twins: Mapping[tuple[int, int], int], track: Track, frame_index: int) -> Reason | None:
    """What speaks against a track's being the thing it is named after, in a frame."""
    other = twins.get((track.track_id, frame_index))
    return (
        None
        if other is None
        else Reason("ambiguous", f"track {other}, of the same size and colour, touches it: which is which is not sure")
    )


def described(objects: Sequence[SidecarObject], labels: dict[int, str | None]) -> dict[int, SidecarObject]:
    """The sidecar's object that each track is, by track id; tracks that it does not describe are left out.

    A track is the object of its label. One without a label is matched only if nothing else is possible: the sidecar names one object and no
    place of it in the video, and the clip has this one track without a label and none with the object's. A wrong match would invent a size.

    Args:
        objects: as in the sidecar; their labels differ.
        labels: the label of each object track of the clip, by track id.
    """
    by_label = {item.label: item for item in objects}
    found = {track_id: by_label[label] for track_id, label in labels.items() if label in by_label}
    unlabelled = [track_id for track_id, label in labels.items() if label is None]
    if not found and len(unlabelled) == len(objects) == 1 and not objects[0].prompts:
        found[unlabelled[0]] = objects[0]
    return found


def _labels(masks: pa.Table) -> dict[int, str | None]:
    """The label of each object track, by track id."""
    return {row["track_id"]: row["label"] for row in masks.select(["track_id", "role", "label"]).to_pylist() if row["role"] == "object"}


def _shape(item: ClipInput, given: SidecarObject | None) -> Shape | None:
    """The shape that the sidecar gives for an object, a mesh before dimensions; None where it gives none."""
    if given is None:
        return None
    if given.mesh is not None:
        return read_mesh(mesh_path(item.clip.video_path.parent, given.mesh))
    return None if given.dimensions_m is None else cuboid(given.dimensions_m)


def observe(item: ClipInput) -> list[Track]:
    """Follow points on every masked object through the clip, in one pass over its frames."""
    masks = by_frame(item.tables["masks"], _MASK_COLUMNS)
    areas: dict[int, list[float]] = {}
    for row in (row for rows in masks.values() for row in rows if _is_shown(row)):
        areas.setdefault(row["track_id"], []).append(_area_share(row) * item.camera.width * item.camera.height)
    followers: dict[int, Follower] = {}
    for frame in item.frames() if areas else ():
        rows = masks.get(frame.index, [])
        objects = [row for row in rows if _is_shown(row)]
        for lost in followers.keys() - {row["track_id"] for row in objects}:
            followers[lost].lose()
        size = (frame.rgb.shape[0], frame.rgb.shape[1])
        decoded = {row["track_id"]: rle.decode_at(row["rle"], size) for row in (rows if objects else ())}
        for row in objects:
            track_id = row["track_id"]
            if track_id not in followers:
                followers[track_id] = Follower(Track(track_id, row["label"], scale_of(areas[track_id])))
            others = [mask for other, mask in decoded.items() if other != track_id]
            hands = np.logical_or.reduce([np.zeros(size, bool) if item.unseen is None else item.unseen, *others])
            mask = decoded[track_id] & ~hands
            if mask.any():
                followers[track_id].see(frame, mask, hands, row["observed"])
    return [follower.track for _, follower in sorted(followers.items()) if follower.track.sightings]


def _area_share(row: dict[str, Any]) -> float:
    """Of the picture, that a mask covers."""
    return float(row["area_px"] / (row["rle"]["size"][0] * row["rle"]["size"][1]))


def _is_shown(row: dict[str, Any]) -> bool:
    """Whether a row of masks is of an object, and large enough to be posed."""
    return row["role"] == "object" and _area_share(row) >= MIN_MASK_SHARE


def _row(item: ClipInput, track: Track, position: int, solved: Structured, judged: Judged | None, reason: Reason | None) -> dict[str, Any]:
    sighting, outcome, camera = track.sightings[position], solved.outcomes[position], item.camera
    row = common(item, sighting.frame_index, sighting.timestamp_s, NAME) | intrinsics(camera)
    row |= {
        "track_id": track.track_id,
        "label": track.label,
        "dimensions_m": solved.dimensions_m,
        "scale_source": solved.scale_source,
        "converged": False,
        "observed": sighting.observed,
    }
    if isinstance(outcome, Reason):
        return row | outcome.columns()
    row |= _pose_columns(outcome, track.scale)
    if judged is not None:
        row |= {"mask_iou": judged.ious[position], "symmetry": judged.symmetry, "score": judged.score(position, reason is None)}
        row |= {} if judged.verdict is None else {"support": judged.verdict.support, "margin": judged.verdict.margin}
    row["depth_error_share"] = _depth_error(camera, outcome, solved, track.scale, None if judged is None else judged.ious[position])
    return row | ({"converged": True} if reason is None else reason.columns())


def _unposed(item: ClipInput, table: pa.Table) -> list[dict[str, Any]]:
    """Rows for the masks of objects that have none yet: nothing of them could be worked on, and each says why."""
    known = set(zip(table["frame_index"].to_pylist(), table["track_id"].to_pylist(), strict=True))
    masks = item.tables["masks"].select([*_MASK_COLUMNS, "timestamp_s"]).to_pylist()
    left = [row for row in masks if row["role"] == "object" and (row["frame_index"], row["track_id"]) not in known]
    about = {"scale_source": "none", "converged": False}
    return [
        common(item, row["frame_index"], row["timestamp_s"], NAME)
        | intrinsics(item.camera)
        | {name: row[name] for name in ("track_id", "label", "observed")}
        | about
        | _why_unposed(item.camera, row).columns()
        for row in left
    ]


def _why_unposed(camera: Camera, row: dict[str, Any]) -> Reason:
    if not _is_shown(row):
        return Reason("too_small", f"the mask covers {_area_share(row):.1g} of the picture, {MIN_MASK_SHARE:.0e} are needed")
    if not camera.is_pinhole:
        return Reason("off_lens", "the object lies more than 70 degrees from the middle of its view, or where the lens shows nothing")
    return Reason("too_hidden", "other masks cover all of the object")


def _depth_error(camera: Camera, estimate: Estimate, solved: Structured, scale: float, iou: float | None) -> float | None:
    """Standard error of the depth as a share of it; null where no size is known, from which it would follow, or nothing to tell it by.

    Without points, an outline that misses a share of the mask may be off in size by half of that.
    """
    if solved.dimensions_m is None:
        return None
    if estimate.reprojection_px is not None:
        extent_px = camera.fx_px * float(np.max(solved.dimensions_m)) / float(estimate.T_camera_object[2, 3])
        fit_share = estimate.reprojection_px / scale / extent_px
    elif iou is not None:
        fit_share = (1 - iou) / 2
    else:
        return None
    return depth_error_share(camera, solved.size_error_share, math.hypot(MASK_ERROR_SHARE, fit_share))


def _pose_columns(estimate: Estimate, scale: float) -> dict[str, Any]:
    T, error_px = estimate.T_camera_object, estimate.reprojection_px
    return pose_columns(T[:3, :3], T[:3, 3]) | {
        "score": UNVERIFIED * float(np.clip(estimate.score or 0, 0, 1)),
        "method": estimate.method,
        "inliers": estimate.inliers,
        "reprojection_px": None if error_px is None else error_px / scale,
        "reprojection_share": None if error_px is None else error_px / SIDE_PX,
    }


def _misfit(estimate: Estimate) -> Reason | None:
    """What speaks against a pose among the points it was solved by; nothing if it was solved by none."""
    if estimate.reprojection_px is None or estimate.reprojection_px <= MAX_CONVERGED_PX:
        return None
    return Reason("no_fit", f"the points are off by more than {100 * MAX_CONVERGED_PX / SIDE_PX:.1f} % of the object's size")
