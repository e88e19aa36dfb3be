"""A real hand, one the Allegro hand can take, and one thread."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.robots import ROBOTS
from tests.egoworld_ops.operators.mapping.follow import human_like


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> np.ndarray:
    """(621, 21, 3) joints of a real right hand in the wrist frame, metres."""
    return np.load(shared_data / "dexretarget_human_joint_right.npy")


@pytest.fixture(scope="module")
def a_hand() -> np.ndarray:
    """(21, 3) joints of a half-open hand that the robot can take."""
    model = HandModel(ROBOTS["allegro"].right)
    return human_like(model, model.limits.mean(1), 1.3)


@pytest.fixture(autouse=True)
def _small_networks(one_thread: None) -> None:
    """All tests here compute by one thread."""
