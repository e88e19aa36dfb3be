"""A video and what was found in it as one recording for the Rerun viewer (https://rerun.io/docs): the video as it is, not its pixels, and the
layers, poses, plots and events of each frame on the timelines `frame` and `video_time`.

Belongs here: which entity shows what, and when it stops being shown. Does not belong here: how the video gets into the file
(`_rerun_video.py`), and what stands in space (`_rerun_space.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from egoworld_ops.errors import SetupError
from egoworld_ops.files.whole import named_errors
from egoworld_ops.report import _rerun_video as video
from egoworld_ops.report import series
from egoworld_ops.report._overlay import AXIS_COLORS, ROLE_COLORS, UNSURE_COLOR
from egoworld_ops.report._rerun_robot import Robots
from egoworld_ops.report._rerun_shown import CENTRE_PX, Shown
from egoworld_ops.report._rerun_space import CAMERA, WORLD, Space
from egoworld_ops.report.layer_values import BONES, FrameLayers, Hand
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.report.rendering import place
from egoworld_ops.types import Clip

if TYPE_CHECKING:
    import rerun as rr

Read = tuple[ClipLayers, pa.Table | None]
APPLICATION = "egoworld"
PICTURE = "picture"
"""The entity of the picture: `picture/video`, and what is drawn over it."""
HEAD = b"RRF2"
"""How a recording begins."""
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def write(
    clips: Sequence[Clip], read: Callable[[Clip], Read], out: Path, about: str, threads: int, progress: Callable[[int], object]
) -> int:
    """Write the recording of a video, from the first owned frame of these clips to the last; returns the number of frames.

    Each clip has its own world: at the first frame that it owns camera path, points and all poses are those of its own. Of a frame that was not
    processed, and in space of one whose camera has no pose although others of its clip have, nothing is shown. The file is there when it is
    whole: it is written beside its place and renamed.

    Args:
        clips: of one video.
        read: reads the layers of one clip, and its points, None where they do not count.
        about: Markdown that is shown beside: where the results come from.
        threads: of decoder and encoder, where the video must be encoded.
        progress: called with the number of frames gone through, after each.

    Raises:
        SetupError: Rerun is not installed, there is another file in its place, or somebody else is writing it.
        StorageUnavailable: the disk is full, or refuses.
        InputError: the video cannot be read.
    """
    import_rerun()
    refuse_others(out)
    ordered = sorted(clips, key=lambda clip: clip.own_start)
    with named_errors(out), place(out) as temporary, _recording(temporary, ordered[0].video_id) as stream:
        times_s = video.log(stream, f"{PICTURE}/video", ordered, out.with_name(f".{out.name}.video.mp4"), threads)
        shown, robots, stories = Shown(stream), Robots(CAMERA), [about]
        for clip in ordered:
            layers, points = read(clip)
            space = Space(layers, points, clip, robots)
            stories.append(_story(clip, layers, space))
            _frames(shown, clip, layers, space, times_s, lambda frame: progress(frame - ordered[0].own_start + 1))
            _plots(shown, clip, layers, times_s)
            _events(shown, clip, layers, times_s)
        shown.always("about", _markdown("\n\n".join([*stories, *robots.notes()])))
        stream.send_blueprint(_blueprint(robots.shapes_of_collisions()))
    return ordered[-1].own_end - ordered[0].own_start


def import_rerun() -> None:
    """Make sure that Rerun's package is there.

    Raises:
        SetupError: it is not.
    """
    try:
        import rerun  # noqa: F401
    except ImportError as error:
        raise SetupError("the package rerun-sdk", "is not installed", "Run: pip install 'egoworld[rerun]'") from error


def refuse_others(out: Path) -> None:
    """Leave files alone that are no recordings.

    Raises:
        SetupError: there is one.
    """
    if not out.exists():
        return
    with named_errors(out), out.open("rb") as file:
        if file.read(len(HEAD)) != HEAD:
            raise SetupError(out, "is there, and is no recording of Rerun", "Name another file with --out, or move this one away")


@contextmanager
def _recording(path: Path, video_id: str) -> Iterator[rr.RecordingStream]:
    import rerun as rr

    stream = rr.RecordingStream(APPLICATION, recording_id=video_id)
    try:
        stream.save(path)
        stream.send_recording_name(video_id)
        stream.set_log_time_enabled(False)
        stream.set_log_tick_enabled(False)
        yield stream
        stream.flush()
    except RuntimeError as error:  # so the package tells of a disk that is full
        if (said := _OS_ERROR.search(str(error))) is None:
            raise
        raise OSError(int(said[1]), os.strerror(int(said[1])), str(path)) from error
    finally:
        stream.disconnect()


def _blueprint(hidden: Sequence[str]) -> Any:
    """Picture and space side by side, and all else below; these entities are not in the view of space."""
    import rerun.blueprint as rrb

    beside = rrb.Tabs(
        rrb.TextDocumentView(origin="about", name="about"),
        rrb.TextLogView(origin="events", name="events"),
        rrb.TimeSeriesView(origin="plots", name="plots"),
    )
    in_space = [f"+ /{WORLD}/**", "+ /robot_left/**", "+ /robot_right/**", *(f"- {path}/**" for path in hidden)]
    views = (rrb.Spatial2DView(origin=PICTURE, name="picture"), rrb.Spatial3DView(origin=WORLD, contents=in_space, name="space"))
    return rrb.Blueprint(rrb.Vertical(rrb.Horizontal(*views), beside, row_shares=[2, 1]), rrb.TimePanel(timeline="frame"))


def _frames(
    shown: Shown, clip: Clip, layers: ClipLayers, space: Space, times_s: Mapping[int, float], progress: Callable[[int], object]
) -> None:
    """What each owned frame of a clip shows."""
    there = [frame for frame in range(clip.own_start, clip.own_end) if frame in times_s]
    for frame in there:
        with shown.frame(frame, times_s[frame]):
            if frame == there[0]:
                space.begin(shown)
            if frame % layers.sample_stride == 0:
                _picture(shown, layers.frame(frame))
                space.frame(shown, frame)
        progress(frame)


def _picture(shown: Shown, frame: FrameLayers) -> None:
    """The layers over the picture."""
    import rerun as rr

    for mask in frame.masks:
        outlines = [_px([*line, line[0]]) for line in mask.outlines_px if line]
        color = ROLE_COLORS[mask.role] if mask.observed else UNSURE_COLOR
        shown.now(f"{PICTURE}/masks/{mask.track_id}", rr.LineStrips2D(outlines, colors=color, radii=rr.Radius.ui_points(1.0)))
    for box in frame.boxes:
        x, y, width, height = box.box_px
        said = box.name if box.score is None else f"{box.name} {box.score:.2f}"
        drawn = rr.Boxes2D(mins=[[x, y]], sizes=[[width, height]], colors=ROLE_COLORS[box.role], labels=[said])
        shown.now(f"{PICTURE}/boxes/{box.role}/{box.track_id}", drawn)
    for hand in frame.hands:
        _skeleton(shown, hand)
    for thing in frame.objects:
        path = f"{PICTURE}/objects/{thing.track_id}"
        axes = [(line, color) for line, color in zip(thing.axes_px, AXIS_COLORS, strict=True) if line]
        lines = [*axes, *((line, ROLE_COLORS["object"]) for line in thing.edges_px)]
        colors = [color if thing.stands else UNSURE_COLOR for _, color in lines]
        shown.now(path, rr.LineStrips2D([_px(line) for line, _ in lines], colors=colors))


def _skeleton(shown: Shown, hand: Hand) -> None:
    import rerun as rr

    sure = hand.solved and hand.observed
    color = ROLE_COLORS[f"hand_{hand.hand}"] if sure else UNSURE_COLOR
    bones = [[hand.joints_px[a], hand.joints_px[b]] for a, b in BONES]
    path = f"{PICTURE}/hands/{hand.stage}/{hand.hand}"
    shown.now(f"{path}/bones", rr.LineStrips2D([_px(bone) for bone in bones if None not in bone], colors=color))
    shown.now(
        f"{path}/joints", rr.Points2D(_px([joint for joint in hand.joints_px if joint]), colors=color, radii=rr.Radius.ui_points(2.0))
    )


def _px(points: Sequence[Any]) -> np.ndarray:
    return np.asarray(points, np.float64).reshape(-1, 2) + CENTRE_PX


def _plots(shown: Shown, clip: Clip, layers: ClipLayers, times_s: Mapping[int, float]) -> None:
    frames = [f for f in range(clip.own_start, clip.own_end) if f % layers.sample_stride == 0 and f in times_s]
    for plot in series.plots(layers, frames):
        for line in plot.lines:
            shown.scalars(("plots", plot.title, line.look, line.name), [(f, times_s[f]) for f in frames], line.values)


def _events(shown: Shown, clip: Clip, layers: ClipLayers, times_s: Mapping[int, float]) -> None:
    import rerun as rr

    for band in series.bands(layers):
        first = max(band.first, clip.own_start)
        if band.stage != "movement" and first < clip.own_end and first in times_s:
            level = rr.TextLogLevel.WARN if band.stage == "agreement" else rr.TextLogLevel.INFO
            shown.at(first, times_s[first], f"events/{band.stage}", rr.TextLog(f"{band.of}: {band.word}", level=level))


def _story(clip: Clip, layers: ClipLayers, space: Space) -> str:
    lacking = [f"- no {layer}: {why}" for layer, why in layers.without.items()]
    lines = [f"## Clip {clip.clip_id}, frames {clip.own_start} to {clip.own_end - 1}", *space.notes(), *lacking]
    return "\n".join(lines)


def _markdown(text: str) -> Any:
    import rerun as rr

    return rr.TextDocument(text, media_type=rr.MediaType.MARKDOWN)
