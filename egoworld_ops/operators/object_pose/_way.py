"""The way of a track: poses that leave it are found anew from their neighbours, as a thing in a hand goes from pose to pose without detours.

The track is followed both ways. Where the pose of a frame is not where the frames before lead to, one is fitted to its small mask from there.
Of these and the one that there was, those are taken that fit their masks and make a short way (Viterbi, 1967).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np

from egoworld_ops.operators.object_pose._fitting import fit_outline, mask_iou
from egoworld_ops.operators.object_pose._keyframes import Glimpse
from egoworld_ops.operators.object_pose._shapes import Shape
from egoworld_ops.operators.object_pose._tracking import Sighting
from egoworld_ops.operators.object_pose._working import scaled
from egoworld_ops.types import Camera
from egoworld_ops.vision.geometry import invert

LED_TO_DEG, STILL_DEG = 8.0, 4.0
"""A pose is where the frames before lead to if it is so near to it, or to the last pose."""
STEPS = 6
TURN_COST, SHIFT_COST = 0.002, 0.2
"""Of a way, for each degree, and for each time its depth that it leads sideways, forth or back; in shares of what outline and mask overlap."""
JUMP_DEG, JUMP_COST = 20.0, 0.1
POINTS_COST, OTHER_COST = 0.1, 0.01
"""Of another pose than that of a frame: if that was found by many points that agree, and in any case."""


def straightened(
    camera: Camera, shape: Shape, sightings: Sequence[Sighting], poses: Sequence[np.ndarray | None], sure: Sequence[float]
) -> list[np.ndarray | None]:
    """Poses T_camera_object of the frames of a track, of which those that leave its way are replaced, and some that are missing found.

    Args:
        sure: of each frame, from 0 to 1, how many of its points agree with its pose.
    """
    found = list(poses)
    for _, stretch in groupby(range(len(sightings)), key=lambda i: sightings[i].segment):
        frames = list(stretch)
        ways = [_led(camera, shape, sightings, poses, order) for order in (frames, frames[::-1])]
        choices = [_choices(camera, shape, sightings[i].seen, poses[i], sure[i], [way[i] for way in ways if i in way]) for i in frames]
        held = [i for i, choice in zip(frames, choices, strict=True) if choice]
        for i, T in zip(held, _shortest(shape, [choice for choice in choices if choice]), strict=True):
            found[i] = T
    return found


def _led(
    camera: Camera, shape: Shape, sightings: Sequence[Sighting], poses: Sequence[np.ndarray | None], order: Sequence[int]
) -> dict[int, np.ndarray]:
    """Poses by frame that frames before lead to, in an order; those that are where they lead to are left as they are."""
    way: dict[int, np.ndarray] = {}
    last: list[np.ndarray] = []
    for i in order:
        T = poses[i]
        if last and (T is None or not _is_led_to(shape, T, last)):
            T = _best_fit(camera, shape, sightings[i].seen, _leads(last))
        if T is not None:
            way[i] = T
            last = [*last[-1:], T]
    return way


def _leads(last: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Where the last two poses lead to: the last of them, and one as far from it as it is from that before."""
    return [last[-1], *(T @ invert(before) @ T for before, T in pairwise(last))]


def _is_led_to(shape: Shape, T: np.ndarray, last: Sequence[np.ndarray]) -> bool:
    limits = zip(_leads(last), (STILL_DEG, LED_TO_DEG), strict=False)
    return any(shape.symmetry.angle_deg(lead[:3, :3], T[:3, :3]) <= limit for lead, limit in limits)


def _best_fit(camera: Camera, shape: Shape, seen: Glimpse, starts: Sequence[np.ndarray]) -> np.ndarray | None:
    """The pose fitted to a mask from any of the starts that overlaps best with it; None where too much is hidden."""
    small, view = scaled(camera, seen.scale), seen.as_keyframe()
    fitted = [fit_outline(small, shape, view, start, STEPS, outside=1.0) for start in starts]
    judged = [(iou, T) for T in fitted if T is not None and (iou := mask_iou(camera, shape, T, seen)) is not None]
    return max(judged, key=lambda pair: pair[0])[1] if judged else None


Choice = tuple[np.ndarray, float]
"""A pose, and what it costs: the share of outline and mask that do not overlap, and the points that do not agree."""


def _choices(
    camera: Camera, shape: Shape, seen: Glimpse, T_own: np.ndarray | None, sure: float, others: Sequence[np.ndarray]
) -> list[Choice]:
    """The poses that a frame may have, its own first, and others that are turned away from it."""
    made = [] if T_own is None else [(T_own, 0.0)]
    made += [
        (T, POINTS_COST * sure + OTHER_COST)
        for T in others
        if T_own is None or shape.symmetry.angle_deg(T[:3, :3], T_own[:3, :3]) > STILL_DEG
    ]
    if len(made) < 2:
        return made
    return [(T, cost + 1 - (mask_iou(camera, shape, T, seen) or 0.0)) for T, cost in made]


def _shortest(shape: Shape, choices: Sequence[Sequence[Choice]]) -> list[np.ndarray]:
    """One pose of each frame, so that all together cost least."""
    costs, came_from = [np.array([cost for _, cost in choices[0]])] if choices else [], []
    for before, here in pairwise(choices):
        total = np.array([[costs[-1][k] + _step_cost(shape, T_before, T) for k, (T_before, _) in enumerate(before)] for T, _ in here])
        came_from.append(total.argmin(1))
        costs.append(total.min(1) + [cost for _, cost in here])
    chosen = [int(costs[-1].argmin())] if choices else []
    for origin in came_from[::-1]:
        chosen.append(int(origin[chosen[-1]]))
    return [choice[k][0] for choice, k in zip(choices, chosen[::-1], strict=True)]


def _step_cost(shape: Shape, T_a: np.ndarray, T_b: np.ndarray) -> float:
    turn_deg = shape.symmetry.angle_deg(T_a[:3, :3], T_b[:3, :3])
    shift = float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3])) / float(T_b[2, 3])
    return TURN_COST * turn_deg + SHIFT_COST * shift + JUMP_COST * (turn_deg > JUMP_DEG)
