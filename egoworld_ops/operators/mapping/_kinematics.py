"""Kinematics of one robot hand: where its links are for given joint values, for many frames at once. No solver belongs here.

A joint value is an angle in rad, or metres where the joint slides (URDF type `prismatic`), as in ROS's JointState.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin

from egoworld_ops.errors import BadSettings
from egoworld_ops.operators.mapping._chain import Chain, Points
from egoworld_ops.robots import FINGERS, RobotHand, urdf_path
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion

Coupling = tuple[str, float, float]
"""The joint that another follows, the multiplier, and the offset."""


class HandModel:
    """The kinematics of one robot hand.

    Attributes:
        path: its URDF.
        joint_names: the joints of every `qpos` here, coupled ones included.
        limits: (n_joints, 2) float64, lower and upper.
        speed_limits: (n_joints,) rad/s, m/s where the joint slides; inf without limit.
        slides: (n_joints,) True where the joint slides.
        driven: (n_driven,) indices into `joint_names`: the joints that are not coupled to another.
        coupling: (n_joints, n_driven), offset: (n_joints,): qpos = coupling @ driven values + offset.
        driven_limits: (n_driven, 2) within which each driven joint and all that follow it are within theirs.
        driven_speeds: (n_driven,) the greatest speed at which each driven joint and all that follow it are within theirs; inf without limits.
        fingers: names of its fingers, in the order of `tip_links`.
        tip_links, middle_links: URDF links; a middle link is None where the hand names none.
        T_wrist_base: (4, 4) pose of the base link in the (scaled) human wrist frame, or in the pinch frame where it hangs on that.

    Raises:
        BadSettings: the URDF cannot be read, a link or joint is not in it, or limits contradict each other.
    """

    def __init__(self, hand: RobotHand) -> None:
        self.path = urdf_path(hand)
        try:
            couplings = _couplings(ElementTree.parse(self.path).getroot())  # noqa: S314  # a file the settings name, its content known
            self.pin_model: pin.Model = pin.buildModelFromUrdf(str(self.path))
        except (ValueError, RuntimeError, ElementTree.ParseError) as error:
            raise BadSettings(self.path, f"the URDF cannot be used: {error}", "Mend the URDF") from error
        if self.pin_model.nq != self.pin_model.nv:
            raise BadSettings(self.path, "the URDF cannot be used: it has joints without limits (type continuous)", "Make them revolute")
        self.hand = hand
        self._joints = [name for name, n in zip(self.pin_model.names, self.pin_model.nqs, strict=True) if n]
        self.joint_names = tuple(hand.joint_names or self._joints)
        self.fingers = tuple(f for f in FINGERS if f in hand.fingers)
        self.tip_links = tuple(hand.fingers[f].tip for f in self.fingers)
        self.middle_links = tuple(hand.fingers[f].middle for f in self.fingers)
        self._check_names(couplings)
        self.joint_indices = np.array([self._joints.index(n) for n in self.joint_names])
        lower, upper = self.pin_model.lowerPositionLimit, self.pin_model.upperPositionLimit
        self.limits = np.stack([lower, upper], 1)[self.joint_indices]
        self._couple(couplings)
        self.T_wrist_base = make_transform(matrix_from_quaternion(np.array(hand.base_quaternion_wxyz)), np.array(hand.base_position_m))
        self._chain_from_base()

    def _check_names(self, couplings: Mapping[str, Coupling]) -> None:
        known = {frame.name for frame in self.pin_model.frames if frame.type == pin.FrameType.BODY}
        links = {self.hand.base_link, *self.tip_links, *(m for m in self.middle_links if m)} - known
        joints = {*self.joint_names, *(source for source, _, _ in couplings.values())} - set(self._joints)
        if unknown := sorted(links | joints):
            raise BadSettings(self.path, f"there is no link or joint {', '.join(unknown)}", "Mend the robot's description or the URDF")

    def _couple(self, couplings: Mapping[str, Coupling]) -> None:
        """Find which joints are driven, what the others are to them, and the limits that hold for both."""
        driven = [n for n in self.joint_names if n not in couplings]
        self.driven = np.array([self.joint_names.index(n) for n in driven])
        self.coupling, self.offset = np.zeros((len(self.joint_names), len(driven))), np.zeros(len(self.joint_names))
        for i, name in enumerate(self.joint_names):
            source, factor, offset = _source(name, couplings)
            if source in driven:
                self.coupling[i, driven.index(source)], self.offset[i] = factor, offset
        speeds = self.pin_model.velocityLimit[self.joint_indices]
        speeds = self.speed_limits = np.where(speeds > 0, speeds, np.inf)
        self.driven_limits, self.driven_speeds = np.zeros((len(driven), 2)), np.full(len(driven), np.inf)
        for k, name in enumerate(driven):
            followers = np.flatnonzero(self.coupling[:, k])
            factor = self.coupling[followers, k]
            bounds = np.sort((self.limits[followers] - self.offset[followers, None]) / factor[:, None], axis=1)
            self.driven_limits[k] = bounds[:, 0].max(), bounds[:, 1].min()
            self.driven_speeds[k] = (speeds[followers] / np.abs(factor)).min()
            if not self.driven_limits[k, 0] <= self.driven_limits[k, 1]:
                raise BadSettings(self.path, f"the limits of joint {name} and of those coupled to it exclude each other", "Mend the URDF")
        types = [self.pin_model.joints[self.pin_model.getJointId(n)].shortname() for n in self.joint_names]
        self.slides = np.array([t.startswith("JointModelP") for t in types], bool)

    def fastest_turn(self, speeds: np.ndarray) -> np.ndarray:
        """(T,) the greatest of (T, n_joints) speeds among joints that turn, rad/s; NaN where none does."""
        turning = speeds[:, ~self.slides]
        return turning.max(1) if turning.shape[1] else np.full(len(speeds), np.nan)

    def speed_share(self, speeds: np.ndarray) -> np.ndarray:
        """(T,) the greatest of (T, n_joints) speeds over the joint's limit; NaN where no joint has one."""
        limited = np.isfinite(self.speed_limits)
        return (speeds[:, limited] / self.speed_limits[limited]).max(1) if limited.any() else np.full(len(speeds), np.nan)

    def _chain_from_base(self) -> None:
        """The chain of all links, in the frame of the base link, which does not move."""
        model, data = self.pin_model, self.pin_model.createData()
        base = model.getFrameId(self.hand.base_link, pin.FrameType.BODY)
        pin.framesForwardKinematics(model, data, np.zeros(model.nq))
        T_base_root = invert(data.oMf[base].homogeneous)
        self.chain = Chain(model, T_base_root)

    def _full(self, qpos: np.ndarray) -> np.ndarray:
        """(..., n_joints) joint values to those of all of the URDF's joints, (..., dof)."""
        full = np.zeros((*qpos.shape[:-1], self.pin_model.nq))
        full[..., self.joint_indices] = qpos
        return full

    def qpos_of(self, driven: np.ndarray) -> np.ndarray:
        """(..., n_driven) values of the driven joints to (..., n_joints) of all."""
        qpos: np.ndarray = driven @ self.coupling.T + self.offset
        return qpos

    def points(self) -> tuple[list[int], np.ndarray]:
        """Frame ids and (n, 3) offsets in those frames of what follows the human hand: the fingertips, then the middle joints there are."""
        links = [*self.tip_links, *(m for m in self.middle_links if m)]
        tips = [self.hand.fingers[f].tip_position_m for f in self.fingers]
        offsets_m = np.zeros((len(links), 3))
        offsets_m[: len(tips)] = tips
        return [self._frame(name) for name in links], offsets_m

    def solved_points(self, driven: np.ndarray) -> SolvedPoints:
        """The `points` for (T, n_driven) values of the driven joints."""
        frames, offsets_m = self.points()
        found = self.chain.points(self._full(self.qpos_of(driven)), frames, offsets_m)
        return SolvedPoints(found, self.joint_indices, self.coupling)

    def tips_m(self, qpos: np.ndarray) -> np.ndarray:
        """(..., n_joints) joint values to (..., n_fingers, 3) float64 fingertips in the base frame, in the order of `fingers`."""
        frames, offsets_m = self.points()
        n = len(self.tip_links)
        full = self._full(np.atleast_2d(qpos))
        return self.chain.points(full, frames[:n], offsets_m[:n]).positions_m.reshape(*np.shape(qpos)[:-1], n, 3)

    def links_m(self, links: Sequence[str], qpos: np.ndarray) -> np.ndarray:
        """(n_joints,) joint values to (len(links), 3) float64 origins of those links in the base frame."""
        frames = [self._frame(name) for name in links]
        return self.chain.points(self._full(np.atleast_2d(qpos)), frames, np.zeros((len(links), 3))).positions_m[0]

    def segments_m(self, qpos: np.ndarray) -> np.ndarray:
        """(n_joints,) joint values to (n, 2, 3) float64 line segments in the base frame: the hand's skeleton, for drawing.

        One chain a finger: the origin of every link from the base link to the fingertip.
        """
        tips, offsets_m = self.points()
        n, chains = len(self.tip_links), [[self._frame(name) for name in self._links_to(link)] for link in self.tip_links]
        links = [frame for chain in chains for frame in chain]
        all_offsets_m = np.concatenate([np.zeros((len(links), 3)), offsets_m[:n]])
        places_m = self.chain.points(self._full(np.atleast_2d(qpos)), [*links, *tips[:n]], all_offsets_m).positions_m[0]
        segments = []
        for chain, tip_m in zip(
            np.split(places_m[: len(links)], np.cumsum([len(c) for c in chains])[:-1]), places_m[len(links) :], strict=True
        ):
            line = chain if np.allclose(chain[-1], tip_m) else np.concatenate([chain, tip_m[None]])
            segments += [np.stack(pair) for pair in pairwise(line)]
        return np.array(segments)

    def _links_to(self, tip: str) -> list[str]:
        """Names of the links from the base link to `tip`."""
        frames = self.pin_model.frames
        names, index = [tip], self._frame(tip)
        while names[-1] != self.hand.base_link and index > 0:
            index = frames[index].parentFrame
            if frames[index].type == pin.FrameType.BODY:
                names.append(frames[index].name)
        return names[::-1]

    def _frame(self, link: str) -> int:
        return int(self.pin_model.getFrameId(link, pin.FrameType.BODY))


class SolvedPoints:
    """Positions of points in T frames and their derivatives by the driven joints.

    Attributes:
        positions_m: (T, n, 3) in the base frame.
        jacobian: (T, n, 3, n_driven).
    """

    def __init__(self, points: Points, joint_indices: np.ndarray, coupling: np.ndarray) -> None:
        self._points, self._indices, self._coupling = points, joint_indices, coupling
        self.positions_m = points.positions_m
        self.jacobian = points.jacobian[..., joint_indices] @ coupling

    def curvature(self, pull: np.ndarray) -> np.ndarray:
        """(T, n_driven, n_driven) second derivatives of the positions, summed with (T, n, 3) factors."""
        bent = self._points.curvature(pull)[:, self._indices[:, None], self._indices]
        curvature: np.ndarray = self._coupling.T @ bent @ self._coupling
        return curvature


def _couplings(urdf: ElementTree.Element) -> dict[str, Coupling]:
    """Coupled joints of a URDF, by name."""
    found = {}
    for joint in urdf.iter("joint"):
        if (mimic := joint.find("mimic")) is not None:
            source = mimic.get("joint", "")
            found[joint.get("name", "")] = (source, float(mimic.get("multiplier", 1)), float(mimic.get("offset", 0)))
    return found


def _source(name: str, couplings: Mapping[str, Coupling]) -> Coupling:
    """The joint at the end of a row of couplings, and multiplier and offset to it; the joint itself where it is not coupled."""
    factor, offset, passed = 1.0, 0.0, {name}
    while name in couplings:
        name, multiplier, added = couplings[name]
        offset += factor * added
        factor *= multiplier
        if name in passed:
            return name, 0.0, 0.0
        passed.add(name)
    return name, factor, offset
