"""What assets are partitioned by. One key a video, added as videos are registered; many go into one run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import dagster as dg

VIDEO_IDS = dg.DynamicPartitionsDefinition(name="video_id")
GROUP = "egoworld"
MAX_KEYS_A_CALL = 10_000
MAX_VIDEOS_A_RUN = 64

warnings.filterwarnings("ignore", message=".*(backfill_policy|max_partitions_per_run|multi_run).*", category=dg.BetaWarning)

BACKFILL = dg.BackfillPolicy.multi_run(max_partitions_per_run=MAX_VIDEOS_A_RUN)


def add_videos(instance: dg.DagsterInstance, video_ids: Sequence[str]) -> list[str]:
    """Add partitions for the videos that have none, in chunks that every storage takes; returns those added."""
    known = set(instance.get_dynamic_partitions("video_id"))
    fresh = [v for v in dict.fromkeys(video_ids) if v not in known]
    for start in range(0, len(fresh), MAX_KEYS_A_CALL):
        instance.add_dynamic_partitions("video_id", fresh[start : start + MAX_KEYS_A_CALL])
    return fresh
