"""Hands to map, and the rows that come of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from egoworld_ops.contract import schema, validation
from egoworld_ops.operators import load
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.robots import FINGERS, ROBOTS
from egoworld_ops.types import Camera, Clip, Hand
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.geometry import transform
from tests.rows import fusion_row

CAMERA = Camera(500, 500, 319.5, 239.5, 640, 480, "file")
ALONE = {"gap_s": 1e-6}
"""Settings that solve each frame on its own."""


def retarget(rows: Sequence[dict[str, Any]], **settings: Any) -> list[dict[str, Any]]:
    """The checked mapping table of a clip with these hand poses, as rows."""
    return run(built(json.dumps(settings, default=lambda model: model.model_dump(mode="json"))), rows).to_pylist()


@cache
def built(settings: str) -> Any:
    """The backend with these settings, as JSON."""
    backend = load("mapping", "dex")
    return backend(backend.Settings(**json.loads(settings)), threads=1)


def run(backend: Any, rows: Sequence[dict[str, Any]]) -> pa.Table:
    clip = Clip("kitchen-0123456789ab", "f0000000_0000010", Path("kitchen.mp4"), "0" * 64, 0, 10, 0, 10, 0.0, 1 / 3, Fraction(30), 640, 480)
    tables = {"fusion": schema.from_rows("fusion", rows)}
    mapped: pa.Table = backend.run(ClipInput(clip, tables, Sidecar(), CAMERA, 1, lambda: iter(())))
    validation.validate("mapping", mapped)
    return mapped


def human_like(model: HandModel, qpos_rad: np.ndarray, scaling: float) -> np.ndarray:
    """(21, 3) human joints in the wrist frame whose fingertips and middle joints are the robot's; the rest lies between them."""
    tips = transform(model.T_wrist_base, model.tips_m(qpos_rad))
    middles = transform(model.T_wrist_base, model.links_m([m for m in model.middle_links if m], qpos_rad))
    joints = np.zeros((21, 3))
    joints[17:] = np.linspace([0, -0.04, 0.08], [0, -0.05, 0.16], 4) * scaling
    for name, tip, middle in zip(model.fingers, tips, middles, strict=True):
        f = 4 * FINGERS.index(name)
        joints[[f + 1, f + 2, f + 3, f + 4]] = [middle / 2, middle, (middle + tip) / 2, tip]
    return joints / scaling


def assert_same_joints(some: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], within_rad: float) -> None:
    assert [r["frame_index"] for r in some] == [r["frame_index"] for r in others]
    for one, other in zip(some, others, strict=True):
        assert one["qpos_rad"] == pytest.approx(other["qpos_rad"], abs=within_rad)


# What the truth of a motion is: planted inputs.


def moving_hand(times_s: np.ndarray, hand: Hand = "right") -> np.ndarray:
    """(T, 21, 3) joints of a hand that the Allegro hand can take exactly, opening and closing smoothly at up to 1.5 Hz."""
    model = HandModel(getattr(ROBOTS["allegro"], hand))
    return np.array([human_like(model, q, 1.3) for q in moving_joints(model, times_s)])


def moving_joints(model: HandModel, times_s: np.ndarray) -> np.ndarray:
    """(T, n) joint values that move smoothly about the middle of their limits, each at its own pace."""
    rng = np.random.default_rng(5)
    pace_hz, phase = rng.uniform(0.3, 1.5, len(model.limits)), rng.uniform(0, 2 * np.pi, len(model.limits))
    span = model.limits[:, 1] - model.limits[:, 0]
    return model.limits.mean(1) + 0.2 * span * np.sin(2 * np.pi * pace_hz * times_s[:, None] + phase)


def follow(joints_m: np.ndarray, times_s: np.ndarray, hand: Hand = "right", **settings: Any) -> list[dict[str, Any]]:
    """The mapping of a hand over time."""
    rows = [
        fusion_row(i, hand=hand, joints_wrist_m=j, timestamp_s=float(t)) for i, (j, t) in enumerate(zip(joints_m, times_s, strict=True))
    ]
    return retarget(rows, **({"scaling": 1.3} | settings))


def qpos_of(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([r["qpos_rad"] for r in rows])
