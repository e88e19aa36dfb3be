"""Robots other than the Allegro hand: grippers, coupled joints, URDFs that the settings name; kinematics and collisions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pinocchio as pin
import pytest

from egoworld_ops.errors import BadSettings, UnknownRobot
from egoworld_ops.operators import load
from egoworld_ops.operators.mapping._collisions import Collisions
from egoworld_ops.operators.mapping._kinematics import HandModel
from egoworld_ops.robots import ROBOTS, Finger, Robot, RobotHand, find_robot, with_urdfs
from egoworld_ops.types import HANDS, Hand
from egoworld_ops.vision.geometry import make_transform, matrix_from_quaternion, transform
from tests.egoworld_ops.operators.mapping.follow import follow, retarget
from tests.rows import fusion_row


def test_an_unknown_robot_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownRobot, match=r"robot hnad: there is no such robot hand\. Name one of allegro"):
        retarget([], robot="hnad")


GRIPPER = """<robot name="gripper">
  <link name="world"/><link name="palm"/><link name="thumb_1"/><link name="thumb_tip"/>
  <link name="index_1"/><link name="index_2"/><link name="index_tip"/>
  <joint name="mount" type="fixed"><parent link="world"/><child link="palm"/><origin xyz="1 2 3" rpy="0.3 -0.4 1.2"/></joint>
  <joint name="thumb" type="revolute"><parent link="palm"/><child link="thumb_1"/><origin xyz="0 0.03 0"/><axis xyz="1 0 0"/>
    <limit lower="-1.5" upper="0.5" effort="1" velocity="1"/></joint>
  <joint name="thumb_end" type="fixed"><parent link="thumb_1"/><child link="thumb_tip"/><origin xyz="0 0 0.09"/></joint>
  <joint name="index" type="revolute"><parent link="palm"/><child link="index_1"/><origin xyz="0 0 0.05"/><axis xyz="0 1 0"/>
    <limit lower="0" upper="1.4" effort="1" velocity="1"/></joint>
  <joint name="index_coupled" type="revolute"><parent link="index_1"/><child link="index_2"/><origin xyz="0 0 0.06"/><axis xyz="0 1 0"/>
    <limit lower="-1" upper="2" effort="1" velocity="1"/><mimic joint="index" multiplier="0.8" offset="0.1"/></joint>
  <joint name="index_end" type="fixed"><parent link="index_2"/><child link="index_tip"/><origin xyz="0 0 0.04"/></joint>
</robot>"""


@pytest.fixture
def gripper(tmp_path: Path) -> RobotHand:
    """Two fingers on a turned mount; the index's second joint is coupled to its first."""
    path = tmp_path / "gripper.urdf"
    path.write_text(GRIPPER)
    return RobotHand(
        urdf=str(path),
        urdf_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        base_link="palm",
        base_position_m=(0.01, 0.0, 0.03),
        base_quaternion_wxyz=(0.8, 0.0, 0.6, 0.0),
        hand_length_m=0.18,
        fingers={"thumb": Finger(tip="thumb_tip"), "index": Finger(tip="index_tip", middle="index_2")},
    )


def test_another_robot_by_setting(gripper: RobotHand) -> None:
    model = HandModel(gripper)
    q = np.array([0.7, 0.7 * 0.8 + 0.1, -0.6])
    assert model.joint_names == ("index", "index_coupled", "thumb")
    joints = np.zeros((21, 3))
    for f in range(5):
        joints[1 + 4 * f : 5 + 4 * f] = np.linspace([0, 0, 0.08], [0, 0.02 * f, 0.18], 4)
    thumb, index = transform(model.T_wrist_base, model.tips_m(q))
    middle = transform(model.T_wrist_base, model.links_m(["index_2"], q))[0]
    joints[1:5] = np.outer([0.25, 0.5, 0.75, 1.0], thumb)
    joints[5:9] = [middle / 2, middle, (middle + index) / 2, index]
    rows = [fusion_row(0, hand=h, joints_wrist_m=joints) for h in HANDS]
    left, right = retarget(rows, robot="gripper", robots={"gripper": Robot(right=gripper)}, scaling=1.0)
    assert right["reason"] is None
    assert right["joint_names"] == ["index", "index_coupled", "thumb"]
    assert right["qpos_rad"] == pytest.approx(q, abs=2e-3)
    assert right["residual_m"] < 1e-3
    assert left["qpos_rad"] is None
    assert (left["reason"], left["reason_class"]) == ("robot gripper has no left hand", "no_such_hand")


def test_a_missing_mesh_leaves_collisions_unknown_and_is_named(gripper: RobotHand, caplog: pytest.LogCaptureFixture) -> None:
    """Two boxes overlap where the thumb is bent; its tip is a mesh, as in the files of the LEAP and Shadow hands."""
    shapes = '<link name="{}"><collision><geometry>{}</geometry></collision></link>'
    box, mesh = '<box size="0.02 0.02 0.16"/>', '<mesh filename="meshes/tip.obj"/>'
    path = Path(str(gripper.urdf))
    boxes = GRIPPER
    for link in ("thumb_1", "index_1"):
        boxes = boxes.replace(f'<link name="{link}"/>', shapes.format(link, box))
    for urdf in (boxes, boxes.replace('<link name="thumb_tip"/>', shapes.format("thumb_tip", mesh))):
        path.write_text(urdf)
        model = HandModel(gripper.model_copy(update={"urdf_sha256": hashlib.sha256(urdf.encode()).hexdigest()}))
        open_and_bent = [Collisions(model).at(model.qpos_of(np.array(driven))) for driven in ([0.7, -0.5], [0.0, 0.5])]
        if urdf == boxes:
            assert open_and_bent == [False, True]
            assert not caplog.messages
    assert open_and_bent == [None, None]
    assert f"{path}: self_collision stays unknown: Mesh meshes/tip.obj could not be found" in caplog.text


LEAP_FINGER = """<robot name="leap">
  <link name="base"/><link name="palm"/><link name="mcp"/><link name="pip"/><link name="dip_2"/><link name="fingertip"/>
  <link name="middle_tip_head"/>
  <joint name="mount" type="fixed"><parent link="base"/><child link="palm"/><origin xyz="{palm}" rpy="0 -1.5708 0"/></joint>
  <joint name="5" type="revolute"><parent link="palm"/><child link="mcp"/><origin xyz="{knuckle}" rpy="1.5708 1.5708 0"/>
    <axis xyz="0 0 -1"/><limit lower="-0.314" upper="2.23" effort="1" velocity="8.48"/></joint>
  <joint name="4" type="revolute"><parent link="mcp"/><child link="pip"/><origin xyz="-0.0122 0.0381 0.0145" rpy="-1.5708 0 1.5708"/>
    <axis xyz="0 0 -1"/><limit lower="-1.047" upper="1.047" effort="1" velocity="8.48"/></joint>
  <joint name="6" type="revolute"><parent link="pip"/><child link="dip_2"/><origin xyz="0.015 0.0143 -0.013" rpy="1.5708 -1.5708 0"/>
    <axis xyz="0 0 -1"/><limit lower="-0.506" upper="1.885" effort="1" velocity="8.48"/></joint>
  <joint name="7" type="revolute"><parent link="dip_2"/><child link="fingertip"/><origin xyz="0 -0.0361 0.0002"/>
    <axis xyz="0 0 -1"/><limit lower="-0.366" upper="2.042" effort="1" velocity="8.48"/></joint>
  <joint name="end" type="fixed"><parent link="fingertip"/><child link="middle_tip_head"/><origin xyz="0 -0.048 0.015"/></joint>
</robot>"""
"""The middle finger of the LEAP hand: where its joints lie in `leap_hand_{left,right}.urdf` of dexsuite's dex-urdf."""
LEAP_PLACES = {"left": ("0.015 0.055 0.17", "-0.0825 -0.0403 0.0078"), "right": ("0 0.038 0.098", "-0.0071 -0.0224 -0.0187")}


@pytest.mark.parametrize("side", HANDS)
def test_the_leap_s_straight_middle_finger_is_straight_ahead_of_the_wrist_on_both_hands(tmp_path: Path, side: Hand) -> None:
    palm, knuckle = LEAP_PLACES[side]
    path = tmp_path / "leap.urdf"
    path.write_text(LEAP_FINGER.format(palm=palm, knuckle=knuckle))
    hand = getattr(with_urdfs("leap", find_robot("leap", {}), {side: str(path)}), side)
    model = HandModel(hand.model_copy(update={"fingers": {"middle": hand.fingers["middle"]}}))
    [tip_m] = transform(model.T_wrist_base, model.tips_m(np.zeros(4)))
    assert tip_m == pytest.approx([0, 0, hand.hand_length_m], abs=1.5e-3)


def test_a_robot_that_does_not_fit_its_description_is_refused(gripper: RobotHand) -> None:
    with pytest.raises(BadSettings, match=r"SHA-256 is [0-9a-f]{64}, want 0{64}"):
        HandModel(gripper.model_copy(update={"urdf_sha256": "0" * 64}))
    with pytest.raises(BadSettings, match="there is no link or joint plam"):
        HandModel(gripper.model_copy(update={"base_link": "plam"}))
    with pytest.raises(BadSettings, match="the URDF cannot be read"):
        HandModel(gripper.model_copy(update={"urdf": "/nowhere/gripper.urdf"}))
    Path(gripper.urdf).write_text("<robot")
    broken = hashlib.sha256(b"<robot").hexdigest()
    with pytest.raises(BadSettings, match="the URDF cannot be used"):
        HandModel(gripper.model_copy(update={"urdf_sha256": broken}))


def test_kinematics_are_pinocchio_s(gripper: RobotHand) -> None:
    rng = np.random.default_rng(2)
    for hand in (ROBOTS["allegro"].left, ROBOTS["panda"].right, gripper):
        model = HandModel(hand)
        driven = rng.uniform(*model.driven_limits.T, (5, len(model.driven)))
        points, step = model.solved_points(driven), 1e-6
        frames, offsets_m = model.points()
        base = model.pin_model.getFrameId(hand.base_link, pin.FrameType.BODY)
        for t, qpos in enumerate(model.qpos_of(driven)):
            full, data = np.zeros(model.pin_model.nq), model.pin_model.createData()
            full[model.joint_indices] = qpos
            pin.framesForwardKinematics(model.pin_model, data, full)
            want_m = [data.oMf[base].actInv(data.oMf[f].act(offset_m)) for f, offset_m in zip(frames, offsets_m, strict=True)]
            assert points.positions_m[t] == pytest.approx(np.array(want_m), abs=1e-12)
        pull = rng.normal(size=points.positions_m.shape)
        for k in range(driven.shape[1]):
            moved = model.solved_points(driven + step * np.eye(driven.shape[1])[k])
            assert points.jacobian[..., k] == pytest.approx((moved.positions_m - points.positions_m) / step, abs=1e-6)
            bent = (np.einsum("tpc,tpcn->tn", pull, moved.jacobian) - np.einsum("tpc,tpcn->tn", pull, points.jacobian)) / step
            assert points.curvature(pull)[:, :, k] == pytest.approx(bent, abs=1e-5)


def test_links_that_run_into_each_other_are_seen() -> None:
    for side in HANDS:
        model = HandModel(getattr(ROBOTS["allegro"], side))
        collisions = Collisions(model)
        rest = model.limits.mean(1)
        assert collisions.at(rest) is False
        crossed = dict(zip(model.joint_names, rest, strict=True))
        yaw = {"index": "joint_0.0", "middle": "joint_4.0"} if side == "right" else {"index": "joint_8.0", "middle": "joint_4.0"}
        toward = -1 if side == "right" else 1
        crossed |= {yaw["index"]: toward * 0.47, yaw["middle"]: -toward * 0.47}
        assert collisions.at(np.array([crossed[n] for n in model.joint_names])) is True


@pytest.mark.parametrize("hand", HANDS)
def test_a_gripper_opens_as_wide_as_thumb_and_index_and_holds_what_they_hold(a_hand: np.ndarray, hand: Hand) -> None:
    widths_m, times_s = np.array([0.02, 0.05, 0.07, 0.12]), np.arange(4) * 2.0
    joints_m = np.repeat(a_hand[None] * ([1, 1, 1] if hand == "right" else [1, -1, 1]), 4, axis=0)
    middle, across = joints_m[:, [4, 8]].mean(1), joints_m[:, 4] - joints_m[:, 8]
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    joints_m[:, 4], joints_m[:, 8] = middle + across * widths_m[:, None] / 2, middle - across * widths_m[:, None] / 2
    rows = follow(joints_m, times_s, hand, robot="panda", scaling=None)
    assert [r["aperture_m"] for r in rows] == pytest.approx([0.02, 0.05, 0.07, 0.08], abs=2e-4)
    assert [r["residual_m"] for r in rows] == pytest.approx([0, 0, 0, 0.02], abs=2e-4)
    assert [r["joint_names"] for r in rows] == [["panda_finger_joint1", "panda_finger_joint2"]] * 4
    assert [r["qpos_rad"] for r in rows] == pytest.approx(np.repeat([[0.01], [0.025], [0.035], [0.04]], 2, axis=1), abs=2e-4)
    model = HandModel(getattr(ROBOTS["panda"], hand))
    row = rows[1]
    T_camera_base = make_transform(
        matrix_from_quaternion(np.array([row[f"q{a}"] for a in "wxyz"])), np.array([row[f"{a}_m"] for a in "xyz"])
    )
    pads_m = transform(T_camera_base, model.tips_m(np.array(row["qpos_rad"])))
    assert pads_m == pytest.approx(joints_m[1, [4, 8]] + np.array([0, 0, 0.5]), abs=3e-4)  # the sample's wrist is 0.5 m before the camera
    knuckles_m = joints_m[1, [2, 5]].mean(0) + np.array([0, 0, 0.5])
    assert (pads_m.mean(0) - knuckles_m) @ T_camera_base[:3, 2] > 0.02, "it reaches from the knuckles to the tips"


def test_a_gripper_keeps_its_direction_when_the_tips_touch(a_hand: np.ndarray) -> None:
    joints_m = np.repeat(a_hand[None], 20, axis=0)
    joints_m[:, 8] = joints_m[:, 4] + np.random.default_rng(0).normal(0, 1e-4, (20, 3))
    rows = follow(joints_m, np.arange(20) / 30, robot="panda", scaling=None)
    q = np.array([[r[f"q{a}"] for a in "wxyz"] for r in rows])
    assert np.abs(q @ q.T).min() > np.cos(np.radians(2) / 2)


def test_a_urdf_comes_from_the_settings(tmp_path: Path, a_hand: np.ndarray) -> None:
    backend = load("mapping", "dex")
    with pytest.raises(BadSettings, match=r"robot leap: its URDF comes with no package .*\. Set stages\.mapping\.dex\.urdf\.right"):
        retarget([], robot="leap")
    for name in ("leap", "shadow"):
        path = tmp_path / f"{name}.urdf"
        path.write_text(fingers_urdf(find_robot(name, {}).right))
        settings = {"robot": name, "urdf": {"right": str(path)}}
        rows = retarget([fusion_row(0, hand=h, joints_wrist_m=a_hand) for h in HANDS], **settings)
        assert [r["reason"] for r in rows] == [f"robot {name} has no left hand", None]
        assert rows[1]["converged"]
        assert rows[1]["self_collision"] is None
        before = backend.brought(backend.Settings(**settings))
        path.write_text(path.read_text().replace("0.04", "0.05"))
        after = backend.brought(backend.Settings(**settings))
        assert before["robot"]["right"]["urdf_sha256"] != after["robot"]["right"]["urdf_sha256"]
        assert "urdf" not in after["robot"]["right"], "where it lies decides nothing"
    with pytest.raises(BadSettings, match="the URDF cannot be read"):
        with_urdfs("leap", find_robot("leap", {}), {"right": str(tmp_path / "none.urdf")})
    with pytest.raises(BadSettings, match="is not a whole path"):
        with_urdfs("leap", find_robot("leap", {}), {"right": "leap.urdf"})


def fingers_urdf(hand: RobotHand) -> str:
    """A URDF with the links and joints that a description names: straight fingers side by side."""
    names, made = iter(hand.joint_names), []
    links = {hand.base_link}
    for i, finger in enumerate(hand.fingers.values()):
        parent = hand.base_link
        joints = [next(names, "") or f"{finger.tip}_{k}" for k in range(5 if hand.joint_names and i in (0, 4) else 4)]
        for k, joint in enumerate(joints):
            child = finger.middle if k == len(joints) - 2 else f"{finger.tip}_link_{k}"
            at = f"0 {0.05 - 0.025 * i} 0.08" if k == 0 else "0 0 0.04"
            axis = "1 0 0" if k == 0 else "0 1 0"
            made.append(
                f'<joint name="{joint}" type="revolute"><parent link="{parent}"/><child link="{child}"/><origin xyz="{at}"/><axis xyz="{axis}"/>'
                '<limit lower="-0.4" upper="1.6" effort="1" velocity="4"/></joint>'
            )
            links.add(str(child))
            parent = str(child)
        ends = f'<parent link="{parent}"/><child link="{finger.tip}"/><origin xyz="0 0 0.03"/>'
        made.append(f'<joint name="{finger.tip}_end" type="fixed">{ends}</joint>')
        links.add(finger.tip)
    return f'<robot name="fingers">{"".join(f"<link name={name!r}/>" for name in sorted(links))}{"".join(made)}</robot>'.replace("'", '"')
