"""The optimisation of whole tracks: fingertips and middle joints of a robot hand onto moving target points.

What is minimised is an integral over time, so that neither the frame rate nor a stride changes the result:

    integral of  sum over points of weight * huber(|p(x) - target|)  +  speed / 2 * |x'|^2  +  acceleration / 2 * |x''|^2

within the limits of the joints. The loss of a frame is dex-retargeting's (Qin et al., "AnyTeleop", 2023). It is solved for all frames at once
by Gauss-Newton steps with Huber's weights (iteratively reweighted least squares), damped (Levenberg-Marquardt) and projected onto the limits
(Bertsekas, "Projected Newton methods", 1982). The matrix has a narrow band, so that time grows with the number of frames alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.along_time import Tracks
from egoworld_ops.operators.banded import Banded
from egoworld_ops.operators.mapping._kinematics import HandModel

HUBER_DELTA_M = 0.02
"""Distances beyond this count linearly, as in dex-retargeting."""
REST_WEIGHT = 1e-5
"""Pull to the middle of the limits, per rad^2: decides a joint that no target does. It moves fingertips by less than 0.1 mm."""
TOLERANCE, LEAST_LOSS = 1e-5, 1e-9
"""A track is solved when a step lowers its loss by less than this share of it, or by less than this in a second."""
SLIDE_M = 0.05
"""What a sliding joint moves for one rad of a turning one in the penalties: the length of a finger's link."""
OVERSPEED_WEIGHT = 0.3
"""Penalty on speed beyond the limit, per (rad/s)^2; what is left of it is taken off exactly."""
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-1, 1e-5, 1e6
STILL = 0.01
"""A frame of a track that is not solved counts as converged where the last step moved its joints by less, rad."""
MOST_ROUNDS = 5
"""Solutions a step, while joints reach limits."""
SETTLED_DAMPING = 1e-2
"""Steps damped by more than this may be short without being at the end."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms.

    Args:
        middle: of a finger's middle joint against its tip's 1.
        speed: of squared joint speed, s^2/rad^2.
        acceleration: of squared joint acceleration, s^4/rad^2.
    """

    middle: float
    speed: float
    acceleration: float


@dataclass
class _State:
    """Driven joint values of some frames, in units of the penalties, with the loss there and its derivatives; of the data alone the last."""

    x: np.ndarray
    loss: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray

    def __getitem__(self, frames: np.ndarray) -> _State:
        return _State(self.x[frames], self.loss[frames], self.gradient[frames], self.hessian[frames])

    def __setitem__(self, frames: np.ndarray, other: _State) -> None:
        for mine, given in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[frames] = given


class HandSolver:
    """Solves for the driven joints of one robot hand."""

    def __init__(self, model: HandModel, weights: Weights, max_iterations: int) -> None:
        self.model = model
        self.unit = np.where(model.slides[model.driven], SLIDE_M, 1.0)
        self.lower, self.upper = (model.driven_limits / self.unit[:, None]).T
        self.fastest = model.driven_speeds / self.unit
        self.has_middle = np.array([m is not None for m in model.middle_links])
        self.point_weights = np.r_[np.ones(len(model.tip_links)), np.full(self.has_middle.sum(), weights.middle)]
        self.weights = weights
        self.max_iterations = max_iterations

    def solve(self, tips_m: np.ndarray, middles_m: np.ndarray, tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
        """Joint values that bring the robot's points nearest to (T, n_fingers, 3) targets in the base frame, along tracks.

        Returns:
            (T, n_joints) joint values within the limits of position and speed, and (T,) bool: whether the frame's track converged.
        """
        targets_m = np.concatenate([tips_m, middles_m[:, self.has_middle]], axis=1)
        x, converged = self._minimise(targets_m, tracks)
        x = tracks.limit_speed(x, self.fastest)
        qpos = self.model.qpos_of(np.clip(x * self.unit, *self.model.driven_limits.T))
        return np.clip(qpos, *self.model.limits.T), converged

    def _minimise(self, targets_m: np.ndarray, tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
        """Steps until every track is solved. Each has its own damping, so that none depends on another."""
        start = np.tile((self.lower + self.upper) / 2, (len(targets_m), 1))
        state = self._evaluate(start, targets_m, tracks)
        frames, some = np.arange(len(start)), tracks
        damping, converged = np.full(len(start), FIRST_DAMPING), np.zeros(len(start), bool)
        for _ in range(self.max_iterations):
            now = state[frames]
            trial = self._evaluate(self._step(now, some, damping[frames]), targets_m[frames], some)
            before, after = some.sums(now.loss), some.sums(trial.loss)
            still = np.abs(before - after) <= TOLERANCE * after + LEAST_LOSS * some.sums(some.share_s)
            better = after <= before
            state[frames[better]] = trial[better]
            calm = trial.loss <= now.loss + (TOLERANCE * now.loss + LEAST_LOSS * some.share_s)
            settled = still & (some.greatest(damping[frames]) <= SETTLED_DAMPING)
            converged[frames] = settled | ((damping[frames] <= SETTLED_DAMPING) & (np.abs(trial.x - now.x).max(1) <= STILL))
            factor = np.where(better | still, 0.1, np.where(calm, 1.0, 10.0))
            damping[frames] = np.clip(damping[frames] * factor, LEAST_DAMPING, MOST_DAMPING)
            if settled.all():
                break
            if settled.any():
                frames, some = frames[~settled], some.select(~settled)
        return state.x, converged

    def _evaluate(self, x: np.ndarray, targets_m: np.ndarray, tracks: Tracks) -> _State:
        """The loss by frame, its gradient, and Gauss-Newton's matrix of the data."""
        points = self.model.solved_points(x * self.unit)
        jacobian = points.jacobian * self.unit
        away_m = points.positions_m - targets_m
        distance_m = np.sqrt((away_m**2).sum(-1))
        bounded_m = np.minimum(distance_m, HUBER_DELTA_M)
        loss = (bounded_m * (distance_m - bounded_m / 2)) @ self.point_weights / HUBER_DELTA_M
        pull = self.point_weights / np.maximum(distance_m, HUBER_DELTA_M)
        by_axis = jacobian.reshape(len(x), -1, x.shape[1])
        pulled = by_axis * np.repeat(pull, 3, axis=1)[..., None]
        gradient = np.matmul(away_m.reshape(len(x), 1, -1), pulled)[:, 0]
        bent = points.curvature(pull[..., None] * away_m) * self.unit[:, None] * self.unit
        hessian = _positive(np.matmul(by_axis.transpose(0, 2, 1), pulled) + bent)
        from_rest = x - (self.lower + self.upper) / 2
        loss += REST_WEIGHT / 2 * (from_rest**2).sum(1)
        gradient += REST_WEIGHT * from_rest
        hessian[:, np.arange(x.shape[1]), np.arange(x.shape[1])] += REST_WEIGHT
        share_s = tracks.share_s
        state = _State(x, loss * share_s, gradient * share_s[:, None], hessian * share_s[:, None, None])
        self._add_motion(state, tracks)
        return state

    def _add_motion(self, state: _State, tracks: Tracks) -> None:
        """Add the penalties on speed, acceleration and speed beyond the limits to loss and gradient."""
        smooth = tracks.times(tracks.smoothness(self.weights.speed, self.weights.acceleration), state.x)
        state.loss += (state.x * smooth).sum(1) / 2
        state.gradient += smooth
        excess = OVERSPEED_WEIGHT * tracks.excess(state.x, self.fastest)
        state.loss[1:] += (excess**2).sum(1) * tracks.step_s / (2 * OVERSPEED_WEIGHT)
        state.gradient[1:] += excess
        state.gradient[:-1] -= excess

    def _step(self, state: _State, tracks: Tracks, damping: np.ndarray) -> np.ndarray:
        """The joint values at the least of the quadratic model of the loss within the limits; NaN where it has none.

        Joints that are pushed against a limit stay there; those that a solution takes beyond one are put onto it, and the rest is solved
        again.
        """
        x = state.x
        model = self._curvature(state, tracks, damping)
        fixed = ((x <= self.lower) & (state.gradient > 0)) | ((x >= self.upper) & (state.gradient < 0))
        moved = np.zeros_like(x)
        for _ in range(MOST_ROUNDS):
            try:
                step = model.solve(-state.gradient - model @ np.where(fixed, moved, 0.0), ~fixed)
            except np.linalg.LinAlgError:
                return np.full_like(x, np.nan)
            whole = np.where(fixed, moved, step)
            moved = np.clip(x + whole, self.lower, self.upper) - x
            beyond = np.abs(moved - whole) > 1e-9
            if not beyond.any():
                break
            fixed |= beyond
        return x + moved

    def _curvature(self, state: _State, tracks: Tracks, damping: np.ndarray) -> Banded:
        """The matrix of the quadratic model: Gauss-Newton's, and the damping."""
        links = np.repeat(tracks.smoothness(self.weights.speed, self.weights.acceleration)[..., None], state.x.shape[1], axis=2)
        stiff = np.where(tracks.excess(state.x, self.fastest) != 0, OVERSPEED_WEIGHT / tracks.step_s[:, None], 0.0)
        links[0, :-1] += stiff
        links[0, 1:] += stiff
        links[1, :-1] -= stiff
        links[0] += (damping * tracks.share_s)[:, None]
        return Banded(state.hessian, links)


def _positive(matrices: np.ndarray) -> np.ndarray:
    """(T, n, n) symmetric matrices without their negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrices)
    positive: np.ndarray = (vectors * np.maximum(values, 0)[:, None]) @ vectors.transpose(0, 2, 1)
    return positive
