"""Jobs: the chain as one thing to launch."""

from __future__ import annotations

import dagster as dg

from egoworld_assets.partitions import GROUP

process_videos = dg.define_asset_job(
    "process_videos",
    selection=dg.AssetSelection.groups(GROUP),
    description="The whole chain, from the raw video to robot joints.",
)

JOBS = [process_videos]
