"""The page of one clip, and what its player asks for: layers and plots as JSON, pictures as ranges of a video, and where numbers come from."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from egoworld_assets.chain.watching import check_raw_file
from egoworld_assets.review import media, ranges
from egoworld_assets.review.asked import Asked, BadRequest, NotThere
from egoworld_assets.review.beside import beside_page, other_runs
from egoworld_assets.review.clip_list import ClipList, clip_address
from egoworld_assets.review.pages import page
from egoworld_assets.review.shown import Shown
from egoworld_ops import operators
from egoworld_ops.errors import EgoworldError
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import lineage, states, verdicts
from egoworld_ops.lake.lake import Run
from egoworld_ops.report import series
from egoworld_ops.types import Clip, sampled_frames

MOST_FRAMES = 64
"""That one answer has the layers of."""
_LONGEST_VALUE = 400
"""Characters that are shown of a value; masks have more."""


def clip_page(request: Request) -> Response:
    """The player, plots, and what is known of a clip; beside another run's where the address names one."""
    shown: Shown = request.app.state.shown
    run, clip = shown.clip(request)
    if request.path_params["run_id"] == "latest":
        return RedirectResponse(clip_address(run.run_id, clip.video_id, clip.clip_id), 307)
    index = shown.indexes.of(run)
    asked = Asked(request.url.path, request.query_params)
    if other := asked.text("with"):
        return beside_page(request, run, clip, other)
    at = asked.number("at", 0, 0, 10**9) if asked.text("at") else None
    listed = ClipList.of(asked, index)
    beside = listed.beside(index, run.run_id, clip.video_id, clip.clip_id, at)
    key = {"v": clip.video_id, "c": clip.clip_id}
    of_clip = "FROM {} WHERE video_id = $v AND clip_id = $c ORDER BY ALL"
    known: dict[str, Any] = {
        "states": states.clip_states(run, clip.video_id, clip.clip_id),
        "metrics": index.rows(f"SELECT stage, metric, value {of_clip.format('metrics')}", key),
        "warnings": index.rows("SELECT stage, said FROM warnings WHERE video_id = $v ORDER BY ALL", {"v": clip.video_id}),
    }
    known["others"] = other_runs(run, clip.video_id)
    said: dict[str, Any] = {"csrf": shown.csrf, "query": request.url.query, **_verdicts(run, clip)}
    return page("clip", clip=clip, beside=beside, here=_base(run, clip), **known, **said, **shown.common(request, run, index))


def _verdicts(run: Run, clip: Clip) -> dict[str, Any]:
    """All verdicts that were given on a clip, the newest first, and those of them that stand."""
    key = (clip.video_id, clip.clip_id)
    given = [verdict for verdict in verdicts.read(run.lake) if (verdict.run_id, *verdict.clip) == (run.run_id, *key)]
    stands = {verdict.verdict_id for verdict in verdicts.standing(run, given).get(key, ())}
    return {"given": given[::-1], "stands": stands}


def about_json(request: Request) -> Response:
    """What holds for all frames: layers, plots, stretches, and which videos a player may show."""
    shown: Shown = request.app.state.shown
    run, clip = shown.clip(request)
    with shown.layers.of(run, clip.video_id, clip.clip_id) as layers:
        frames = sampled_frames(clip.frame_start, clip.frame_end, layers.sample_stride)
        said = layers.to_json() | {
            "frame_start": clip.frame_start,
            "frame_end": clip.frame_end,
            "own": [clip.own_start, clip.own_end],
            "size_px": [clip.width, clip.height],
            "frames": list(frames),
            "plots": [plot.to_json() for plot in series.plots(layers, frames)],
            "bands": [band.to_json() for band in series.bands(layers)],
        }
    return JSONResponse(said | _sources(shown, run, clip))


def frames_json(request: Request) -> Response:
    """The layers of some frames of a clip."""
    shown: Shown = request.app.state.shown
    run, clip = shown.clip(request)
    asked = Asked(request.url.path, request.query_params)
    first = asked.number("first", clip.frame_start, clip.frame_start, clip.frame_end - 1)
    n = asked.number("n", 1, 1, MOST_FRAMES)
    with shown.layers.of(run, clip.video_id, clip.clip_id) as layers:
        return JSONResponse([layers.frame(frame).to_json() for frame in range(first, min(first + n, clip.frame_end))])


def copy_json(request: Request) -> Response:
    """How far the copy of a clip is; it is begun where there is none."""
    shown: Shown = request.app.state.shown
    run, clip = shown.clip(request)
    check_raw_file(run, clip, shown.raw_files)
    return JSONResponse(shown.copies.of(clip).to_json())


def raw_bytes(request: Request) -> Response:
    """The raw file, where browsers play it."""
    shown: Shown = request.app.state.shown
    run, clip = shown.clip(request)
    check_raw_file(run, clip, shown.raw_files)
    kind = media.PLAYED.get(clip.video_path.suffix.lower())
    if kind is None:
        raise NotThere(
            f"a browser's view of {clip.video_path.name}", "is of a kind that browsers do not play", "The page of the clip makes a copy"
        )
    return ranges.answer(clip.video_path, request.headers.get("range"), kind)


def copy_bytes(request: Request) -> Response:
    """The copy of a clip."""
    shown: Shown = request.app.state.shown
    _, clip = shown.clip(request)
    return ranges.answer(shown.copies.whole(clip), request.headers.get("range"), media.COPY_TYPE)


def lineage_page(request: Request) -> Response:
    """The rows of a stage in a frame of a clip, and all that they come from."""
    shown: Shown = request.app.state.shown
    run, clip = shown.clip(request)
    asked = Asked(request.url.path, request.query_params)
    stage = asked.one_of("stage", tuple(operators.stages()))
    if not stage:
        raise BadRequest("parameter stage", "is not given", "Choose one of " + ", ".join(operators.stages()))
    frame = asked.number("frame", clip.frame_start, clip.frame_start, clip.frame_end - 1)
    rows, trouble = _rows(run, clip, stage, frame)
    origins = lineage.of_clip(run, clip.video_id, clip.clip_id, stage)
    values: dict[str, Any] = {"clip": clip, "here": _base(run, clip), "stage": stage, "frame": frame, "column": asked.text("column")}
    index = shown.indexes.of(run)
    return page("lineage", rows=rows, trouble=trouble, origins=origins, **values, **shown.common(request, run, index))


def _base(run: Run, clip: Clip) -> str:
    return clip_address(run.run_id, clip.video_id, clip.clip_id)


def _sources(shown: Shown, run: Run, clip: Clip) -> dict[str, Any]:
    """Where a player finds the pictures, the best first; none, and why, where the raw file is not there or not as it was."""
    try:
        check_raw_file(run, clip, shown.raw_files)
        manifest = states.manifest_of(run, clip.video_id)
        times_s = media.raw_times(clip, manifest.video) if manifest else None
    except EgoworldError as error:
        return {"sources": [], "trouble": str(error)}
    base = _base(run, clip)
    raw = [{"address": f"{base}/raw", "times_s": times_s}] if times_s else []
    return {"sources": [*raw, {"address": f"{base}/copy", "progress": f"{base}/copy.json"}], "trouble": None}


def _rows(run: Run, clip: Clip, stage: str, frame: int) -> tuple[list[dict[str, str]], str]:
    """The rows of a table in a frame, as text; or why there are none."""
    path = run.clip_table(stage, clip.video_id, clip.clip_id)
    try:
        table = read_table(path, stage) if path.exists() else None
    except EgoworldError as error:
        return [], str(error)
    if table is None:
        return [], f"stage {stage} has no table of this clip"
    rows = [row for row in table.to_pylist() if row.get("frame_index") == frame]
    return [{name: _text(value) for name, value in row.items() if name not in ("video_id", "clip_id")} for row in rows], ""


def _text(value: Any) -> str:
    said = "–" if value is None else f"{value:.6g}" if isinstance(value, float) else _list_text(value)
    return said if len(said) <= _LONGEST_VALUE else f"{said[:_LONGEST_VALUE]} … ({len(said):,} characters)"


def _list_text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)
