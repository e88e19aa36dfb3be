"""The focal length of a pinhole camera from its own motion: structure from motion at several guesses, then bundle adjustment with it free.

A wrong focal length bends the path and the points, so that no rigid world explains all views as well as at the right one. A camera at rest shows
nothing of it; one that only turns does, but as little of a lens's distortion is enough to mislead, so it is refused too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.camera._sfm import reconstruct
from egoworld_ops.operators.camera.colmap import MIN_CORNERS, STILL_PX, most_moved, most_parallax, watch
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert
from egoworld_ops.vision.tracks import Sight
from egoworld_ops.vision.triangulation import triangulate_all

if TYPE_CHECKING:
    import pycolmap

GUESSES_DEG = (60.0, 85.0, 45.0, 105.0)
"""Fields of view along the longer side at which a reconstruction is begun, until two end at the same focal length."""
_TURNS_DEG = range(30, 135, 5)
"""Fields of view at which it is asked whether a rotation explains what is seen."""
_LEAST_PARALLAX = 1.5
"""What a rotation leaves of the corners, in errors of the corners, at the least."""
_AGREE = (4.0 / 640, 2.0 / 640, 2.0 / 640)
"""Errors up to which points are used, in each round, as shares of the picture's longer side."""
_SAME = 0.02
"""Two focal lengths are the same if they differ by less."""
_ALIKE, _FLOOR = 3.0, 0.003
"""Errors of corners are alike, so that the focal length errs more than if each were by itself; and by so much in any case."""
_MOST_ERROR = 0.08
_LEAST_POINTS, _LEAST_SEEN = 60, 3


@dataclass(frozen=True, slots=True)
class Estimate:
    """A focal length, px, with its standard error as a share of it; from so many points in so many keyframes, which agree within `error_px`."""

    focal_px: float
    error_share: float
    points: int
    keyframes: int
    error_px: float


def estimate(item: ClipInput, threads: int = 1) -> Estimate | Reason:
    """The focal length of a clip's camera, or why it cannot be known. The clip's own intrinsics give the principal point alone.

    Args:
        item: of a pinhole camera; tables `masks` and `hand_pose` say what is left out.
    """
    cv2.setNumThreads(threads)
    side_px, keyframes = max(item.camera.width, item.camera.height), watch(item).keyframes
    sights = [keyframe.sight for keyframe in keyframes]
    if sum(len(sight.ids) >= MIN_CORNERS for sight in sights) < _LEAST_SEEN:
        return Reason("no_texture", "too little texture to follow")
    if (moved := most_moved(sights)) < STILL_PX * side_px:
        return Reason("no_motion", f"the camera does not move: the picture moves by {moved / side_px:.2%} of its width at most")
    if min(most_parallax(_seen_at(item.camera, deg), sights)[2] for deg in _TURNS_DEG) < _LEAST_PARALLAX:
        return Reason("rotation_only", "the camera only turns, or moves too little for what it sees")
    found: list[Estimate] = []
    for deg in GUESSES_DEG:
        camera = _seen_at(item.camera, deg)
        mapped = reconstruct(camera, keyframes, most_parallax(camera, sights)[0])
        made = None if mapped is None else _refined(camera, sights, mapped.T_world_camera)
        if made is None:
            continue
        for other in found:
            if abs(made.focal_px / other.focal_px - 1) < _SAME:
                return _joined(made, other)
        found.append(made)
    return Reason(
        "not_registered",
        "no focal length explains what is seen: too little parallax, a lens that distorts, or too much that moves by itself",
    )


def _joined(one: Estimate, other: Estimate) -> Estimate | Reason:
    """The better of two estimates that agree, with what they differ by as a part of its error."""
    best = max(one, other, key=lambda each: each.points)
    share = float(np.hypot(best.error_share, abs(one.focal_px / other.focal_px - 1)))
    if share > _MOST_ERROR:
        return Reason("rotation_only", f"the focal length is known to {share:.0%} only: the camera moves too little for what it sees")
    return replace(best, error_share=share)


def _seen_at(camera: Camera, field_of_view_deg: float) -> Camera:
    focal_px = max(camera.width, camera.height) / (2 * np.tan(np.radians(field_of_view_deg) / 2))
    return replace(camera, fx_px=float(focal_px), fy_px=float(focal_px))


def _refined(camera: Camera, sights: Sequence[Sight], T_world_camera: Mapping[int, np.ndarray]) -> Estimate | None:
    """The focal length by bundle adjustment, in rounds that each take the points that agree; None where too few do."""
    made = None
    for agree in _AGREE:
        agree_px = agree * max(camera.width, camera.height)
        posed = [sight for sight in sights if sight.frame_index in T_world_camera]
        built = _built(camera, posed, T_world_camera, agree_px)
        if built.num_points3D() < _LEAST_POINTS or len(posed) < _LEAST_SEEN:
            return None
        sigma_px = _adjusted(built, agree_px / 4)
        focal_px, error_px = float(built.cameras[1].params[0]), float(built.compute_mean_reprojection_error())
        share = float(np.hypot(_ALIKE * sigma_px * error_px / focal_px, _FLOOR)) if np.isfinite(sigma_px) else np.inf
        made = Estimate(focal_px, share, built.num_points3D(), len(posed), error_px)
        camera = replace(camera, fx_px=focal_px, fy_px=focal_px)
        T_world_camera = {
            sight.frame_index: invert(np.vstack([built.images[number].cam_from_world().matrix(), [0, 0, 0, 1]]))
            for number, sight in enumerate(posed, 1)
        }
    return made


def _built(camera: Camera, posed: Sequence[Sight], T_world_camera: Mapping[int, np.ndarray], agree_px: float) -> pycolmap.Reconstruction:
    """Poses, and the points triangulated from them, as COLMAP has them; image `i + 1` is `posed[i]`."""
    import pycolmap

    points = {n: p for n, p in triangulate_all(camera, posed, T_world_camera, _LEAST_SEEN).items() if p.error_px <= agree_px}
    made = pycolmap.Reconstruction()
    params = [camera.fx_px, camera.cx_px, camera.cy_px]
    made.add_camera_with_trivial_rig(
        pycolmap.Camera(model="SIMPLE_PINHOLE", width=camera.width, height=camera.height, params=params, camera_id=1)
    )
    tracks = {n: pycolmap.Track() for n in points}
    for number, sight in enumerate(posed, 1):
        T = invert(T_world_camera[sight.frame_index])
        image = pycolmap.Image(name=f"{number:06d}", keypoints=sight.px, camera_id=1, image_id=number)
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(T[:3, :3]), T[:3, 3]))
        for position, corner in enumerate(sight.ids.tolist()):
            if corner in tracks:
                tracks[corner].add_element(number, position)
    for corner, track in tracks.items():
        made.add_point3D(points[corner].position, track, np.zeros(3, np.uint8))
    return made


def _adjusted(made: pycolmap.Reconstruction, width_px: float) -> float:
    """Adjust poses, points and the focal length; returns the standard deviation of that for errors of one pixel, NaN where it has none."""
    import pycolmap

    config = pycolmap.BundleAdjustmentConfig()
    for number in made.reg_image_ids():
        config.add_image(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary, options.refine_focal_length, options.refine_extra_params = False, True, False
    options.ceres.loss_function_type, options.ceres.loss_function_scale = pycolmap.LossFunctionType.CAUCHY, width_px
    options.ceres.solver_options.num_threads = 1
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, made)
    adjuster.solve()
    made.update_point_3d_errors()
    asked = pycolmap.BACovarianceOptions()
    asked.params = pycolmap.BACovarianceOptionsParams.ALL
    covariance = pycolmap.estimate_ba_covariance(asked, made, adjuster)
    of_focal = None if covariance is None else covariance.get_other_params_cov(made.cameras[1].params)
    return float("nan") if of_focal is None else float(np.sqrt(of_focal[0, 0]))
