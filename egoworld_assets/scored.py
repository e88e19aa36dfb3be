"""A truth card in Dagster: an observation of each stage that was scored, which the UI shows beside the materializations of the video."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from egoworld_ops.score.card import Card


def observations(card: Card, run_id: str, video_id: str) -> Iterator[dg.AssetObservation]:
    """One event a stage. Its numbers are plotted over time by the UI."""
    for stage, measured in card.stages.items():
        numbers = {score.name: dg.MetadataValue.float(score.value) for score in measured.scores if score.value is not None}
        about = {"truth": card.source, "run of the lake": run_id, "frames": str(card.frames)}
        table = dg.MetadataValue.md("\n".join(["```", *map(str, measured.scores), *map(str, measured.calibrations), "```"]))
        yield dg.AssetObservation(asset_key=stage, partition=video_id, metadata={**about, "card": table, **numbers})
