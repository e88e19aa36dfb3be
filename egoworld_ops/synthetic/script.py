"""The script of the scene: where camera, hands and object are at each frame of the three shots of its plan.

Everything is given in the frame of the person who acts (origin on the table before them, x right, y forward, z up) and
moved to the world by the shot's `T_world_person`. Times within a shot are phases from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from egoworld_ops.synthetic.config import MOVING_RATE_RAD_S, MOVING_SPEED_M_S, CameraPath, SceneConfig
from egoworld_ops.synthetic.grasp import OPEN_DEG, READY_DEG, Grasp, overhand_grasp
from egoworld_ops.synthetic.hand import HandPose
from egoworld_ops.synthetic.plans import PLANS, Deed, Plan
from egoworld_ops.synthetic.rigid import Array, between, rigid, rotation_vector
from egoworld_ops.vision.geometry import invert, make_transform, transform

_STEP = 1e-3
_HOVER_M = 0.06
"""A hovering hand is so much higher than one that grasps."""
_REACH_M: dict[CameraPath, tuple[float, float]] = {"sway": (0.011, 0.012), "walk": (0.16, 0.05), "turn": (0.0, 0.1), "still": (0.0, 0.0)}
"""Amplitudes of the eye and of what it looks at, by the camera's path."""
_ABOUT = rigid((0.0, 0.0, 0.0), (180.0, 0.0, 0.0))
"""Half a turn about the vertical, which the box looks the same after."""
_ACROSS = rigid((0.0, 0.40, 0.0), (180.0, 0.0, 0.0))
"""`T_person_stranger` of one who sits at the other side of the table."""
_FIST_DEG = np.array([[30, 22, 30], [48, 60, 34], [50, 62, 34], [50, 62, 34], [48, 58, 34]], float)


@dataclass(frozen=True, slots=True)
class Shot:
    """One shot: who acts and how, from where it is seen, and the object's path (phase, position, yaw-pitch-roll)."""

    actor: str
    across: bool
    deed: Deed
    T_world_person: Array
    eye_m: Array
    target_m: Array
    way: tuple[tuple[float, Array], ...]
    reach: tuple[float, float]
    leave: tuple[float, float]
    grasp_end: float
    release_end: float
    wave_phase_rad: Array = field(repr=False)


@dataclass(frozen=True, slots=True)
class SceneState:
    """Where everything is at one instant; `held_by` is none while no hand of the person who sees it holds the object.

    `strangers`: the hands that are another person's.
    """

    shot: int
    T_world_camera: Array
    hands: tuple[HandPose, HandPose]
    T_world_object: Array
    held_by: str
    strangers: tuple[str, ...]
    speed_m_s: float
    moving: bool


def state_at(config: SceneConfig, frame_index: int) -> SceneState:
    """The scene at a frame; raises IndexError outside of the video."""
    if not 0 <= frame_index < config.n_frames:
        raise IndexError(f"frame_index: want 0 to {config.n_frames - 1}, got {frame_index}")
    number, within = divmod(frame_index, config.frames_per_shot)
    shot = shots(config)[number]
    phase = within / config.frames_per_shot
    speed_m_s, rate_rad_s = _object_motion(shot, phase, config.frames_per_shot / config.fps)
    return SceneState(
        shot=number,
        T_world_camera=shot.T_world_person @ _camera(shot, phase, config.camera_path),
        hands=(_hand(config, number, "left", phase), _hand(config, number, "right", phase)),
        T_world_object=shot.T_world_person @ _object(shot, phase),
        held_by=shot.actor if shot.deed == "carry" and not shot.across and shot.grasp_end <= phase < shot.way[-1][0] else "none",
        strangers=(shot.actor,) if shot.across else (),
        speed_m_s=speed_m_s,
        moving=speed_m_s > MOVING_SPEED_M_S or rate_rad_s > MOVING_RATE_RAD_S,
    )


@lru_cache(maxsize=8)
def shots(config: SceneConfig) -> tuple[Shot, ...]:
    """The three shots, varied by the seed."""
    rng = np.random.default_rng([config.seed, 1])
    return tuple(_shot(plan, config.dimensions_m[2] / 2, rng) for plan in PLANS[config.plan])


def _shot(plan: Plan, rest_m: float, rng: np.random.Generator) -> Shot:
    shift_m, turn_deg = np.append(rng.uniform(-0.012, 0.012, 2), rest_m), rng.uniform(-4, 4)
    way = tuple((at, rigid(np.add(p, shift_m), (a[0] + turn_deg, a[1], a[2]))) for at, p, a in plan.way)
    return Shot(
        actor=plan.actor,
        across=plan.across,
        deed=plan.deed,
        T_world_person=rigid(plan.place_m, (plan.facing_deg, 0, 0)),
        eye_m=np.add(plan.eye_m, rng.uniform(-0.01, 0.01, 3)),
        target_m=np.add(plan.target_m, rng.uniform(-0.008, 0.008, 3)),
        way=way,
        reach=plan.reach,
        leave=plan.leave,
        grasp_end=way[0][0],
        release_end=min(way[-1][0] + 0.07, 1.0),
        wave_phase_rad=rng.uniform(0, 2 * np.pi, 12),
    )


def hand_scale(config: SceneConfig) -> float:
    """The person's hand size relative to the model's."""
    return float(np.random.default_rng([config.seed, 2]).uniform(0.92, 0.98))


@lru_cache(maxsize=16)
def _grasp(config: SceneConfig, hand: str) -> Grasp:
    return overhand_grasp(hand, config.dimensions_m, hand_scale(config))


def _ease(share: float) -> float:
    """Minimum-jerk course from 0 to 1 (Flash and Hogan, 1985)."""
    s = min(max(share, 0.0), 1.0)
    return s * s * s * (10 + s * (6 * s - 15))


def _between_phases(phase: float, start: float, end: float) -> float:
    return _ease((phase - start) / (end - start))


def _camera(shot: Shot, phase: float, path: CameraPath) -> Array:
    """`T_person_camera`: looks from the eye to the target, moving like a head."""
    w = shot.wave_phase_rad
    sway = 2 * np.pi * (0.0 if path == "still" else phase)
    eye_reach_m, target_reach_m = _REACH_M[path]
    eye = shot.eye_m + eye_reach_m * np.array([np.sin(sway + w[0]), 0.7 * np.sin(0.8 * sway + w[1]), 0.6 * np.sin(1.2 * sway + w[2])])
    target = shot.target_m + target_reach_m * np.array([np.sin(0.9 * sway + w[3]), np.sin(0.7 * sway + w[4]), 0.0])
    z = (target - eye) / np.linalg.norm(target - eye)
    roll = np.radians(1.2) * np.sin(0.8 * sway + w[5])
    level = np.array([np.cos(roll), 0.0, np.sin(roll)])
    x = level - (level @ z) * z
    x /= np.linalg.norm(x)
    return make_transform(np.stack([x, np.cross(z, x), z], 1), eye)


def _object(shot: Shot, phase: float) -> Array:
    """`T_person_object`: along its path, at rest before and after."""
    if phase <= shot.way[0][0]:
        return shot.way[0][1]
    for (start, T_start), (end, T_end) in zip(shot.way, shot.way[1:], strict=False):
        if phase <= end:
            return between(T_start, T_end, _between_phases(phase, start, end))
    return shot.way[-1][1]


def _object_motion(shot: Shot, phase: float, shot_s: float) -> tuple[float, float]:
    """Speed in metres and turning rate in radians per second, by central difference."""
    before, after = _object(shot, phase - _STEP), _object(shot, phase + _STEP)
    span_s = 2 * _STEP * shot_s
    turn = rotation_vector(before[:3, :3].T @ after[:3, :3])
    return float(np.linalg.norm(after[:3, 3] - before[:3, 3])) / span_s, float(np.linalg.norm(turn)) / span_s


def _hand(config: SceneConfig, number: int, hand: str, phase: float) -> HandPose:
    shot = shots(config)[number]
    side = -1.0 if hand == "left" else 1.0
    T_person_wrist, flex_rad, spread_rad = _free(shot, hand, phase)
    T_world_person, T_person_object = shot.T_world_person, _object(shot, phase)
    if shot.across and hand == shot.actor:
        T_world_person = T_world_person @ _ACROSS
        T_person_object = invert(_ACROSS) @ T_person_object @ _ABOUT
    if shot.actor in (hand, "both"):
        grasp = _grasp(config, hand)
        T_person_wrist, flex_rad, spread_rad = _acting(shot, grasp, phase, T_person_object, T_person_wrist, flex_rad, spread_rad)
    elbow_m = np.array([side * 0.20, -0.26, 0.10])
    return HandPose(
        hand=hand,
        T_world_wrist=T_world_person @ T_person_wrist,
        flex_rad=flex_rad,
        spread_rad=spread_rad,
        elbow_m=transform(T_world_person, elbow_m),
        scale=hand_scale(config),
    )


def _free(shot: Shot, hand: str, phase: float) -> tuple[Array, Array, Array]:
    """`T_person_wrist`, flexion and spread of a hand that only gestures: it drifts, opens and half closes."""
    side, w = (-1.0, shot.wave_phase_rad[6:9]) if hand == "left" else (1.0, shot.wave_phase_rad[9:12])
    turn = 2 * np.pi * phase
    position = np.array([side * 0.172, 0.025, 0.085]) + 0.016 * np.array(
        [np.sin(turn + w[0]), np.sin(1.1 * turn + w[1]), np.sin(0.9 * turn + w[2])]
    )
    angles = (side * (12 + 8 * np.sin(turn + w[1])), 4 + 8 * np.sin(0.9 * turn + w[0]), side * 9 * np.sin(1.2 * turn + w[2]))
    closing = 0.5 - 0.5 * np.cos(1.5 * turn + w[0])
    flex_deg = OPEN_DEG + 0.5 * closing * (_FIST_DEG - OPEN_DEG)
    return rigid(position, angles), np.radians(flex_deg), np.radians((1 - closing) * np.array([-6, -5, -1, 3, 7]))


def _acting(
    shot: Shot, grasp: Grasp, phase: float, T_person_object: Array, T_free: Array, flex_free: Array, spread_free: Array
) -> tuple[Array, Array, Array]:
    """Reach above the object, close, hold it, let go and draw back; or come near without holding it."""
    T_grasp = T_person_object @ grasp.T_object_wrist
    if shot.deed != "carry":
        there = _near(shot, T_grasp, phase)
        far = _between_phases(phase, *shot.reach) if phase < shot.leave[0] else 1 - _between_phases(phase, *shot.leave)
        flex = np.radians(OPEN_DEG if shot.deed == "rest" else READY_DEG)
        return between(T_free, there, far), flex_free + far * (flex - flex_free), (1 - far) * spread_free
    above = T_grasp.copy()
    above[2, 3] += 0.045
    ready, zero = np.radians(READY_DEG), np.zeros(5)
    if phase < shot.grasp_end:
        far = _between_phases(phase, *shot.reach)
        close = _between_phases(phase, shot.reach[1] - 0.07, shot.grasp_end)
        pose = between(between(T_free, above, far), T_grasp, close)
        return pose, flex_free + far * (ready - flex_free) + close * (grasp.flex_rad - ready), (1 - far) * spread_free
    last = shot.way[-1][0]
    if phase <= last:
        return T_grasp, grasp.flex_rad, zero
    opened = _between_phases(phase, last, shot.release_end)
    back = _between_phases(phase, last + 0.02, 1.08)
    pose = between(between(T_grasp, above, back), T_free, back)
    return pose, grasp.flex_rad + opened * (ready - grasp.flex_rad) + back * (flex_free - ready), back * spread_free


def _near(shot: Shot, T_grasp: Array, phase: float) -> Array:
    """`T_person_wrist` of a hand near the object that does not hold it: above it, flat on the table beside it, or across it to its far side."""
    side = -1.0 if shot.actor == "left" else 1.0
    sway = 2 * np.pi * phase + shot.wave_phase_rad[3:6]
    if shot.deed == "hover":
        T_above = T_grasp.copy()
        T_above[:3, 3] += [0.0, 0.0, _HOVER_M] + 0.004 * np.sin(sway)
        return T_above
    x_m, y_m, _ = _object(shot, phase)[:3, 3]
    if shot.deed == "rest":
        return rigid(np.array([x_m + side * 0.135, y_m - 0.10, 0.02]), (side * 4.0, 0.0, 0.0))
    return rigid(np.array([x_m - side * 0.06, y_m - 0.13, 0.15]), (side * 30.0, 0.0, 0.0))
