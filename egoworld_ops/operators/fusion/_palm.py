"""The palm of one hand over a clip: a body of one shape that turns, and bends slowly. numpy in, numpy out.

The wrist frame hangs on the knuckles of index and middle finger, which are three centimetres apart: a few millimetres of noise on one of them turn
it by a tenth of a radian, and the fingertips with it. All knuckles and the wrist together know three times as well how the palm is turned.
"""

from __future__ import annotations

import numpy as np

from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.fusion import _smooth

BONES = np.array([0, 4, 8, 12, 16])
"""From the wrist to the thumb's first joint and to the knuckles."""
SHAPE_ROUNDS = 4


def smooth(
    tracks: Tracks,
    directions: np.ndarray,
    seen: np.ndarray,
    lengths_m: np.ndarray,
    believed: _smooth.Range,
    accelerations: tuple[float, float],
    limit: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The palm's bones from those of single frames.

    Args:
        directions: (T, 20, 3) unit vectors of all bones.
        seen: (T,) bool.
        lengths_m: (20,) of the bones.
        believed: noise of a direction, rad.
        accelerations: usual ones of the palm's turning and of its bones in it, rad/s^2.
        limit: standard errors beyond which a frame has no weight.

    Returns:
        (T, 5, 3) directions, not of unit length, and (T,) weights of the frames, 0 to 1.
    """
    own = directions[:, BONES]
    R, shape = _turned(own * lengths_m[BONES, None], seen)
    rigid = shape @ R.transpose(0, 2, 1)
    bent = (own - rigid) @ R
    smoothed = []
    for values, acceleration in zip((rigid, bent), accelerations, strict=True):
        flat = values.reshape(len(values), -1)
        noise = _smooth.noise(tracks, flat, seen, believed)
        smoothed.append(_smooth.smooth(tracks, flat, seen, noise, acceleration, limit))
    (rigid, weights), (bent, _) = smoothed
    return rigid.reshape(own.shape) + bent.reshape(own.shape) @ R.transpose(0, 2, 1), weights


def _turned(points_m: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, 3, 3) that turn a palm of one shape to (T, 5, 3) points about the wrist, and (5, 3) the directions of its bones.

    The shape is the median of the seen frames, each turned to it, whose first one it starts from. The wrist counts as one point more: where it
    alone is off, it does not turn the palm.
    """
    about_m = np.pad(points_m, ((0, 0), (1, 0), (0, 0)))
    shape_m = about_m[np.flatnonzero(seen)[0]]
    for _ in range(SHAPE_ROUNDS):
        shape_m = np.median((about_m @ _rotations(about_m, shape_m))[seen], axis=0)
    shape_m = shape_m[1:] - shape_m[0]
    R = _rotations(about_m, np.pad(shape_m, ((1, 0), (0, 0))))
    return R, shape_m / np.maximum(np.linalg.norm(shape_m, axis=1, keepdims=True), 1e-9)


def _rotations(points_m: np.ndarray, shape_m: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotations that bring the (n, 3) shape nearest to (T, n, 3) points, up to a shift (Kabsch 1976)."""
    centred = points_m - points_m.mean(1, keepdims=True)
    U, _, Vt = np.linalg.svd(centred.transpose(0, 2, 1) @ (shape_m - shape_m.mean(0)))
    U[..., 2] *= np.where(np.linalg.det(U @ Vt) < 0, -1.0, 1.0)[:, None]
    R: np.ndarray = U @ Vt
    return R
