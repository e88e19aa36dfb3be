"""How the camera itself may have moved between two frames, by points of the background alone: it turned by R and went some way along t.

How far it went is not known, nor how far away a thing is; but what rests shifts along t, by as much more than the background around it as it is
nearer (Longuet-Higgins and Prazdny, 1980). So a thing moves for certain only where no way that the background allows, and no depth in front of it,
explains the thing's points. A camera that only turns shifts nothing, and all is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from egoworld_ops.operators.movement._background import sight
from egoworld_ops.operators.movement._motion import Motion
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import make_transform, rotations

MIN_POINTS = 12
MOST_POINTS = 100
NEARER = (0.7, 3.0)
"""A thing at rest is at 1/3 to 1/0.7 of the distance of the background around it."""
_AROUND = 15
"""So many points of the background nearest to a thing are around it."""
_COARSE, _KEPT, _FANS_DEG = 96, 12, (6.0, 2.5, 1.0)
"""Directions that are tried first, those that are looked at more closely, and how closely."""
_DRIFT_PX = 0.15
"""Followed points drift by about this; ways that fit the background as well within it are as likely."""
_OFF_PX = 1.0
"""Points that are farther off count as if they were as far: something else moves there."""

HALF_S, MIN_MOMENTS, FAR_OFF, _NEARLY_ALL = 0.75, 8, 3.0, 0.9
"""See `resting`."""


@dataclass(frozen=True, slots=True)
class Explained:
    """The camera's motion that lets a thing rest.

    Args:
        T_after_before: (4, 4) maps the camera's frame before to that afterwards, metres.
        nearer: how many times nearer the thing then is than the background around it.
        way_m: how far the camera would have gone if the thing were no nearer.
    """

    T_after_before: np.ndarray
    nearer: float
    way_m: float


@dataclass(frozen=True, slots=True)
class Ways:
    """What the camera may have done between two frames.

    Args:
        camera: takes the small picture.
        turns: (K, 3, 3) rotations of points in its frame.
        along: (K, 3) unit vectors.
        background_px: (N, 2) where points of the background were.
        shares: (K, N) how far the camera went, over the depth of each of these points.
    """

    camera: Camera
    turns: np.ndarray
    along: np.ndarray
    background_px: np.ndarray
    shares: np.ndarray

    def explaining(self, was_px: np.ndarray, now_px: np.ndarray, depths_m: np.ndarray) -> Explained:
        """What explains best where points on a thing (M, 2), of these depths_m (M,), were and are, if it rested."""
        was, now = sight(self.camera, was_px), sight(self.camera, now_px)
        beside = np.linalg.norm(self.background_px - np.median(was_px, axis=0), axis=1).argsort()[:_AROUND]
        around = np.median(self.shares[:, beside], axis=1)
        turned = was @ self.turns.transpose(0, 2, 1)
        turned /= turned[:, :, 2:]
        around_m = np.maximum(around, 0) * float(np.median(depths_m))
        went_m = np.clip(np.median(_shares(turned, now, self.along) * depths_m, axis=1), NEARER[0] * around_m, NEARER[1] * around_m)
        there = turned + went_m[:, None, None] * self.along[:, None] / depths_m[:, None]
        off = np.median(np.linalg.norm(there[:, :, :2] / there[:, :, 2:] - now[:, :2], axis=2), axis=1)
        best = int(np.nanargmin(np.where(np.isfinite(off), off, np.inf)))
        T = make_transform(self.turns[best], self.along[best] * went_m[best])
        return Explained(T, float(went_m[best] / max(around_m[best], 1e-9)), float(around_m[best]))


def ways(camera: Camera, was_px: np.ndarray, now_px: np.ndarray) -> Ways | None:
    """What explains where points of the background (N, 2) were and are; None where they are too few."""
    if len(was_px) < MIN_POINTS:
        return None
    some = np.linspace(0, len(was_px) - 1, min(len(was_px), MOST_POINTS)).astype(int)
    was, now = sight(camera, was_px[some]), sight(camera, now_px[some])
    first = _turn(was, now)
    was = was @ first.T
    was /= was[:, 2:]
    along = _sphere(_COARSE)
    turns, costs = _fitted(was, now, along, camera.fx_px)
    for fan_deg in _FANS_DEG:
        closer = _fan(along[costs.argsort()[:_KEPT]], fan_deg)
        more_turns, more_costs = _fitted(was, now, closer, camera.fx_px)
        along, turns, costs = np.concatenate([along, closer]), np.concatenate([turns, more_turns]), np.concatenate([costs, more_costs])
    likely = costs <= 1.5 * costs.min() + _DRIFT_PX**2
    along, turned = along[likely], was @ turns[likely].transpose(0, 2, 1)
    shares = _shares(turned / turned[:, :, 2:], now, along)
    sign = np.where(np.median(shares, axis=1) < 0, -1.0, 1.0)[:, None]
    return Ways(camera, turns[likely] @ first, along * sign, was_px[some], shares * sign)


def _turn(was: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) that takes rays (N, 3) nearest to others (Kabsch, 1976), of those that agree with most."""
    a, b = (rays / np.linalg.norm(rays, axis=1, keepdims=True) for rays in (was, now))
    weights = np.ones(len(a))
    for _ in range(4):
        U, _, Vt = np.linalg.svd((b * weights[:, None]).T @ a)
        R: np.ndarray = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
        off = np.linalg.norm(a @ R.T - b, axis=1)
        weights = 1 / (1 + (off / max(float(np.median(off)), 1e-6)) ** 2)
    return R


def _sphere(n: int) -> np.ndarray:
    """Directions (n, 3) spread over half a sphere by Fibonacci's spiral: those opposite to them are the same lines."""
    z = (np.arange(n) + 0.5) / n
    at = np.pi * (1 + 5**0.5) * np.arange(n)
    return np.column_stack([np.sqrt(1 - z * z) * np.cos(at), np.sqrt(1 - z * z) * np.sin(at), z])


def _fan(along: np.ndarray, fan_deg: float) -> np.ndarray:
    """Directions (7 K, 3): unit vectors (K, 3), and six about each."""
    other = np.where(np.abs(along[:, :1]) < 0.8, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    u = np.cross(along, other)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v, turn = np.cross(along, u), np.arange(6) * np.pi / 3
    about = along[:, None] + np.tan(np.radians(fan_deg)) * (np.cos(turn)[:, None] * u[:, None] + np.sin(turn)[:, None] * v[:, None])
    every = np.concatenate([along, about.reshape(-1, 3)])
    return np.asarray(every / np.linalg.norm(every, axis=1, keepdims=True))


def _fitted(was: np.ndarray, now: np.ndarray, along: np.ndarray, focal_px: float) -> tuple[np.ndarray, np.ndarray]:
    """The small turns (K, 3, 3) which, with a way along each direction (K, 3), explain rays (N, 3) best; and the mean square (K,) of what is left,
    square pixels, across the lines that the way draws."""
    lines = along[:, None, :2] - was[None, :, :2] * along[:, None, 2:]
    across = np.stack([-lines[:, :, 1], lines[:, :, 0]], axis=2) / np.maximum(np.linalg.norm(lines, axis=2, keepdims=True), 1e-6)
    shifts = now[:, :2] - was[:, :2]
    x, y = was[:, 0], was[:, 1]
    flows = np.stack([np.stack([-x * y, 1 + x * x, -y], axis=1), np.stack([-1 - y * y, x * y, x], axis=1)], axis=1)
    J, d = np.einsum("knc,nci->kni", across, flows), np.einsum("knc,nc->kn", across, shifts)
    weights, small = np.ones_like(d), 1e-12 * np.eye(3)
    for _ in range(3):
        weighted = J * weights[:, :, None]
        omega = np.linalg.solve(weighted.transpose(0, 2, 1) @ J + small, (weighted * d[:, :, None]).sum(1)[:, :, None])[:, :, 0]
        left_px = (d - np.einsum("kni,ki->kn", J, omega)) * focal_px
        weights = 1 / (1 + (left_px / _OFF_PX) ** 2)
    return rotations(omega), np.minimum(left_px**2, _OFF_PX**2).mean(1)


def _shares(turned: np.ndarray, now: np.ndarray, along: np.ndarray) -> np.ndarray:
    """(K, N) how far the camera went along each direction (K, 3), over the depths_m at which it takes rays (K, N, 3) nearest to others (N, 3)."""
    lines = along[:, None, :2] - turned[:, :, :2] * along[:, None, 2:]
    length = np.maximum(np.linalg.norm(lines, axis=2), 1e-6)
    shift = ((now[None, :, :2] - turned[:, :, :2]) * lines).sum(2) / length
    return np.asarray(shift / np.maximum(length - shift * along[:, None, 2], 1e-6))


def resting(
    motions: Sequence[Motion], states: Sequence[str | None], touched: np.ndarray, times_s: np.ndarray, start_m_s: float
) -> list[str | None]:
    """The states of an object with those that the camera's way left undecided, where its depth over a second and a half decides them.

    What rests stays as much nearer than the background as it is. It is still where that explains nearly all of these moments, and no hand touches it
    in them; it moves where it would have to be at another depth by FAR_OFF times the speed at which things begin to move.

    Args:
        motions, states: of N moments; states are null where they are undecided, or nothing is known.
        touched: (N,) bool, whether a hand touches it.
        times_s: (N,) increasing.
        start_m_s: the speed from which on an object moves.
    """
    decided = list(states)
    nearer, way_m_s = np.array([m.nearer for m in motions]), np.array([m.way_m_s for m in motions])
    known = ~np.isnan(nearer)
    for i in np.flatnonzero(known & [state is None for state in states]).tolist():
        about = np.abs(times_s - times_s[i]) <= HALF_S
        seen = about & known
        if seen.sum() < MIN_MOMENTS:
            continue
        off_m_s = np.abs(nearer - _weighted_median(nearer[seen], way_m_s[seen])) * way_m_s
        if off_m_s[i] > FAR_OFF * start_m_s:
            decided[i] = "moving"
        elif max(off_m_s[i], np.quantile(off_m_s[seen], _NEARLY_ALL)) <= start_m_s and not touched[about].any():
            decided[i] = "still"
    return decided


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = values.argsort()
    sums = weights[order].cumsum()
    return float(values[order[np.searchsorted(sums, sums[-1] / 2)]])
