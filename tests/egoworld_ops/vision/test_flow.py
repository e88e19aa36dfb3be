"""Points followed in pictures that the test moves."""

import cv2
import numpy as np

from egoworld_ops.vision.flow import Search, follow, follow_and_return

SEARCH = Search(window_px=15, levels=3)


def _texture() -> np.ndarray:
    noise = np.random.default_rng(5).integers(0, 256, (120, 160), np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def _moved(picture: np.ndarray, by_px: tuple[float, float]) -> np.ndarray:
    shift = np.array([[1, 0, by_px[0]], [0, 1, by_px[1]]], np.float64)
    return cv2.warpAffine(picture, shift, picture.shape[::-1], borderMode=cv2.BORDER_REFLECT)


def test_points_are_found_where_the_picture_took_them() -> None:
    before = _texture()
    start = np.array([[40, 40], [80, 60], [110, 80]], np.float32)
    there, found = follow(before, _moved(before, (3.0, -2.5)), start, SEARCH)
    assert found.all()
    assert np.abs(there - start - (3.0, -2.5)).max() < 0.1


def test_a_point_that_is_covered_does_not_come_back() -> None:
    before = _texture()
    now = _moved(before, (2.0, 1.0))
    now[45:75, 65:95] = np.random.default_rng(6).integers(0, 256, (30, 30), np.uint8)
    start = np.array([[30, 30], [80, 60]], np.float32)
    there, good = follow_and_return(before, now, start, SEARCH, within_px=0.5)
    assert good.tolist() == [True, False]
    assert np.abs(there[0] - start[0] - (2.0, 1.0)).max() < 0.1


def test_what_moves_farther_than_the_search_reaches_is_found_where_its_shift_is_guessed() -> None:
    before, shift = _texture(), np.array([31.0, -22.0])
    now = _moved(before, (31.0, -22.0))
    start = np.array([[40, 60], [80, 70], [100, 90]], np.float32)
    near = Search(window_px=9, levels=1)
    assert not follow_and_return(before, now, start, near, within_px=0.5)[1].all()
    for guess in (shift, shift - 4):
        there, good = follow_and_return(before, now, start, near, within_px=0.5, shift_px=guess)
        assert good.all()
        assert np.abs(there - start - shift).max() < 0.1
    there, good = follow_and_return(before, _moved(before, (1.0, 1.0)), start, near, within_px=0.5, shift_px=shift)
    assert good.all(), "a wrong guess loses nothing"
    assert np.abs(there - start - 1.0).max() < 0.1
