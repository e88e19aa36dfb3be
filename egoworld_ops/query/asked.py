"""Views that answer what people ask most, as SQL over the tables of `views.py`: of owned frames, and of what counts, as those are.

`holds` goes on over the clips of a scene where `track_links` knows the thing again. `clip_quality` judges the numbers of each clip by the bounds that
warn of a video: those of the code, and those that the settings of the run moved when it was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from egoworld_ops.contract import gathered, quality
from egoworld_ops.lake.lake import RELEASED_TABLES
from egoworld_ops.lake.states import MANIFEST

HAND_JOINTS = (
    "wrist",
    *(f"thumb_{joint}" for joint in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{joint}" for finger in ("index", "middle", "ring", "little") for joint in ("mcp", "pip", "dip", "tip")),
)
"""In the order of `joints_m` and `joints_px`."""
BOUNDS = "bounds"
"""Relation of `bounds_of`, which the views read beside tables."""


@dataclass(frozen=True, slots=True)
class AskedView:
    """One view.

    Args:
        doc: what it shows, for its comment and the docs.
        reads: the tables it is made of.
        query: its SQL, with each of them in braces.
    """

    name: str
    doc: str
    reads: tuple[str, ...]
    query: str

    @property
    def is_released(self) -> bool:
        """Whether releases have all that it is made of."""
        return all(name in RELEASED_TABLES for name in self.reads)

    def sql(self, relations: Mapping[str, str]) -> str:
        """The query that gives its rows, in no order.

        Args:
            relations: by name of a table that it reads, a query in parentheses with its columns and `run_id`.
        """
        return self.query.format(**{name: relations[name] for name in self.reads})


def bounds_of(moved: Iterable[tuple[str, str, str, quality.Bounds]]) -> str:
    """The relation of bounds by run, stage and metric; those with an empty `run_id` are of all runs that moved none.

    Args:
        moved: run, stage, metric and its bounds, as settings of runs have them.
    """
    own = [("", stage, m.name, m.minimum, m.maximum) for stage in (MANIFEST, *gathered.stages()) for m in quality.metrics(stage)]
    rows = [*own, *((*at, bounds.minimum, bounds.maximum) for *at, bounds in moved)]
    values = ", ".join(f"({', '.join(_literal(value) for value in row)})" for row in rows)
    return f"(SELECT * FROM (VALUES {values}) AS v(run_id, stage, metric, minimum, maximum))"


def _literal(value: str | float | None) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "NULL::DOUBLE" if value is None else f"{value!r}::DOUBLE"


_HOLDS = f"""WITH seen AS (
  SELECT m.*, coalesce(l.first_clip_id, m.clip_id) AS first_clip_id, coalesce(l.first_track_id, m.track_id) AS first_track_id
  FROM {{movement}} AS m LEFT JOIN {{track_links}} AS l USING (run_id, video_id, clip_id, track_id)),
stepped AS (SELECT *, timestamp_s - lag(timestamp_s) OVER thing AS step_s, lag(held_by) OVER thing AS held_before
  FROM seen WINDOW thing AS (PARTITION BY run_id, video_id, first_clip_id, first_track_id ORDER BY frame_index)),
cut AS (SELECT *, held_by IS DISTINCT FROM held_before OR step_s > {quality.HOLD_GAP_S} AS begins FROM stepped),
numbered AS (SELECT *, sum(begins::INT) OVER (PARTITION BY run_id, video_id, first_clip_id, first_track_id ORDER BY frame_index) AS stretch FROM cut)
SELECT run_id, video_id, arg_min(clip_id, frame_index) AS clip_id, arg_min(track_id, frame_index) AS track_id, max(label) AS label, held_by AS hand,
  min(frame_index) AS first_frame, max(frame_index) AS last_frame, min(timestamp_s) AS from_s, max(timestamp_s) AS to_s, count(*) AS frames,
  avg(hold_score) AS hold_score, sum(speed_background_m_s * step_s) FILTER (NOT begins) AS path_m, bool_and(metric) AS metric
FROM numbered WHERE held_by NOT IN ('none', 'unknown') GROUP BY run_id, video_id, first_clip_id, first_track_id, held_by, stretch"""

_METRIC = f"metric = '{quality.METRIC_SHARE.name}'"
_CLIP_QUALITY = f"""WITH valued AS (
  SELECT m.run_id, m.video_id, m.clip_id, m.stage, m.metric, m.value, m.stage || '.' || m.metric AS name,
    value < coalesce(r.minimum, b.minimum) OR value > coalesce(r.maximum, b.maximum) AS outside FROM {{metrics}} AS m
  LEFT JOIN {{bounds}} AS b ON b.run_id = '' AND b.stage = m.stage AND b.metric = m.metric
  LEFT JOIN {{bounds}} AS r ON r.run_id = m.run_id AND r.stage = m.stage AND r.metric = m.metric WHERE m.clip_id <> ''),
measured AS (
  SELECT run_id, video_id, clip_id, count(DISTINCT stage) AS measured, coalesce(bool_and(value >= 1) FILTER ({_METRIC}), true) AS metric,
    coalesce(list(name ORDER BY name) FILTER (outside AND NOT {_METRIC}), []) AS outside,
    map_from_entries(list((name, value) ORDER BY name) FILTER (value IS NOT NULL)) AS metrics FROM valued GROUP BY ALL),
standing AS (
  SELECT run_id, video_id, clip_id, count(*) AS stages, count(*) FILTER (state = 'done') AS done,
    coalesce(list(stage || ': ' || state ORDER BY stage) FILTER (state <> 'done'), []) AS lacking
  FROM {{states}} WHERE clip_id <> '' GROUP BY ALL)
SELECT c.run_id, c.video_id, c.clip_id, c.own_start, c.own_end, coalesce(stages, 0) AS stages, coalesce(done, 0) AS done,
  coalesce(measured, 0) AS measured, coalesce(lacking, []) AS lacking, coalesce(outside, []) AS outside, metric, metrics
FROM {{clips}} AS c LEFT JOIN standing USING (run_id, video_id, clip_id) LEFT JOIN measured USING (run_id, video_id, clip_id)"""

_PROBLEMS = """SELECT run_id, video_id, '' AS clip_id, 'manifest' AS stage, 'rejected' AS kind, error_class, path AS culprit, reason, cure,
  1 AS attempts FROM {videos} WHERE status = 'rejected'
UNION ALL SELECT f.run_id, f.video_id, f.clip_id, f.stage,
  CASE WHEN s.state = 'done' THEN 'stood_in' WHEN f.dead_letter THEN 'dead_letter' ELSE 'failed' END,
  f.error_class, f.culprit, f.reason, f.cure, f.attempts FROM {failures} AS f JOIN {states} AS s USING (run_id, video_id, clip_id, stage)
UNION ALL SELECT run_id, video_id, clip_id, stage, state, NULL, concat_ws(' ', stage, 'of', video_id, clip_id), 'its file is ' || state,
  '`egoworld verify` names the file', NULL FROM {states} WHERE state IN ('damaged', 'unreadable')"""

_STAGE_SECONDS = """SELECT run_id, video_id, clip_id, stage, max(value) FILTER (metric = 'compute_s') AS compute_s,
  max(value) FILTER (metric = 'processed_frames')::BIGINT AS processed_frames, max(computed_at) AS computed_at
FROM {metrics} WHERE clip_id <> '' AND metric IN ('compute_s', 'processed_frames') GROUP BY ALL"""

_MASK_SHARES = """SELECT run_id, video_id, clip_id, frame_index, timestamp_s, track_id, role, label,
  area_px / (rle.size[1]::DOUBLE * rle.size[2]) AS share, observed FROM {masks}"""

_JOINT_NAMES = ", ".join(f"({at}, '{name}')" for at, name in enumerate(HAND_JOINTS, 1))
_NUMBERED = f"(VALUES {_JOINT_NAMES}) AS j(k, joint)"
_OF_FRAME = "run_id, video_id, clip_id, frame_index, timestamp_s, hand"
_OF_JOINT = f"{_OF_FRAME}, joint, joints_m[k][1] AS x_m, joints_m[k][2] AS y_m, joints_m[k][3] AS z_m"
_ROBOT_JOINTS = f"""SELECT {_OF_FRAME}, robot, unnest(joint_names) AS joint, unnest(qpos_rad) AS angle_rad, unnest(at_limit) AS at_limit, converged
FROM {{mapping}}"""

_QUALITY_READS = ("clips", "states", "metrics", BOUNDS)
VIEWS: Sequence[AskedView] = (
    AskedView(
        "holds",
        "A stretch of frames in which one hand (left, right, both) holds one object, also over the clips of a scene; path_m is its way "
        "against the background, of the steps whose speed is known, null where none is",
        ("movement", "track_links"),
        _HOLDS,
    ),
    AskedView(
        "clip_quality",
        "A clip: stages that are done, what is lacking, its own metrics by name, and those outside of their bounds; metric is false where lengths "
        "rest on an assumed focal length, null while nothing was measured",
        _QUALITY_READS,
        _CLIP_QUALITY,
    ),
    AskedView(
        "good_clips",
        "The clips of which every stage is done and measured, and no metric is outside of its bounds; lengths may rest on an assumed focal "
        "length, see metric",
        _QUALITY_READS,
        f"SELECT * FROM ({_CLIP_QUALITY}) WHERE done = stages AND measured = stages AND stages > 0 AND outside = []",
    ),
    AskedView(
        "problems",
        "What went wrong, a row for a video, or a clip and stage: rejected, failed, dead_letter, stood_in (a fallback made the result), "
        "damaged, unreadable",
        ("videos", "failures", "states"),
        _PROBLEMS,
    ),
    AskedView(
        "stage_seconds",
        "How long one clip took in one stage, and the frames that were processed, once it was measured",
        ("metrics",),
        _STAGE_SECONDS,
    ),
    AskedView("mask_shares", "Which share of the picture one mask covers in one frame", ("masks",), _MASK_SHARES),
    AskedView(
        "hand_joints",
        "One joint of one hand in one frame, by name, as found in that frame: metres in the camera frame, and pixels",
        ("hand_pose",),
        f"SELECT {_OF_JOINT}, joints_px[k][1] AS x_px, joints_px[k][2] AS y_px, metric, observed FROM {{hand_pose}} CROSS JOIN {_NUMBERED}",
    ),
    AskedView(
        "fused_hand_joints",
        "The same after fusion, which moves smoothly: metres in the camera frame",
        ("fusion",),
        f"SELECT {_OF_JOINT}, metric, observed FROM {{fusion}} CROSS JOIN {_NUMBERED}",
    ),
    AskedView("robot_joints", "One joint of one robot hand in one frame, by its name in the URDF", ("mapping",), _ROBOT_JOINTS),
)
