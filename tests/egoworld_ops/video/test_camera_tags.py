"""The focal length that a phone writes into its videos becomes intrinsics of a stated error; whatever else stands there changes nothing."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from egoworld_ops.types import Clip
from egoworld_ops.video import intrinsics
from egoworld_ops.video.camera_tags import KEY
from egoworld_ops.video.containers import hash_file
from egoworld_ops.video.manifest import clips_from_tables, make_manifest
from egoworld_ops.video.settings import CameraSettings, SceneSettings
from egoworld_ops.video.sidecar import Sidecar
from tests.egoworld_ops import media
from tests.egoworld_ops.splice import apple_metadata, into_track

INT8, INT32, INT64, FLOAT32, FLOAT64, UTF8, BIG_ENDIAN = 65, 67, 74, 23, 24, 1, 21
OTHER = (b"com.apple.quicktime.camera.lens_model", UTF8, b"iPhone 15 Pro back camera 6.86mm f/1.78")


def clip_of(path: Path) -> Clip:
    videos, clips = make_manifest(path, "v-0123456789ab", hash_file(path)[0], SceneSettings())
    [clip] = clips_from_tables(videos, clips)
    assert videos["focal_35mm_mm"].to_pylist() == [clip.focal_35mm_mm]
    assert Clip.from_json(clip.to_json()) == clip
    return clip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (INT8, struct.pack(">b", 26)),
        (INT32, struct.pack(">i", 26)),
        (INT64, struct.pack(">q", 26)),
        (BIG_ENDIAN, struct.pack(">h", 26)),
        (FLOAT32, struct.pack(">f", 26.0)),
        (FLOAT64, struct.pack(">d", 26.0)),
        (UTF8, b"26"),
        (UTF8, b"26.00mm"),
    ],
)
@pytest.mark.parametrize("quicktime", [True, False])
def test_the_track_of_a_phones_video_says_its_focal_length(tmp_path: Path, kind: int, value: bytes, quicktime: bool) -> None:
    path = media.make(tmp_path / "IMG_0001.mov", 2)
    assert clip_of(into_track(path, apple_metadata(OTHER, (KEY, kind, value), quicktime=quicktime))).focal_35mm_mm == 26


def test_so_does_a_file_that_libav_wrote(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w", container_options={"movflags": "use_metadata_tags"}) as out:
        out.metadata[KEY.decode()] = "13"
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height = 128, 96
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((96, 128, 3), np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    assert clip_of(path).focal_35mm_mm == 13


@pytest.mark.parametrize(
    "value",
    [
        (KEY, INT32, struct.pack(">i", -13)),
        (KEY, INT32, struct.pack(">i", 0)),
        (KEY, FLOAT32, struct.pack(">f", float("nan"))),
        (KEY, FLOAT32, b"\0"),
        (KEY, UTF8, b"wide"),
        (KEY, UTF8, b""),
        (KEY, 99, b"\0\0\0\x1a"),
        (KEY + b"x", INT32, struct.pack(">i", 26)),
        OTHER,
    ],
)
def test_what_no_lens_has_is_passed_over(tmp_path: Path, value: tuple[bytes, int, bytes]) -> None:
    assert clip_of(into_track(media.make(tmp_path / "v.mp4", 2), apple_metadata(value))).focal_35mm_mm is None


def test_boxes_that_are_cut_or_make_no_sense_cost_the_tag_and_not_the_video(tmp_path: Path) -> None:
    whole = apple_metadata((KEY, INT32, struct.pack(">i", 26)))
    rng = np.random.default_rng(8)
    plain = media.make(tmp_path / "v.mp4", 2).read_bytes()
    for n in range(25):
        broken = bytearray(whole)
        for at in rng.integers(8, len(broken), 6):
            broken[at] = rng.integers(256)
        path = tmp_path / f"v{n}.mp4"
        path.write_bytes(plain)
        into_track(path, bytes(broken))
        assert clip_of(path).n_frames == 2


@pytest.mark.parametrize(("size", "side"), [((1920, 1080), 1920), ((1080, 1920), 1920), ((1440, 1080), 1440)])
def test_the_focal_length_is_across_the_longer_side_with_a_tenth_of_error(size: tuple[int, int], side: int) -> None:
    """An iPhone's stabilised video at 27 mm was measured as 32 mm by the diagonal of 16:9, and one at 28 mm as 36: both within the stated error."""
    camera = intrinsics.resolve(*size, Sidecar(), CameraSettings(), "v", None, 27.0)
    assert (camera.source, camera.metric, camera.focal_error_share) == ("container", True, 0.1)
    assert (camera.cx_px, camera.cy_px) == ((size[0] - 1) / 2, (size[1] - 1) / 2)
    across_16_9 = 43.267 * 16 / np.hypot(16, 9)
    for stated_mm, measured_mm in ((27.0, 32.0), (28.0, 36.0)):
        found = intrinsics.resolve(*size, Sidecar(), CameraSettings(), "v", None, stated_mm).fx_px / side
        assert abs(found / (measured_mm / across_16_9) - 1) < camera.focal_error_share


def test_a_sidecar_wins_and_a_stated_focal_length_is_known() -> None:
    given = Sidecar.model_validate({"camera": {"fx": 500, "fy": 500, "cx": 319.5, "cy": 239.5, "width": 640, "height": 480}})
    assert intrinsics.resolve(640, 480, given, CameraSettings(), "v", None, 26.0).source == "file"
    assert intrinsics.resolve(640, 480, Sidecar(), CameraSettings(require_known=True), "v", None, 26.0).source == "container"
