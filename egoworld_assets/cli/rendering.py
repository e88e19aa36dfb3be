"""The command `render`: a video with what was found in it drawn over it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from egoworld_ops.lake.lake import Run
    from egoworld_ops.report.rendering import Rendering
    from egoworld_ops.settings import Settings
    from egoworld_ops.types import Clip

EVERY_S = 2.0


@click.command()
@click.argument("video_id", required=False)
@click.option("--run", "run_id", default="latest", show_default=True, help="The run whose results are drawn.")
@click.option("--layers", help="Which layers, with commas between: masks, boxes, hands, objects, robots, holds, events, flags, camera.")
@click.option("--raw", "hands", flag_value="raw", help="Hands as they were found in each frame, not after fusion.")
@click.option("--fused", "hands", flag_value="fused", help="Hands after fusion only.")
@click.option("--clip", "clip_id", help="Only the frames that this clip owns.")
@click.option(
    "--size", "size_px", type=click.IntRange(64, 8192), default=1280, show_default=True, help="Longer side of the picture, at most."
)
@click.option("--out", type=click.Path(path_type=Path), help="The MP4 to write.  [default: VIDEO_ID.render.mp4 in the working folder]")
@click.pass_obj
def render(profile: str | None, /, video_id: str | None, run_id: str, clip_id: str | None, out: Path | None, **look: Any) -> None:
    """Draw what counts of the results over VIDEO_ID, or the beginning of its name, and write an MP4. Without one: the video last worked on."""
    from egoworld_assets.cli.videos import described
    from egoworld_ops.lake import runs, states
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.report import rendering
    from egoworld_ops.report.layers import read_layers
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    run = runs.find(Lake(settings.lake), run_id)
    wanted = runs.video_of(run, video_id)
    clips = clips_there(run, wanted, clip_id)
    how = _rendering(settings.pool.threads, **look)
    place = checked_place(settings, out or Path(f"{wanted}.render.mp4"), ".mp4")
    total = clips[-1].own_end - clips[0].own_start
    click.echo(f"{wanted}, run {run.run_id}: {total} frames, {len(clips)} clip(s)", err=True)
    if (state := states.video_state(run, wanted)) is not None and state.lacking():
        click.echo(f"not all of it is drawn: {described(state)}", err=True)
    n = rendering.render(clips, lambda clip: read_layers(run, wanted, clip.clip_id), place, how, Progress(total))
    click.echo(f"{place}  {n} frames, {place.stat().st_size / 1e6:.1f} MB")


def clips_there(run: Run, video_id: str, clip_id: str | None = None) -> list[Clip]:
    """The clips that are drawn, in order, whose raw file is there."""
    from egoworld_assets.chain.raw_files import RawFiles
    from egoworld_assets.chain.watching import check_raw_file, clips_to_watch

    clips = clips_to_watch(run, video_id, clip_id)
    check_raw_file(run, clips[0], RawFiles(None))
    return clips


def _rendering(threads: int, layers: str | None, hands: str | None, size_px: int) -> Rendering:
    from egoworld_ops.naming import did_you_mean
    from egoworld_ops.report.layer_values import LAYERS
    from egoworld_ops.report.rendering import DEFAULT, Rendering

    named: Sequence[str] = [layer.strip() for layer in layers.split(",")] if layers else DEFAULT
    for layer in named:
        if layer not in LAYERS:
            raise click.UsageError(f"there is no layer {layer!r}. {did_you_mean(layer, LAYERS)}")
    return Rendering(named, hands or "both", bool(layers), size_px, threads=threads)  # type: ignore[arg-type]  # click gives one of the flags' values


def checked_place(settings: Settings, out: Path, suffix: str, option: str = "--out") -> Path:
    """The place to write to, where that may and can be done.

    Args:
        option: by which it was named.

    Raises:
        SetupError: it may not.
    """
    from egoworld_ops.errors import SetupError

    if out.suffix.lower() != suffix:
        raise SetupError(out, f"is no name of {suffix}", f"Name a file that ends in {suffix} with {option}")
    if not out.parent.is_dir():
        raise SetupError(out.parent, "is no folder", f"Make it: `mkdir -p {out.parent}`; or name another place with {option}")
    if out.exists() and not out.is_file():
        raise SetupError(out, "is there, and is no file", f"Name another place with {option}")
    if out.resolve().is_relative_to(settings.raw.resolve()):
        raise SetupError(out, "lies in the raw folder, where it would be taken for a new video", f"Name another place with {option}")
    if out.resolve().is_relative_to(settings.lake.resolve()):
        raise SetupError(out, "lies in the lake, whose files are written by stages and releases alone", f"Name another place with {option}")
    return out


class Progress:
    """Says now and then how far it is."""

    def __init__(self, total: int) -> None:
        self._total, self._began_s = total, time.monotonic()
        self._said_s = self._began_s

    def __call__(self, n: int) -> None:
        """`n` frames were gone through."""
        now_s = time.monotonic()
        if now_s - self._said_s >= EVERY_S:
            rate = n / (now_s - self._began_s)
            click.echo(f"  frame {n} of {self._total}, {rate:.0f} a second, about {(self._total - n) / rate:.0f} s left", err=True)
            self._said_s = now_s


COMMANDS = (render,)
