"""Jobs: what people launch, each as one thing."""

from __future__ import annotations

import dagster as dg

from egoworld_assets.assets import ASSETS, manifest
from egoworld_assets.dead_letters_asset import dead_letters
from egoworld_assets.drift_asset import drift
from egoworld_assets.preview import preview
from egoworld_assets.release_asset import release

PURPOSE_TAG = "egoworld/purpose"
"""The run tag that says what a run is for."""


def _job(name: str, selection: dg.AssetSelection, purpose: str) -> dg.UnresolvedAssetJobDefinition:
    return dg.define_asset_job(name, selection=selection, description=purpose, tags={PURPOSE_TAG: name.replace("_", " ")})


def _up_to(stage: str) -> dg.AssetSelection:
    """A stage with all that it is made of."""
    return dg.AssetSelection.assets(stage).upstream()


process_videos = _job("process_videos", dg.AssetSelection.assets(*ASSETS), "The whole chain, from the raw video to robot joints.")

JOBS = [
    process_videos,
    _job(
        "look_at_videos",
        dg.AssetSelection.assets(manifest),
        "Probe the videos and cut them into clips: what can be processed, what cannot, and why.",
    ),
    _job("find_hands", _up_to("fusion"), "From the raw video to smoothed hands, without poses of objects."),
    _job("retarget_hands", _up_to("mapping"), "From the raw video to robot joints, without poses of objects."),
    _job("find_holds", _up_to("events"), "From the raw video to who holds what, and when."),
    _job("draw_previews", dg.AssetSelection.assets(preview), "Draw the contact sheets anew, from the tables that are there."),
    _job("make_release", dg.AssetSelection.assets(release), "Compact the latest run into few large files."),
    _job("watch_drift", dg.AssetSelection.assets(drift), "Compare the latest run with its reference."),
    _job(
        "list_dead_letters",
        dg.AssetSelection.assets(dead_letters),
        "Clips that are not tried again until somebody redrives them, and why.",
    ),
]
