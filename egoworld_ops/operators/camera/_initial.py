"""The first part of a reconstruction: some neighbouring keyframes whose corners are all near one another in the picture.

Two views of a flat table have two explanations, and with little motion even many views of anything have (the reversal of depth), so that the usual
start, from the geometry of two views, ends in the wrong one with a small error. A start from points at one depth seen by a camera that only turns,
then a bundle adjustment of all views at once, finds the right one (Yu and Gallup, "3D Reconstruction from Accidental Motion", 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from egoworld_ops.operators.camera._motion import rays, turned
from egoworld_ops.types import Camera
from egoworld_ops.vision.tracks import Sight

if TYPE_CHECKING:
    import pycolmap

_WIDTHS = (12.0, 4.0, 1.0)
"""Widths of the loss of one adjustment after the other, in errors that are expected: what moves by itself loses its weight step by step."""
_SHARED, _LONGEST = 0.3, 12
"""Share of the reference's corners that a view must see, and number of views of the first part, at most."""
MIN_SEEN = 3
"""Views in which a corner of the first part is seen, at least."""


def window(sights: Sequence[Sight], reference: int) -> list[int]:
    """Positions of the views around `reference` that still see enough of its corners, in order."""
    own = sights[reference].ids
    chosen = [reference]
    for step in (1, -1):
        at = reference + step
        while 0 <= at < len(sights) and len(np.intersect1d(own, sights[at].ids, assume_unique=True)) >= _SHARED * len(own):
            chosen.append(at)
            at += step
    nearest = sorted(chosen, key=lambda at: abs(at - reference))[:_LONGEST]
    return sorted(nearest)


def pinhole(camera: Camera) -> pycolmap.Camera:
    """The camera as COLMAP has it, its number 1."""
    import pycolmap

    params = [camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px]
    return pycolmap.Camera(model="PINHOLE", width=camera.width, height=camera.height, params=params, camera_id=1)


def first_part(
    camera: Camera, sights: Sequence[Sight], placed: Sequence[np.ndarray], views: Sequence[int], reference: int, error_px: float
) -> pycolmap.Reconstruction:
    """Poses of the views and points of the reference's corners, with median depth 1 in the reference.

    Image `i + 1` is `sights[i]`; its features are `placed[i]` (N, 2) px, of which the first are the corners of that sight, in order.
    """
    import pycolmap

    made = pycolmap.Reconstruction()
    lens = pinhole(camera)
    made.add_camera_with_trivial_rig(lens)
    seen: dict[int, list[tuple[int, int]]] = {int(i): [] for i in sights[reference].ids}
    for view in views:
        sight = sights[view]
        R, _ = turned(camera, sights[reference], sight)
        image = pycolmap.Image(name=f"{view + 1:06d}", keypoints=placed[view], camera_id=1, image_id=view + 1)
        made.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(R), np.zeros(3)))
        for position, number in enumerate(sight.ids):
            if int(number) in seen:
                seen[int(number)].append((view + 1, position))
    for number, ray in zip(sights[reference].ids, rays(camera, sights[reference].px), strict=True):
        where = seen[int(number)]
        if len(where) >= MIN_SEEN:
            track = pycolmap.Track()
            for image_id, position in where:
                track.add_element(image_id, position)
            made.add_point3D(ray / ray[2], track, np.zeros(3, np.uint8))
    for width in _WIDTHS:
        _adjust(made, reference + 1, width * error_px)
        _drop(made, 3 * width * error_px)
    return made


def _drop(made: pycolmap.Reconstruction, error_px: float) -> None:
    """Remove points that any view sees farther than `error_px` from where it should, or that lie behind it."""
    for number in list(made.point3D_ids()):
        point = made.points3D[number]
        for element in point.track.elements:
            image = made.images[element.image_id]
            there = image.project_point(point.xyz)
            if there is None or np.linalg.norm(there - image.points2D[element.point2D_idx].xy) > error_px:
                made.delete_point3D(number)
                break


def _adjust(made: pycolmap.Reconstruction, fixed: int, width_px: float) -> None:
    """Bundle adjustment with a loss of that width; the scale is free, and set afterwards to a median depth of 1."""
    import pycolmap

    config = pycolmap.BundleAdjustmentConfig()
    for number in made.reg_image_ids():
        config.add_image(number)
    config.set_constant_cam_intrinsics(1)
    config.set_constant_rig_from_world_pose(made.images[fixed].frame_id)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = False
    options.ceres.loss_function_type, options.ceres.loss_function_scale = pycolmap.LossFunctionType.CAUCHY, width_px
    options.ceres.solver_options.num_threads = 1
    pycolmap.create_default_ceres_bundle_adjuster(options, config, made).solve()
    depths = [point.xyz[2] for point in made.points3D.values()]
    if depths and np.median(depths) > 0:
        made.transform(pycolmap.Sim3d(1 / float(np.median(depths)), pycolmap.Rotation3d(), np.zeros(3)))
