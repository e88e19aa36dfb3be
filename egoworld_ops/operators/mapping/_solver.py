"""The optimisation of one frame: fingertips and middle joints of a robot hand onto target points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import nlopt
import numpy as np
import pinocchio as pin
from dex_retargeting.kinematics_adaptor import MimicJointKinematicAdaptor
from dex_retargeting.optimizer import VectorOptimizer

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.vision.geometry import transform

HUBER_DELTA_M = 0.02
"""Distance from which a target pulls linearly: dex-retargeting's default."""
TOLERANCE = 1e-7
"""The solver is done when the loss changes by less. dex-retargeting's 1e-6 leaves up to 3 mm at the tips."""

_WRENCH = np.zeros((4, 3, 6))
"""Maps (1, p) outer f to the wrench (f, p cross f)."""
_WRENCH[0, [0, 1, 2], [0, 1, 2]] = 1
_WRENCH[[1, 2, 3], [1, 2, 0], [5, 3, 4]] = 1
_WRENCH[[1, 2, 3], [2, 0, 1], [4, 5, 3]] = -1


@dataclass(frozen=True, slots=True)
class Solution:
    """(n_joints,) float64 joint angles within the limits, or None with the reason why there are none."""

    qpos_rad: np.ndarray | None
    reason: Reason | None = None


class HandSolver(VectorOptimizer):  # type: ignore[misc]  # the library has no types
    """dex-retargeting's vector optimiser (its loss, joint handling and SLSQP) with four changes, each of which cures wrong results:

    - `solve` says whether the solver converged. The library prints a failure and returns the pose before it.
    - No pull towards the pose before. The library adds it to the gradient but not to the loss, which stops the line search up to 4 cm
      early. Each frame starts at the middle of the joint limits instead: on a real hand video that found the best of nine starts in every
      frame, and a frame's result depends on that frame alone.
    - Vectors have weights: a fingertip counts 1, a middle joint `middle_weight`. Tips alone leave one free turn a finger.
    - The limits are exact, not widened by 1e-3 rad.
    """

    def __init__(self, model: HandModel, middle_weight: float, max_evaluations: int) -> None:
        links = [*model.tip_links, *(m for m in model.middle_links if m)]
        movable = [n for n in model.joint_names if n not in model.couplings]
        origins = [model.hand.base_link] * len(links)
        super().__init__(model.robot, movable, origins, links, np.zeros((2, len(links)), int), HUBER_DELTA_M, norm_delta=0.0)
        self.set_joint_limit(model.robot.joint_limits[self.idx_pin2target], epsilon=0.0)
        if model.couplings:
            self.set_kinematic_adaptor(_adaptor(model, movable))
        self.opt.set_ftol_abs(TOLERANCE)
        self.opt.set_maxeval(max_evaluations)
        self.model = model
        self.lower_rad, self.upper_rad = model.robot.joint_limits[self.idx_pin2target].T
        self.link_indices = self.get_link_indices(links)
        self.carries = np.array([_carriers(model, i) for i in self.link_indices])
        self.has_middle = np.array([m is not None for m in model.middle_links])
        self.weights = np.r_[np.ones(len(model.tip_links)), np.full(self.has_middle.sum(), middle_weight)]

    def solve(self, tips_m: np.ndarray, middles_m: np.ndarray) -> Solution:
        """Joint angles that bring the links nearest to (n_fingers, 3) targets in the base frame, in the order of `model.fingers`."""
        targets_base = np.concatenate([tips_m, middles_m[self.has_middle]])
        self.opt.set_min_objective(self.get_objective_function(transform(self.model.T_root_base, targets_base)))
        try:
            x = self.opt.optimize((self.lower_rad + self.upper_rad) / 2)
        except (RuntimeError, ValueError, nlopt.RoundoffLimited) as error:
            return Solution(None, Reason("not_converged", f"the solver failed: {type(error).__name__}: {error}"))
        if self.opt.last_optimize_result() == nlopt.MAXEVAL_REACHED:
            return Solution(None, Reason("not_converged", f"the solver did not converge within {self.opt.get_maxeval()} evaluations"))
        if not np.isfinite(x).all():
            return Solution(None, Reason("not_converged", "the solver gave joint angles that are not finite"))
        return Solution(self._full(np.clip(x, self.lower_rad, self.upper_rad))[self.model.joint_indices])

    def get_objective_function(self, target_vector: np.ndarray, *_: object) -> Callable[[np.ndarray, np.ndarray], float]:
        """The library's loss, weighted: Huber's of each link's distance to its (n, 3) target in the root frame. Without torch."""
        model, data, frames = self.robot.model, self.robot.data, self.robot.data.oMf
        target_vector = np.asarray(target_vector, np.float64)

        def objective(x: np.ndarray, grad: np.ndarray) -> float:
            pin.computeJointJacobians(model, data, self._full(x))
            pin.updateFramePlacements(model, data)
            position_m = np.array([frames[i].translation for i in self.link_indices])
            away_m = position_m - target_vector
            distance_m = np.sqrt(np.einsum("ni,ni->n", away_m, away_m))
            bounded_m = np.minimum(distance_m, HUBER_DELTA_M)
            if grad.size:
                pull = (self.weights / np.maximum(distance_m, HUBER_DELTA_M))[:, None] * away_m
                grad[:] = self._gradient(position_m, pull)
            return float(self.weights @ (bounded_m * (distance_m - bounded_m / 2)) / HUBER_DELTA_M)

        return objective

    def _gradient(self, position_m: np.ndarray, pull: np.ndarray) -> np.ndarray:
        """(n_solved,) derivative of the loss, from its (n, 3) derivative by the link positions, after pin.computeJointJacobians.

        A pull at a point is a wrench about the root's origin (virtual work); it acts only on the joints that carry the link.
        """
        arms = np.ones((len(pull), 4, 1))
        arms[:, 1:, 0] = position_m
        wrench = (arms * pull[:, None]).reshape(-1, 12) @ _WRENCH.reshape(12, 6)
        by_joint = (wrench @ self.robot.data.J) * self.carries
        by_solved = by_joint[:, self.idx_pin2target] if self.adaptor is None else self.adaptor.backward_jacobian(by_joint)
        gradient: np.ndarray = by_solved.sum(0)
        return gradient

    def _full(self, x: np.ndarray) -> np.ndarray:
        """Angles of all of the URDF's joints from those that are solved for."""
        qpos = np.zeros(self.num_joints)
        qpos[self.idx_pin2target] = x
        return qpos if self.adaptor is None else self.adaptor.forward_qpos(qpos)


def _carriers(model: HandModel, link_index: int) -> np.ndarray:
    """(dof,) True for the joints that move a link."""
    pinocchio = model.robot.model
    joints = [j for j in pinocchio.supports[pinocchio.frames[link_index].parentJoint] if j > 0]
    carried = np.zeros(model.robot.dof, bool)
    carried[[pinocchio.joints[j].idx_q for j in joints]] = True
    return carried


def _adaptor(model: HandModel, movable: list[str]) -> MimicJointKinematicAdaptor:
    coupled = {name: c for name, c in model.couplings.items() if c[0] in movable}
    sources, multipliers, offsets = zip(*coupled.values(), strict=True)
    return MimicJointKinematicAdaptor(model.robot, movable, list(sources), list(coupled), list(multipliers), list(offsets))
