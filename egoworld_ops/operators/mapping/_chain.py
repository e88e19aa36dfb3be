"""Forward kinematics of a tree of joints for many frames at once, in numpy: pinocchio computes one frame a call.

The tree, the placements of its joints and their axes are pinocchio's; a test holds positions and derivatives against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from egoworld_ops.vision.geometry import skew


@dataclass(frozen=True)
class Points:
    """Points of a robot in T frames.

    Attributes:
        positions_m: (T, n, 3) in the base frame.
        jacobian: (T, n, 3, dof) their derivatives by all joint values.
        carried: for each point the columns of the k joints that move it, from the root, and their (k, T, 3) axes, 0 where one slides.
    """

    positions_m: np.ndarray
    jacobian: np.ndarray
    carried: list[tuple[np.ndarray, np.ndarray]]

    def curvature(self, pull: np.ndarray) -> np.ndarray:
        """(T, dof, dof) second derivatives of the positions, summed with (T, n, 3) factors.

        The derivative of a joint's column by one nearer to the root is that joint's axis times the column.
        """
        n_frames, dof = len(pull), self.jacobian.shape[-1]
        total = np.zeros((n_frames, dof, dof))
        for i, (columns, axes) in enumerate(self.carried):
            moved = self.jacobian[:, i][:, :, columns]
            bent = np.triu(np.matmul(_cross(pull[:, i], axes).transpose(1, 0, 2), moved))
            whole = bent + bent.transpose(0, 2, 1)
            whole[:, np.arange(len(columns)), np.arange(len(columns))] /= 2
            total[:, columns[:, None], columns] += whole
        return total


class Chain:
    """All joints of a model of one degree of freedom each (revolute or prismatic).

    Args:
        model: pinocchio's.
        T_base_root: (4, 4) the frame that results are in.
    """

    def __init__(self, model: pin.Model, T_base_root: np.ndarray) -> None:
        data = model.createData()
        pin.computeJointJacobians(model, data, np.zeros(model.nq))
        self._model = model
        self._root = T_base_root
        self._joints = [self._joint(model, data, j) for j in range(1, model.njoints)]

    @staticmethod
    def _joint(model: pin.Model, data: pin.Data, j: int) -> tuple[int, int, bool, np.ndarray, np.ndarray, np.ndarray]:
        """Of one joint: parent, column, whether it turns, axis in its own frame, and its placement's rotation and position."""
        spatial = data.J[:, model.joints[j].idx_v]
        turns = bool(np.abs(spatial[3:]).max() > 0)
        axis = data.oMi[j].rotation.T @ (spatial[3:] if turns else spatial[:3])
        place = model.jointPlacements[j]
        return model.parents[j], model.joints[j].idx_v, turns, axis, place.rotation.copy(), place.translation.copy()

    def points(self, qpos: np.ndarray, frames: Sequence[int], offsets_m: np.ndarray) -> Points:
        """Where points that are fixed in frames are.

        Args:
            qpos: (T, dof) values of all joints: rad, or metres where a joint slides.
            frames: ids of pinocchio's frames, n.
            offsets_m: (n, 3) each point in its frame.
        """
        rotations, origins, axes = self._poses(qpos)
        found = Points(np.zeros((len(qpos), len(frames), 3)), np.zeros((len(qpos), len(frames), 3, qpos.shape[1])), [])
        for i, frame in enumerate(self._model.frames[f] for f in frames):
            joint, placement = frame.parentJoint, frame.placement
            local_m = placement.rotation @ offsets_m[i] + placement.translation
            found.positions_m[:, i] = rotations[joint] @ local_m + origins[joint]
            carriers = [j for j in self._model.supports[joint] if j > 0]
            turning = np.array([self._joints[j - 1][2] for j in carriers], bool)
            along = np.array([axes[j] for j in carriers]).reshape(-1, len(qpos), 3)
            arms_m = found.positions_m[:, i] - np.array([origins[j] for j in carriers]).reshape(along.shape)
            columns = np.array([self._joints[j - 1][1] for j in carriers], int)
            found.jacobian[:, i, :, columns] = np.where(turning[:, None, None], _cross(along, arms_m), along)
            found.carried.append((columns, along * turning[:, None, None]))
        return found

    def _poses(self, qpos: np.ndarray) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray], dict[int, np.ndarray]]:
        """(T, 3, 3) rotations, (T, 3) origins and (T, 3) axes of all joints, by pinocchio's index; 0 is the root."""
        n = len(qpos)
        rotations = {0: np.broadcast_to(self._root[:3, :3], (n, 3, 3))}
        origins = {0: np.broadcast_to(self._root[:3, 3], (n, 3))}
        axes: dict[int, np.ndarray] = {}
        for j, (parent, column, turns, axis, placed, placed_m) in enumerate(self._joints, 1):
            value = qpos[:, column]
            origin = rotations[parent] @ placed_m + origins[parent]
            axes[j] = rotations[parent] @ (placed @ axis)
            if turns:
                K = skew(axis)
                turned = placed + np.sin(value)[:, None, None] * (placed @ K) + (1 - np.cos(value))[:, None, None] * (placed @ K @ K)
                rotations[j], origins[j] = rotations[parent] @ turned, origin
            else:
                rotations[j], origins[j] = rotations[parent] @ placed, origin + axes[j] * value[:, None]
        return rotations, origins, axes


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products of (..., 3) vectors: several times as fast as numpy's on small arrays."""
    ax, ay, az = np.moveaxis(a, -1, 0)
    bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)
