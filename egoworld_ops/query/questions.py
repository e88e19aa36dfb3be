"""Questions people ask of the lake, in SQL over `egoworld.duckdb`. `docs/queries.md` and the demo show these, with their output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

QUERIES: Mapping[str, str] = {
    "What became of every video?": """
SELECT v.video_id, v.status, v.n_frames, round(v.duration_s, 1) AS s, count(DISTINCT c.clip_id) AS clips,
       count(DISTINCT f.clip_id || f.stage) AS failures, coalesce(v.reason, v.warning, '') AS note
FROM videos v LEFT JOIN clips c USING (video_id) LEFT JOIN failures f USING (video_id)
GROUP BY ALL ORDER BY failures DESC, v.video_id""",
    "How much of each clip shows which hand?": """
SELECT c.video_id, c.clip_id, c.own_end - c.own_start AS frames,
       count(*) FILTER (h.hand = 'left') AS left_hand, count(*) FILTER (h.hand = 'right') AS right_hand,
       round(median(h.reprojection_px), 2) AS reprojection_px
FROM clips c LEFT JOIN hand_pose h USING (video_id, clip_id)
GROUP BY ALL ORDER BY c.video_id, c.clip_id""",
    "When was which object held, and how far did it travel?": """
WITH seen AS (
  SELECT *, timestamp_s - lag(timestamp_s) OVER track AS step_s,
         row_number() OVER track - row_number() OVER (PARTITION BY video_id, clip_id, track_id, held_by ORDER BY frame_index) AS stretch
  FROM movement WINDOW track AS (PARTITION BY video_id, clip_id, track_id ORDER BY frame_index))
SELECT video_id, clip_id, label, held_by, round(min(timestamp_s), 2) AS from_s, round(max(timestamp_s), 2) AS to_s,
       round(sum(speed_background_m_s * step_s), 3) AS path_m
FROM seen WHERE held_by NOT IN ('none', 'unknown') GROUP BY video_id, clip_id, label, track_id, held_by, stretch
HAVING max(timestamp_s) - min(timestamp_s) >= 0.13 ORDER BY video_id, min(timestamp_s)""",
    "Which frames have the least trustworthy hands?": """
SELECT video_id, frame_index, hand, round(score, 2) AS score, round(reprojection_px, 1) AS reprojection_px, reason
FROM hand_pose ORDER BY reprojection_px DESC NULLS FIRST LIMIT 5""",
    "How far is the right thumb's tip from the index finger's tip, second by second?": """
SELECT video_id, floor(timestamp_s)::INT AS second,
       round(1000 * avg(list_distance(joints_m[5]::DOUBLE[], joints_m[9]::DOUBLE[])), 1) AS pinch_mm
FROM hand_pose WHERE hand = 'right' AND joints_m IS NOT NULL GROUP BY ALL ORDER BY video_id, second""",
    "What does the robot's hand do in the frame where it closes most?": """
WITH closed AS (SELECT * FROM mapping WHERE converged ORDER BY list_sum(qpos_rad) DESC LIMIT 1)
SELECT video_id, frame_index, hand, robot, unnest(joint_names) AS joint, round(unnest(qpos_rad), 3) AS angle_rad FROM closed LIMIT 6""",
}


def answer(database: Path, sql: str) -> str:
    """The result of a query, as a text table."""
    with duckdb.connect(str(database), read_only=True) as connection:
        return str(connection.sql(sql))
