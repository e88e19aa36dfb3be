"""Lenses against OpenCV, against themselves (there and back), and where they must say nothing."""

import cv2
import numpy as np
import pytest

from egoworld_ops.types import Camera
from egoworld_ops.vision.lenses import derivative, is_one_to_one, pixels_per_radian, project, rectified_map, unproject

PINHOLE = Camera(500, 510, 322, 238, 640, 480, "file")
WIDE = Camera(245, 245, 319.5, 239.5, 640, 480, "file", "kannala_brandt", (0.02, -0.008, 0.003, -0.0006))
"""About 150 degrees from left to right."""
ARIA = (0.41, -0.48, 0.22, 1.1, -1.7, 0.65, 0.0005, -0.0004)
LENSES = (
    PINHOLE,
    Camera(500, 510, 322, 238, 640, 480, "file", "plumb_bob", (-0.28, 0.09, 0.0012, -0.0007)),
    Camera(500, 510, 322, 238, 640, 480, "file", "plumb_bob", (-0.35, 0.15, 0.0012, -0.0007, -0.03)),
    Camera(612, 612, 640, 360, 1280, 720, "file", "rational_polynomial", (0.53, -2.55, 0.0005, -0.0001, 1.47, 0.41, -2.37, 1.39)),
    WIDE,
    Camera(610, 610, 715, 716, 1408, 1408, "file", "fisheye62", ARIA),
    Camera(610, 610, 715, 716, 1408, 1408, "file", "fisheye624", (*ARIA, 0.0009, -0.0001, -0.0006, 0.0001)),
)
FOLDING = Camera(400, 400, 319.5, 239.5, 640, 480, "file", "plumb_bob", (-0.5, 0.0, 0.0, 0.0))
"""Turns back at a radius of 0.816: 327 px from the middle, within the picture."""
names = pytest.mark.parametrize("camera", LENSES, ids=[f"{c.model}{len(c.distortion)}" for c in LENSES])


def grid(camera: Camera, n: int = 60) -> np.ndarray:
    u, v = np.meshgrid(np.linspace(-0.5, camera.width - 0.5, n), np.linspace(-0.5, camera.height - 0.5, n))
    return np.stack([u, v], -1)


def points(camera: Camera) -> np.ndarray:
    rays = unproject(camera, grid(camera)).reshape(-1, 3)
    return rays * np.random.default_rng(1).uniform(0.2, 3, (len(rays), 1))


@names
def test_every_pixel_comes_back(camera: Camera) -> None:
    there = grid(camera)
    rays = unproject(camera, there)
    assert np.linalg.norm(rays, axis=-1) == pytest.approx(1)
    assert is_one_to_one(camera)
    assert np.abs(project(camera, 0.7 * rays) - there).max() < 1e-6


@names
def test_as_opencv_has_it(camera: Camera) -> None:
    seen, none = points(camera), np.zeros(3)
    K = np.array([[camera.fx_px, 0, camera.cx_px], [0, camera.fy_px, camera.cy_px], [0, 0, 1]])
    if camera.model.startswith("fisheye"):
        pytest.skip("OpenCV has no such model; tests/egoworld_ops/test_hot3d.py checks it against a calibration")
    if camera.model == "kannala_brandt":
        seen = seen[seen[:, 2] > 0.01]
        want = cv2.fisheye.projectPoints(seen[:, None], none, none, K, np.array(camera.distortion))[0]
    else:
        want = cv2.projectPoints(seen, none, none, K, np.array(camera.distortion))[0]
    assert np.abs(project(camera, seen) - want.reshape(-1, 2)).max() < 1e-8


@names
def test_the_derivative_is_that_of_differences(camera: Camera) -> None:
    at, h = points(camera)[::37], 1e-6
    central = [(project(camera, at + h * axis) - project(camera, at - h * axis)) / (2 * h) for axis in np.eye(3)]
    found = derivative(camera, at)
    assert np.abs(found - np.stack(central, -1)).max() < 1e-5 * np.abs(found).max()
    assert pixels_per_radian(camera, np.array([0.0, 0.0, 1.0])) == pytest.approx(np.sqrt(camera.fx_px * camera.fy_px), rel=0.01)


@names
def test_nothing_is_seen_behind_or_at_the_camera(camera: Camera) -> None:
    behind = np.array([[0.0, 0, -1], [0.1, 0.2, -1], [0, 0, 0], [1e-9, 0, -2]])
    assert np.isnan(project(camera, behind)).all()


@names
def test_no_point_beyond_the_limit_is_shown_within_the_picture(camera: Camera) -> None:
    """Over the whole sphere, what projects into the picture is what the pixel there looks at: no second ray."""
    rays = np.random.default_rng(2).normal(size=(20_000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    pixels = project(camera, rays)
    inside = ((pixels > -0.5) & (pixels < np.array([camera.width, camera.height]) - 0.5)).all(1)
    assert inside.any()
    assert np.abs(unproject(camera, pixels[inside]) - rays[inside]).max() < 1e-7


def test_a_wide_lens_sees_beyond_ninety_degrees() -> None:
    side = np.array([np.sin(np.radians(100)), 0, np.cos(np.radians(100))])
    assert np.isfinite(project(WIDE, side)).all()
    assert unproject(WIDE, project(WIDE, side)) == pytest.approx(side)


def test_a_lens_that_folds_says_nothing_beyond_the_fold() -> None:
    assert not is_one_to_one(FOLDING)
    reach = np.tan(np.radians(np.linspace(0, 80, 500)))
    pixels = project(FOLDING, np.stack([reach, 0 * reach, np.ones_like(reach)], 1))[:, 0]
    shown = pixels[np.isfinite(pixels)]
    assert 0.80 < reach[len(shown) - 1] < 0.8165
    assert (np.diff(shown) > 0).all()
    assert np.isnan(unproject(FOLDING, np.array([600.0, 400.0]))).all()


def test_a_matrix_alone_is_refused_for_a_lens() -> None:
    with pytest.raises(ValueError, match="kannala_brandt lens is no pinhole"):
        _ = WIDE.K


@pytest.mark.parametrize(
    ("model", "distortion", "said"),
    [
        ("plumb_bob", (0.1, 0.1, 0.0), "4 or 5 finite"),
        ("pinhole", (0.1,), "0 finite"),
        ("fisheye624", (0.0,) * 8, "12 finite"),
        ("kannala_brandt", (0.0, 0.0, 0.0, float("nan")), "4 finite"),
        ("equidistant", (0.0,) * 4, "want one of"),
    ],
)
def test_a_lens_of_the_wrong_number_of_coefficients_is_refused(model: str, distortion: tuple[float, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Camera(500, 500, 320, 240, 640, 480, "file", model, distortion)  # type: ignore[arg-type]


def test_a_rectified_view_shows_straight_lines_straight() -> None:
    """A picture of a plane's lines through the wide lens, rectified into a view turned by 40 degrees: a line is where the view projects it."""
    turn = np.radians(40)
    R = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    view = Camera(260, 260, 149.5, 149.5, 300, 300, "file")
    line = R @ np.stack([np.linspace(-0.4, 0.4, 2000), 0.3 + 0 * np.linspace(-0.4, 0.4, 2000), np.ones(2000)])
    picture = np.zeros((480, 640), np.float32)
    for u, v in np.round(project(WIDE, line.T)).astype(int):
        picture[v, u] = 1
    columns, rows = rectified_map(WIDE, view, R)
    seen = cv2.remap(picture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    at = [float((np.arange(300) * column).sum() / column.sum()) for column in seen.T[60:240]]
    assert np.array(at) == pytest.approx(view.cy_px + 0.3 * view.fy_px, abs=0.8)
