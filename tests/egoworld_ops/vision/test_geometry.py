"""Rotations, transforms, projection and alignment against closed forms and scipy."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from egoworld_ops.types import Camera
from egoworld_ops.vision import geometry

CAMERA = Camera(500.0, 510.0, 319.5, 239.5, 640, 480, "file")


def test_quaternions_agree_with_scipy_for_every_kind_of_rotation() -> None:
    for R in Rotation.random(500, random_state=1).as_matrix():
        q = geometry.quaternion_from_matrix(R)
        assert q[0] >= 0
        assert np.isclose(np.linalg.norm(q), 1)
        assert np.allclose(geometry.matrix_from_quaternion(q), R)
        xyzw = Rotation.from_matrix(R).as_quat(canonical=True)
        assert np.allclose(q, xyzw[[3, 0, 1, 2]])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_turns_keep_their_axis(axis: int) -> None:
    R = -np.eye(3)
    R[axis, axis] = 1
    q = geometry.quaternion_from_matrix(R)
    assert np.allclose(geometry.matrix_from_quaternion(q), R)


def test_a_point_on_the_axis_projects_to_the_principal_point() -> None:
    assert np.allclose(geometry.project(CAMERA, np.array([0, 0, 2.0])), [319.5, 239.5])


def test_a_metre_to_the_right_at_two_metres_is_half_a_focal_length() -> None:
    assert np.allclose(geometry.project(CAMERA, np.array([1.0, 0, 2.0])), [319.5 + 250, 239.5])


def test_points_behind_the_camera_have_no_image() -> None:
    assert np.isnan(geometry.project(CAMERA, np.array([[0, 0, -1.0], [0, 0, 0.0]]))).all()


def test_inverse_undoes_a_transform() -> None:
    rng = np.random.default_rng(2)
    T = geometry.make_transform(Rotation.random(random_state=3).as_matrix(), rng.normal(size=3))
    points = rng.normal(size=(10, 3))
    assert np.allclose(geometry.transform(geometry.invert(T), geometry.transform(T, points)), points)


def test_alignment_finds_the_similarity_that_made_the_target() -> None:
    rng = np.random.default_rng(4)
    source, R, t = rng.normal(size=(21, 3)), Rotation.random(random_state=5).as_matrix(), rng.normal(size=3)
    s, R_found, t_found = geometry.align_similarity(source, 1.7 * source @ R.T + t)
    assert np.isclose(s, 1.7)
    assert np.allclose(R_found, R)
    assert np.allclose(t_found, t)


def test_alignment_never_answers_with_a_reflection() -> None:
    source = np.random.default_rng(6).normal(size=(8, 3))
    _, R, _ = geometry.align_similarity(source, source * [-1, 1, 1])
    assert np.isclose(np.linalg.det(R), 1)


def test_angle_between_rotations() -> None:
    R = Rotation.from_euler("y", 30, degrees=True).as_matrix()
    assert np.isclose(geometry.rotation_angle_deg(np.eye(3), R), 30)
