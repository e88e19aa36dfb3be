"""A robot hand in a recording: the meshes of its URDF, moved by its joints, at the wrist of the person."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from egoworld_ops.operators.rows import pose_of
from egoworld_ops.report._layer_rows import robot_model
from egoworld_ops.report._overlay import ROBOT_COLOR
from egoworld_ops.report._rerun_shown import Shown
from egoworld_ops.vision.geometry import invert, make_transform, matrix_from_quaternion, transform

if TYPE_CHECKING:
    from rerun.urdf import UrdfJoint, UrdfTree

    from egoworld_ops.operators.mapping._kinematics import HandModel


class Robots:
    """The robot hands of a recording. Each URDF is logged once, when its hand is first shown.

    Args:
        camera: the entity of the camera, in whose frame the hands stand.
    """

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self._trees: dict[str, _Tree | None] = {}
        self._unknown: set[str] = set()

    def notes(self) -> list[str]:
        """Which robots are not shown."""
        return [f"- robot {name}: its model is not known here, it is not shown" for name in sorted(self._unknown)]

    def shapes_of_collisions(self) -> list[str]:
        """The entities that hold the robots' shapes for collisions, which lie about the meshes."""
        return [f"/{key}/{tree.name}/collision_geometries" for key, tree in self._trees.items() if tree is not None]

    def show(self, shown: Shown, row: Mapping[str, Any]) -> None:
        """Show one row of `mapping` in the frame that is on: its meshes, or lines of its links where the URDF has an arm, or meshes that lack."""
        import rerun as rr

        T_camera_base = pose_of(row)
        model = robot_model(row["robot"], row["hand"])
        if row["qpos_rad"] is None or T_camera_base is None:
            return
        if model is None:
            self._unknown.add(row["robot"])
            return
        values = dict(zip(row["joint_names"], row["qpos_rad"], strict=True))
        key = f"robot_{row['hand']}"
        if key not in self._trees:
            self._trees[key] = _tree(shown, key, model)
        if (tree := self._trees[key]) is not None:
            tree.show(shown, self._camera, T_camera_base, values)
        elif values.keys() >= set(model.joint_names):
            links_m = transform(T_camera_base, model.segments_m(np.array([values[joint] for joint in model.joint_names])))
            shown.now(f"{self._camera}/{key}", rr.LineStrips3D(links_m, colors=ROBOT_COLOR))


class _Tree:
    """A URDF that was logged.

    Args:
        key: names the entity, and is the prefix of its frames.
        T_root_base: (4, 4) pose of the link that the hand hangs on in the URDF's root, which does not move.
    """

    def __init__(self, key: str, tree: UrdfTree, T_root_base: np.ndarray) -> None:
        self._key, self.name, self._root = key, tree.name, tree.root_link().name
        self._T_base_root = invert(T_root_base)
        self._joints = {joint.name: joint for joint in tree.joints()}

    def show(self, shown: Shown, camera: str, T_camera_base: np.ndarray, values: Mapping[str, float]) -> None:
        import rerun as rr

        T_camera_root = T_camera_base @ self._T_base_root
        place = rr.Transform3D(
            translation=T_camera_root[:3, 3],
            mat3x3=T_camera_root[:3, :3],
            parent_frame=f"tf#/{camera}",
            child_frame=f"{self._key}/{self._root}",
        )
        shown.now(f"{self._key}/place", place)
        for name, joint in self._joints.items():
            if name in values:
                shown.from_now(f"{self._key}/joints/{name}", joint.compute_transform(values[name], clamp=False))


def _tree(shown: Shown, key: str, model: HandModel) -> _Tree | None:
    """Log the URDF of a robot hand; None where the hand hangs on joints that move, or what it looks like is not there."""
    from rerun.urdf import UrdfTree

    if not _has_meshes(model.path):
        return None
    with _packages_found(model.path):
        tree = UrdfTree.from_file_path(model.path, key, frame_prefix=f"{key}/", static_transform_entity_path=f"{key}/fixed")
        T_root_base = _fixed_way(tree, model.hand.base_link)
        if T_root_base is not None:
            shown.urdf(tree)
    return None if T_root_base is None else _Tree(key, tree, T_root_base)


def _has_meshes(path: Path) -> bool:
    """Whether a URDF names meshes for what is seen of it, and all are there; one in a package is looked for in the folders above."""
    named = [mesh.get("filename", "") for mesh in ElementTree.parse(path).iterfind(".//visual/geometry/mesh")]  # noqa: S314  # its SHA-256 is known
    places = [_places(path, name) for name in named]
    return bool(named) and all(any(place.is_file() for place in of_mesh) for of_mesh in places)


def _places(path: Path, name: str) -> list[Path]:
    packaged = name.removeprefix("package://")
    return [path.parent / name] if packaged == name else [folder / packaged for folder in path.parents]


def _fixed_way(tree: UrdfTree, link: str) -> np.ndarray | None:
    """(4, 4) pose of a link in the URDF's root; None where a joint between them moves."""
    by_child: dict[str, UrdfJoint] = {joint.child_link: joint for joint in tree.joints()}
    T = np.eye(4)
    while link in by_child:
        joint = by_child[link]
        if joint.joint_type != "fixed":
            return None
        T, link = _origin(joint) @ T, joint.parent_link
    return T


def _origin(joint: UrdfJoint) -> np.ndarray:
    """(4, 4) pose of a fixed joint's child in its parent; the URDF has roll, pitch and yaw about fixed axes."""
    roll, pitch, yaw = joint.origin_rpy
    turns = [np.array([np.cos(a / 2), *(np.sin(a / 2) * np.eye(3)[axis])]) for axis, a in ((2, yaw), (1, pitch), (0, roll))]
    R = np.linalg.multi_dot([matrix_from_quaternion(turn) for turn in turns])
    return make_transform(R, np.array(joint.origin_xyz))


@contextmanager
def _packages_found(path: Path) -> Iterator[None]:
    """Within, `package://` in a URDF is looked for in the folders above it."""
    before = os.environ.get("ROS_PACKAGE_PATH")
    os.environ["ROS_PACKAGE_PATH"] = os.pathsep.join(str(p) for p in path.parents)
    try:
        yield
    finally:
        if before is None:
            del os.environ["ROS_PACKAGE_PATH"]
        else:
            os.environ["ROS_PACKAGE_PATH"] = before
