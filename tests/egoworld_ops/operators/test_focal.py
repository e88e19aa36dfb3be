"""The focal length from a camera's own motion, and its way into the sidecar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.errors import BadSettings, CorruptVideo, UnknownIntrinsics
from egoworld_ops.execution import focal
from egoworld_ops.execution.focal import EstimatedCamera, looked_at
from egoworld_ops.operators.camera._focal import Estimate, estimate
from egoworld_ops.settings import load_settings
from egoworld_ops.types import Camera, Frame
from egoworld_ops.video import intrinsics, sidecar_writing
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import read_sidecar
from tests.egoworld_ops.media import make
from tests.egoworld_ops.operators import rooms

WRONG = replace(rooms.CAMERA, fx_px=300.0, fy_px=300.0, source="assumed_fov", focal_error_share=0.3)
"""Of 56 degrees; the rooms are filmed with 72."""


def test_a_walk_tells_the_focal_length_within_its_stated_error() -> None:
    found = estimate(replace(rooms.filmed(rooms.walk, 20)[0], camera=WRONG))
    assert isinstance(found, Estimate)
    error = found.focal_px / rooms.CAMERA.fx_px - 1
    assert abs(error) < 0.03
    assert abs(error) < 2 * found.error_share < 0.1


@pytest.mark.parametrize(("path", "kind"), [(rooms.turn, "rotation_only"), (rooms.still, "no_motion")])
def test_a_camera_that_turns_or_rests_is_refused(path: rooms.Path_, kind: str) -> None:
    found = estimate(replace(rooms.filmed(path, 32)[0], camera=WRONG))
    assert isinstance(found, Reason)
    assert found.kind == kind


def test_a_video_shorter_than_what_is_looked_at_is_looked_at_to_its_end(tmp_path: Path) -> None:
    video = make(tmp_path / "v.mp4", 12)
    assert len(list(looked_at(video, 4, 300))) == 8
    with pytest.raises(CorruptVideo):
        list(looked_at(video, 12, 300))


def test_an_estimate_is_a_camera_of_the_sidecar_that_says_so(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    sidecar = tmp_path / "v.egoworld.json"
    sidecar.write_text(json.dumps({"recording": "r"}))
    made = EstimatedCamera(Camera(500.0, 500.0, 319.5, 239.5, 640, 480, "estimated", focal_error_share=0.02), 100, 9, 0.5)
    sidecar_writing.write(video, sidecar_writing.with_camera(video, made.section(), force=False))
    known = read_sidecar(video)
    assert known.recording == "r"
    camera = intrinsics.resolve(1280, 960, known, CameraSettings(), video)
    assert (camera.source, camera.metric, camera.focal_error_share, camera.fx_px) == ("estimated", True, 0.02, 1000.0)


def test_a_sidecar_that_has_a_camera_is_refused_before_the_video_is_looked_at(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    video.write_bytes(b"no video")
    made = EstimatedCamera(Camera(500.0, 500.0, 319.5, 239.5, 640, 480, "estimated", focal_error_share=0.02), 100, 9, 0.5)
    sidecar_writing.write(video, sidecar_writing.with_camera(video, made.section(), force=False))
    with pytest.raises(BadSettings, match="has another camera already"):
        CliRunner().invoke(egoworld, ["calibrate", "estimate", str(video)], catch_exceptions=False)


def test_the_times_of_frames_are_known_once_a_stage_has_seen_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video at rest and without hands: detections and the estimate see its pictures, and nothing else has to."""
    passes = []

    def counted(*args: object) -> Iterator[Frame]:
        passes.append(args)
        return looked_at(*args)

    monkeypatch.setattr(focal, "looked_at", counted)
    with pytest.raises(UnknownIntrinsics, match="its focal length cannot be estimated"):
        focal.estimated_camera(make(tmp_path / "v.mp4", 40), load_settings("laptop"), 0, 300)
    assert len(passes) == 2
