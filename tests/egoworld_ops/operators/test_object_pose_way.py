"""Poses that leave the way of a track are found anew, hypotheses are tried in few keyframes, and outlines are as large as the shape."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from egoworld_ops.operators.object_pose import _solve
from egoworld_ops.operators.object_pose._keyframes import Keyframe
from egoworld_ops.operators.object_pose._shapes import Shape, read_mesh
from egoworld_ops.operators.object_pose._tracking import Track
from egoworld_ops.operators.object_pose._view import silhouette
from egoworld_ops.operators.object_pose._way import straightened
from egoworld_ops.operators.object_pose._working import scaled
from egoworld_ops.operators.object_pose.classical import observe
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, project, rotations
from tests.shapes import Shot, clip_of, motion, thing

TURN = make_transform(rotations(np.radians(40) * np.array([[0.6, 0.0, 0.8]]))[0], np.zeros(3))
FRAMES = 10


@pytest.fixture(scope="module")
def pan(tmp_path_factory: pytest.TempPathFactory) -> tuple[Camera, Shape, Track, list[np.ndarray]]:
    """A pan's working camera, its shape, what the stage keeps of its clip, and its true poses."""
    folder, shot = tmp_path_factory.mktemp("pan"), Shot("pan", 1012, frames=FRAMES)
    [track] = observe(clip_of(shot, folder)[0])
    return scaled(shot.camera, track.scale), read_mesh(folder / "pan.ply"), track, motion(shot)


def test_poses_that_leave_the_way_are_found_anew(pan: tuple[Camera, Shape, Track, list[np.ndarray]]) -> None:
    camera, shape, track, truth = pan
    planted = [None if i == 7 else T @ TURN if i in (3, 4) else T for i, T in enumerate(truth)]
    found = straightened(camera, shape, track.sightings, planted, [0.0] * FRAMES)
    for T, true in zip(found, truth, strict=True):
        assert T is not None
        assert thing("pan").angle_deg(T[:3, :3], true[:3, :3], box_too=False) < 6
        assert T[2, 3] == pytest.approx(true[2, 3], rel=0.03)


def test_poses_on_the_way_are_left_alone(pan: tuple[Camera, Shape, Track, list[np.ndarray]]) -> None:
    camera, shape, track, truth = pan
    found = straightened(camera, shape, track.sightings, truth, [0.0] * FRAMES)
    assert all(T is true for T, true in zip(found, truth, strict=True))


def test_a_track_without_poses_has_no_way(pan: tuple[Camera, Shape, Track, list[np.ndarray]]) -> None:
    camera, shape, track, _ = pan
    assert straightened(camera, shape, track.sightings, [None] * FRAMES, [0.0] * FRAMES) == [None] * FRAMES


@pytest.mark.parametrize(
    ("segments", "start", "window"),
    [
        pytest.param([0] * 3, 2, range(3), id="short"),
        pytest.param([0] * 24, 12, range(9, 15), id="long"),
        pytest.param([0] * 24, 23, range(18, 24), id="at its end"),
        pytest.param([0] * 4 + [1] * 20, 4, range(4, 10), id="of its own segment"),
    ],
)
def test_a_hypothesis_is_tried_in_the_same_number_of_keyframes_however_long_the_clip(
    segments: list[int], start: int, window: range
) -> None:
    track = Track(1, None, 1.0)
    blank = Keyframe(0, 0, *(np.zeros((1, 1)),) * 3, np.zeros(2), (1, 1))
    track.keyframes = [replace(blank, segment=segment) for segment in segments]
    assert track.around(start, _solve.TRIAL_KEYFRAMES) == window


@pytest.mark.parametrize("kind", ["mug", "knife", "box"])
def test_an_outline_is_as_large_as_the_shape_at_any_size(kind: str, tmp_path: Path) -> None:
    """Red where each border pixel counted as a whole one: the knife came out larger by 9 % at half the size."""
    thing(kind).mesh.export(tmp_path / "thing.ply")
    shape, camera = read_mesh(tmp_path / "thing.ply"), Shot(kind, 3001).camera
    T = motion(Shot(kind, 3001))[0]
    middle = project(camera, T[None, :3, 3])[0]
    areas = [silhouette(camera, shape, T, (int(400 * s), int(400 * s)), s, middle - 200 + 0.5 / s).sum() / s**2 for s in (0.5, 4.0)]
    assert areas[0] == pytest.approx(areas[1], rel=0.01)
