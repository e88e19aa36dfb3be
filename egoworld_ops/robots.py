"""The robot hands that human hands are mapped to. Descriptions only: no kinematics, no solver, no heavy import belongs here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
        tip_position_m: the fingertip in that link's frame, where it is not its origin.
        middle: link at the joint that follows the human thumb's MCP or the human finger's PIP; None leaves it free.
    """

    tip: str
    tip_position_m: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    middle: str | None = None


class RobotHand(_Part):
    """One hand of a robot.

    Args:
        urdf: path of the URDF; a relative one is below the robots of the package `example-robot-data`. None where no package brings it and
            the settings give its path.
        urdf_sha256: SHA-256 of that file, hex: the joint values mean nothing without it. None with `urdf`.
        base_link: link that the hand hangs on; it does not move with the hand's joints.
        hangs_on: the frame that the base link is fixed in. `wrist`: the human wrist frame, after the human hand is scaled; so hands with
            fingers. `pinch`: the frame between thumb and index, not scaled; so grippers of two pads, which are their `thumb` and `index`.
        base_position_m: origin of the base link in that frame (T_wrist_base, or T_pinch_base).
        base_quaternion_wxyz: orientation of the base link in that frame.
        hand_length_m: wrist to tip of the straight middle finger (or longest finger), which the human hand is scaled to; of a gripper base
            to pads, for drawing.
        fingers: the fingers that the robot has.
        joint_names: joints that may move; empty for all of the URDF's. Coupled (`mimic`) joints follow theirs. All others stay at 0.
    """

    urdf: str | None = None
    urdf_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    base_link: str
    hangs_on: Literal["wrist", "pinch"] = "wrist"
    base_position_m: tuple[Finite, Finite, Finite]
    base_quaternion_wxyz: tuple[Finite, Finite, Finite, Finite] = (1.0, 0.0, 0.0, 0.0)
    hand_length_m: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    fingers: Annotated[dict[FingerName, Finger], Field(min_length=1)]
    joint_names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> RobotHand:
        if (self.urdf is None) != (self.urdf_sha256 is None):
            raise ValueError("urdf and urdf_sha256: want both or none")
        if self.hangs_on == "pinch" and set(self.fingers) != {"thumb", "index"}:
            raise ValueError(f"fingers: a gripper (hangs_on: pinch) has thumb and index, got {', '.join(self.fingers)}")
        return self


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


def _leap(base_position_m: tuple[float, float, float]) -> RobotHand:
    """The LEAP hand, four fingers of four joints, by the links of dexsuite's `leap_hand_{left,right}.urdf`.

    `base` has the axes of the human wrist frame, and lies elsewhere in each of the two files. The middle finger is 0.137 m long, from a knuckle
    at x = 0.019, z = 0.091 m in `base` on the right hand and at x = 0.007, z = 0.0875 m on the left: as for Allegro, the offset puts it at half
    of the hand's length, on the knuckle of a human hand.
    """
    return RobotHand(
        base_link="base",
        base_position_m=base_position_m,
        hand_length_m=0.274,
        fingers={
            "thumb": Finger(tip="thumb_tip_head", middle="thumb_dip"),
            "index": Finger(tip="index_tip_head", middle="dip"),
            "middle": Finger(tip="middle_tip_head", middle="dip_2"),
            "ring": Finger(tip="ring_tip_head", middle="dip_3"),
        },
    )


def _shadow() -> RobotHand:
    """Shadow's dexterous hand without its wrist, by the links of `shadow_hand_{left,right}.urdf` (Shadow's own names), one for both.

    `palm` has x to the index of a right hand and y out of its back. From it to the middle knuckle are 0.099 m, to the tip
    0.099 + 0.045 + 0.025 + 0.026 m: a human hand's own proportions.
    """
    short: dict[FingerName, str] = {"thumb": "th", "index": "ff", "middle": "mf", "ring": "rf", "little": "lf"}
    joints = [f"{f.upper()}J{n}" for f in short.values() for n in range(1, 6 if f in ("th", "lf") else 5)]
    return RobotHand(
        base_link="palm",
        base_position_m=(0.0, 0.0, 0.0),
        base_quaternion_wxyz=(0.5**0.5, 0.0, 0.0, 0.5**0.5),
        hand_length_m=0.195,
        fingers={finger: Finger(tip=f"{name}tip", middle=f"{name}middle") for finger, name in short.items()},
        joint_names=tuple(joints),
    )


def _panda() -> RobotHand:
    """Franka's Panda gripper: two coupled pads that slide 0 to 0.04 m each. Its arm stays at 0 and is not part of it.

    `panda_hand` has z to the pads and y from the right pad to the left one, as the pinch frame from index to thumb. The pads meet at its
    `panda_hand_tcp`, z = 0.1034 m.
    """
    return RobotHand(
        urdf="panda_description/urdf/panda.urdf",
        urdf_sha256="63792d2679f22c4e41cda2c4d9d903644e628970ad0656b9eec8485113941555",
        base_link="panda_hand",
        hangs_on="pinch",
        base_position_m=(0.0, 0.0, -0.1034),
        hand_length_m=0.1034,
        fingers={
            "thumb": Finger(tip="panda_leftfinger", tip_position_m=(0.0, 0.0, 0.045)),
            "index": Finger(tip="panda_rightfinger", tip_position_m=(0.0, 0.0, 0.045)),
        },
        joint_names=("panda_finger_joint1", "panda_finger_joint2"),
    )


ROBOTS: Mapping[str, Robot] = {
    "allegro": Robot(
        left=_allegro("left", "842d0cc817f7130522daddc8ca4ef50168dddc79eb848af657cdc160511089ee"),
        right=_allegro("right", "79d43eb18475a2d6b1fa7cdf072f0f1077375519bab7c82ce88c4dce62d67d40"),
    ),
    "leap": Robot(left=_leap((-0.007, 0.0, 0.0495)), right=_leap((-0.019, 0.0, 0.046))),
    "panda": Robot(left=_panda(), right=_panda()),
    "shadow": Robot(left=_shadow(), right=_shadow()),
}
"""Robots known by name. Further ones come with installed packages, and with the settings."""


def with_urdfs(name: str, robot: Robot, paths: Mapping[Literal["left", "right"], str]) -> Robot:
    """The robot with the URDFs that the settings give; a hand that then has none is none.

    Raises:
        StorageUnavailable: a file is there and cannot be read now.
        BadSettings: a path is not whole, a file cannot be read, or no hand has a URDF.
    """
    hands = {"left": robot.left, "right": robot.right}
    for side, given in paths.items():
        path = Path(given).expanduser()
        if not path.is_absolute():
            raise BadSettings(f"stages.mapping.dex.urdf.{side}", f"{given} is not a whole path", "Begin it at / or ~")
        if (hand := hands[side]) is None:
            raise BadSettings(f"stages.mapping.dex.urdf.{side}", f"robot {name} has no {side} hand", "Leave it out")
        hands[side] = hand.model_copy(update={"urdf": str(path), "urdf_sha256": _sha256(path)})
    if not any(hand and hand.urdf for hand in hands.values()):
        cure = f"Set stages.mapping.dex.urdf.right (or left) to the path of {name}'s URDF"
        raise BadSettings(f"robot {name}", "its URDF comes with no package that is installed here", cure)
    return Robot(**{side: hand if hand and hand.urdf else None for side, hand in hands.items()})


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
    if hand.urdf is None:
        raise BadSettings(f"the hand on {hand.base_link}", "its URDF is not known", "Give its path as stages.mapping.dex.urdf")
    path = Path(hand.urdf) if Path(hand.urdf).is_absolute() else _packaged(hand.urdf)
    if (found := _sha256(path)) != hand.urdf_sha256:
        cure = "Restore the file, or check the robot's description and set its new SHA-256"
        raise BadSettings(path, f"SHA-256 is {found}, want {hand.urdf_sha256}", cure)
    return path


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        reason = f"the URDF cannot be read: {error.strerror}"
        raise BadSettings(path, reason, "Mend the path, or install the pinned requirements anew") from error


def _packaged(relative: str) -> Path:
    try:
        return Path(str(distribution(PACKAGE).locate_file(f"{PACKAGE_ROBOTS}/{relative}")))
    except PackageNotFoundError as error:
        raise SetupError(PACKAGE, "the package with the robots' URDFs is not installed", f"Run: pip install {PACKAGE}") from error
