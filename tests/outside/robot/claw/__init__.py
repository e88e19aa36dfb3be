"""A robot hand from another package."""

import hashlib
from pathlib import Path

from egoworld_ops.robots import Finger, Robot, RobotHand

URDF = Path(__file__).with_name("claw.urdf")
ROBOT = Robot(
    right=RobotHand(
        urdf=str(URDF),
        urdf_sha256=hashlib.sha256(URDF.read_bytes()).hexdigest(),
        base_link="palm",
        base_position_m=(0.0, 0.0, 0.0),
        hand_length_m=0.2,
        fingers={"thumb": Finger(tip="thumb_tip"), "middle": Finger(tip="finger_tip")},
    )
)
