"""Jobs: the chain as one thing to launch."""

from __future__ import annotations

import dagster as dg

from egoworld_assets.assets import ASSETS

process_videos = dg.define_asset_job(
    "process_videos",
    selection=dg.AssetSelection.assets(*ASSETS),
    description="The whole chain, from the raw video to robot joints.",
)

JOBS = [process_videos]
