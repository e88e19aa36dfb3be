"""How an object moves at one moment, against the hands and the background, and what of it goes into a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.movement._background import Background
from egoworld_ops.types import Hand

SCALE_UNDECIDED = Reason(
    "scale_uncertain", "it moves, or the camera's path has another scale than the object's distance: both are within the stated errors"
)
WAY_UNDECIDED = Reason(
    "camera_walks",
    "it moves, or rests nearer than the background while the camera walks: nobody gives the camera's path, and the picture shows both alike",
)
CUT = Reason("cut", "the frame before shows another scene: a cut was not found, and what the track was before may be another thing")
_MOVES = ("vx_m_s", "vy_m_s", "vz_m_s", "speed_background_m_s", "turning_background_rad_s", "background_source", "state")
"""Columns of which `reason` says why they are null."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Between two moments around a frame.

    Args:
        velocity_m_s: (3,) in the camera frame; None where the object has no pose, and `why` then says why.
        speed_m_s: of the object's middle relative to the background; None where that or its pose is not known.
        turning_rad_s: the same for its rotation.
        seen_m_s: of points followed on the object relative to the background, across the line of sight; None where there are too few.
        depth_m_s: along the line of sight, relative to the background.
        slips_m_s: of each hand against the object.
        seen_slips_m_s: the same by the picture alone, which errors of poses do not change.
        source: of the background's motion, `Background.source`.
        likely_m_s: the speed by which the state is judged, at the scale that the camera's path is said to have or, if less, by the picture. The other
            speeds are the least that a scale within its errors, or a way of the camera that the picture allows, gives.
        doubt: why it is not known whether the object moves, where the other speeds say that it rests and `likely_m_s` that it moves.
        nearer, way_m_s: what lets it rest, see `_walking.Explained`; NaN where it rests anyway, or nothing lets it.
    """

    velocity_m_s: np.ndarray | None
    speed_m_s: float | None
    turning_rad_s: float | None
    seen_m_s: float | None
    depth_m_s: float
    slips_m_s: dict[Hand, float]
    seen_slips_m_s: dict[Hand, float]
    why: Reason | None = None
    source: str | None = None
    likely_m_s: float | None = None
    doubt: Reason | None = None
    nearer: float = np.nan
    way_m_s: float = np.nan

    @property
    def fastest_m_s(self) -> float:
        """Speed relative to the background, by the poses, else by the picture; NaN where neither is known."""
        return next((speed for speed in (self.speed_m_s, self.seen_m_s) if speed is not None), np.nan)

    def columns(self) -> dict[str, Any]:
        """Velocities, or why there are none, and what the background's motion is from."""
        columns: dict[str, Any] = {"background_source": self.source}
        if self.velocity_m_s is None:
            assert self.why is not None
            return columns | self.why.columns()
        columns |= dict(zip(("vx_m_s", "vy_m_s", "vz_m_s"), self.velocity_m_s.tolist(), strict=True))
        if self.speed_m_s is None:
            return columns | Reason("too_few_points", "too few background points agree on the camera's motion").columns()
        return columns | {"speed_background_m_s": self.speed_m_s, "turning_background_rad_s": self.turning_rad_s}

    @property
    def walks(self) -> bool:
        """Whether the camera's walk may be all that moves it in the picture. Hand and object are then compared as they move there."""
        return self.doubt is WAY_UNDECIDED

    def undecided(self) -> dict[str, Any]:
        """Why there is no state, and no velocity, where the camera's motion does not tell whether the object moves."""
        if self.doubt is None:
            return {}
        return _both(self.doubt, self.why)


def over_cut(row: dict[str, Any]) -> dict[str, Any]:
    """The first row of an object in another scene: without velocity and state, for that reason and its own."""
    return row | dict.fromkeys(_MOVES) | _both(CUT, row.get("reason"))


def _both(why: Reason, other: str | None) -> dict[str, str]:
    return Reason(why.kind, f"{why}; {other}" if other else why).columns()


def judged_m_s(motion: Motion) -> float:
    """The speed by which a motion's state is judged; NaN where it is not known."""
    return motion.fastest_m_s if motion.seen_m_s is None else motion.seen_m_s


def least(
    by_camera: Sequence[Background],
    picture: Callable[[], Background | None],
    against: Callable[[Background], Motion | None],
    start_m_s: float,
) -> Motion | None:
    """The motion of an object against the background; None where nothing tells it.

    Of the scales that the camera's path may have, the one at which the object moves least. Where it moves at the scale that is said, and rests at
    another within the errors, `likely_m_s` is the less of what the first and the picture say: both together may say that it rests.

    Args:
        by_camera: the background as the camera's poses have it, as it is said and at other scales; none where they are not known.
        picture: gives the background as the picture has it; called where it is needed.
        against: the motion against a background; None where that cannot be solved.
        start_m_s: the speed from which on an object moves.
    """
    motions = [motion for background in by_camera if (motion := against(background)) is not None]
    likely_m_s = judged_m_s(motions[0]) if motions else np.nan
    if motions and not likely_m_s > start_m_s:
        return motions[0]
    seen = picture()
    by_picture = None if seen is None else against(seen)
    if not motions:
        return by_picture
    of_picture_m_s = np.nan if by_picture is None else judged_m_s(by_picture)
    return replace(min(motions, key=judged_m_s), likely_m_s=float(np.fmin(likely_m_s, of_picture_m_s)), doubt=SCALE_UNDECIDED)


def unless_it_rests(moves: Motion, rests: Motion | None, nearer: float, way_m_s: float) -> Motion:
    """The lesser of the motion against the background's plane and that against the depth and the camera's way that explain it best."""
    if rests is None or not judged_m_s(rests) < judged_m_s(moves):
        return moves
    return replace(rests, likely_m_s=judged_m_s(moves), doubt=WAY_UNDECIDED, nearer=nearer, way_m_s=way_m_s)
