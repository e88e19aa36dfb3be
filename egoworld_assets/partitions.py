"""What assets are partitioned by. One key a video, added as videos are registered."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

VIDEO_IDS = dg.DynamicPartitionsDefinition(name="video_id")
MAX_KEYS_A_CALL = 10_000
MAX_VIDEOS_A_RUN = 64


def add_videos(instance: dg.DagsterInstance, video_ids: Sequence[str]) -> list[str]:
    """Add partitions for the videos that have none, in chunks that every storage takes; returns those added."""
    known = set(instance.get_dynamic_partitions("video_id"))
    fresh = [v for v in dict.fromkeys(video_ids) if v not in known]
    for start in range(0, len(fresh), MAX_KEYS_A_CALL):
        instance.add_dynamic_partitions("video_id", fresh[start : start + MAX_KEYS_A_CALL])
    return fresh
