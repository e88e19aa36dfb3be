"""Stage `mapping`: human hand poses retargeted to robot hands. One file a backend."""

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import Metric, answered_share
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
        schema.Column("qpos_rad", pa.list_(pa.float64()), "joint angles; of a joint that slides its way in metres", "rad", "robot", True),
        *schema.pose("camera", "the robot hand's wrist: the base link of its URDF (T_camera_robot_wrist)"),
        schema.Column(
            "aperture_m",
            pa.float64(),
            "distance between the pads of a gripper; null for a hand with fingers",
            "m",
            "robot",
            True,
            minimum=0,
        ),
        schema.Column("scaling", pa.float64(), "targets are the human joints in the wrist frame times this", "", "", True, minimum=0),
        schema.Column(
            "residual_m", pa.float64(), "mean distance of robot fingertips to scaled human fingertips", "m", "wrist", True, minimum=0
        ),
        schema.Column("converged", pa.bool_(), "whether the solver converged"),
        schema.Column("at_limit", pa.list_(pa.bool_()), "joints within 1e-3 rad of a limit", "", "", True),
        schema.Column(
            "joint_speed_rad_s",
            pa.float64(),
            "speed of the fastest turning joint since the frame before; null in the first frame of a track",
            "rad/s",
            "robot",
            True,
            minimum=0,
        ),
        schema.Column(
            "joint_speed_share",
            pa.float64(),
            "the greatest speed of a joint over its limit in the URDF, since the frame before; null where the URDF has none",
            "",
            "",
            True,
            minimum=0,
        ),
        schema.Column(
            "target_speed_m_s",
            pa.float64(),
            "speed of the fastest target since the frame before; null as before",
            "m/s",
            "wrist",
            True,
            minimum=0,
        ),
        schema.Column(
            "self_collision",
            pa.bool_(),
            "whether links overlap by more than 1 mm; null where the URDF has no collision shapes, or a mesh of them is missing",
            "",
            "",
            True,
        ),
        schema.OBSERVED,
        schema.METRIC,
        schema.reason("qpos_rad"),
        schema.reason_class(),
    ),
)

STAGE = Stage(
    name="mapping",
    doc="Joint angles of a robot hand that follows each human hand.",
    inputs=("fusion",),
    default_backend="dex",
    table=TABLE,
    metrics=(
        answered_share("fusion", "joints_m IS NOT NULL"),
        Metric("converged_share", "avg(converged::INT)", "hands whose retargeting converged", minimum=0.9),
        Metric("residual_m_median", "median(residual_m)", "distance of the robot's fingertips to their targets", maximum=0.05),
        Metric(
            "joint_speed_rad_s_p95",
            "quantile_cont(joint_speed_rad_s, 0.95)",
            "speed of the fastest joint; a person's are slower than this, so the hand poses jump",
            maximum=10.0,
        ),
        Metric(
            "speed_limited_share",
            "avg((joint_speed_share > 0.999)::INT)",
            "frames in which a joint is as fast as the robot can, so that it lags behind the hand",
            maximum=0.1,
            cure="Choose a faster robot, or smooth more: a lower stages.fusion.smoothing.turning_rad_s2",
        ),
        Metric(
            "joint_jump_share",
            "avg((joint_speed_rad_s > 5 AND target_speed_m_s < 0.05)::INT)",
            "frames in which a joint turns faster than 5 rad/s while no target moves faster than 0.05 m/s",
            maximum=0.001,
        ),
        Metric(
            "at_limit_share",
            "avg(list_sum(at_limit::INT[]) / len(at_limit))",
            "joints at a limit; where they are most, the description does not fit the robot",
            maximum=0.5,
        ),
        Metric(
            "self_collision_share",
            "avg(self_collision::INT)",
            "frames in which links of the robot hand run into each other",
            maximum=0.5,
            cure="Do not play these frames on a robot; a larger stages.mapping.dex.scaling spreads the fingers",
        ),
    ),
    parents=(Parent("fusion", ("frame_index", "role")),),
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
            "joint_speed_rad_s": 0.3,
            "joint_speed_share": 0.04,
            "target_speed_m_s": 0.02,
            "self_collision": False,
            "observed": True,
            "metric": True,
        },
    ),
)
