"""Lenses: from points to pixels and back to rays, for each model in `types.LENS_MODELS`.

A ray first meets a plane: at unit depth (pinhole, plumb_bob, rational_polynomial), or as far from the centre as a polynomial of its angle to the
axis says (kannala_brandt, fisheye62, fisheye624). The plane is then distorted, and scaled by the focal lengths. Formulas:

* plumb_bob, rational_polynomial: Brown (1966) and Conrady (1919), as OpenCV's `projectPoints` has them;
* kannala_brandt: Kannala and Brandt (2006), as OpenCV's `fisheye` has it; angles beyond 90 degrees are kept, which OpenCV loses;
* fisheye62, fisheye624: `FisheyeRadTanThinPrism.h` of projectaria_tools.

Polynomials turn back beyond the angle they were fitted to, and then show two rays in one pixel. Each lens is used only within the disc around its
axis where that cannot happen: where the distortion of the plane has a Jacobian with a positive definite symmetric part, which makes a map on a disc
one-to-one, and where the polynomial of the angle grows. What lies beyond gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from egoworld_ops.types import Camera, LensModel

_PERSPECTIVE = ("plumb_bob", "rational_polynomial")
_STEEPEST_DEG = 89.0
"""Beyond this angle to the axis a ray does not count as seen by a lens that is described on the plane at unit depth."""
_LEAST_SLOPE = 1e-3
"""The picture must grow by at least this share of the axis' own scale; where it hardly grows, pixels do not tell rays apart."""
_RADII, _ANGLES = 2000, 48
_STEPS = 60
_EXACT = 1e-12
_NEAR = 1e-12
_CHECKED = 33
_OUTSIDE_PX = -1e4


def project(camera: Camera, points_m: np.ndarray) -> np.ndarray:
    """Pixels (..., 2) of points (..., 3) of the camera frame; NaN where the lens shows no point there: behind the camera, beyond its limit."""
    points = np.asarray(points_m, np.float64)
    if camera.is_pinhole:
        z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        return np.stack([camera.fx_px * points[..., 0] / z + camera.cx_px, camera.fy_px * points[..., 1] / z + camera.cy_px], -1)
    bent, _ = _distorted(camera.model, camera.distortion, _on_plane(camera, points))
    return bent * _focal(camera) + (camera.cx_px, camera.cy_px)


def unproject(camera: Camera, points_px: np.ndarray) -> np.ndarray:
    """Unit rays (..., 3), camera frame, that the lens shows at pixels (..., 2); NaN where it shows none. The inverse of `project`."""
    plane = (np.asarray(points_px, np.float64) - (camera.cx_px, camera.cy_px)) / _focal(camera)
    if camera.is_pinhole:
        return _unit(np.concatenate([plane, np.ones_like(plane[..., :1])], -1))
    flat = plane.reshape(-1, 2)
    straight = _undistorted(camera.model, camera.distortion, flat)
    if camera.model in _PERSPECTIVE:
        rays = _unit(np.concatenate([straight, np.ones((len(flat), 1))], -1))
    else:
        k = _radial(camera)
        radius = np.linalg.norm(straight, axis=1)
        angle = _solved(lambda a: _angular(k, a), radius, _limits(camera.model, camera.distortion)[0])
        across = straight * (np.sin(angle) / np.maximum(radius, _NEAR))[:, None]
        rays = np.concatenate([across, np.cos(angle)[:, None]], 1)
    return rays.reshape(*plane.shape[:-1], 3)


def derivative(camera: Camera, points_m: np.ndarray) -> np.ndarray:
    """(..., 2, 3) derivative of the pixel with respect to the point, pixels per metre; NaN where `project` is."""
    points = np.asarray(points_m, np.float64)
    x, y, z = np.moveaxis(points, -1, 0)
    if camera.is_pinhole or camera.model in _PERSPECTIVE:
        z = np.where(z > 0, z, np.nan)
        none = np.zeros_like(x)
        onto = np.stack([np.stack([1 / z, none, -x / z**2], -1), np.stack([none, 1 / z, -y / z**2], -1)], -2)
    else:
        onto = _angular_derivative(_radial(camera), points)
    if not camera.is_pinhole:
        _, J = _distorted(camera.model, camera.distortion, _on_plane(camera, points))
        onto = J @ onto
    return onto * _focal(camera)[:, None]


def pixels_per_radian(camera: Camera, rays: np.ndarray) -> np.ndarray:
    """(...,) how large the picture is around rays (..., 3): the root of pixels over solid angle; NaN where the lens shows nothing."""
    D = derivative(camera, _unit(np.asarray(rays, np.float64)))
    return np.sqrt(np.sqrt(np.linalg.det(D @ np.swapaxes(D, -1, -2))))


def rectified_map(camera: Camera, view: Camera, R_camera_view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows (H, W) float32 of a camera's picture for each pixel of a turned view from the same place; far outside where it shows none.

    For `cv2.remap` with a constant border. `R_camera_view` (3, 3) turns directions of the view into those of the camera.
    """
    v, u = np.mgrid[0 : view.height, 0 : view.width].astype(np.float64)
    there = project(camera, unproject(view, np.stack([u, v], -1)) @ R_camera_view.T)
    columns, rows = np.nan_to_num(there, nan=_OUTSIDE_PX).clip(_OUTSIDE_PX, -_OUTSIDE_PX).astype(np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(columns), np.ascontiguousarray(rows)


@lru_cache(maxsize=256)
def is_one_to_one(camera: Camera) -> bool:
    """Whether each pixel of the picture shows one ray. Of a fisheye, whose corners may be dark, the largest disc about the picture's middle must."""
    u, v = np.meshgrid(np.linspace(-0.5, camera.width - 0.5, _CHECKED), np.linspace(-0.5, camera.height - 0.5, _CHECKED))
    if camera.is_pinhole or camera.model in _PERSPECTIVE:
        counted = np.ones(u.shape, bool)
    else:
        off = np.hypot(u - (camera.width - 1) / 2, v - (camera.height - 1) / 2)
        counted = off <= min(camera.width, camera.height) / 2
    return bool(np.isfinite(unproject(camera, np.stack([u, v], -1)[counted])).all())


def _focal(camera: Camera) -> np.ndarray:
    return np.array([camera.fx_px, camera.fy_px])


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def _radial(camera: Camera) -> tuple[float, ...]:
    """Coefficients of the angle's polynomial."""
    return camera.distortion[:4] if camera.model == "kannala_brandt" else camera.distortion[:6]


def _angular(k: tuple[float, ...], angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance from the centre of the plane at an angle to the axis, and its derivative."""
    square, value, slope = angle**2, np.zeros_like(angle), np.zeros_like(angle)
    for i, coefficient in reversed(list(enumerate(k))):
        value = (value + coefficient) * square
        slope = (slope + (2 * i + 3) * coefficient) * square
    return angle * (1 + value), 1 + slope


def _on_plane(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Where (..., 2) points (..., 3) meet the plane, before it is distorted; NaN beyond the lens's limit."""
    limit, widest = _limits(camera.model, camera.distortion)
    if camera.model in _PERSPECTIVE:
        plane: np.ndarray = points[..., :2] / np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
    else:
        across = np.linalg.norm(points[..., :2], axis=-1)
        angle = np.arctan2(across, points[..., 2])
        radius = np.where(angle <= limit, _angular(_radial(camera), np.minimum(angle, limit))[0], np.nan)
        away = np.linalg.norm(points, axis=-1)
        central = across <= _NEAR * away
        scale = np.where(central, 1 / np.where(away > 0, away, np.nan), radius / np.where(central, 1, across))
        plane = points[..., :2] * np.where(np.isfinite(radius), scale, np.nan)[..., None]
    inside = np.linalg.norm(plane, axis=-1) <= widest
    return np.where(inside[..., None], plane, np.nan)


def _angular_derivative(k: tuple[float, ...], points: np.ndarray) -> np.ndarray:
    """(..., 2, 3) of the place on the plane by the point."""
    x, y, z = np.moveaxis(points, -1, 0)
    across = np.maximum(np.hypot(x, y), _NEAR * np.linalg.norm(points, axis=-1))
    u = np.stack([x, y], -1) / across[..., None]
    radius, slope = _angular(k, np.arctan2(across, z))
    square = across**2 + z**2
    by_angle = np.concatenate([u * (z / square)[..., None], -(across / square)[..., None]], -1)
    around = np.eye(2) - u[..., :, None] * u[..., None, :]
    onto = u[..., :, None] * (slope[..., None] * by_angle)[..., None, :]
    onto[..., :2] += (radius / across)[..., None, None] * around
    return onto


def _distorted(model: LensModel, d: tuple[float, ...], plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (..., 2) points (..., 2) of the plane are seen, and the (..., 2, 2) derivative."""
    x, y = np.moveaxis(plane, -1, 0)
    s = x**2 + y**2
    if model == "kannala_brandt":
        return plane, np.broadcast_to(np.eye(2), (*plane.shape[:-1], 2, 2))
    if model in _PERSPECTIVE:
        k1, k2, p1, p2, k3, k4, k5, k6 = (*d, *[0.0] * (8 - len(d)))
        above, below = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
        above_by_s, below_by_s = k1 + s * (2 * k2 + 3 * s * k3), k4 + s * (2 * k5 + 3 * s * k6)
        below = np.where(below > 0, below, np.nan)
        f = above / below
        f_by_s = (above_by_s - f * below_by_s) / below
        u = x * f + 2 * p1 * x * y + p2 * (s + 2 * x**2)
        v = y * f + p1 * (s + 2 * y**2) + 2 * p2 * x * y
        u_by_y = 2 * x * y * f_by_s + 2 * p1 * x + 2 * p2 * y
        u_by_x = f + 2 * x**2 * f_by_s + 2 * p1 * y + 6 * p2 * x
        v_by_y = f + 2 * y**2 * f_by_s + 6 * p1 * y + 2 * p2 * x
        return np.stack([u, v], -1), _matrix(u_by_x, u_by_y, u_by_y, v_by_y)
    p0, p1 = d[6:8]
    s0, s1, s2, s3 = d[8:] or (0.0,) * 4
    along = 2 * (x * p0 + y * p1)
    u = x + along * x + s * p0 + s * (s0 + s * s1)
    v = y + along * y + s * p1 + s * (s2 + s * s3)
    mixed, prism_u, prism_v = 2 * (x * p1 + y * p0), 2 * (s0 + 2 * s * s1), 2 * (s2 + 2 * s * s3)
    u_by_x, v_by_y = 1 + along + 4 * x * p0 + x * prism_u, 1 + along + 4 * y * p1 + y * prism_v
    return np.stack([u, v], -1), _matrix(u_by_x, mixed + y * prism_u, mixed + x * prism_v, v_by_y)


def _matrix(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    return np.stack([np.stack([a, b], -1), np.stack([c, d], -1)], -2)


def _undistorted(model: LensModel, d: tuple[float, ...], seen: np.ndarray) -> np.ndarray:
    """The points (N, 2) of the plane that are seen at (N, 2): Newton's steps within the disc where there is just one; NaN where there is none."""
    widest = _limits(model, d)[1]
    if model == "kannala_brandt":
        return np.where(np.linalg.norm(seen, axis=1, keepdims=True) <= widest, seen, np.nan)
    radius = np.linalg.norm(seen, axis=1)
    if model in _PERSPECTIVE:
        straight = (d[0], d[1], 0.0, 0.0, *d[4:])

        def along_x(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            bent, J = _distorted(model, straight, np.stack([r, np.zeros_like(r)], -1))
            return bent[:, 0], J[:, 0, 0]

        start = np.nan_to_num(_solved(along_x, radius, widest), nan=widest)
    else:
        start = np.minimum(radius, widest)
    plane = seen * (start / np.maximum(radius, _NEAR))[:, None]
    for _ in range(_STEPS):
        bent, J = _distorted(model, d, plane)
        moved = plane - np.linalg.solve(J, (bent - seen)[..., None])[..., 0]
        moved *= np.minimum(widest / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), _NEAR), 1)
        settled = not np.abs(moved - plane).max(initial=0) > _EXACT / 1000 * widest
        plane = moved
        if settled:
            break
    error = np.abs(_distorted(model, d, plane)[0] - seen).max(1)
    return np.where((error <= 10 * _EXACT * (1 + radius))[:, None], plane, np.nan)


def _solved(value: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], wanted: np.ndarray, limit: float) -> np.ndarray:
    """Where in [0, limit] a growing function, given with its derivative, has the values (N,), else NaN: Newton's steps between bisected bounds."""
    low, high = np.zeros_like(wanted), np.full_like(wanted, limit)
    beyond = ~(wanted <= value(high)[0])
    x = np.minimum(wanted, limit / 2)
    for _ in range(_STEPS):
        y, slope = value(x)
        error = y - wanted
        low, high = np.where(error < 0, x, low), np.where(error > 0, x, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = x - error / slope
        following = np.where((step >= low) & (step <= high), step, (low + high) / 2)
        if not np.abs(np.where(beyond, 0, following - x)).max(initial=0) > _EXACT / 1000:
            break
        x = following
    return np.where(beyond, np.nan, x)


@lru_cache(maxsize=256)
def _limits(model: LensModel, d: tuple[float, ...]) -> tuple[float, float]:
    """The greatest angle to the axis, radians, and the greatest distance from the centre of the plane, at which the lens is used."""
    if model in _PERSPECTIVE:
        radii = np.tan(np.radians(np.linspace(0, _STEEPEST_DEG, _RADII)))
        widest = _widest(model, d, radii)
        return float(np.arctan(widest)), widest
    k = d[:4] if model == "kannala_brandt" else d[:6]
    angles = np.linspace(0, np.pi, _RADII)[:-1]
    growing = _angular(k, angles)[1] >= _LEAST_SLOPE
    angles = angles[: len(growing) if growing.all() else int(growing.argmin())]
    radii = _angular(k, angles)[0]
    widest = _widest(model, d, radii)
    return float(angles[np.searchsorted(radii, widest, side="right") - 1]), widest


def _widest(model: LensModel, d: tuple[float, ...], radii: np.ndarray) -> float:
    """The greatest of growing radii up to which the distortion of the plane is one-to-one."""
    around = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
    plane = radii[:, None, None] * np.stack([np.cos(around), np.sin(around)], -1)
    _, J = _distorted(model, d, plane)
    a, b, c = J[..., 0, 0], (J[..., 0, 1] + J[..., 1, 0]) / 2, J[..., 1, 1]
    least = (a + c) / 2 - np.hypot((a - c) / 2, b)
    good = (least >= _LEAST_SLOPE).all(1)
    end = len(good) if good.all() else int(good.argmin())
    return float(radii[max(end - 1, 0)])
