"""What a GoPro says of its lens becomes a camera that agrees with GoPro's own table, or a reason; strangers' bytes cost the tag and not the video.

No file of a GoPro is at hand: the boxes are built as github.com/gopro/gpmf-parser publishes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_ops.types import Camera, Clip, StatedLens
from egoworld_ops.video import intrinsics
from egoworld_ops.video.containers import hash_file
from egoworld_ops.video.manifest import clips_from_tables, make_manifest
from egoworld_ops.video.settings import CameraSettings, SceneSettings
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision.lenses import is_one_to_one, project, unproject
from tests.egoworld_ops import media
from tests.egoworld_ops.splice import box, gpmd_track, gpmf, into_moov

POLY = (0.0, 1.8229533, 0.1068096, -0.6631866, 0.3563110, 0.0, 0.0)
"""Of the lens of a HERO12, published by GoPro's engineer in issue 196 of gpmf-parser."""
ZFOV, ZMPL = 133.39, 0.6851
"""Diagonal field of view of 5312x2988, published in issue 190 there; ZMPL is the scale at which POLY has it at the corner."""
WIDE = (
    gpmf(b"VFOV", "c", b"W"),
    gpmf(b"ZFOV", "f", ZFOV),
    gpmf(b"EISE", "c", b"N"),
    gpmf(b"PYCF", "c", b"r0r1r2r3r4r5r6"),
    gpmf(b"POLY", "f", *POLY),
    gpmf(b"ZMPL", "f", ZMPL),
    gpmf(b"ARUW", "f", 1.7778),
    gpmf(b"ARWA", "f", 1.7778),
    gpmf(b"MAPX", "f", 1.0),
)


def payload(*fields: bytes) -> bytes:
    return gpmf(b"DEVC", "", gpmf(b"DVID", "L", 1), gpmf(b"DVNM", "c", b"Global Settings"), *fields)


def stated(path: Path, content: bytes, size: tuple[int, int] = (160, 90)) -> tuple[Clip, str | None]:
    """The clip of a video of this size with this GPMF, and the video's warning."""
    into_moov(media.make(path, 2, size=size), box(b"udta", box(b"GPMF", content)))
    return read(path)


def read(path: Path) -> tuple[Clip, str | None]:
    videos, clips = make_manifest(path, "v-0123456789ab", hash_file(path)[0], SceneSettings())
    [clip] = clips_from_tables(videos, clips)
    assert Clip.from_json(clip.to_json()) == clip
    return clip, videos["warning"].to_pylist()[0]


def camera_of(lens: StatedLens | None, width: int, height: int) -> Camera:
    return intrinsics.resolve(width, height, Sidecar(), CameraSettings(), "v", lens=lens)


def field_deg(camera: Camera, across: bool) -> float:
    middle = np.array([camera.cx_px, camera.cy_px])
    half = np.array([camera.width / 2, 0]) if across else np.array([0, camera.height / 2])
    rays = unproject(camera, np.stack([middle - half, middle + half]))
    return float(np.degrees(np.arccos(rays[0] @ rays[1])))


def test_the_published_polynomial_has_the_published_fields_of_view(tmp_path: Path) -> None:
    """GoPro's table for HERO12, Wide 16:9: 118 degrees across and 69 down where the diagonal is 133."""
    clip, warning = stated(tmp_path / "GX010001.MP4", payload(*WIDE))
    assert warning is None
    camera = camera_of(clip.lens, 5312, 2988)
    assert (camera.source, camera.model, camera.metric, camera.focal_error_share) == ("container", "kannala_brandt", True, 0.03)
    assert abs(field_deg(camera, across=True) - 118) < 0.5
    assert abs(field_deg(camera, across=False) - 69) < 0.5
    assert is_one_to_one(camera)


def test_the_lens_is_the_inverse_of_the_polynomial(tmp_path: Path) -> None:
    clip, _ = stated(tmp_path / "v.mp4", payload(*WIDE))
    camera = camera_of(clip.lens, 1920, 1080)
    corner = np.array([960.0, 540.0])
    for share in np.linspace(0.02, 0.99, 20):
        angle = np.polynomial.polynomial.polyval(ZMPL * share, POLY)
        ray = np.concatenate([np.sin(angle) * corner / np.linalg.norm(corner), [np.cos(angle)]])
        assert np.linalg.norm(project(camera, ray) - (camera.cx_px, camera.cy_px) - share * corner) < 2.0
    assert abs(camera.fx_px / (np.linalg.norm(corner) / (POLY[1] * ZMPL)) - 1) < 0.02


def test_the_same_lens_at_every_size_and_under_a_sidecar(tmp_path: Path) -> None:
    clip, _ = stated(tmp_path / "v.mp4", payload(*WIDE))
    large, small = camera_of(clip.lens, 3840, 2160), camera_of(clip.lens, 960, 540)
    assert large.fx_px == pytest.approx(4 * small.fx_px)
    upright = camera_of(clip.lens, 540, 960)
    assert (upright.fx_px, upright.cx_px, upright.cy_px) == (pytest.approx(small.fx_px), 269.5, 479.5)
    given = Sidecar.model_validate({"camera": {"fx": 500, "fy": 500, "cx": 319.5, "cy": 239.5, "width": 640, "height": 480}})
    assert intrinsics.resolve(640, 480, given, CameraSettings(), "v", lens=clip.lens).source == "file"


def test_telemetry_of_the_first_second_says_the_same(tmp_path: Path) -> None:
    path, content = media.make(tmp_path / "v.mp4", 2, size=(160, 90)), payload(*WIDE)
    track = gpmd_track(content, 0)
    place = path.stat().st_size + len(track) + 8
    into_moov(path, gpmd_track(content, place))
    path.write_bytes(path.read_bytes() + box(b"free", content))
    clip, _ = read(path)
    assert clip.lens is not None
    assert clip.lens == stated(tmp_path / "w.mp4", content)[0].lens


def test_a_linear_picture_is_a_pinholes(tmp_path: Path) -> None:
    clip, warning = stated(tmp_path / "v.mp4", payload(gpmf(b"VFOV", "c", b"L"), gpmf(b"ZFOV", "f", 100.0)))
    camera = camera_of(clip.lens, 1600, 900)
    assert (warning, camera.model, camera.focal_error_share) == (None, "pinhole", 0.1)
    assert camera.fx_px == pytest.approx(np.hypot(800, 450) / np.tan(np.radians(50)))


@pytest.mark.parametrize("setting", [b"W", b"N", b"M", b""])
def test_a_wide_lens_of_unknown_shape_is_a_fisheye_and_never_a_pinhole(tmp_path: Path, setting: bytes) -> None:
    clip, _ = stated(tmp_path / "v.mp4", payload(gpmf(b"VFOV", "c", setting), gpmf(b"ZFOV", "f", ZFOV)))
    camera = camera_of(clip.lens, 5312, 2988)
    assert (camera.model, camera.focal_error_share) == ("kannala_brandt", 0.1)
    true = np.hypot(2656, 1494) / (POLY[1] * ZMPL)
    assert abs(camera.fx_px / true - 1) < camera.focal_error_share


def without(key: bytes) -> tuple[bytes, ...]:
    return tuple(field for field in WIDE if field[:4] != key)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((*without(b"VFOV"), gpmf(b"VFOV", "c", b"S")), "SuperView"),
        ((*without(b"VFOV"), gpmf(b"VFOV", "c", b"H")), "HyperView"),
        ((*without(b"ARUW"), gpmf(b"ARUW", "f", 1.1429)), "stretched"),
        ((*without(b"MAPX"), gpmf(b"MAPX", "f", 1.58, -8.17, 74.5)), "stretched"),
        ((*without(b"ZFOV"), gpmf(b"ZFOV", "f", 90.0)), "contradicts"),
        ((*without(b"POLY"), gpmf(b"POLY", "f", 0.0, 1.8, 0.0, -9.0)), "contradicts"),
        ((*without(b"POLY"), gpmf(b"POLY", "f", float("nan"), 1.8)), "contradicts"),
        ((*without(b"ZFOV"), gpmf(b"ZFOV", "f", -3.0)), "-3 degrees"),
        ((*WIDE, gpmf(b"DZST", "L", 40)), "zoomed"),
        ((*WIDE, gpmf(b"VRES", "L", 4000, 3000)), "4000x3000"),
        ((*WIDE, gpmf(b"PRJT", "c", b"EACO")), "EACO"),
        ((gpmf(b"VFOV", "c", b"W"),), "field of view is not"),
    ],
)
def test_a_lens_that_does_not_describe_the_picture_is_named_and_not_used(tmp_path: Path, fields: tuple[Any, ...], why: str) -> None:
    clip, warning = stated(tmp_path / "v.mp4", payload(*fields))
    assert clip.lens is None
    assert warning is not None
    assert why in warning
    assert not camera_of(clip.lens, 1920, 1080).metric


def test_other_devices_and_other_peoples_boxes_say_nothing(tmp_path: Path) -> None:
    lens_of_a_pair = gpmf(b"DEVC", "", gpmf(b"DVNM", "c", b"Front Lens"), gpmf(b"POLY", "f", *POLY), gpmf(b"ZMPL", "f", ZMPL))
    for n, content in enumerate((b"", b"\0" * 40, lens_of_a_pair, b"GPMF is not here")):
        assert stated(tmp_path / f"v{n}.mp4", content)[0].lens is None


def test_cut_and_broken_bytes_cost_the_tag_and_not_the_video(tmp_path: Path) -> None:
    whole, rng = payload(*WIDE), np.random.default_rng(4)
    plain = media.make(tmp_path / "v.mp4", 2, size=(160, 90)).read_bytes()
    for n in range(60):
        broken = bytearray(whole[: rng.integers(4, len(whole) + 1)] if n % 2 else whole)
        for at in rng.integers(0, len(broken), 8):
            broken[at] = rng.integers(256)
        path = tmp_path / "w.mp4"
        path.write_bytes(plain)
        into_moov(path, box(b"udta", box(b"GPMF", bytes(broken))))
        clip, _ = read(path)
        assert clip.n_frames == 2
        if clip.lens is not None:
            assert is_one_to_one(camera_of(clip.lens, 160, 90))


def test_lists_within_lists_end(tmp_path: Path) -> None:
    nested = gpmf(b"VFOV", "c", b"W")
    for _ in range(3000):
        nested = gpmf(b"STRM", "", nested)
        if len(nested) > 60000:
            break
    assert stated(tmp_path / "v.mp4", gpmf(b"DEVC", "", nested))[0].lens is None
