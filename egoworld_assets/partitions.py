"""The partitions of the assets: one key per video, added as videos are registered; a run may hold many."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import dagster as dg

VIDEO_IDS = dg.DynamicPartitionsDefinition(name="video_id")
GROUP = "egoworld"
"""The group of all assets: if there were several groups, Dagster's lineage page would open with closed boxes."""
OWNERS = ["team:egoworld"]
"""Of all assets: Dagster's catalog asks of each whom to turn to."""
MAX_KEYS_A_CALL = 10_000
MAX_VIDEOS_A_RUN = 64

warnings.filterwarnings("ignore", message=".*(backfill_policy|max_partitions_per_run|multi_run).*", category=dg.BetaWarning)

BACKFILL = dg.BackfillPolicy.multi_run(max_partitions_per_run=MAX_VIDEOS_A_RUN)


def offered(lake_id: str) -> dg.DynamicPartitionsDefinition:
    """The videos of a lake that were ever made partitions: the sensor does not add them again, also if a person deletes the partition."""
    return dg.DynamicPartitionsDefinition(name=f"egoworld_offered_{lake_id}")


def add_videos(instance: dg.DagsterInstance, video_ids: Sequence[str], lake_id: str = "") -> list[str]:
    """Add partitions for the videos that have none, in chunks that every storage takes; returns those added.

    Args:
        lake_id: the lake they are registered in; the sensor then starts no runs for them.
    """
    if lake_id:
        _add(instance, str(offered(lake_id).name), video_ids)
    return _add(instance, str(VIDEO_IDS.name), video_ids)


def _add(instance: dg.DagsterInstance, name: str, keys: Sequence[str]) -> list[str]:
    known = set(instance.get_dynamic_partitions(name))
    fresh = [key for key in dict.fromkeys(keys) if key not in known]
    for start in range(0, len(fresh), MAX_KEYS_A_CALL):
        instance.add_dynamic_partitions(name, fresh[start : start + MAX_KEYS_A_CALL])
    return fresh
