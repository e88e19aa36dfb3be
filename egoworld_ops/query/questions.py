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
SELECT video_id, label, hand, first_frame, last_frame, round(from_s, 2) AS from_s, round(to_s, 2) AS to_s, round(path_m, 3) AS path_m
FROM holds WHERE to_s - from_s >= 0.13 ORDER BY video_id, from_s""",
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
    "Which clips can be used as they are, and what is lacking or odd in the others?": """
SELECT video_id, clip_id, clip_id IN (SELECT clip_id FROM good_clips AS g WHERE g.video_id = q.video_id) AS good,
       metric, lacking, outside FROM clip_quality AS q ORDER BY good, len(lacking) DESC, len(outside) DESC, video_id, clip_id LIMIT 20""",
    "What went wrong, and what is to be done?": """
SELECT kind, stage, error_class, count(*) AS n, min(video_id) AS video_id, min(reason) AS reason, min(cure) AS cure
FROM problems GROUP BY kind, stage, error_class ORDER BY n DESC""",
    "How long did each stage take?": """
SELECT video_id, stage, count(*) AS clips, round(sum(compute_s), 1) AS s, round(1000 * sum(compute_s) / sum(processed_frames), 1) AS ms_per_frame
FROM stage_seconds GROUP BY ALL ORDER BY video_id, s DESC""",
    "How much of the picture does each thing cover?": """
SELECT video_id, role, label, round(100 * median(share), 2) AS median_percent, round(100 * max(share), 2) AS largest_percent
FROM mask_shares GROUP BY ALL ORDER BY video_id, role""",
    "Where is the tip of each index finger at the start of each second?": """
SELECT video_id, floor(timestamp_s)::INT AS second, hand, round(arg_min(x_m, timestamp_s), 3) AS x_m, round(arg_min(y_m, timestamp_s), 3) AS y_m,
       round(arg_min(z_m, timestamp_s), 3) AS z_m
FROM fused_hand_joints WHERE joint = 'index_tip' GROUP BY ALL ORDER BY video_id, second, hand LIMIT 6""",
}


def answer(database: Path, sql: str) -> str:
    """The result of a query, as a text table."""
    with duckdb.connect(str(database), read_only=True) as connection:
        return str(connection.sql(sql))
