"""What happens in the three shots of each plan, before the seed's variation. Positions are in the frame of the person who acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from egoworld_ops.synthetic.config import PlanName

Vector = tuple[float, float, float]
Deed = Literal["carry", "hover", "rest", "cross"]
"""What the acting hand does: grasps the object and carries it; hovers above it; lies on the table beside it; crosses it between it and the eye."""
_NEVER = (2.0, 2.1)


@dataclass(frozen=True, slots=True)
class Plan:
    """A shot before the seed's variation.

    `actor`: the hand that acts, or both. `across`: it is that of another person, across the table.
    `way`: phase, position (z above where the object rests), yaw-pitch-roll in degrees; lifted at the first, put down at
    the last entry. `reach`: phases at which the hand leaves for the object and is above it. `leave`: the same for the way back of a hand
    that does not hold the object.
    """

    actor: str
    place_m: Vector
    facing_deg: float
    eye_m: Vector
    target_m: Vector
    way: tuple[tuple[float, Vector, Vector], ...]
    reach: tuple[float, float]
    deed: Deed = "carry"
    leave: tuple[float, float] = _NEVER
    across: bool = False


_CARRY = (
    Plan(
        actor="right",
        place_m=(0, 0, 0),
        facing_deg=0,
        eye_m=(0.0, -0.03, 0.55),
        target_m=(0.0, 0.135, 0.02),
        way=(
            (0.62, (0.045, 0.205, 0.0), (24, 0, 0)),
            (0.80, (0.00, 0.190, 0.085), (8, 18, -8)),
            (1.0, (-0.030, 0.210, 0.095), (42, 20, 10)),
        ),
        reach=(0.30, 0.55),
    ),
    Plan(
        actor="right",
        place_m=(1.4, 0.3, 0),
        facing_deg=75,
        eye_m=(0.05, 0.00, 0.53),
        target_m=(0.0, 0.145, 0.04),
        way=(
            (0.28, (0.05, 0.175, 0.0), (30, 0, 0)),
            (0.46, (0.00, 0.165, 0.095), (12, 18, 10)),
            (0.66, (-0.045, 0.205, 0.105), (50, 24, -12)),
            (0.86, (-0.02, 0.235, 0.0), (40, 0, 0)),
        ),
        reach=(0.03, 0.22),
    ),
    Plan(
        actor="left",
        place_m=(-0.9, 1.1, 0),
        facing_deg=-130,
        eye_m=(-0.05, -0.06, 0.57),
        target_m=(0.01, 0.125, 0.03),
        way=(
            (0.34, (-0.06, 0.190, 0.0), (-30, 0, 0)),
            (0.52, (-0.01, 0.185, 0.080), (-10, 18, -10)),
            (0.70, (0.03, 0.195, 0.100), (-42, 24, 12)),
            (0.88, (0.00, 0.225, 0.0), (-34, 0, 0)),
        ),
        reach=(0.08, 0.28),
    ),
)


def _always(position_m: Vector, angles_deg: Vector) -> tuple[tuple[float, Vector, Vector], ...]:
    """The way of an object that is held at one place, from before the shot until after it."""
    return ((-1.0, position_m, angles_deg), (2.0, position_m, angles_deg))


def _resting(position_m: Vector, yaw_deg: float) -> tuple[tuple[float, Vector, Vector], ...]:
    """The way of an object that is never lifted."""
    return ((2.0, position_m, (yaw_deg, 0, 0)),)


_EYES: tuple[tuple[Vector, float, Vector, Vector], ...] = tuple((p.place_m, p.facing_deg, p.eye_m, p.target_m) for p in _CARRY)
_HOLD = (
    Plan("right", *_EYES[0], _always((0.0, 0.195, 0.085), (14, 12, -6)), (-1.5, -1.2)),
    Plan("right", *_EYES[1], _resting((0.0, 0.19, 0.0), 20), (-0.2, 0.15), "hover"),
    Plan("left", *_EYES[2], _resting((0.0, 0.19, 0.0), -12), (-0.5, -0.2), "rest"),
)
_NEAR = (
    Plan("right", *_EYES[0], _resting((-0.02, 0.19, 0.0), 18), (0.1, 0.45), "cross", (0.5, 0.9)),
    Plan("right", *_EYES[1], _always((0.02, 0.19, 0.0), (26, 0, 0)), (-1.5, -1.2)),
    Plan("left", *_EYES[2], _resting((-0.02, 0.19, 0.0), -16), (-0.4, -0.1), "hover", (0.7, 1.0)),
)
_BOTH = (
    replace(_CARRY[1], actor="both"),
    replace(_HOLD[0], actor="both"),
    replace(_CARRY[2], actor="both"),
)
_OTHER = (
    replace(_CARRY[1], across=True),
    replace(_HOLD[0], across=True),
    replace(_CARRY[2], across=True),
)
PLANS: Mapping[PlanName, tuple[Plan, ...]] = {"carry": _CARRY, "hold": _HOLD, "near": _NEAR, "both": _BOTH, "other": _OTHER}
