"""A clip in two runs side by side: the page, and what differs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from egoworld_assets.chain.clips import has_manifest
from egoworld_assets.chain.watching import clips_to_watch
from egoworld_assets.review.asked import NotThere
from egoworld_assets.review.clip_list import clip_address
from egoworld_assets.review.index import Index
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops.errors import SetupError, UnknownVideo
from egoworld_ops.lake import clip_comparing, runs
from egoworld_ops.lake.lake import Run
from egoworld_ops.types import Clip

MOST_RUNS = 30
"""That are offered to be shown beside one."""


def other_runs(run: Run, video_id: str) -> list[str]:
    """The runs beside one that know a video, the newest first."""
    known = [other.run_id for other in run.lake.runs() if other.run_id != run.run_id and has_manifest(other, video_id)]
    return known[:MOST_RUNS]


def beside_page(request: Request, run: Run, clip: Clip, other_id: str) -> Response:
    """Both runs' layers over one picture, plots of both in one, and all that differs.

    Raises:
        NotThere: the lake has no such run, or that has no such clip.
    """
    shown: Shown = request.app.state.shown
    other = _other(shown, clip, other_id)
    indexes = [shown.index(request, each) for each in (run, other)]
    here, there = (clip_address(each.run_id, clip.video_id, clip.clip_id) for each in (run, other))
    values: dict[str, Any] = {
        "stages": clip_comparing.compare(run, other, clip.video_id, clip.clip_id),
        "metrics": _metrics(indexes, clip),
        "configuration": runs.configuration(run, other),
    }
    swapped = f"{there}?{urlencode({'with': run.run_id})}"
    return page(
        "beside", clip=clip, a=run, b=other, here=here, there=there, swapped=swapped, **values, **shown.common(request, run, indexes[0])
    )


def _other(shown: Shown, clip: Clip, run_id: str) -> Run:
    """The run that is named, which has the clip."""
    try:
        other = runs.find(shown.lake, run_id)
        [same] = clips_to_watch(other, clip.video_id, clip.clip_id)
    except (SetupError, UnknownVideo) as error:
        raise NotThere(error.culprit, error.reason, error.cure) from error
    if (same.frame_start, same.frame_end, same.video_sha256) != (clip.frame_start, clip.frame_end, clip.video_sha256):
        raise NotThere(f"clip {clip.clip_id} in run {run_id}", "has other frames", "Choose a run that cut the video in the same way")
    return other


def _metrics(indexes: list[Index], clip: Clip) -> list[dict[str, Any]]:
    """The metrics of the clip that are not the same."""
    key = {"v": clip.video_id, "c": clip.clip_id}
    asked = "SELECT stage, metric, value FROM metrics WHERE video_id = $v AND clip_id = $c"
    a, b = ({(row["stage"], row["metric"]): row["value"] for row in index.rows(asked, key)} for index in indexes)
    return [
        {"stage": name[0], "metric": name[1], "a": a.get(name), "b": b.get(name)} for name in sorted({*a, *b}) if a.get(name) != b.get(name)
    ]
