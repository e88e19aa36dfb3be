"""Forward kinematics of one robot hand: where its links are for given joint angles. No solver belongs here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin
from dex_retargeting.robot_wrapper import RobotWrapper

from egoworld_ops.errors import BadSettings
from egoworld_ops.robots import FINGERS, RobotHand, urdf_path
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, transform


class HandModel:
    """The kinematics of one robot hand.

    Attributes:
        joint_names: the joints of every `qpos_rad` here, coupled ones included.
        limits_rad: (n_joints, 2) float64, lower and upper.
        fingers: names of its fingers, in the order of `tip_links`.
        tip_links, middle_links: URDF links; a middle link is None where the hand names none.
        T_wrist_base: (4, 4) pose of the base link in the (scaled) human wrist frame.

    Raises:
        BadSettings: the URDF cannot be read, or a link or joint is not in it.
    """

    def __init__(self, hand: RobotHand) -> None:
        path = urdf_path(hand)
        try:
            self.couplings = _couplings(ElementTree.parse(path).getroot())  # noqa: S314  # a file the settings name, its content pinned
            self.robot = RobotWrapper(str(path))
        except (ValueError, RuntimeError, NotImplementedError, ElementTree.ParseError) as error:
            raise BadSettings(path, f"the URDF cannot be used: {error}", "Mend the URDF") from error
        self.hand = hand
        self.joint_names = tuple(hand.joint_names or self.robot.dof_joint_names)
        self.fingers = tuple(f for f in FINGERS if f in hand.fingers)
        self.tip_links = tuple(hand.fingers[f].tip for f in self.fingers)
        self.middle_links = tuple(hand.fingers[f].middle for f in self.fingers)
        self._check_names(str(path))
        self.joint_indices = np.array([self.robot.get_joint_index(n) for n in self.joint_names])
        self.limits_rad = self.robot.joint_limits[self.joint_indices]
        self.T_wrist_base = make_transform(matrix_from_quaternion(np.array(hand.base_quaternion_wxyz)), np.array(hand.base_position_m))
        self.T_root_base = self._root_links([hand.base_link], np.zeros(len(self.joint_names)))[0]

    def _check_names(self, path: str) -> None:
        links = {self.hand.base_link, *self.tip_links, *(m for m in self.middle_links if m)} - set(self.robot.link_names)
        joints = {*self.joint_names, *(source for source, _, _ in self.couplings.values())} - set(self.robot.dof_joint_names)
        if unknown := sorted(links | joints):
            raise BadSettings(path, f"there is no link or joint {', '.join(unknown)}", "Mend the robot's description or the URDF")

    def tips_m(self, qpos_rad: np.ndarray) -> np.ndarray:
        """(n_joints,) joint angles to (n_fingers, 3) float64 fingertips in the base frame, in the order of `fingers`."""
        return self.links_m(self.tip_links, qpos_rad)

    def links_m(self, links: Sequence[str], qpos_rad: np.ndarray) -> np.ndarray:
        """(n_joints,) joint angles to (len(links), 3) float64 origins of those links in the base frame."""
        T_base_root = invert(self.T_root_base)
        return np.array([transform(T_base_root, T[:3, 3]) for T in self._root_links(links, qpos_rad)])

    def segments_m(self, qpos_rad: np.ndarray) -> np.ndarray:
        """(n_joints,) joint angles to (n, 2, 3) float64 line segments in the base frame: the hand's skeleton, for drawing.

        One chain a finger: the origin of every link from the base link to the fingertip.
        """
        segments = []
        for tip in self.tip_links:
            chain = self.links_m(self._chain(tip), qpos_rad)
            segments += [np.stack(pair) for pair in pairwise(chain)]
        return np.array(segments)

    def _chain(self, tip: str) -> list[str]:
        """Names of the links from the base link to `tip`."""
        frames = self.robot.model.frames
        names, index = [tip], self.robot.get_link_index(tip)
        while names[-1] != self.hand.base_link and index > 0:
            index = frames[index].parentFrame
            if frames[index].type == pin.FrameType.BODY:
                names.append(frames[index].name)
        return names[::-1]

    def _root_links(self, links: Sequence[str], qpos_rad: np.ndarray) -> np.ndarray:
        """(len(links), 4, 4) poses of links in the frame of the URDF's root."""
        qpos = np.zeros(self.robot.dof)
        qpos[self.joint_indices] = qpos_rad
        self.robot.compute_forward_kinematics(qpos)
        return np.array([self.robot.get_link_pose(self.robot.get_link_index(name)) for name in links])


def _couplings(urdf: ElementTree.Element) -> dict[str, tuple[str, float, float]]:
    """Coupled joints of a URDF: name -> (joint it follows, multiplier, offset in rad)."""
    found = {}
    for joint in urdf.iter("joint"):
        if (mimic := joint.find("mimic")) is not None:
            source = mimic.get("joint", "")
            found[joint.get("name", "")] = (source, float(mimic.get("multiplier", 1)), float(mimic.get("offset", 0)))
    return found
