"""Mapping to robot hands: the robot's fingertips follow the scaled human fingertips about the wrist, smoothly.

The human joints in the wrist frame are scaled about the wrist by robot hand length / human hand length and moved into the frame of the
robot's base link by the fixed offset of the robot's description. A gripper of two pads follows thumb and index instead, in metres. All
frames of a hand are solved at once (`_solver`), in tracks that end at gaps. The loss of a frame is dex-retargeting's: Qin et al., "AnyTeleop",
2023.

pinocchio and scipy are imported only where the solvers are built: reading settings or digests does not load them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.mapping import _targets
from egoworld_ops.operators.rows import passed_on, pose_columns, pose_of
from egoworld_ops.robots import FINGERS, ROBOTS, Robot, find_robot, with_urdfs
from egoworld_ops.types import HANDS, Hand

if TYPE_CHECKING:
    from egoworld_ops.operators.mapping._collisions import Collisions
    from egoworld_ops.operators.mapping._kinematics import HandModel
    from egoworld_ops.operators.mapping._solver import HandSolver

FINGER_LENGTH_M = (0.05, 0.40)
"""Wrist to fingertip along the bones, metres: a newborn's thumb to well above the largest hand. Beyond, it is no human hand."""
AT_LIMIT_RAD = 1e-3


class DexSettings(BackendSettings):
    """Settings of the backend `dex`."""

    robot: str = "allegro"
    """A robot of `egoworld_ops.robots.ROBOTS`, or of `robots`."""
    robots: dict[str, Robot] = Field(default={})
    """Further robots, described as `egoworld_ops.robots.RobotHand` says."""
    urdf: dict[Hand, str] = Field(default={})
    """The whole path of the URDF of each hand, for a robot whose URDF no package brings. Its content is part of the digest."""
    scaling: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Robot size over human size; None measures it per clip and hand: the robot's hand length over the median human one. A gripper's is 1."""
    middle_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weight of a finger's middle joint against its tip's 1."""
    speed_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2e-3
    """Weight of squared joint speed, s^2/rad^2, where a distance within 0.02 m counts its square over 0.04 m."""
    acceleration_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-6
    """Weight of squared joint acceleration, s^4/rad^2, likewise."""
    gap_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    """Frames of a hand that are further apart are solved on their own: no motion is assumed between them."""
    max_iterations: Annotated[int, Field(ge=1)] = 100
    """A track that needs more is reported as not converged where it still moves. Real tracks take about 10."""


class Backend(Operator):
    """Solves the joints of a robot hand along each track of human hand poses."""

    version = "6"
    packages = ("pin", "scipy", "threadpoolctl", "example-robot-data")
    Settings: ClassVar[type[BackendSettings]] = DexSettings
    seconds_per_frame: ClassVar[float] = 0.005
    settings: DexSettings

    def __init__(self, settings: DexSettings, threads: int) -> None:
        from egoworld_ops.operators.mapping._collisions import Collisions
        from egoworld_ops.operators.mapping._kinematics import HandModel
        from egoworld_ops.operators.mapping._solver import HandSolver, Weights

        super().__init__(settings, threads)
        robot = with_urdfs(settings.robot, find_robot(settings.robot, settings.robots), settings.urdf)
        hands = {"left": robot.left, "right": robot.right}
        models = {side: HandModel(hand) for side, hand in hands.items() if hand is not None}
        weights = Weights(settings.middle_weight, settings.speed_weight, settings.acceleration_weight)
        self._solvers = {side: HandSolver(model, weights, settings.max_iterations) for side, model in models.items()}
        self._collisions = {side: Collisions(model) for side, model in models.items()}

    @classmethod
    def brought(cls, settings: BackendSettings) -> Mapping[str, Any]:
        """The description of a robot from an installed package, and what the URDFs of the settings hold, wherever they lie."""
        assert isinstance(settings, DexSettings)
        described = settings.robot in settings.robots or settings.robot in ROBOTS
        if described and not settings.urdf:
            return {}
        robot = with_urdfs(settings.robot, find_robot(settings.robot, settings.robots), settings.urdf)
        return {"robot": robot.model_dump(mode="json", exclude={"left": {"urdf"}, "right": {"urdf"}})}

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Never: it works on tables alone."""
        return False

    def run(self, item: ClipInput) -> pa.Table:
        """One row for each row of fusion; `qpos_rad` is null where there is no hand to map or the solver failed."""
        from threadpoolctl import threadpool_limits

        poses = item.tables["fusion"]
        with threadpool_limits(1, user_api="blas"):  # its matrices are small: threads that wait for each other cost more than they do
            rows = [row for hand in HANDS for row in self._map_hand(hand, [p for p in poses.to_pylist() if p["hand"] == hand])]
        return schema.from_rows("mapping", rows)

    def _map_hand(self, hand: Hand, poses: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One row per pose of one hand of a clip, in the order of their frames."""
        poses = sorted(poses, key=lambda p: p["frame_index"])
        rows = [
            passed_on(p, "dex")
            | {"hand": p["hand"], "robot": self.settings.robot, "metric": p["metric"], "observed": p["observed"], "converged": False}
            for p in poses
        ]
        solver = self._solvers.get(hand)
        if solver is None:
            no_hand = Reason("no_such_hand", f"robot {self.settings.robot} has no {hand} hand").columns()
            return [row | {"joint_names": [], **no_hand} for row in rows]
        joints_m = [_joints(p) for p in poses]
        usable = []
        for i, (pose, joints) in enumerate(zip(poses, joints_m, strict=True)):
            rows[i]["joint_names"] = list(solver.model.joint_names)
            if reason := _why_unusable(pose, joints):
                rows[i] |= reason.columns()
            else:
                usable.append(i)
        if usable:
            solved = self._solve(solver, self._collisions[hand], [poses[i] for i in usable], np.array([joints_m[i] for i in usable]))
            for i, columns in zip(usable, solved, strict=True):
                rows[i] |= columns
        return rows

    def _scaling(self, model: HandModel, joints_m: np.ndarray) -> float:
        """Robot size over human size, from the (T, 21, 3) joints of a clip."""
        if model.hand.hangs_on == "pinch":
            return 1.0
        if self.settings.scaling is not None:
            return self.settings.scaling
        middle = FINGERS.index("middle")
        return float(model.hand.hand_length_m / np.median([finger_lengths(j)[middle] for j in joints_m]))

    def _solve(
        self, solver: HandSolver, collisions: Collisions, poses: Sequence[Mapping[str, Any]], joints_m: np.ndarray
    ) -> list[dict[str, Any]]:
        """The solved columns of one hand of a clip, from its (T, 21, 3) joints in the wrist frame."""
        from egoworld_ops.operators.along_time import Tracks

        model = solver.model
        scaling = self._scaling(model, joints_m)
        targets = _targets.of(model, joints_m, scaling)
        tracks = Tracks.of(np.array([p["timestamp_s"] for p in poses]), self.settings.gap_s)
        qpos, converged = solver.solve(targets.tips_m, targets.middles_m, tracks)
        tips_m = model.tips_m(qpos)
        columns = {
            "residual_m": np.linalg.norm(tips_m - targets.tips_m, axis=-1).mean(1),
            "joint_speed_rad_s": model.fastest_turn(tracks.speeds(qpos)),
            "joint_speed_share": model.speed_share(tracks.speeds(qpos)),
            "target_speed_m_s": targets.fastest(tracks, solver.has_middle),
            "aperture_m": np.linalg.norm(tips_m[:, 0] - tips_m[:, 1], axis=-1)
            if model.hand.hangs_on == "pinch"
            else np.full(len(qpos), np.nan),
        }
        at_limit = (np.abs(qpos[..., None] - model.limits) <= AT_LIMIT_RAD).any(-1)
        rows = []
        for i, pose in enumerate(poses):
            row: dict[str, Any] = {"scaling": scaling, "self_collision": collisions.at(qpos[i])}
            row |= {name: None if np.isnan(values[i]) else float(values[i]) for name, values in columns.items()}
            row |= {"qpos_rad": qpos[i], "converged": True, "at_limit": at_limit[i]} | _base_pose(targets.T_wrist_base[i], pose)
            rows.append(row if converged[i] else _not_converged(self.settings.max_iterations) | {"scaling": scaling})
        return rows


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


def _not_converged(iterations: int) -> dict[str, Any]:
    return Reason("not_converged", f"the solver did not converge within {iterations} iterations").columns()


def _base_pose(T_wrist_base: np.ndarray, pose: Mapping[str, Any]) -> dict[str, float]:
    """T_camera_robot_wrist of one row: the human wrist's pose times the robot's place on it. Empty where the wrist's pose is not known."""
    T_camera_wrist = pose_of(pose)
    if T_camera_wrist is None:
        return {}
    T = T_camera_wrist @ T_wrist_base
    return pose_columns(T[:3, :3], T[:3, 3])
