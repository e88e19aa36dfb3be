"""The robot hands that human hands are mapped to. Descriptions only: no kinematics, no solver, no heavy import belongs here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from egoworld_ops import plugins
from egoworld_ops.errors import BadSettings, SetupError, UnknownRobot, unreadable

FingerName = Literal["thumb", "index", "middle", "ring", "little"]
FINGERS: tuple[FingerName, ...] = ("thumb", "index", "middle", "ring", "little")

Finite = Annotated[float, Field(allow_inf_nan=False)]
PACKAGE = "example-robot-data"
PACKAGE_ROBOTS = "cmeel.prefix/share/example-robot-data/robots"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Finger(_Part):
    """One finger by its URDF links.

    Args:
        tip: link at the fingertip; follows the human tip.
        middle: link at the joint that follows the human thumb's MCP or the human finger's PIP; None leaves it free.
    """

    tip: str
    middle: str | None = None


class RobotHand(_Part):
    """One hand of a robot.

    Args:
        urdf: path of the URDF; a relative one is below the robots of the package `example-robot-data`.
        urdf_sha256: SHA-256 of that file, hex: the joint angles mean nothing without it.
        base_link: link that the hand hangs on; it does not move with the hand's joints.
        base_position_m: origin of the base link in the human wrist frame, after the human hand is scaled (T_wrist_base).
        base_quaternion_wxyz: orientation of the base link in the human wrist frame (T_wrist_base).
        hand_length_m: wrist to tip of the straight middle finger (or longest finger), which the human hand is scaled to.
        fingers: the fingers that the robot has.
        joint_names: joints that may move; empty for all of the URDF's. Coupled (`mimic`) joints follow theirs. All others stay at 0.
    """

    urdf: str
    urdf_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    base_link: str
    base_position_m: tuple[Finite, Finite, Finite]
    base_quaternion_wxyz: tuple[Finite, Finite, Finite, Finite] = (1.0, 0.0, 0.0, 0.0)
    hand_length_m: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    fingers: Annotated[dict[FingerName, Finger], Field(min_length=1)]
    joint_names: tuple[str, ...] = ()


class Robot(_Part):
    """The hands of one robot; None where it has none on that side."""

    left: RobotHand | None = None
    right: RobotHand | None = None


def _allegro(side: str, urdf_sha256: str) -> RobotHand:
    """Wonik's Allegro hand, four fingers of four joints.

    `palm_link` has the axes of the human wrist frame (x out of the palm, z to the fingers). 0.105 m puts the robot's knuckles (mean z
    0.0156 m in `palm_link`) on the knuckles of a human hand of middling proportions (0.50 of the hand's length from the wrist).
    dex-retargeting's own assets say 0.095 m and scale by 1.6, the ratio of the fingers alone, which leaves stretched fingers short of
    their targets. The length is that offset plus the links of the middle finger: 0.105 + 0.0171 + 0.0540 + 0.0384 + 0.0267 m.
    """
    return RobotHand(
        urdf=f"allegro_hand_description/urdf/allegro_{side}_hand.urdf",
        urdf_sha256=urdf_sha256,
        base_link="palm_link",
        base_position_m=(0.0, 0.0, 0.105),
        hand_length_m=0.2412,
        fingers={
            "thumb": Finger(tip="link_15.0_tip", middle="link_14.0"),
            "index": Finger(tip="link_3.0_tip", middle="link_2.0"),
            "middle": Finger(tip="link_7.0_tip", middle="link_6.0"),
            "ring": Finger(tip="link_11.0_tip", middle="link_10.0"),
        },
    )


ROBOTS: Mapping[str, Robot] = {
    "allegro": Robot(
        left=_allegro("left", "842d0cc817f7130522daddc8ca4ef50168dddc79eb848af657cdc160511089ee"),
        right=_allegro("right", "79d43eb18475a2d6b1fa7cdf072f0f1077375519bab7c82ce88c4dce62d67d40"),
    ),
}
"""Robots known by name. Further ones come with installed packages, and with the settings."""


def find_robot(name: str, given: Mapping[str, Robot]) -> Robot:
    """The robot of that name, among those of the settings first.

    Raises:
        UnknownRobot: there is none.
        BrokenPlugin: a package brings it, and it cannot be used.
    """
    robot = given.get(name) or ROBOTS.get(name) or _brought(name)
    if robot is None:
        known = ", ".join(sorted({*ROBOTS, *given, *plugins.found(plugins.ROBOTS, ROBOTS)}))
        cure = f"Name one of {known}, or describe it under stages.mapping.dex.robots"
        raise plugins.problem_with(plugins.ROBOTS, name) or UnknownRobot(f"robot {name}", "there is no such robot hand", cure)
    return robot


def _brought(name: str) -> Robot | None:
    plugin = plugins.found(plugins.ROBOTS, ROBOTS).get(name)
    robot = plugin.load() if plugin else None
    if plugin and not isinstance(robot, Robot):
        raise plugin.broken(f"{plugin.target} is no `egoworld_ops.robots.Robot`")
    return robot


def urdf_path(hand: RobotHand) -> Path:
    """Where the hand's URDF lies, its content checked.

    Raises:
        SetupError: the package that brings it is not installed.
        StorageUnavailable: the file is there and cannot be read now.
        BadSettings: the file is not there, or is another one than the description was written for.
    """
    path = Path(hand.urdf) if Path(hand.urdf).is_absolute() else _packaged(hand.urdf)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        reason = f"the URDF cannot be read: {error.strerror}"
        raise BadSettings(path, reason, "Mend the path, or install the pinned requirements anew") from error
    if found != hand.urdf_sha256:
        cure = "Restore the file, or check the robot's description and set its new SHA-256"
        raise BadSettings(path, f"SHA-256 is {found}, want {hand.urdf_sha256}", cure)
    return path


def _packaged(relative: str) -> Path:
    try:
        return Path(str(distribution(PACKAGE).locate_file(f"{PACKAGE_ROBOTS}/{relative}")))
    except PackageNotFoundError as error:
        raise SetupError(PACKAGE, "the package with the robots' URDFs is not installed", f"Run: pip install {PACKAGE}") from error
