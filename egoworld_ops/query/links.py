"""SQL that links the clips of a video through the frames that neighbours share: their worlds, and the tracks of hands and objects.

A clip's results do not depend on its neighbours', so that it can be computed and replaced alone. What holds between two clips is therefore a view
over the rows that count, those of frames that a clip does not own included. A release has owned frames only, and so no links; nor have exports.
"""

from __future__ import annotations

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


def clip_links(clips: str, camera: str) -> str:
    """One row a clip: the similarity that maps its world to that of the clip before it, with its residuals; or why there is none.

    In units of the clips' own reconstructions: p_before = scale R(q) p + (x, y, z). The rotation is the mean of those of the shared frames; scale and
    translation are the least squares' (Umeyama, 1991, with that rotation).

    Args:
        clips, camera: relations with those tables' columns and `run_id`; of `camera`, with the rows of frames that clips do not own.
    """
    turn = ", ".join(f"{said} AS q{c}" for c, said in zip("wxyz", product("a.q", "b.q", -1), strict=True))
    norm = "sqrt(sum(g * qw) ** 2 + sum(g * qx) ** 2 + sum(g * qy) ** 2 + sum(g * qz) ** 2)"
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
    moved = ", ".join(
        f"w.{c}_units + w.scale * {said}" for c, said in zip("xyz", rotated("w.q", ["l.x_units", "l.y_units", "l.z_units"]), strict=True)
    )
    return f"""WITH RECURSIVE world AS (
SELECT {_KEY}, clip_id AS world_clip_id, 0 AS links, 1.0::DOUBLE AS qw, 0.0::DOUBLE AS qx, 0.0::DOUBLE AS qy, 0.0::DOUBLE AS qz,
  0.0::DOUBLE AS x_units, 0.0::DOUBLE AS y_units, 0.0::DOUBLE AS z_units, 1.0::DOUBLE AS scale FROM {links} WHERE reason IS NOT NULL
UNION ALL
SELECT l.run_id, l.video_id, l.clip_id, w.world_clip_id, w.links + 1, {turn}, {moved}, w.scale * l.scale
  FROM {links} AS l JOIN world AS w ON w.run_id = l.run_id AND w.video_id = l.video_id AND w.clip_id = l.before_clip_id WHERE l.reason IS NULL)
SELECT * FROM world"""


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
SELECT * FROM chain"""
