"""Stage `mapping`: human hand poses retargeted to robot hands. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric
from egoworld_ops.contract.references import Parent
from egoworld_ops.operators.base import Stage

TABLE = schema.Table(
    "mapping",
    "One human hand in one frame retargeted to a robot hand.",
    ("video_id", "clip_id", "frame_index", "hand", "robot"),
    schema.per_frame(
        schema.HAND,
        schema.Column("robot", pa.string(), "robot hand"),
        schema.Column("joint_names", pa.list_(pa.string()), "names of the robot's joints, in the order of qpos_rad"),
        schema.Column("qpos_rad", pa.list_(pa.float64()), "joint angles", "rad", "robot", True),
        *schema.pose("camera", "the robot hand's wrist: the base link of its URDF (T_camera_robot_wrist)"),
        schema.Column("scaling", pa.float64(), "targets are the human joints in the wrist frame times this", "", "", True, minimum=0),
        schema.Column(
            "residual_m", pa.float64(), "mean distance of robot fingertips to scaled human fingertips", "m", "wrist", True, minimum=0
        ),
        schema.Column("converged", pa.bool_(), "whether the solver converged"),
        schema.Column("at_limit", pa.list_(pa.bool_()), "joints within 1e-3 rad of a limit", "", "", True),
        schema.METRIC,
        schema.reason("qpos_rad"),
        schema.reason_class(),
    ),
)

STAGE = Stage(
    name="mapping",
    doc="Joint angles of a robot hand that follows each human hand.",
    inputs=("hand_pose",),
    default_backend="dex",
    table=TABLE,
    metrics=(
        Metric("converged_share", "avg(converged::INT)", "hands whose retargeting converged", minimum=0.9),
        Metric("residual_m_median", "median(residual_m)", "distance of the robot's fingertips to their targets", maximum=0.05),
    ),
    parents=(Parent("hand_pose", ("frame_index", "role")),),
    sample=(
        {
            "hand": "left",
            "robot": "allegro",
            "joint_names": ["joint_0.0", "joint_1.0"],
            "qpos_rad": [0.1, 0.2],
            "qw": 1.0,
            "qx": 0.0,
            "qy": 0.0,
            "qz": 0.0,
            "x_m": 0.0,
            "y_m": 0.0,
            "z_m": 0.5,
            "scaling": 1.3,
            "residual_m": 0.01,
            "converged": True,
            "at_limit": [False, False],
            "metric": True,
        },
    ),
)
