"""The container's and stream's data on the picture is used, warned of or refused; no picture is silently taken for a pinhole camera's."""

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from egoworld_ops.errors import BadSidecar, UnsupportedPicture
from egoworld_ops.settings import CameraSettings
from egoworld_ops.video import boxes
from egoworld_ops.video.boxes import Crop
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.intrinsics import resolve
from egoworld_ops.video.picture import Layout
from egoworld_ops.video.probing import probe
from egoworld_ops.video.sidecar import Sidecar, SidecarCamera
from tests.egoworld_ops import media, splice

CASES = Path(__file__).parents[3].parent / "shared" / "cases"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the cases from the wild are not here")


def squeezed(aspect: float) -> media.Picture:
    """A white disc in the middle of the picture, stored with pixels that are `aspect` times as wide as high."""

    def picture(index: int, width: int, height: int) -> np.ndarray:
        y, x = np.mgrid[:height, :width]
        inside = np.hypot((x - (width - 1) / 2) * aspect, y - (height - 1) / 2) < 30
        return np.repeat(np.where(inside, 220, 30).astype(np.uint8)[:, :, None], 3, 2)

    return picture


def extent(rgb: np.ndarray) -> tuple[int, int]:
    """Width and height of what is white."""
    rows, columns = np.nonzero(rgb[:, :, 0] > 125)
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


def first_frame(path: Path) -> np.ndarray:
    return next(decode(path, 0, 1)).rgb


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(8, 9), Fraction(1, 2)])
def test_anamorphic_pixels_are_shown_as_square_ones(tmp_path: Path, suffix: str, aspect: Fraction) -> None:
    path = media.make(tmp_path / f"a.{suffix}", 3, (144, 128), sample_aspect_ratio=aspect, picture=squeezed(float(aspect)))
    seen, shown = probe(path), first_frame(path)
    assert (seen.width, seen.height) == (shown.shape[1], shown.shape[0])
    assert seen.width / seen.height == pytest.approx(144 * aspect / 128, rel=0.01)
    assert min(seen.width / 144, seen.height / 128) >= 1
    width, height = extent(shown)
    assert width / height == pytest.approx(1, abs=0.05)
    assert (seen.picture.sample_aspect_ratio_num, seen.picture.sample_aspect_ratio_den) == (aspect.numerator, aspect.denominator)
    assert f"{aspect.numerator}:{aspect.denominator}" in str(seen.warning)


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_pixel_aspect_is_that_of_the_stored_picture_before_its_turn(tmp_path: Path, rotation_deg: int) -> None:
    aspect = Fraction(3, 2)
    path = media.make(
        tmp_path / "a.mp4", 2, (128, 96), sample_aspect_ratio=aspect, rotation_deg=rotation_deg, picture=squeezed(float(aspect))
    )
    seen = probe(path)
    assert (seen.width, seen.height) == ((192, 96) if rotation_deg == 180 else (96, 192))
    width, height = extent(first_frame(path))
    assert width / height == pytest.approx(1, abs=0.05)


def test_pixels_that_are_square_but_for_rounding_are_left_alone(tmp_path: Path) -> None:
    seen = probe(media.make(tmp_path / "a.mp4", 2, sample_aspect_ratio=Fraction(241, 240)))
    assert (seen.width, seen.height, seen.warning) == (128, 96, None)


def test_a_pixel_aspect_that_nothing_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedPicture, match="1:50"):
        probe(media.make(tmp_path / "a.mp4", 2, sample_aspect_ratio=Fraction(1, 50)))


def camera(width: int, height: int, f: float, aspect: float = 1) -> Sidecar:
    return Sidecar(camera=SidecarCamera(fx=f, fy=f * aspect, cx=(width - 1) / 2, cy=(height - 1) / 2, width=width, height=height))


def test_the_assumed_field_of_view_is_that_of_the_picture_shown() -> None:
    layout = Layout(480, 480, Fraction(4, 3))
    found = resolve(*layout.size_px, Sidecar(), CameraSettings(assumed_hfov_deg=70), "v", layout.raster())
    assert layout.size_px == (640, 480)
    assert found.fx_px == found.fy_px == pytest.approx(320 / math.tan(math.radians(35)))


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_camera_of_the_stored_picture_and_one_of_the_picture_shown_are_the_same(rotation_deg: int, mirrored: bool) -> None:
    """A stored pixel is followed through `arrange`; its ray by the stored picture's camera is its ray by the shown picture's."""
    layout = Layout(60, 40, Fraction(3, 2), Crop(6, 3, 2, 5), mirrored, rotation_deg)
    raster = layout.raster()
    assert raster is not None
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[17, 31] = 255
    scaled = np.repeat(stored, 3, 1)[:, 1::2]  # 3:2 by nearest, as large as `scaled_px`
    shown = layout.arrange(scaled)
    upright = replace(layout, sample_aspect_ratio=Fraction(1), crop=Crop()).arrange(stored)
    assert upright.shape[:2] == (raster.height, raster.width)
    (row, column), (rows, columns) = np.argwhere(upright[:, :, 0])[0], np.nonzero(shown[:, :, 0])
    assert (column + 0.5) * raster.scale_x - 0.5 - raster.left_px == pytest.approx(columns.mean(), abs=0.51)
    assert (row + 0.5) * raster.scale_y - 0.5 - raster.top_px == pytest.approx(rows.mean(), abs=0.51)
    aspect = raster.scale_x / raster.scale_y
    found = resolve(*layout.size_px, camera(raster.width, raster.height, 50, aspect), CameraSettings(), "v", raster)
    assert found.fx_px == pytest.approx(found.fy_px)
    assert (column - (raster.width - 1) / 2) / 50 == pytest.approx((columns.mean() - found.cx_px) / found.fx_px, abs=0.02)
    assert (row - (raster.height - 1) / 2) / (50 * aspect) == pytest.approx((rows.mean() - found.cy_px) / found.fy_px, abs=0.02)


def test_a_camera_of_square_pixels_on_a_stored_picture_of_others_is_refused() -> None:
    layout = Layout(480, 480, Fraction(4, 3))
    with pytest.raises(BadSidecar, match=r"fy = 1\.333 fx"):
        resolve(*layout.size_px, camera(480, 480, 400), CameraSettings(), "v", layout.raster())
    right = resolve(*layout.size_px, camera(480, 480, 300, 4 / 3), CameraSettings(), "v", layout.raster())
    assert (right.fx_px, right.fy_px) == pytest.approx((400, 400))
    other = resolve(*layout.size_px, camera(1280, 960, 800), CameraSettings(), "v", layout.raster())
    assert (other.fx_px, other.fy_px) == pytest.approx((400, 400))


@pytest.mark.parametrize("rotation_deg", [0, 90])
def test_a_clean_aperture_is_what_is_shown(tmp_path: Path, rotation_deg: int) -> None:
    whole = media.make(tmp_path / "whole.mp4", 3, rotation_deg=rotation_deg)
    cropped = splice.into_sample_entry(media.make(tmp_path / "a.mp4", 3, rotation_deg=rotation_deg), splice.clap(100, 80, 4, -3))
    seen = probe(cropped)
    assert (seen.width, seen.height) == ((100, 80) if rotation_deg == 0 else (80, 100))
    assert [seen.picture.crop_left_px, seen.picture.crop_top_px, seen.picture.crop_right_px, seen.picture.crop_bottom_px] == [18, 5, 10, 11]
    expected = first_frame(whole)
    expected = expected[5:85, 18:118] if rotation_deg == 0 else expected[18:118, 11:91]
    assert np.array_equal(first_frame(cropped), expected)
    assert "crops the picture to 100 x 80" in str(seen.warning)


def test_a_crop_of_matroska_is_what_is_shown(tmp_path: Path) -> None:
    whole = media.make(tmp_path / "whole.mkv", 3)
    crops = (splice.unsigned(kind, value) for kind, value in ((0x54CC, 8), (0x54DD, 4), (0x54BB, 6), (0x54AA, 2)))
    path = splice.into_matroska(media.make(tmp_path / "a.mkv", 3), *crops)
    assert np.array_equal(first_frame(path), first_frame(whole)[6:94, 8:124])


def test_a_crop_that_leaves_nothing_is_passed_over(tmp_path: Path) -> None:
    seen = probe(splice.into_sample_entry(media.make(tmp_path / "a.mp4", 3), splice.clap(300, 80)))
    assert (seen.width, seen.height) == (128, 96)
    assert "passed over" in str(seen.warning)


@pytest.mark.parametrize(("params", "suffix", "order"), [("tff=1", "mp4", "tt"), ("bff=1", "mkv", "bb"), ("tff=1", "ts", "tt")])
def test_interlaced_frames_are_counted_and_warned_of(tmp_path: Path, params: str, suffix: str, order: str) -> None:
    seen = probe(media.make(tmp_path / f"a.{suffix}", 5, options={"x264-params": params}))
    assert (seen.picture.field_order, seen.picture.interlaced_frames) == (order, 5)
    assert f"5 of 5 frames are interlaced (fields {order})" in str(seen.warning)


def test_progressive_frames_are_said_to_be(tmp_path: Path) -> None:
    seen = probe(media.make(tmp_path / "a.mp4", 3))
    assert (seen.picture.field_order, seen.picture.interlaced_frames, seen.warning) == ("progressive", 0, None)


@pytest.mark.parametrize(("transfer", "name", "kind"), [(16, "smpte2084", "PQ"), (18, "arib-std-b67", "HLG")])
def test_hdr_is_warned_of_by_its_transfer(tmp_path: Path, transfer: int, name: str, kind: str) -> None:
    path = media.make(tmp_path / "a.mkv", 3, codec="libx265", pix_fmt="yuv420p10le", colorspace=9, color_trc=transfer)
    seen = probe(path)
    assert (seen.picture.color_transfer, seen.picture.color_space) == (name, "bt2020nc")
    assert kind in str(seen.warning)
    assert name in str(seen.warning)


@pytest.mark.parametrize(("number", "name"), [(8, "ycgco"), (14, "ictcp"), (10, "bt2020c"), (12, "chroma-derived-nc")])
def test_a_colour_matrix_that_cannot_be_shown_is_refused_by_name(tmp_path: Path, number: int, name: str) -> None:
    plain = media.make(tmp_path / "a.mp4", 3, options={"x264-params": f"colormatrix={name}"})
    with av.open(str(plain)) as video:
        assert next(video.decode(video=0)).colorspace == number
    with pytest.raises(UnsupportedPicture, match=f"colour matrix.*{name}.*Convert"):
        probe(plain)


def test_dolby_vision_that_stores_ipt_is_refused(tmp_path: Path) -> None:
    probe(splice.into_sample_entry(media.make(tmp_path / "eight.mp4", 2), splice.dolby_vision(8)))
    with pytest.raises(UnsupportedPicture, match="profile 5"):
        probe(splice.into_sample_entry(media.make(tmp_path / "five.mp4", 2), splice.dolby_vision(5)))


@pytest.mark.parametrize(("mode", "name"), [(1, "top_bottom"), (2, "side_by_side")])
def test_stereo_in_mp4_is_refused_unless_it_is_said_to_be_usable(tmp_path: Path, mode: int, name: str) -> None:
    path = splice.into_sample_entry(media.make(tmp_path / "a.mp4", 3), splice.stereo(mode))
    with pytest.raises(UnsupportedPicture, match=f"{name}.*one eye.*use_as_pinhole"):
        probe(path)
    seen = probe(path, as_pinhole=True)
    assert seen.picture.stereo_mode == name
    assert "stereo" in str(seen.warning)


@pytest.mark.parametrize(("mode", "name"), [(1, "side_by_side"), (3, "top_bottom"), (13, "frame_alternate")])
def test_stereo_in_matroska_is_refused(tmp_path: Path, mode: int, name: str) -> None:
    path = splice.into_matroska(media.make(tmp_path / "a.mkv", 3), splice.unsigned(0x53B8, mode))
    with pytest.raises(UnsupportedPicture, match=name):
        probe(path)


def test_stereo_that_the_stream_itself_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedPicture, match="side_by_side"):
        probe(media.make(tmp_path / "a.ts", 3, options={"x264-params": "frame-packing=3"}))


def test_a_spherical_picture_is_refused_unless_it_is_said_to_be_usable(tmp_path: Path) -> None:
    path = splice.into_sample_entry(media.make(tmp_path / "a.mp4", 3), splice.equirectangular())
    with pytest.raises(UnsupportedPicture, match=r"equirectangular.*rectilinear view"):
        probe(path)
    assert probe(path, as_pinhole=True).picture.projection == "equirectangular"


def test_a_spherical_picture_in_matroska_is_refused(tmp_path: Path) -> None:
    projection = splice.element(0x7670, splice.unsigned(0x7671, 1) + splice.element(0x7672, bytes(20)))
    path = splice.into_matroska(media.make(tmp_path / "a.mkv", 3), projection)
    with pytest.raises(UnsupportedPicture, match="equirectangular"):
        probe(path)


@pytest.mark.parametrize(("size", "said"), [((1920, 960), "360 degree"), ((2048, 576), "two side by side"), ((1920, 1080), "")])
def test_a_shape_that_only_spherical_or_stereo_pictures_have_is_warned_of(tmp_path: Path, size: tuple[int, int], said: str) -> None:
    warning = probe(media.make(tmp_path / "a.mp4", 2, size)).warning
    assert said in warning if said and warning else (warning is None) == (said == "")


def test_headers_that_make_no_sense_say_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for demuxer, suffix in (("mov", "mp4"), ("matroska", "mkv"), ("mpegts", "ts")):
        whole = np.frombuffer(media.make(tmp_path / f"a.{suffix}", 2).read_bytes(), np.uint8)
        for _ in range(200):
            spoilt = whole[: rng.integers(1, len(whole))].copy()
            spoilt[rng.integers(0, len(spoilt), 20)] = rng.choice([0, 1, 127, 255], 20)
            (tmp_path / "x").write_bytes(spoilt.tobytes())
            with (tmp_path / "x").open("rb") as file:
                boxes.tracks(file.fileno(), demuxer)


def test_an_encrypted_mp4_says_so(tmp_path: Path) -> None:
    sinf = splice.box(b"sinf", splice.box(b"frma", b"avc1") + splice.box(b"schm", bytes(4) + b"cenc" + bytes(4)))
    path = splice.into_sample_entry(media.make(tmp_path / "a.mp4", 3), sinf, kind=b"encv")
    with pytest.raises(UnsupportedPicture, match=r"encrypted \(encv\).*decrypted copy"):
        probe(path)


def test_an_encrypted_matroska_says_so(tmp_path: Path) -> None:
    encoding = splice.element(0x6240, splice.unsigned(0x5033, 1) + splice.element(0x5035, splice.unsigned(0x47E1, 5)))
    path = splice.into_matroska(media.make(tmp_path / "a.mkv", 3), splice.element(0x6D80, encoding), video=False)
    with pytest.raises(UnsupportedPicture, match="encrypted"):
        probe(path)


def test_a_matroska_with_compressed_headers_is_not_encrypted(tmp_path: Path) -> None:
    encoding = splice.element(0x6240, splice.unsigned(0x5033, 0) + splice.element(0x5034, splice.unsigned(0x4254, 3)))
    assert probe(splice.into_matroska(media.make(tmp_path / "a.mkv", 3), splice.element(0x6D80, encoding), video=False)).n_frames == 3


def test_a_scrambled_transport_stream_says_so(tmp_path: Path) -> None:
    path = splice.scramble(media.make(tmp_path / "a.ts", 3), 256)
    with pytest.raises(UnsupportedPicture, match="encrypted"):
        probe(path)


def tracks(path: Path, *sizes: tuple[int, int], frames: tuple[int, ...] = ()) -> Path:
    """A file with a track of each size, in this order; the first is the default."""
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=30) for _ in sizes]
        for stream, (width, height) in zip(streams, sizes, strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n, (stream, (width, height)) in enumerate(zip(streams, sizes, strict=True)):
            for index in range(frames[n] if frames else 12):
                frame = av.VideoFrame.from_ndarray(media.numbered(index, width, height), "rgb24")
                frame.pts = index
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_several_tracks_the_largest_is_used_and_all_are_named(tmp_path: Path, suffix: str) -> None:
    path = tracks(tmp_path / f"a.{suffix}", (96, 64), (320, 240), (64, 64))
    seen = probe(path)
    assert (seen.width, seen.height, seen.n_frames) == (320, 240, 12)
    assert (seen.picture.n_video_tracks, seen.picture.video_track) == (3, 1)
    assert [media.number_of(frame.rgb) for frame in decode(path, 3, 6)] == [3, 4, 5]
    for size in ("96 x 64", "320 x 240", "64 x 64", "number 1 is used"):
        assert size in str(seen.warning)


def test_a_large_preview_of_one_frame_is_not_the_video(tmp_path: Path) -> None:
    seen = probe(tracks(tmp_path / "a.mp4", (640, 480), (320, 240), frames=(1, 20)))
    assert (seen.width, seen.n_frames) == (320, 20)


def test_a_large_track_that_does_not_decode_is_not_the_video(tmp_path: Path) -> None:
    path = tracks(tmp_path / "a.mp4", (640, 480), (320, 240), frames=(12, 12))
    with av.open(str(path)) as video:
        broken = [(p.pos, p.size) for p in video.demux(video.streams[0]) if p.size]
    data = bytearray(path.read_bytes())
    for at, size in broken:
        data[at : at + size] = bytes(size)
    path.write_bytes(data)
    seen = probe(path)
    assert (seen.width, seen.n_frames) == (320, 12)


@needs_cases
def test_the_cases_of_pictures_from_the_wild() -> None:
    anamorphic = probe(CASES / "anamorphic_sar" / "sar43.mp4")
    assert (anamorphic.width, anamorphic.height) == (640, 480)
    assert "4:3" in str(anamorphic.warning)
    assert "interlaced" in str(probe(CASES / "interlaced" / "interlaced.mp4").warning)
    two = probe(CASES / "two_tracks" / "small_first.mp4")
    assert (two.width, two.height) == (320, 240)
    for name in ("b8_ictcp", "b8_ycgco"):
        with pytest.raises(UnsupportedPicture, match=name.partition("_")[2]):
            probe(CASES / "ictcp" / f"{name}.mp4")
