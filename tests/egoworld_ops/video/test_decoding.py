"""Probing and decoding: real formats, known content, hostile files."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from egoworld_ops.errors import CorruptVideo, EgoworldError, NotAVideo, NoVideoStream, StorageUnavailable, UnstableFile
from egoworld_ops.video import containers, index_file
from egoworld_ops.video.decoding import DECODE_VERSION, decode
from egoworld_ops.video.indexing import IndexMaker
from egoworld_ops.video.probing import probe
from egoworld_ops.video.survey import VideoProbe
from tests.egoworld_ops import media
from tests.egoworld_ops.video.indexes import indexed, made

FORMATS = {
    "h264.mp4": {},
    "h264_open_gop.mkv": {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal"}},
    "h264.ts": {},
    "h264.avi": {},
    "h264.flv": {},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12:open-gop=1"}},
    "av1.mp4": {"codec": "libsvtav1"},
    "av1.webm": {"codec": "libsvtav1"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video"},
}


@pytest.fixture(scope="module", autouse=True)
def _quiet_encoders() -> None:
    os.environ["SVT_LOG"] = "0"


@pytest.mark.parametrize("name", FORMATS)
def test_every_frame_has_its_number_and_its_time_from_any_start(tmp_path: Path, name: str) -> None:
    path = media.make(tmp_path / name, 60, **FORMATS[name])
    seen, index = indexed(path)
    assert (seen.n_frames, seen.fps, seen.vfr, seen.width, seen.height) == (60, 30, False, 128, 96)
    assert seen.warning is None
    whole = list(decode(path, 0, 60))
    assert [media.number_of(f.rgb) for f in whole] == [f.index for f in whole] == list(range(60))
    assert [f.timestamp_s for f in whole] == seen.timestamps_s.tolist()
    for start in (1, 11, 12, 13, 25, 47, 59):
        for threads in (1, 2):
            part = list(decode(path, start, 60, 5, threads, index=index))
            assert [f.index for f in part] == [i for i in range(start, 60) if i % 5 == 0]
            assert [f.timestamp_s for f in part] == [seen.timestamps_s[f.index] for f in part]
            assert all(np.array_equal(f.rgb, whole[f.index].rgb) for f in part)


def test_overlapping_ranges_share_their_sampled_frames(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 40)
    _, index = indexed(path)
    parts = [[f.index for f in decode(path, a, b, 7, index=index)] for a, b in ((0, 23), (17, 31), (27, 40))]
    assert parts == [[0, 7, 14, 21], [21, 28], [28, 35]]
    assert list(decode(path, 22, 28, 7)) == []
    assert [f.index for f in decode(path, 22, 29, 7)] == [28]


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25), Fraction(60000, 1001), Fraction(10)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rates_are_exact(tmp_path: Path, fps: Fraction, suffix: str) -> None:
    seen = probe(media.make(tmp_path / f"a.{suffix}", 50, fps=fps))
    assert (seen.fps, seen.vfr) == (fps, False)
    assert seen.duration_s == pytest.approx(float(50 / fps), abs=0.002)


def test_variable_rate_keeps_every_timestamp(tmp_path: Path) -> None:
    pts = [0, 33, 66, 150, 151, 400, 433, 466, 1500, 1533]
    path = media.make(tmp_path / "vfr.mkv", 10, pts=pts, time_base=Fraction(1, 1000), gop=3)
    seen, index = indexed(path)
    assert seen.vfr
    assert seen.fps == Fraction(9000, 1533)
    assert seen.timestamps_s.tolist() == [p / 1000 for p in pts]
    part = list(decode(path, 5, 9, index=index))
    assert [media.number_of(f.rgb) for f in part] == [5, 6, 7, 8]
    assert [f.timestamp_s for f in part] == [0.4, 0.433, 0.466, 1.5]


def test_one_dropped_frame_makes_the_rate_variable(tmp_path: Path) -> None:
    pts = [i + (i > 6) for i in range(20)]
    seen = probe(media.make(tmp_path / "drop.mp4", 20, pts=pts, time_base=Fraction(1, 30)))
    assert seen.vfr
    assert seen.timestamps_s == pytest.approx(np.array(pts) / 30, abs=1e-9)


@pytest.mark.parametrize("size", [(16, 16), (34, 18), (130, 98)])
def test_small_and_uneven_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    seen = probe(media.make(tmp_path / "a.mp4", 3, size))
    assert (seen.width, seen.height) == size


def test_odd_size(tmp_path: Path) -> None:
    path = media.make(tmp_path / "odd.mkv", 5, (101, 67), codec="libx264", pix_fmt="yuv444p")
    assert [f.rgb.shape for f in decode(path, 0, 5)] == [(67, 101, 3)] * 5
    assert [media.number_of(f.rgb) for f in decode(path, 0, 5)] == list(range(5))


def test_one_frame(tmp_path: Path) -> None:
    seen = probe(media.make(tmp_path / "one.mp4", 1))
    assert (seen.n_frames, seen.fps, seen.vfr) == (1, 30, False)
    assert seen.duration_s == pytest.approx(1 / 30, abs=1e-3)


def test_audio_tracks_are_counted_and_audio_alone_is_refused(tmp_path: Path) -> None:
    assert probe(media.make(tmp_path / "two.mp4", 10, audio_tracks=2)).audio_streams == 2
    with pytest.raises(NoVideoStream, match="no video stream"):
        probe(media.make_audio(tmp_path / "audio.mp4"))


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rotation_is_applied(tmp_path: Path, rotation_deg: int, suffix: str) -> None:
    def turned(index: int, width: int, height: int) -> np.ndarray:
        upright = (width, height) if rotation_deg == 180 else (height, width)
        return np.rot90(media.numbered(index, *upright), rotation_deg // 90)

    path = media.make(tmp_path / f"a.{suffix}", 14, rotation_deg=rotation_deg, picture=turned)
    seen, index = indexed(path)
    assert seen.rotation_deg == rotation_deg
    assert (seen.width, seen.height) == ((128, 96) if rotation_deg == 180 else (96, 128))
    for start in (0, 13):
        frame = next(decode(path, start, 14, index=index))
        assert frame.rgb.shape == (seen.height, seen.width, 3)
        assert media.number_of(frame.rgb) == start
        assert np.abs(frame.rgb.astype(int) - media.numbered(start, seen.width, seen.height)).mean() < 12


COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [220, 220, 60], [128, 128, 128], [16, 16, 16], [250, 250, 250]], np.uint8)


@pytest.mark.parametrize("colorspace", ["ITU709", "ITU601", "BT2020"])
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("pix_fmt", ["yuv444p", "yuv420p10le"])
def test_colours_come_back(tmp_path: Path, colorspace: str, color_range: int, pix_fmt: str) -> None:
    def bars(index: int, width: int, height: int) -> np.ndarray:
        return np.repeat(COLORS[None], height, 0).repeat(width // len(COLORS), 1)

    matrix = {"ITU709": 1, "ITU601": 5, "BT2020": 9}[colorspace]
    options = {
        "crf": "1",
        "x264-params": f"colormatrix={ {1: 'bt709', 5: 'bt470bg', 9: 'bt2020nc'}[matrix] }:range={'full' if color_range == 2 else 'tv'}",
    }
    path = media.make(
        tmp_path / "a.mkv", 2, (224, 48), pix_fmt=pix_fmt, colorspace=matrix, color_range=color_range, options=options, picture=bars
    )
    assert probe(path).color_range == ("full" if color_range == 2 else "limited")
    rgb = next(decode(path, 0, 1)).rgb
    centres = rgb[24, 16::32].astype(int)
    assert np.abs(centres - COLORS).max() <= 4


def resized(path: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """A video whose picture has another size after every 30 frames."""
    tick = Fraction(1, 30)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height = sizes[0]
        out.start_encoding()
        for part, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.gop_size, encoder.max_b_frames = tick, 12, 0
            frames: list[av.VideoFrame | None] = []
            for index in range(30 * part, 30 * part + 30):
                frame = av.VideoFrame.from_ndarray(media.numbered(index, width, height), "rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = index, tick
                frames.append(frame)
            for packet in (packet for frame in [*frames, None] for packet in encoder.encode(frame)):
                packet.stream, packet.time_base = stream, tick
                out.mux(packet)
    return path


@pytest.mark.parametrize("sizes", [((128, 96), (64, 48)), ((64, 48), (128, 96))])
def test_a_size_that_changes_gives_the_same_frames_from_any_start(tmp_path: Path, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    path = resized(tmp_path / "a.ts", sizes)
    seen, index = indexed(path)
    assert seen.n_frames == 60
    assert "changes size" in (seen.warning or "")
    assert (seen.width, seen.height) == sizes[0]
    whole = list(decode(path, 0, 60))
    assert {f.rgb.shape for f in whole} == {(sizes[0][1], sizes[0][0], 3)}
    for start in (31, 45):
        for threads in (1, 2):
            part = list(decode(path, start, 60, threads=threads, index=index))
            assert all(np.array_equal(f.rgb, whole[f.index].rgb) for f in part)
            assert len(part) == 60 - start


def test_real_formats(tmp_path: Path, shared_data: Path) -> None:
    want = {
        "torchcodec_av1_video.mkv": ("av1", "yuv420p", "limited", 125, Fraction(25), 0),
        "torchcodec_h265_video.mp4": ("hevc", "yuv420p", "limited", 10, Fraction(10), 0),
        "torchcodec_h265_10bits.mp4": ("hevc", "yuv420p10le", "limited", 30, Fraction(30), 0),
        "torchcodec_h264_10bits.mp4": ("h264", "yuv420p10le", "unspecified", 30, Fraction(30), 0),
        "torchcodec_bt709_full_range.mp4": ("h264", "yuvj420p", "full", 30, Fraction(30), 0),
        "torchcodec_nasa_13013.mp4": ("h264", "yuv420p", "limited", 390, Fraction(30000, 1001), 2),
        "sam2_03_blocks.mp4": ("h264", "yuv420p", "limited", 292, Fraction(30000, 1001), 1),
        "nemo_test_video.mp4": ("h264", "yuv420p", "limited", 7, Fraction(2), 0),
        "decord_unordered.mov": ("h264", "yuv420p", "unspecified", 4, Fraction(32), 0),
    }
    for name, facts in want.items():
        seen, made_index = made(shared_data / name)
        index = tmp_path / f"{name}.index"
        index.write_bytes(index_file.to_bytes(made_index, DECODE_VERSION))
        assert (seen.codec, seen.pix_fmt, seen.color_range, seen.n_frames, seen.fps, seen.audio_streams) == facts, name
        assert not seen.vfr
        middle = seen.n_frames // 2
        slow = list(decode(shared_data / name, middle, seen.n_frames, 3))
        fast = list(decode(shared_data / name, middle, seen.n_frames, 3, 2, index=index))
        assert [f.index for f in slow] == [f.index for f in fast]
        assert all(np.array_equal(a.rgb, b.rgb) and a.timestamp_s == b.timestamp_s for a, b in zip(slow, fast, strict=True))


def test_the_same_colours_in_eight_and_ten_bits(shared_data: Path) -> None:
    """Both files hold ffmpeg's test source: pure red, green, yellow, blue, magenta, cyan bars, in BT.601."""
    bars = np.array([[255, 0, 0], [0, 255, 0], [255, 255, 0], [0, 0, 255], [255, 0, 255], [0, 255, 255]])
    for name in ("torchcodec_h264_10bits.mp4", "torchcodec_h265_10bits.mp4"):
        rgb = next(decode(shared_data / name, 0, 1)).rgb
        assert np.abs(rgb[190, 16::33].astype(int)[:6] - bars).max() <= 12, name


def test_real_rotations(shared_data: Path) -> None:
    for rotation_deg in (0, 90, 180, 270):
        path = shared_data / f"decord_video_{rotation_deg}.mov"
        seen = probe(path)
        assert seen.rotation_deg == rotation_deg
        assert (seen.width, seen.height) == ((320, 568) if rotation_deg in (90, 270) else (568, 320))
        with av.open(str(path)) as container:
            coded = next(container.decode(video=0)).to_ndarray(format="rgb24")
        upright = next(decode(path, 0, 1)).rgb
        assert np.abs(np.rot90(coded, -rotation_deg // 90).astype(int) - upright).max() <= 2


def test_the_corrupt_file_is_usable_up_to_its_fault(shared_data: Path) -> None:
    path = shared_data / "decord_corrupted.mp4"
    for threads in (0, 1, 2):
        seen = probe(path, threads=threads)
        assert seen.n_frames == 28
        assert "28 of the 50 frames in the header decode" in (seen.warning or "")
    for threads in (1, 2):
        assert [f.index for f in decode(path, 0, 28, threads=threads)] == list(range(28))
        with pytest.raises(CorruptVideo, match=r"decord_corrupted\.mp4: decoding stops at frame 28 of the range \[20, 30\)"):
            list(decode(path, 20, 30, threads=threads))


def broken_videos(folder: Path, n: int, name: str = "h264.mkv") -> Iterator[Path]:
    """Videos of 50 numbered frames whose second half is damaged."""
    content = media.make(folder / name, 50).read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(n):
        broken = bytearray(content)
        for where in rng.integers(len(broken) // 2, len(broken) * 9 // 10, 4):
            broken[where] = rng.integers(0, 256)
        (folder / f"broken_{name}").write_bytes(broken)
        yield folder / f"broken_{name}"


@pytest.mark.parametrize("name", ["h264.mkv", "h264.ts"])
def test_damage_gives_the_same_frames_with_any_threads_from_any_start(tmp_path: Path, name: str) -> None:
    n_damaged = 0
    for path in broken_videos(tmp_path, 12, name):
        maker = IndexMaker()
        seen = probe(path, index=maker)
        damaged = seen.damaged
        assert (maker.index is None) == damaged
        n_damaged += damaged
        index = tmp_path / "damage.index"
        if maker.index is not None:
            index.write_bytes(index_file.to_bytes(maker.index, DECODE_VERSION))
        whole = list(decode(path, 0, seen.n_frames, damaged=damaged))
        for start, threads in ((0, 4), (seen.n_frames // 2, 2), (seen.n_frames - 5, 4)):
            part = list(decode(path, start, seen.n_frames, threads=threads, damaged=damaged, index=index))
            assert [(f.index, f.timestamp_s) for f in part] == [(f.index, f.timestamp_s) for f in whole[start:]]
            assert all(np.array_equal(f.rgb, whole[f.index].rgb) for f in part)
    assert n_damaged >= 3


def test_a_stream_that_starts_amid_a_group_of_pictures_is_used_with_a_warning(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.ts", 60)
    n_packets = path.stat().st_size // 188
    path.write_bytes(path.read_bytes()[188 * (n_packets // 3) :])
    for threads in (1, 2):
        seen = probe(path, threads=threads)
        assert 20 < seen.n_frames < 60
        assert f"packets gave {seen.n_frames} frames" in (seen.warning or "")


def test_a_visitor_ends_with_the_frames_that_count(tmp_path: Path) -> None:
    def visited(path: Path, threads: int) -> list[tuple[int, float, bytes]]:
        seen: list[tuple[int, float, bytes]] = []

        def visit(index: int, timestamp_s: float, frame: av.VideoFrame) -> None:
            if index == 0:
                seen.clear()
            seen.append((index, timestamp_s, frame.to_ndarray().tobytes()))

        n_frames = probe(path, visit, threads).n_frames
        assert [index for index, _, _ in seen] == list(range(n_frames))
        return seen

    for path in broken_videos(tmp_path, 8):
        assert visited(path, 1) == visited(path, 4)


def test_beyond_the_end(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 10)
    frames = decode(path, 8, 12)
    assert [next(frames).index, next(frames).index] == [8, 9]
    with pytest.raises(CorruptVideo, match=r"frame 10 of the range \[8, 12\): the file ends there"):
        next(frames)
    with pytest.raises(ValueError, match="frame_start < frame_end"):
        decode(path, 3, 3)


def test_an_abandoned_decode_closes_the_file(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 10)
    before = len(os.listdir("/proc/self/fd"))
    frames = decode(path, 0, 10)
    next(frames)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    frames.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi"])
def test_a_truncated_tail_is_used_with_a_warning(tmp_path: Path, suffix: str) -> None:
    path = media.make(tmp_path / f"a.{suffix}", 120)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = probe(path)
    assert 20 < seen.n_frames < 110
    assert [media.number_of(f.rgb) for f in decode(path, 0, seen.n_frames - 4)] == list(range(seen.n_frames - 4))
    if suffix != "ts":  # a transport stream promises no length
        assert seen.warning


def test_a_truncated_tail_of_an_mp4_with_its_index_in_front(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 120, options={"movflags": "faststart"})
    with av.open(str(path)) as source, av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    path = tmp_path / "fast.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    seen = probe(path)
    assert 20 < seen.n_frames < 120
    assert f"{seen.n_frames} of the 120 frames in the header decode" in (seen.warning or "")
    assert len(list(decode(path, 0, seen.n_frames))) == seen.n_frames


def test_bad_files_name_themselves_reason_and_cure(tmp_path: Path) -> None:
    good = media.make(tmp_path / "good.mp4", 60).read_bytes()
    bad = {
        "zero.mp4": (b"", NotAVideo, "zero bytes"),
        "text.mp4": (b"this is not a video\n" * 100, NotAVideo, "does not start like a video container"),
        "no head.mp4": (good[1000:], NotAVideo, "does not start like a video container"),
        "no tail.mp4": (good[: len(good) // 2], CorruptVideo, "cannot be read"),
        "only\nhead.mp4": (good[:40], EgoworldError, "cannot be read|no video stream"),
        "qu\"ote's.mp4": (b"RIFF0000WAVEfmt ", NotAVideo, "does not start like"),
        "ünï..cødé.mp4": (b"\x1a\x45\xdf\xa3" + b"\0" * 200, EgoworldError, "cannot be read|no video stream"),
    }
    for name, (content, error_class, reason) in bad.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(error_class, match=reason) as caught:
            probe(path)
        assert not caught.value.retryable
        assert "\n" not in str(caught.value)
        assert "ünï..cødé" in str(caught.value) or name.split(".")[0][:4] in str(caught.value)
        assert caught.value.cure


@pytest.mark.parametrize(
    "name", ["a b.mp4", 'it\'s "so".mp4', "new\nline.mp4", "..mp4", "-i.mp4", "a:b.mp4", "file:x.mp4", "100%d.mp4", "日本.mp4"]
)
def test_any_name_can_be_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    media.make(tmp_path / "plain.mp4", 3).rename(tmp_path / name)
    assert probe(tmp_path / name).n_frames == 3
    monkeypatch.chdir(tmp_path)
    assert len(list(decode(name, 0, 3))) == 3


def test_a_name_that_is_not_utf_8_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    media.make(tmp_path / "plain.mp4", 3).rename(path)
    assert probe(path).n_frames == 3


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "long.mp4").symlink_to("x" * 300)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.mp4"))
        reasons = {
            "folder.mp4": "is a directory",
            "dangling.mp4": "is a link to nothing",
            "loop.mp4": "cannot be opened",
            "fifo.mp4": "is a FIFO",
            "device.mp4": "is a device",
            "socket.mp4": "is a socket",
            "long.mp4": "cannot be opened",
            "missing.mp4": "does not exist",
            "nul\0byte.mp4": "cannot be opened",
        }
        for name, reason in reasons.items():
            with pytest.raises(NotAVideo, match=reason):
                probe(tmp_path / name)


def test_too_many_open_files_say_nothing_about_the_file(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mp4", 3)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(StorageUnavailable, match="Too many open files"):
            probe(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in held:
            os.close(descriptor)


def test_a_link_to_a_video_is_read(tmp_path: Path) -> None:
    media.make(tmp_path / "a.mp4", 3)
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    assert probe(tmp_path / "link.mp4").n_frames == 3


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mkv", 60)
    content = path.read_bytes()

    def grow(index: int, timestamp_s: float, frame: av.VideoFrame) -> None:
        if index == 5:
            with path.open("ab") as file:
                file.write(b"more")

    def replace(index: int, timestamp_s: float, frame: av.VideoFrame) -> None:
        if index == 5:
            (tmp_path / "other").write_bytes(content)
            (tmp_path / "other").rename(path)

    for change in (grow, replace, lambda *_: path.unlink(missing_ok=True)):
        path.write_bytes(content)
        with pytest.raises(UnstableFile, match="while it was read"):
            probe(path, change)


def test_a_half_written_file_is_corrupt_and_unstable_if_it_grows(tmp_path: Path) -> None:
    content = media.make(tmp_path / "whole.mp4", 60).read_bytes()
    path = tmp_path / "a.mp4"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptVideo):
        probe(path)

    def fail_while_it_grows() -> None:
        with containers.open_regular(path):
            path.write_bytes(content)
            raise CorruptVideo(path, "broken", "none")

    with pytest.raises(UnstableFile, match="changed while it was read"):
        fail_while_it_grows()


def test_a_file_that_may_no_longer_be_read_is_unstable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.make(tmp_path / "a.mkv", 10)

    def forbid(index: int, timestamp_s: float, frame: av.VideoFrame) -> None:
        path.chmod(0)
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # the superuser may always read

    with pytest.raises(UnstableFile, match="may no longer be read"):
        probe(path, forbid)


class Server:
    """A real server on the loopback that counts connections."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                if connection.recv(4) == b"stop":
                    break
            self.connections += 1

    def stop(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"stop")
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def server() -> Server:
    server = Server()
    yield server
    server.stop()


def playlists(canary: Path, url: str) -> dict[str, str]:
    """Files that make libav open other files or the network, unless it is prevented."""
    return {
        "hls_file": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{canary}\n#EXT-X-ENDLIST\n",
        "hls_http": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
        "ffconcat_file": f"ffconcat version 1.0\nfile '{canary}'\n",
        "ffconcat_http": f"ffconcat version 1.0\nfile '{url}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" '
        f'type="static"><Period><AdaptationSet><Representation id="0"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    }


def test_the_playlists_would_open_the_canary_if_libav_chose(tmp_path: Path) -> None:
    """The trap works: without our guard libav follows the script to the other file."""
    canary = media.make(tmp_path / "canary.mp4", 7)
    script = tmp_path / "script.mp4"
    script.write_text(playlists(canary, "http://127.0.0.1:1/")["ffconcat_file"])
    with av.open(str(script), options={"safe": "0"}) as container:
        assert sum(1 for _ in container.decode(video=0)) == 7


def test_playlists_named_like_videos_open_nothing(tmp_path: Path, server: Server) -> None:
    canary = media.make(tmp_path / "canary.mp4", 7)
    os.utime(canary, ns=(1, canary.stat().st_mtime_ns))
    url = f"http://127.0.0.1:{server.port}/canary.mp4"
    for name, text in playlists(canary, url).items():
        path = tmp_path / f"{name}.mp4"
        path.write_text(text)
        with pytest.raises(NotAVideo, match="does not start like a video container"):
            probe(path)
        with pytest.raises(NotAVideo):
            next(decode(path, 0, 1))
    assert server.connections == 0
    assert canary.stat().st_atime_ns == 1


def _alias_record(target: Path) -> bytes:
    """A Macintosh alias as QuickTime's data reference `alis` holds it: fixed part, then the absolute path as entry 2."""
    name = str(target).encode()
    fixed = bytes(10) + bytes(28) + bytes(12) + bytes([len(target.name)]) + target.name.encode().ljust(63, b"\0") + bytes(16)
    levels = struct.pack(">hh", 1, 1) + bytes(16)
    entries = struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hH", -1, 0)
    return fixed + levels + entries


def _refer_to(movie: bytes, target: Path) -> bytes:
    """The movie with its pictures said to lie in another file. Its index must stand at the end."""
    where = movie.find(b"url \0\0\0\1")
    assert where > movie.find(b"mdat") > 0
    record = _alias_record(target)
    atom = struct.pack(">I", 12 + len(record)) + b"alis" + bytes(4) + record
    grown = bytearray(movie[: where - 4] + atom + movie[where + 8 :])
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = movie.rfind(kind, 0, where) - 4
        grown[at : at + 4] = struct.pack(">I", struct.unpack(">I", movie[at : at + 4])[0] + len(atom) - 12)
    return bytes(grown)


def test_a_movie_that_refers_to_another_file_does_not_open_it(tmp_path: Path) -> None:
    target = media.make(tmp_path / "target.mp4", 12)
    movie = tmp_path / "refers.mp4"
    content = bytearray(_refer_to(target.read_bytes(), target))
    at = content.find(b"mdat")
    size = struct.unpack(">I", content[at - 4 : at])[0] - 8
    content[at + 4 : at + 4 + size] = bytes(size)  # the pictures are in the other file only
    movie.write_bytes(content)

    with av.open(str(movie), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        assert sum(1 for _ in container.decode(video=0)) == 12, "the trap works: libav follows the reference if it is let"
    os.utime(target, ns=(1, target.stat().st_mtime_ns))
    with pytest.raises(EgoworldError):
        probe(movie)
    assert target.stat().st_atime_ns == 1


def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    content = bytearray(media.make(tmp_path / "a.mp4", 3, codec="mpeg4").read_bytes())
    where = content.find(b"mp4v") + 4 + 24
    assert struct.unpack(">HH", content[where : where + 4]) == (128, 96)
    content[where : where + 4] = struct.pack(">HH", 60000, 60000)
    path = tmp_path / "bomb.mp4"
    path.write_bytes(content)
    with contextlib.suppress(CorruptVideo):
        seen = probe(path)
        assert seen.width * seen.height <= containers.MAX_PIXELS
    with pytest.raises(CorruptVideo, match="60000 x 60000"):
        containers.check_size(path, 60000, 60000)
    with pytest.raises(CorruptVideo, match="the limit is"):
        containers.check_size(path, 16000, 16000)


def test_libav_is_silent(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    probe(shared_data / "decord_corrupted.mp4")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_colours_that_nobody_can_show_are_a_fault_of_the_file(tmp_path: Path) -> None:
    """Found by fuzzing: a damaged header in mid-stream names a colour matrix that does not exist."""
    bt709 = {"color_trc": "bt709", "color_primaries": "bt709"}
    path = media.make(tmp_path / "colours.mpg", 12, (64, 48), 25, codec="mpeg2video", gop=6, options=bt709)
    content = bytearray(path.read_bytes())
    display_extension = content.rindex(b"\x00\x00\x01\xb5\x2b")
    content[display_extension + 7] = 128
    path.write_bytes(content)
    with pytest.raises(CorruptVideo, match=r"decoding stops at frame \d+ of the range \[0, 12\): the picture cannot be shown"):
        list(decode(path, 0, 12))


FUZZED = {"h264.mp4": {}, "h264.mkv": {}, "h264.ts": {}, "mpeg4.avi": {"codec": "mpeg4"}, "av1.mp4": {"codec": "libsvtav1"}}


@pytest.mark.parametrize("name", FUZZED)
def test_broken_files_end_in_a_probe_or_a_typed_error(tmp_path: Path, name: str) -> None:
    content = media.make(tmp_path / name, 20, (64, 48), audio_tracks=1, **FUZZED[name]).read_bytes()
    path = tmp_path / f"fuzzed_{name}"
    rng = np.random.default_rng(7)
    outcomes = {"probe": 0, "error": 0, "retry": 0}
    for round_ in range(80):
        broken = bytearray(content)
        for where in rng.integers(0, len(broken), int(rng.integers(1, 30))):
            broken[where] = rng.integers(0, 256)
        if round_ % 4 == 0:
            broken = broken[: int(rng.integers(1, len(broken)))]
        path.write_bytes(broken)
        try:
            seen = probe(path)
        except EgoworldError as error:
            outcomes["retry" if error.retryable else "error"] += 1
        else:
            outcomes["probe"] += 1
            _check_consistent(path, seen)
    assert outcomes["retry"] == 0
    print(f"FIGURE fuzzed {name}: {outcomes['probe']} probed, {outcomes['error']} typed errors of 80")


def _check_consistent(path: Path, seen: VideoProbe) -> None:
    """The frames that the probe counted can be decoded, with the same times."""
    assert seen.n_frames >= 1
    assert seen.fps > 0
    assert (np.diff(seen.timestamps_s) > 0).all()
    for threads in (1, 2):
        times = [f.timestamp_s for f in decode(path, 0, seen.n_frames, threads=threads)]
        assert times == seen.timestamps_s.tolist()
