"""Mapping by dex-retargeting: the robot's fingertips follow the scaled human fingertips about the wrist.

The human joints in the wrist frame are scaled about the wrist by robot hand length / human hand length and moved into the frame of the
robot's base link by the fixed offset of the robot's description. Each frame is solved on its own.
After Qin et al., "AnyTeleop", 2023 (dex-retargeting, MIT licence).

dex-retargeting needs torch, so it is imported only where the solvers are built: reading settings or digests does not load it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.rows import passed_on, pose_columns, pose_of
from egoworld_ops.robots import FINGERS, ROBOTS, Robot, find_robot
from egoworld_ops.types import HANDS, Hand
from egoworld_ops.vision.geometry import invert, transform

if TYPE_CHECKING:
    from egoworld_ops.operators.mapping._kinematics import HandModel
    from egoworld_ops.operators.mapping._solver import HandSolver, Solution

FINGER_LENGTH_M = (0.05, 0.40)
"""Wrist to fingertip along the bones, metres: a newborn's thumb to well above the largest hand. Beyond, it is no human hand."""
AT_LIMIT_RAD = 1e-3


class DexSettings(BackendSettings):
    """Settings of the backend `dex`."""

    robot: str = "allegro"
    """A robot of `egoworld_ops.robots.ROBOTS`, or of `robots`."""
    robots: dict[str, Robot] = Field(default={})
    """Further robots, described as `egoworld_ops.robots.RobotHand` says."""
    scaling: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Robot size over human size; None measures it per clip and hand: the robot's hand length over the median human one."""
    middle_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weight of a finger's middle joint against its tip's 1."""
    max_evaluations: Annotated[int, Field(ge=1)] = 500
    """A frame that needs more is reported as not converged. Real frames take about 60."""


class Backend(Operator):
    """Solves one robot hand pose for each human hand pose."""

    version = "3"
    packages = ("dex-retargeting", "pin", "nlopt", "torch", "example-robot-data")
    Settings: ClassVar[type[BackendSettings]] = DexSettings
    seconds_per_frame: ClassVar[float] = 0.01
    settings: DexSettings

    def __init__(self, settings: DexSettings, threads: int) -> None:
        from egoworld_ops.operators.mapping._kinematics import HandModel
        from egoworld_ops.operators.mapping._solver import HandSolver

        super().__init__(settings, threads)
        robot = find_robot(settings.robot, settings.robots)
        hands = {"left": robot.left, "right": robot.right}
        models = {side: HandModel(hand) for side, hand in hands.items() if hand is not None}
        self._solvers = {s: HandSolver(m, settings.middle_weight, settings.max_evaluations) for s, m in models.items()}

    @classmethod
    def brought(cls, settings: BackendSettings) -> Mapping[str, Any]:
        """The description of a robot from an installed package. Its URDF is identified by SHA-256, wherever it lies."""
        assert isinstance(settings, DexSettings)
        if settings.robot in settings.robots or settings.robot in ROBOTS:
            return {}
        return {"robot": find_robot(settings.robot, {}).model_dump(mode="json", exclude={"left": {"urdf"}, "right": {"urdf"}})}

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never: it works on tables alone."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """One row for each row of hand_pose; `qpos_rad` is null where there is no hand to map or the solver failed."""
        poses = item.tables["hand_pose"]
        rows = [row for hand in HANDS for row in self._map_hand(hand, [p for p in poses.to_pylist() if p["hand"] == hand])]
        return schema.from_rows("mapping", rows)

    def _map_hand(self, hand: Hand, poses: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """One row per pose of one hand of a clip."""
        solver = self._solvers.get(hand)
        joints_m = [_joints(p) for p in poses]
        reasons = [_why_unusable(p, j) for p, j in zip(poses, joints_m, strict=True)]
        usable_m = [j for j, reason in zip(joints_m, reasons, strict=True) if j is not None and reason is None]
        scaling = self._scaling(solver.model, usable_m) if solver and usable_m else None
        for pose, joints, reason in zip(poses, joints_m, reasons, strict=True):
            row = passed_on(pose, "dex") | {"hand": pose["hand"], "robot": self.settings.robot, "metric": pose["metric"]}
            if solver is None:
                no_hand = Reason("no_such_hand", f"robot {self.settings.robot} has no {hand} hand")
                yield row | {"joint_names": [], "converged": False, **no_hand.columns()}
            elif reason is not None or joints is None or scaling is None:
                yield row | {"joint_names": list(solver.model.joint_names), "converged": False, **(reason.columns() if reason else {})}
            else:
                yield row | _solve(solver, joints, scaling) | _base_pose(solver.model, pose)

    def _scaling(self, model: HandModel, usable_m: list[np.ndarray]) -> float:
        if self.settings.scaling is not None:
            return self.settings.scaling
        middle = FINGERS.index("middle")
        return float(model.hand.hand_length_m / np.median([finger_lengths(j)[middle] for j in usable_m]))


def finger_lengths(joints_m: np.ndarray) -> np.ndarray:
    """(21, 3) joints to the (5,) lengths from the wrist along the bones to each fingertip, thumb first."""
    chains = [np.concatenate([joints_m[:1], joints_m[1 + 4 * f : 5 + 4 * f]]) for f in range(5)]
    return np.array([np.linalg.norm(np.diff(c, axis=0), axis=1).sum() for c in chains])


def _joints(pose: Mapping[str, Any]) -> np.ndarray | None:
    return None if pose["joints_wrist_m"] is None else np.array(pose["joints_wrist_m"], np.float64)


def _why_unusable(pose: Mapping[str, Any], joints_m: np.ndarray | None) -> Reason | None:
    """Why a human pose cannot be mapped; None where it can."""
    if joints_m is None:
        return Reason("no_upstream", f"no hand pose: {pose['reason'] or 'none given'}")
    if not np.isfinite(joints_m).all():
        return Reason("implausible", "hand pose is not finite")
    lengths_m = finger_lengths(joints_m)
    low_m, high_m = FINGER_LENGTH_M
    wrong = [f"{name} {length:.3g}" for name, length in zip(FINGERS, lengths_m, strict=True) if not low_m <= length <= high_m]
    if wrong:
        return Reason("implausible", f"no human hand: wrist to tip want {low_m:g} to {high_m:g} m, got {', '.join(wrong)}")
    return None


def _solve(solver: HandSolver, joints_m: np.ndarray, scaling: float) -> dict[str, Any]:
    """The solved columns of one row; joints in the wrist frame."""
    model = solver.model
    targets_m = transform(invert(model.T_wrist_base), scaling * (joints_m - joints_m[0]))
    fingers = np.array([FINGERS.index(f) for f in model.fingers])
    tips_m, middles_m = targets_m[4 + 4 * fingers], targets_m[2 + 4 * fingers]
    solution: Solution = solver.solve(tips_m, middles_m)
    row: dict[str, Any] = {"joint_names": list(model.joint_names), "scaling": scaling}
    if solution.qpos_rad is None:
        return row | {"converged": False, **(solution.reason.columns() if solution.reason else {})}
    q = solution.qpos_rad
    residual_m = np.linalg.norm(model.tips_m(q) - tips_m, axis=1).mean()
    at_limit = (np.abs(q[:, None] - model.limits_rad) <= AT_LIMIT_RAD).any(1)
    return row | {"qpos_rad": q, "residual_m": residual_m, "converged": True, "at_limit": at_limit}


def _base_pose(model: HandModel, pose: Mapping[str, Any]) -> dict[str, float]:
    """T_camera_robot_wrist of one row: the human wrist's pose times the robot's fixed offset. Empty where the wrist's pose is not known."""
    T_camera_wrist = pose_of(pose)
    if T_camera_wrist is None:
        return {}
    T = T_camera_wrist @ model.T_wrist_base
    return pose_columns(T[:3, :3], T[:3, 3])
