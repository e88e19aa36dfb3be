"""From a mesh network's estimate of a hand in its crop to a place before the true camera.

HaMeR and its kind see a crop without a focal length, and say where the hand is by the scale and shift of a camera with nearly parallel rays. What
that fixes is where the joints are seen. So the joints are projected as the network has them and taken back to the video's pixels and rays, and the
hand of the network's own size is moved to where the true camera sees it there: least squares, linear in the translation. Its orientation is not
solved: the network gives it, in the frame of a camera that looks straight at the crop, and it is turned with that camera. Solved along with the
translation, it would follow the difference between parallel and true rays (docs/adr/0051).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.hand_pose._crops import HandCrop
from egoworld_ops.vision.geometry import project
from egoworld_ops.vision.lenses import unproject

_LEAST_COSINE = 0.05
"""Of the angle between a joint's ray and the middle of the crop; a hand that reaches farther around the camera is no hand."""
_LEAST_DEPTH_M = 0.02


@dataclass(frozen=True, slots=True)
class Placed:
    """A hand before the video's camera.

    Args:
        R_camera_model: (3, 3) from the actual hand's model (a left hand's is the mirror image of the right one's) to the camera.
        t_camera_model_m: (3,) where the model's origin is.
        joints_m: (21, 3) in the camera frame.
        joints_px: (21, 2) where the network sees them, in the video.
        reprojection_px: root mean square distance of the projected joints to those points.
    """

    R_camera_model: np.ndarray
    t_camera_model_m: np.ndarray
    joints_m: np.ndarray
    joints_px: np.ndarray
    reprojection_px: float


def place(crop: HandCrop, joints_m: np.ndarray, camera: np.ndarray, focal_px: float) -> Placed | Reason:
    """Where the hand is, or why that cannot be said.

    Args:
        crop: what the network saw.
        joints_m: (21, 3) of a right hand about the model's origin, axes of a camera that looks straight at the crop.
        camera: (3,) scale s and shift tx, ty in metres: the origin is at (tx, ty, 2 focal_px / (S s)) before a camera of `focal_px`.
        focal_px: of the network's own camera, in pixels of the crop.
    """
    size_px = crop.camera.width
    if not (np.isfinite(camera).all() and np.isfinite(joints_m).all() and camera[0] > 0):
        return Reason("no_fit", f"the network places the hand at a scale of {camera[0]:.2g}: it sees no hand there")
    before_m = joints_m + np.array([camera[1], camera[2], 2 * focal_px / (size_px * camera[0])])
    if not (before_m[:, 2] > 0).all():
        return Reason("no_fit", "the network places joints behind its camera: it sees no hand there")
    crop_px = focal_px * before_m[:, :2] / before_m[:, 2:] + size_px / 2
    rays = crop.to_camera_m(unproject(crop.camera, crop_px))
    joints_px = project(crop.lens, rays)
    if not np.isfinite(joints_px).all():
        return Reason("off_lens", f"a joint lies where the {crop.lens.model} lens shows nothing")
    in_view, own_m = rays @ crop.R_camera_view, crop.to_own_points(joints_m)
    if not (in_view[:, 2] > _LEAST_COSINE).all():
        return Reason("no_fit", "the network's joints reach around the camera: it sees no hand there")
    t_view_m = translation(own_m, in_view)
    if not (own_m[:, 2] + t_view_m[2] > _LEAST_DEPTH_M).all():
        return Reason("no_fit", "no place in front of the camera fits the network's joints")
    R, t_m = crop.R_camera_view, crop.R_camera_view @ t_view_m
    placed_m = own_m @ R.T + t_m
    squares = ((project(crop.lens, placed_m) - joints_px) ** 2).sum(1)
    return Placed(R, t_m, placed_m, joints_px, float(np.sqrt(squares.mean())))


def place_before(crop: HandCrop, joints_m: np.ndarray, camera: np.ndarray) -> Placed | Reason:
    """The same of a network that was told where its crop lies before the true camera (HaWoR): it says the place itself.

    Args:
        crop: what the network saw.
        joints_m: (21, 3) of a right hand about the model's origin, axes of the crop's camera.
        camera: (3,) scale s and shift tx, ty in metres from the ray through the middle of the crop: its size there is 2 / s.
    """
    size_px, seen = crop.camera.width, crop.camera
    if not (np.isfinite(camera).all() and np.isfinite(joints_m).all() and camera[0] > 0):
        return Reason("no_fit", f"the network places the hand at a scale of {camera[0]:.2g}: it sees no hand there")
    metres_per_px = 2 / (size_px * camera[0])
    middle_px = size_px / 2 - np.array([seen.cx_px, seen.cy_px])
    origin_m = np.append(camera[1:] + middle_px * metres_per_px, (seen.fx_px + seen.fy_px) / 2 * metres_per_px)
    placed_m = crop.to_camera_m(joints_m + origin_m)
    if not ((joints_m + origin_m)[:, 2] > _LEAST_DEPTH_M).all():
        return Reason("no_fit", "the network places joints behind the camera: it sees no hand there")
    joints_px = project(crop.lens, placed_m)
    if not np.isfinite(joints_px).all():
        return Reason("off_lens", f"a joint lies where the {crop.lens.model} lens shows nothing")
    return Placed(crop.R_camera_crop, crop.to_camera_m(origin_m), placed_m, joints_px, 0.0)


def translation(points_m: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(3,) that brings points (N, 3) nearest to rays (N, 3) with z > 0: least squares of x + tx = u (z + tz), y + ty = v (z + tz)."""
    uv = rays[:, :2] / rays[:, 2:]
    A = np.zeros((len(uv), 2, 3))
    A[:, 0, 0] = A[:, 1, 1] = 1
    A[..., 2] = -uv
    b = uv * points_m[:, 2:] - points_m[:, :2]
    return np.linalg.lstsq(A.reshape(-1, 3), b.ravel(), rcond=None)[0]
