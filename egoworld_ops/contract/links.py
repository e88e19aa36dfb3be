"""SQL that links the clips of a video through the frames that neighbours share: their worlds, and the tracks of hands and objects.

A clip's results do not depend on its neighbours', so that it can be computed and replaced alone. What holds between two clips is therefore computed
from the rows that count, those of frames that a clip does not own included. In the lake it is a view. Releases and exports have owned frames only,
from which it could not be told: they hold it as tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.contract.sql_rotations import product, rotated

LEAST_SHARED = 3
"""Frames that both clips must pose, or in which both must see a track, at the least."""
MOST_RESIDUAL = 0.2
"""A residual above this share of the path in the shared frames (root mean square about its middle) leaves the scale open."""
LEAST_IOU = 0.5
"""Two tracks are one where their boxes overlap so much, on average over the shared frames, and neither overlaps another one more."""
_KEY = "run_id, video_id, clip_id"


def _pairs(clips: str) -> str:
    """Each clip with the one before it in its scene, if there is one."""
    window = "OVER (PARTITION BY run_id, video_id, scene_index ORDER BY frame_start)"
    return f"SELECT {_KEY}, frame_start, lag(clip_id) {window} AS before_clip_id, lag(frame_end) {window} AS before_end FROM {clips}"


def _sign(w: str) -> str:
    """By what a quaternion is multiplied so that its w is not negative."""
    return f"(CASE WHEN {w} < 0 THEN -1 ELSE 1 END)"


def clip_links(clips: str, camera: str) -> str:
    """One row a clip: the similarity that maps its world to that of the clip before it, with its residuals; or why there is none.

    In units of the clips' own reconstructions: p_before = scale R(q) p + (x, y, z). The rotation is the mean of those of the shared frames; scale and
    translation are the least squares' (Umeyama, 1991, with that rotation).

    Args:
        clips, camera: relations with those tables' columns and `run_id`; of `camera`, with the rows of frames that clips do not own.
    """
    turn = ", ".join(f"{said} AS q{c}" for c, said in zip("wxyz", product("a.q", "b.q", -1), strict=True))
    norm = f"(sqrt(sum(g * qw) ** 2 + sum(g * qx) ** 2 + sum(g * qy) ** 2 + sum(g * qz) ** 2) * {_sign('sum(g * qw)')})"
    mean = ", ".join(f"sum(g * q{c}) / {norm} AS m{c}" for c in "wxyz")
    middles = ", ".join(f"avg({side}[{k}]) AS {side}{k}" for side in ("pa", "pb") for k in (1, 2, 3))
    turned = rotated("m", [f"(s.pb[{k}] - pb{k})" for k in (1, 2, 3)])
    along = " + ".join(f"(s.pa[{k}] - pa{k}) * {turned[k - 1]}" for k in (1, 2, 3))
    spread = " + ".join(f"(s.pb[{k}] - pb{k}) ** 2" for k in (1, 2, 3))
    off = " + ".join(f"(s.pa[{k}] - pa{k} - scale * {turned[k - 1]}) ** 2" for k in (1, 2, 3))
    angle = "degrees(2 * acos(least(abs(s.qw * mw + s.qx * mx + s.qy * my + s.qz * mz), 1)))"
    middle = rotated("m", ["pb1", "pb2", "pb3"])
    moved = ", ".join(f"pa{k} - scale * {middle[k - 1]} AS {c}_units" for k, c in ((1, "x"), (2, "y"), (3, "z")))
    of_clip = "s.run_id = f.run_id AND s.video_id = f.video_id AND s.clip_id = f.clip_id"
    dot = " + ".join(f"q{c} * first_value(q{c}) OVER own" for c in "wxyz")
    columns = ["qw", "qx", "qy", "qz", "x_units", "y_units", "z_units", "scale", "residual_units", "residual_deg", "metres_ratio"]
    nulled = ", ".join(f"CASE WHEN reason IS NULL THEN {c} END AS {c}" for c in columns)
    return f"""WITH pair AS ({_pairs(clips)}),
shared AS (SELECT p.run_id, p.video_id, p.clip_id, a.frame_index, {turn}, a.position_units AS pa, b.position_units AS pb,
  a.metres_per_unit AS ma, b.metres_per_unit AS mb FROM pair AS p
  JOIN {camera} AS a ON a.run_id = p.run_id AND a.video_id = p.video_id AND a.clip_id = p.before_clip_id
  JOIN {camera} AS b ON b.run_id = p.run_id AND b.video_id = p.video_id AND b.clip_id = p.clip_id AND b.frame_index = a.frame_index
  WHERE a.qw IS NOT NULL AND b.qw IS NOT NULL),
signed AS (SELECT *, CASE WHEN {dot} < 0 THEN -1 ELSE 1 END AS g FROM shared WINDOW own AS (PARTITION BY {_KEY} ORDER BY frame_index)),
turned AS (SELECT {_KEY}, {mean}, {middles}, count(*) AS n, any_value(ma) AS ma, any_value(mb) AS mb FROM signed GROUP BY {_KEY}),
scaled AS (SELECT f.*, f2.along / nullif(f2.spread, 0) AS scale, sqrt(f2.spread / n) AS spread FROM turned AS f JOIN
  (SELECT f.run_id, f.video_id, f.clip_id, sum({along}) AS along, sum({spread}) AS spread FROM turned AS f JOIN shared AS s ON {of_clip} GROUP BY ALL)
  AS f2 USING ({_KEY})),
fitted AS (SELECT f.*, f2.off AS residual_units, f2.angle AS residual_deg FROM scaled AS f JOIN
  (SELECT f.run_id, f.video_id, f.clip_id, sqrt(avg({off})) AS off, max({angle}) AS angle FROM scaled AS f JOIN shared AS s ON {of_clip} GROUP BY ALL)
  AS f2 USING ({_KEY})),
judged AS (SELECT p.run_id, p.video_id, p.clip_id, p.before_clip_id, coalesce(n, 0) AS shared_frames, mw AS qw, mx AS qx, my AS qy, mz AS qz,
  {moved}, scale, residual_units, residual_deg, scale * ma / mb AS metres_ratio,
  CASE WHEN before_clip_id IS NULL THEN 'it begins a scene' WHEN before_end <= frame_start THEN 'it shares no frame with the clip before it'
    WHEN coalesce(n, 0) < {LEAST_SHARED} THEN 'the camera has poses in both clips in ' || coalesce(n, 0) || ' of the frames they share'
    WHEN scale IS NULL OR scale <= 0 OR residual_units > {MOST_RESIDUAL} * scale * spread THEN
      'the path in the shared frames is too short, or not the same in both clips' END AS reason
  FROM pair AS p LEFT JOIN fitted AS f USING ({_KEY}))
SELECT {_KEY}, before_clip_id, shared_frames, {nulled}, reason FROM judged"""


def clips_world(links: str) -> str:
    """One row a clip: the similarity from its world to that of the first clip it is linked to, and how many links lie between.

    Args:
        links: the relation `clip_links`.
    """
    turn = ", ".join(product("w.q", "l.q"))
    signs = ", ".join(f"{_sign('qw')} * q{c} AS q{c}" for c in "wxyz")
    moved = ", ".join(
        f"w.{c}_units + w.scale * {said}" for c, said in zip("xyz", rotated("w.q", ["l.x_units", "l.y_units", "l.z_units"]), strict=True)
    )
    return f"""WITH RECURSIVE world AS (
SELECT {_KEY}, clip_id AS world_clip_id, 0 AS links, 1.0::DOUBLE AS qw, 0.0::DOUBLE AS qx, 0.0::DOUBLE AS qy, 0.0::DOUBLE AS qz,
  0.0::DOUBLE AS x_units, 0.0::DOUBLE AS y_units, 0.0::DOUBLE AS z_units, 1.0::DOUBLE AS scale FROM {links} WHERE reason IS NOT NULL
UNION ALL
SELECT l.run_id, l.video_id, l.clip_id, w.world_clip_id, w.links + 1, {turn}, {moved}, w.scale * l.scale
  FROM {links} AS l JOIN world AS w ON w.run_id = l.run_id AND w.video_id = l.video_id AND w.clip_id = l.before_clip_id WHERE l.reason IS NULL)
SELECT {_KEY}, world_clip_id, links, {signs}, x_units, y_units, z_units, scale FROM world"""


def track_links(clips: str, masks: str) -> str:
    """One row a track and clip: the track of the clip before that is the same thing, where there is one, and the first that it is linked to.

    Args:
        clips, masks: relations as of `clip_links`.
    """
    x1, y1 = "greatest(a.bbox_px[1], b.bbox_px[1])", "greatest(a.bbox_px[2], b.bbox_px[2])"
    x2 = "least(a.bbox_px[1] + a.bbox_px[3], b.bbox_px[1] + b.bbox_px[3])"
    y2 = "least(a.bbox_px[2] + a.bbox_px[4], b.bbox_px[2] + b.bbox_px[4])"
    both = f"(greatest({x2} - {x1}, 0) * greatest({y2} - {y1}, 0))"
    iou = f"{both} / nullif(a.bbox_px[3] * a.bbox_px[4] + b.bbox_px[3] * b.bbox_px[4] - {both}, 0)"
    best = "row_number() OVER (PARTITION BY run_id, video_id, clip_id, {} ORDER BY iou DESC, track_id, before_track_id) AS {}"
    return f"""WITH RECURSIVE pair AS ({_pairs(clips)}),
seen AS (SELECT p.run_id, p.video_id, p.clip_id, p.before_clip_id, b.track_id, a.track_id AS before_track_id, avg({iou}) AS iou, count(*) AS n
  FROM pair AS p JOIN {masks} AS a ON a.run_id = p.run_id AND a.video_id = p.video_id AND a.clip_id = p.before_clip_id
  JOIN {masks} AS b ON b.run_id = p.run_id AND b.video_id = p.video_id AND b.clip_id = p.clip_id AND b.frame_index = a.frame_index AND b.role = a.role
  WHERE a.area_px > 0 AND b.area_px > 0 GROUP BY ALL HAVING n >= {LEAST_SHARED}),
ranked AS (SELECT *, {best.format("track_id", "mine")}, {best.format("before_track_id", "theirs")} FROM seen),
linked AS (SELECT * FROM ranked WHERE mine = 1 AND theirs = 1 AND iou >= {LEAST_IOU}),
track AS (SELECT DISTINCT {_KEY}, track_id, role FROM {masks}),
joined AS (SELECT t.*, l.before_clip_id, l.before_track_id, l.iou, l.n AS shared_frames FROM track AS t
  LEFT JOIN linked AS l USING (run_id, video_id, clip_id, track_id)),
chain AS (SELECT *, clip_id AS first_clip_id, track_id AS first_track_id FROM joined WHERE before_track_id IS NULL
  UNION ALL SELECT j.*, c.first_clip_id, c.first_track_id FROM joined AS j JOIN chain AS c
  ON c.run_id = j.run_id AND c.video_id = j.video_id AND c.clip_id = j.before_clip_id AND c.track_id = j.before_track_id)
SELECT {_KEY}, track_id, role, before_clip_id, before_track_id, iou, shared_frames, first_clip_id, first_track_id FROM chain"""


@dataclass(frozen=True, slots=True)
class Links:
    """A table of links.

    Args:
        table: the contract of its rows.
        seen: the table of things that neighbouring clips both have, beside `clips`.
        columns: those of it that are read.
    """

    table: schema.Table
    seen: str
    columns: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, str]:
        """The tables it is made of."""
        return ("clips", self.seen)

    def sql(self, relations: Mapping[str, str]) -> str:
        """The query that gives its rows and their `run_id`, in no order.

        Args:
            relations: by name of a table that it reads, a relation with its columns and `run_id`; with rows of frames that clips do not own.
        """
        clips, seen = (relations[name] for name in self.reads)
        if self.table.name == "track_links":
            return track_links(clips, seen)
        of_clips = clip_links(clips, seen)
        return of_clips if self.table.name == "clip_links" else clips_world(f"({of_clips})")

    def needed(self, rows: pa.Table, first_shared: int, end_shared: int) -> pa.Table:
        """Of a clip's rows of `seen` those that links are made of, in the columns that are read: a row of each track, and all of the frames that the
        clip shares, which are those before `first_shared` and those from `end_shared` on.
        """
        frames = rows["frame_index"].to_numpy()
        wanted = (frames < first_shared) | (frames >= end_shared)
        if "track_id" in self.columns:
            wanted[np.unique(rows["track_id"].to_numpy(), return_index=True)[1]] = True
        return rows.select(list(self.columns)).filter(pa.array(wanted))

    def rows(self, clips: pa.Table, seen: pa.Table) -> pa.Table:
        """The links of a video, in the contract's types and order, from its tables: `clips`, and what is needed of `seen`."""
        import duckdb

        with duckdb.connect() as connection:
            connection.register("of_clips", clips)
            connection.register("of_seen", seen)
            relations = {"clips": "(SELECT '' AS run_id, * FROM of_clips)", self.seen: "(SELECT '' AS run_id, * FROM of_seen)"}
            made = connection.sql(self.sql(relations)).to_arrow_table()
        contract = self.table.arrow_schema()
        return schema.sort(self.table.name, pa.Table.from_arrays([made[f.name].cast(f.type) for f in contract], schema=contract))


_OF_CLIP = (schema.video_id(), schema.clip_id())


def _similarity(of: str, nullable: bool) -> tuple[schema.Column, ...]:
    """The columns of a similarity of worlds."""
    turn = [
        schema.Column(f"q{a}", pa.float64(), f"rotation, {a} of the unit quaternion", "", of, nullable, minimum=-1, maximum=1)
        for a in "wxyz"
    ]
    shift = [
        schema.Column(f"{a}_units", pa.float64(), f"translation, {a}, in units of that world's reconstruction", "", of, nullable)
        for a in "xyz"
    ]
    return (
        *turn,
        *shift,
        schema.Column("scale", pa.float64(), "units of that world in a unit of this clip's", "", "", nullable, minimum=0),
    )


def _other(name: str, kind: pa.DataType, doc: str, unit: str = "", nullable: bool = True) -> schema.Column:
    return schema.Column(name, kind, doc, unit, "", nullable, minimum=None if kind == pa.string() else 0)


_BEFORE = _other("before_clip_id", pa.string(), "the clip before it in its scene; null where it begins one")
_CAMERA = ("video_id", "clip_id", "frame_index", "qw", "qx", "qy", "qz", "position_units", "metres_per_unit")
LINKS: Mapping[str, Links] = {
    links.table.name: links
    for links in (
        Links(
            schema.Table(
                "clip_links",
                "The similarity from the world of one clip to that of the clip before it, p_before = scale R(q) p + (x, y, z), from the frames that "
                "both have; or why there is none.",
                ("video_id", "clip_id"),
                (
                    *_OF_CLIP,
                    _BEFORE,
                    _other("shared_frames", pa.int64(), "frames in which the camera has a pose in both clips", "frames", False),
                    *_similarity("world of the clip before", True),
                    _other(
                        "residual_units",
                        pa.float64(),
                        "distance of the shared positions from it, root mean square, in units of the clip before",
                    ),
                    _other("residual_deg", pa.float64(), "largest angle between rotations of a shared frame", "deg"),
                    _other("metres_ratio", pa.float64(), "metres of this clip over those of the clip before: 1 where they agree"),
                    schema.Column("reason", pa.string(), "why there is no link; null where there is one", nullable=True),
                ),
            ),
            "camera",
            _CAMERA,
        ),
        Links(
            schema.Table(
                "clips_world",
                "The similarity from the world of one clip to that of the first clip that it is linked to. A broken link begins a new world.",
                ("video_id", "clip_id"),
                (
                    *_OF_CLIP,
                    _other("world_clip_id", pa.string(), "the first clip that it is linked to", "", False),
                    _other("links", pa.int64(), "links between the two; their errors add up", "", False),
                    *_similarity("world of the first clip", False),
                ),
            ),
            "camera",
            _CAMERA,
        ),
        Links(
            schema.Table(
                "track_links",
                "Which track of the clip before is the same hand or object as one track of a clip: their boxes overlap in the frames that both have.",
                ("video_id", "clip_id", "track_id"),
                (
                    *_OF_CLIP,
                    schema.TRACK,
                    schema.ROLE,
                    _other("before_clip_id", pa.string(), "the clip before; null where none of its tracks is this thing"),
                    _other("before_track_id", pa.int32(), "the track of the clip before; null likewise"),
                    _other("iou", pa.float64(), "overlap of their boxes, mean over the shared frames; null likewise"),
                    _other("shared_frames", pa.int64(), "frames in which both are seen; null likewise", "frames"),
                    _other("first_clip_id", pa.string(), "the first clip of the chain of links", "", False),
                    _other(
                        "first_track_id",
                        pa.int32(),
                        "the track in it: the same for all tracks of one thing, as far as links hold",
                        "",
                        False,
                    ),
                ),
            ),
            "masks",
            ("video_id", "clip_id", "frame_index", "track_id", "role", "bbox_px", "area_px"),
        ),
    )
}
"""By name; no stage, table or view of the world has one of these names."""
