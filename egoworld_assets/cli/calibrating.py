"""The commands `calibrate`: intrinsics from the calibration files of other tools, or from a video's own motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from egoworld_assets.cli.group import Group

if TYPE_CHECKING:
    from egoworld_ops.video.calibrations.base import Calibration
    from egoworld_ops.video.picture import Layout


@click.group("calibrate", cls=Group)
def calibrate() -> None:
    """The cameras of videos: their intrinsics and lenses."""


@calibrate.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...", type=click.Path(path_type=Path))
@click.option("--camera", "name", help="Which camera, where FILE holds several.")
@click.option("--model", help="What the coefficients are of, where FILE does not say: plumb_bob, kannala_brandt, ...")
@click.option("--size", help="WIDTHxHEIGHT of the calibrated picture, where FILE does not say.")
@click.option(
    "--error", type=click.FloatRange(0, 1), help="Standard error of the focal length, as a share of it; not stated, it counts as 0.03."
)
@click.option("--force", is_flag=True, help="Replace another camera in a sidecar.")
def import_calibration(
    file: Path, videos: Sequence[Path], name: str | None, model: str | None, size: str | None, error: float | None, force: bool
) -> None:
    """Read the camera in FILE and write it into the sidecar of each VIDEO, whose other sections stay.

    FILE is COLMAP's cameras.txt, a calibration by OpenCV (YAML, JSON) or ROS, a Kalibr camchain, a Project Aria calibration JSON, or HOT3D's
    camera_models.json. All videos are checked before the first sidecar is written.
    """
    from egoworld_ops.video import calibrations, sidecar_writing
    from egoworld_ops.video.probing import layout_at_start

    planned = []
    for video in videos:
        layout = layout_at_start(video)
        reading = calibrations.read(file, layout.size_px)
        camera = _completed(reading.camera(file, name, model), file, size)
        section = camera.section() | ({} if error is None else {"focal_error_share": error})
        planned.append((video, sidecar_writing.with_camera(video, section, force), _fit(camera, layout, video)))
        if len(planned) == 1:
            click.echo(f"read   {file}: format {reading.format}{f', camera {camera.name!r}' if camera.name else ''}: {camera}")
            if camera.note:
                click.echo(f"note   {camera.note}")
    for video, content, fit in planned:
        click.echo(f"wrote  {sidecar_writing.write(video, content)}: {fit}")


@calibrate.command("estimate")
@click.argument("video", type=click.Path(path_type=Path))
@click.option("--start", "first_frame", type=click.IntRange(min=0), default=0, show_default=True, help="First frame to look at.")
@click.option("--frames", type=click.IntRange(min=30), default=300, show_default=True, help="How many frames to look at.")
@click.option("--force", is_flag=True, help="Replace another camera in the sidecar.")
@click.pass_obj
def estimate(profile: str | None, video: Path, first_frame: int, frames: int, force: bool) -> None:
    """Find the focal length of VIDEO from its own motion, and write it into the sidecar with its standard error, as `estimated`.

    The camera must walk: one at rest, or one that only turns, is refused. The lens is taken for a pinhole's, with its axis in the picture's middle.
    """
    import math

    from egoworld_ops.execution.focal import estimated_camera
    from egoworld_ops.settings import load_settings
    from egoworld_ops.video import sidecar_writing

    if not force:
        sidecar_writing.refuse_another(video)
    found = estimated_camera(video, load_settings(profile), first_frame, frames)
    content = sidecar_writing.with_camera(video, found.section(), force)
    camera = found.camera
    deg = math.degrees(2 * math.atan(camera.width / 2 / camera.fx_px))
    click.echo(
        f"found  fx {camera.fx_px:.1f} px, {deg:.1f} degrees across, standard error {camera.focal_error_share:.1%}: "
        f"{found.points} points in {found.keyframes} keyframes agree within {found.error_px:.2f} px"
    )
    click.echo(f"wrote  {sidecar_writing.write(video, content)}")


def _completed(camera: Calibration, file: Path, size: str | None) -> Calibration:
    """The camera with the size that was given, where its file states none."""
    from egoworld_ops.errors import BadCalibration

    if camera.width is not None and camera.height is not None:
        if size is not None and size != f"{camera.width}x{camera.height}":
            raise BadCalibration(file, f"is for {camera.width}x{camera.height}, not for {size}", "Leave --size out")
        return camera
    width, _, height = (size or "").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise BadCalibration(file, "does not say what size of picture it is for", "Say --size WIDTHxHEIGHT")
    return replace(camera, width=int(width), height=int(height))


def _fit(camera: Calibration, layout: Layout, video: Path) -> str:
    """How the camera fits the picture of a video, in words.

    Raises:
        BadSidecar: it has another aspect ratio.
    """
    from egoworld_ops.video.intrinsics import resolve
    from egoworld_ops.video.settings import CameraSettings
    from egoworld_ops.video.sidecar import Sidecar

    width, height = layout.size_px
    found = resolve(width, height, Sidecar.model_validate({"camera": camera.section()}), CameraSettings(), video, layout.raster())
    scaled = "" if (camera.width, camera.height) == (width, height) else f", scaled from {camera.width}x{camera.height}"
    return f"picture {width}x{height}, fx {found.fx_px:.6g} px{scaled}"


COMMANDS = (calibrate,)
