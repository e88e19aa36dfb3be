"""Hands, objects and robot wrists in the world: T_world_x = T_world_camera T_camera_x, as SQL over the tables that hold the two poses.

Nothing of it is stored in the lake: the views of the catalog and exports are made by these statements, so that there is no second truth.
Rows are those of frames of which table `camera` has a row; without a camera there are none, and nothing is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.sql_rotations import matrix, product

CAMERA = "camera"
_QUATERNION, _POSITION = ("qw", "qx", "qy", "qz"), ("x_m", "y_m", "z_m")
_FRAME = ("video_id", "clip_id", "frame_index")
_JOINTS = "joints_m"


@dataclass(frozen=True, slots=True)
class WorldView:
    """One view.

    Args:
        table: the contract of its rows.
        of: the table whose poses in the camera frame it turns.
    """

    table: schema.Table
    of: str

    @property
    def reads(self) -> tuple[str, str]:
        """The tables it is made of: what is seen, and the camera."""
        return (self.of, CAMERA)

    def sql(self, relations: Mapping[str, str], also: Sequence[str] = ()) -> str:
        """The query that gives its rows, in no order; lists are of any length.

        Args:
            relations: by name of a table that it reads, a relation with its columns: a name, or a query in parentheses.
            also: further columns of each, which name a row's origin (`run_id`); they come first.
        """
        same = " AND ".join(f"x.{name} = c.{name}" for name in (*also, *_FRAME))
        of_camera = ", ".join(f"c.{name} AS c_{name}" for name in (*_QUATERNION, *_POSITION, "metric", "reason", "reason_class"))
        turning = ", ".join(f"{said} AS r{row}{column}" for row, line in enumerate(matrix("c.q")) for column, said in enumerate(line))
        joined = f"SELECT x.*, {of_camera}, {turning} FROM {relations[self.of]} AS x JOIN {relations[CAMERA]} AS c ON {same}"
        computed = _computed(self.table)
        columns = ", ".join([*also, *(f"{computed[c.name]} AS {c.name}" if c.name in computed else c.name for c in self.table.columns)])
        return f"SELECT {columns} FROM ({joined}) AS joined"

    def rows(self, tables: Mapping[str, pa.Table]) -> pa.Table:
        """Its rows over tables of the contract, by name, in its own types and order."""
        import duckdb

        with duckdb.connect() as connection:
            for name in self.reads:
                connection.register(name, tables[name])
            made = connection.sql(self.sql({name: name for name in self.reads})).to_arrow_table()
        contract = self.table.arrow_schema()
        return schema.sort(self.table.name, pa.Table.from_arrays([made[f.name].cast(f.type) for f in contract], schema=contract))


def _moved(point: Sequence[str]) -> list[str]:
    """A point of the camera frame in the world, by coordinate."""
    return [" + ".join([*(f"r{row}{k} * {point[k]}" for k in range(3)), f"c_{_POSITION[row]}"]) for row in range(3)]


@cache
def _computed(table: schema.Table) -> Mapping[str, str]:
    """The columns that are not those of what is seen."""
    turned_by = product("c_q", "q")
    sign = f"(CASE WHEN {turned_by[0]} < 0 THEN -1 ELSE 1 END)"
    found = {name: f"greatest(least({sign} * ({said}), 1), -1)" for name, said in zip(_QUATERNION, turned_by, strict=True)}
    found = {name: f"(CASE WHEN qw IS NULL OR c_qw IS NULL THEN NULL ELSE {said} END)" for name, said in found.items()}
    found |= dict(zip(_POSITION, _moved(_POSITION), strict=True))
    found["metric"] = "metric AND c_metric"
    if any(c.name == _JOINTS for c in table.columns):
        turned = f"[[{', '.join(_moved(['j[1]', 'j[2]', 'j[3]']))}]::FLOAT[] FOR j IN {_JOINTS}::FLOAT[][]]"
        found[_JOINTS] = f"(CASE WHEN c_x_m IS NULL THEN NULL ELSE {turned} END)"
    whys = (
        ("qw IS NULL", "coalesce(reason, 'it has no pose')", "coalesce(reason_class, 'no_upstream')"),
        ("c_qw IS NULL", "'the camera has no pose: ' || c_reason", "c_reason_class"),
        (
            "x_m IS NULL OR (c_x_m IS NULL AND c_reason IS NULL)",
            "'its lengths rest on an assumed focal length, and are left out'",
            "'not_metric'",
        ),
        ("c_x_m IS NULL", "'the camera has no position in metres: ' || c_reason", "c_reason_class"),
    )
    for at, name in enumerate(("reason", "reason_class"), 1):
        found[name] = f"(CASE {' '.join(f'WHEN {why[0]} THEN {why[at]}' for why in whys)} ELSE NULL END)"
    return found


_OF_BOTH = schema.Column(
    "metric", schema.METRIC.type, "false where lengths of the camera's path or of the pose rest on an assumed focal length"
)
_ENDING = (_OF_BOTH, schema.reason("the pose or its position"), schema.reason_class())
_CONVERGED = schema.Column("converged", schema.METRIC.type, "as in the table it is made of")


def _view(name: str, of: str, doc: str, key: tuple[str, ...], *columns: schema.Column) -> WorldView:
    return WorldView(schema.Table(name, doc, (*_FRAME, *key), schema.per_frame(*columns, *_ENDING)), of)


VIEWS: Mapping[str, WorldView] = {
    view.table.name: view
    for view in (
        _view(
            "hands_world",
            "hand_pose",
            "The pose of one hand in one frame, in the world of its clip. Only frames of which table `camera` has a row.",
            ("hand",),
            schema.HAND,
            schema.Column(_JOINTS, schema.POINTS_3D, "joints in the world", "m", "world", True),
            *schema.pose("world", "the wrist frame (T_world_wrist)"),
            schema.OBSERVED,
        ),
        _view(
            "fused_hands_world",
            "fusion",
            "The same of the hands of table `fusion`, which move smoothly.",
            ("hand",),
            schema.HAND,
            schema.Column(_JOINTS, schema.POINTS_3D, "joints in the world", "m", "world", True),
            *schema.pose("world", "the wrist frame (T_world_wrist)"),
            schema.OBSERVED,
        ),
        _view(
            "objects_world",
            "object_pose",
            "The pose of one object in one frame, in the world of its clip. Only frames of which table `camera` has a row.",
            ("track_id",),
            schema.TRACK,
            schema.LABEL,
            *schema.pose("world", "the object frame (T_world_object)"),
            _CONVERGED,
            schema.OBSERVED,
        ),
        _view(
            "robots_world",
            "mapping",
            "The wrist of one robot hand in one frame, in the world of its clip. Only frames of which table `camera` has a row.",
            ("hand", "robot"),
            schema.HAND,
            schema.Column("robot", schema.LABEL.type, "robot hand"),
            *schema.pose("world", "the robot hand's wrist: the base link of its URDF (T_world_robot_wrist)"),
            _CONVERGED,
        ),
    )
}
"""By name; a view has the name of no table."""
