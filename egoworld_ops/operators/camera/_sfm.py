"""Structure from motion of one clip by COLMAP (Schoenberger and Frahm, "Structure-from-Motion Revisited", 2016), through pycolmap.

The features are ours, corners followed from frame to frame and SIFT descriptors; their verification, the incremental mapping and the bundle
adjustment are COLMAP's. One thread and fixed seeds: equal features give equal results.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from egoworld_ops.operators.camera._initial import first_part, pinhole, window
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert
from egoworld_ops.vision.tracks import Sight

if TYPE_CHECKING:
    import pycolmap

_SEED = 1
_MATCHED_BACK = (1, 2, 3, 4, 5, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)
"""Each keyframe is matched with those so many keyframes before it: its neighbours, and some far back, where a path comes by again."""
_LOWE = 0.8
"""A descriptor's best match must be so much nearer than the second (Lowe, 2004)."""
_MIN_MATCHES = 20
_ERROR_SHARE = 2.5 / 640
"""Error up to which features agree with a geometry, share of the picture's longer side."""
_MIN_POINTS = 30
_ANGLES_DEG = (0.2, 1.5)
"""Limits of the least angle between two rays to a point; within them a quarter of the angle that the corners have: a head may move little."""


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A frame that is mapped: its corners, and its SIFT features: positions (M, 2) px of the video's picture, descriptors (M, 128) of length 1."""

    sight: Sight
    sift_px: np.ndarray
    sift: np.ndarray


@dataclass(frozen=True, slots=True)
class Mapped:
    """What was reconstructed, up to one unknown scale.

    Args:
        T_world_camera: (4, 4) of each registered keyframe, by its frame.
        points: (3,) of each corner that was triangulated, by its number.
        sigma: of each registered keyframe, by its frame: standard deviation of its position, in units, and of its rotation, radians, relative to the
            first; from the covariance of the bundle adjustment.
    """

    T_world_camera: Mapping[int, np.ndarray]
    points: Mapping[int, np.ndarray]
    sigma: Mapping[int, tuple[float, float]] = field(default_factory=dict)


def describe(grey: np.ndarray, free: np.ndarray, count: int = 700) -> tuple[np.ndarray, np.ndarray]:
    """SIFT features of a picture (h, w) uint8 where `free` is not 0: positions (M, 2) in its pixels, RootSIFT descriptors (M, 128) float32."""
    found, vectors = cv2.SIFT.create(nfeatures=count).detectAndCompute(grey, free)
    if not found or vectors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    vectors = np.sqrt(vectors / np.maximum(vectors.sum(1, keepdims=True), 1e-7))
    return np.array([point.pt for point in found], np.float64), vectors.astype(np.float32)


def reconstruct(camera: Camera, keyframes: Sequence[Keyframe], reference: int) -> Mapped | None:
    """The path of the camera over the keyframes, and the points that it saw; None where they do not explain one another.

    Args:
        camera: pinhole, taken as exact.
        keyframes: in order of time.
        reference: position of the keyframe around which to begin, where the corners show most parallax.
    """
    import pycolmap

    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL.value)
    sights = [keyframe.sight for keyframe in keyframes]
    error_px = _ERROR_SHARE * max(camera.width, camera.height)
    placed = [np.concatenate([keyframe.sight.px, keyframe.sift_px]) for keyframe in keyframes]
    begun = first_part(camera, sights, placed, window(sights, reference), reference, error_px / 2)
    if begun.num_points3D() < _MIN_POINTS:
        return None
    with tempfile.TemporaryDirectory(prefix="egoworld-colmap-") as folder:
        database, first = Path(folder, "database.db"), Path(folder, "first")
        _write(database, camera, keyframes, placed)
        first.mkdir()
        begun.write_binary(first)
        pycolmap.set_random_seed(_SEED)
        made = pycolmap.incremental_mapping(database, folder, folder, _options(error_px, angle_deg(begun)), first)
    return _mapped(max(made.values(), key=lambda each: each.num_reg_images()), keyframes) if made else None


def angle_deg(made: pycolmap.Reconstruction) -> float:
    """The median over the points of the widest angle between two rays to one."""
    centres = {number: made.images[number].projection_center() for number in made.reg_image_ids()}
    widest = []
    for point in made.points3D.values():
        rays = np.array([point.xyz - centres[element.image_id] for element in point.track.elements])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        widest.append(np.degrees(np.arccos(np.clip((rays @ rays.T).min(), -1, 1))))
    return float(np.median(widest)) if widest else 0.0


def _options(error_px: float, seen_deg: float) -> pycolmap.IncrementalPipelineOptions:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.multiple_models, options.extract_colors, options.min_model_size = False, False, 3
    options.num_threads, options.random_seed = 1, _SEED
    options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    options.min_num_matches = _MIN_MATCHES
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    mapper, triangulation = options.mapper, options.triangulation
    mapper.num_threads, mapper.random_seed, triangulation.random_seed = 1, _SEED, _SEED
    mapper.abs_pose_refine_focal_length = mapper.abs_pose_refine_extra_params = False
    mapper.abs_pose_max_error, mapper.abs_pose_min_num_inliers = 2 * error_px, _MIN_MATCHES
    mapper.filter_max_reproj_error = error_px
    triangulation.merge_max_reproj_error = triangulation.complete_max_reproj_error = error_px
    mapper.filter_min_tri_angle = triangulation.min_angle = float(np.clip(seen_deg / 4, *_ANGLES_DEG))
    return options


def _write(database: Path, camera: Camera, keyframes: Sequence[Keyframe], placed: Sequence[np.ndarray]) -> None:
    """Write features and verified matches."""
    import pycolmap

    lens = pinhole(camera)
    verifying = pycolmap.TwoViewGeometryOptions()
    verifying.min_num_inliers, verifying.detect_watermark, verifying.ransac.random_seed = _MIN_MATCHES, False, _SEED
    verifying.ransac.max_error = _ERROR_SHARE * max(camera.width, camera.height)
    with pycolmap.Database.open(database) as base:
        lens.has_prior_focal_length = True
        base.write_camera(lens, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(lens.sensor_id)
        base.write_rig(rig, use_rig_id=True)
        for number, px in enumerate(placed, 1):
            image = pycolmap.Image(name=f"{number:06d}", camera_id=1, image_id=number)
            base.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=number, rig_id=1)
            frame.add_data_id(image.data_id)
            base.write_frame(frame, use_frame_id=True)
            base.write_keypoints(number, px.astype(np.float32))
        for second in range(len(keyframes)):
            for first in (second - back for back in _MATCHED_BACK if back <= second):
                matches = _matches(keyframes[first], keyframes[second])
                if len(matches) < _MIN_MATCHES:
                    continue
                geometry = pycolmap.estimate_calibrated_two_view_geometry(lens, placed[first], lens, placed[second], matches, verifying)
                if len(geometry.inlier_matches) >= _MIN_MATCHES:
                    base.write_matches(first + 1, second + 1, matches)
                    base.write_two_view_geometry(first + 1, second + 1, geometry)


def _matches(one: Keyframe, other: Keyframe) -> np.ndarray:
    """Numbers (M, 2) uint32 of features of both that match: the corners that both see, and SIFT features that are each other's nearest."""
    _, first, second = np.intersect1d(one.sight.ids, other.sight.ids, assume_unique=True, return_indices=True)
    pairs = [np.stack([first, second], 1)]
    if len(one.sift) > 2 and len(other.sift) > 2:
        likeness = one.sift @ other.sift.T
        pairs.append(_mutual(likeness) + np.array([len(one.sight.ids), len(other.sight.ids)]))
    return np.concatenate(pairs).astype(np.uint32)


def _mutual(likeness: np.ndarray) -> np.ndarray:
    """Pairs (M, 2) of rows and columns of a matrix of cosines that are each other's best, the best far better than the second."""
    best = likeness.argmax(1)
    top = np.partition(likeness, -2, 1)[:, -2:]
    distance = np.sqrt(np.maximum(2 - 2 * top, 0))
    kept = (distance[:, 1] < _LOWE * distance[:, 0]) & (likeness.argmax(0)[best] == np.arange(len(best)))
    return np.stack([np.flatnonzero(kept), best[kept]], 1)


def _mapped(made: pycolmap.Reconstruction, keyframes: Sequence[Keyframe]) -> Mapped:
    poses, corners = {}, {}
    for number in sorted(made.reg_image_ids()):
        image, sight = made.images[number], keyframes[number - 1].sight
        poses[sight.frame_index] = invert(np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]]))
        for position, point in enumerate(image.points2D[: len(sight.ids)]):
            if point.has_point3D():
                corners[int(sight.ids[position])] = np.array(made.points3D[point.point3D_id].xyz)
    return Mapped(poses, corners, _sigma(made, keyframes))


def _sigma(made: pycolmap.Reconstruction, keyframes: Sequence[Keyframe]) -> dict[int, tuple[float, float]]:
    """Standard deviations of the registered keyframes, by frame, from the covariance of one more bundle adjustment; none where it has none."""
    import pycolmap

    config = pycolmap.BundleAdjustmentConfig()
    for number in made.reg_image_ids():
        config.add_image(number)
    config.set_constant_cam_intrinsics(1)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = options.refine_principal_point = options.refine_extra_params = options.print_summary = False
    options.ceres.solver_options.num_threads = 1
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, made)
    adjuster.solve()
    asked = pycolmap.BACovarianceOptions()
    asked.params = pycolmap.BACovarianceOptionsParams.POSES
    covariance = pycolmap.estimate_ba_covariance(asked, made, adjuster)
    if covariance is None:
        return {}
    made.update_point_3d_errors()
    pixel = made.compute_mean_reprojection_error()
    found = {}
    for number in made.reg_image_ids():
        C = covariance.get_cam_cov_from_world(number)
        if C is None:
            found[keyframes[number - 1].sight.frame_index] = (0.0, 0.0)
        elif np.isfinite(C).all():
            rotation, position = pixel * np.sqrt(np.trace(C[:3, :3])), pixel * np.sqrt(np.trace(C[3:, 3:]))
            found[keyframes[number - 1].sight.frame_index] = float(position), float(rotation)
    return found
