"""The packet index: a clip is read from its own packets, and its frames equal those of the whole video, bit for bit."""

from __future__ import annotations

import errno
import logging
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egoworld_ops.errors import CorruptVideo, StorageUnavailable
from egoworld_ops.types import Frame
from egoworld_ops.video import index_file
from egoworld_ops.video.by_index import frames_by_index
from egoworld_ops.video.containers import open_media
from egoworld_ops.video.decoding import DECODE_VERSION, decode
from egoworld_ops.video.index_file import IndexFile
from egoworld_ops.video.indexing import IndexMaker
from egoworld_ops.video.packet_index import NOT_SHOWN, IndexDiffers, begins
from egoworld_ops.video.picture import Layout, Upright, to_rgb
from egoworld_ops.video.probing import probe
from tests.egoworld_ops import media
from tests.egoworld_ops.video.indexes import indexed, made

X264 = {
    "closed": "keyint=12:bframes=3",
    "open_gop": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal",
    "refresh": "intra-refresh=1:keyint=12:bframes=0",
    "no_b": "bframes=0:keyint=12",
}
HEVC = {"x265-params": "log-level=none:keyint=12:open-gop=1:bframes=3"}
FILES: dict[str, dict[str, Any]] = {
    **{f"h264_{name}.{suffix}": {"options": {"x264-params": said}} for name, said in X264.items() for suffix in ("mp4", "mkv", "ts")},
    "moov_first.mp4": {"options": {"movflags": "faststart"}},
    "fragmented.mp4": {"options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}},
    "with_sound.mov": {"audio_tracks": 2},
    "with_sound.mkv": {"audio_tracks": 1},
    "cues_first.mkv": {"options": {"cues_to_front": "1", "reserve_index_space": "4096"}},
    "live.mkv": {"options": {"live": "1"}},
    "h264.avi": {"options": {"x264-params": "bframes=0:keyint=12"}},
    "b_frames.avi": {"options": {"x264-params": "keyint=12:bframes=3"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.mp4": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "hevc.mp4": {"codec": "libx265", "options": HEVC},
    "hevc.mkv": {"codec": "libx265", "options": HEVC},
    "hevc.ts": {"codec": "libx265", "options": HEVC},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp9.mp4": {"codec": "libvpx-vp9"},
    "av1.webm": {"codec": "libsvtav1"},
    "av1.mp4": {"codec": "libsvtav1"},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "ffv1.mkv": {"codec": "ffv1"},
    "ten_bits.mkv": {"codec": "libx264", "pix_fmt": "yuv420p10le"},
    "squeezed.mp4": {"sample_aspect_ratio": Fraction(4, 3)},
    "turned.mov": {"rotation_deg": 90},
    "deep_rgb.mov": {"codec": "png", "pix_fmt": "rgb48be"},
    "h264.flv": {},
    "mpeg2.mpg": {"codec": "mpeg2video"},
}
READ_WHOLE = {"mpeg2.mpg": "does not say where"}
"""Files that their demuxer reads as a whole, and the reason that is logged."""


@pytest.fixture(scope="module", autouse=True)
def _quiet_encoders() -> None:
    os.environ["SVT_LOG"] = "0"


def same(a: Frame, b: Frame) -> bool:
    return a.index == b.index and a.timestamp_s == b.timestamp_s and np.array_equal(a.rgb, b.rgb)


@pytest.mark.parametrize("name", FILES)
def test_a_clip_by_the_index_is_what_the_whole_video_gives_there(tmp_path: Path, name: str) -> None:
    path = media.make(tmp_path / name, 60, **FILES[name])
    seen, index = indexed(path)
    with IndexFile(index) as file:
        stored = file.about.stored
    assert stored.kind == ("demuxed" if name in READ_WHOLE else "transport" if name.endswith(".ts") else "plain"), stored.reason
    assert READ_WHOLE.get(name, "") in stored.reason
    whole = list(decode(path, 0, 60))
    assert [f.timestamp_s for f in whole] == seen.timestamps_s.tolist()
    for start, end, stride, threads in (
        (0, 60, 1, 2),
        (1, 9, 1, 1),
        (11, 14, 1, 2),
        (12, 20, 3, 1),
        (25, 40, 4, 2),
        (47, 60, 1, 1),
        (59, 60, 1, 2),
    ):
        part = list(by_the_index_alone(path, range(start, end, 1), stride, threads, index))
        want = [f for f in whole[start:end] if f.index % stride == 0]
        assert len(part) == len(want)
        assert all(map(same, part, want))


def by_the_index_alone(path: Path, frames: range, stride: int, threads: int, index: Path) -> list[Frame]:
    """As `decode`, which must not fall back to the whole video for it: it would say so."""
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    log = logging.getLogger("egoworld_ops.video.decoding")
    log.addHandler(handler)
    try:
        found = list(decode(path, frames.start, frames.stop, stride, threads, index=index))
    finally:
        log.removeHandler(handler)
    assert not said, said[0].getMessage()
    return found


def noisy(index: int, width: int, height: int) -> np.ndarray:
    """A numbered picture that takes many bytes."""
    rgb = media.numbered(index, width, height)
    rgb[height // 2 :] = np.random.default_rng(index).integers(0, 255, rgb[height // 2 :].shape)
    return rgb


BIG: dict[str, dict[str, Any]] = {
    "front.mp4": {"options": {"movflags": "faststart"}, "audio_tracks": 1},
    "end.mp4": {"audio_tracks": 1},
    "fragmented.mp4": {"options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}},
    "a.mkv": {"audio_tracks": 1},
    "a.avi": {"codec": "mpeg4", "options": {"qscale": "2", "flags": "+qscale"}},
    "a.ts": {"audio_tracks": 1},
}


@pytest.mark.parametrize("name", BIG)
def test_a_clip_reads_its_packets_and_little_else(tmp_path: Path, name: str) -> None:
    path = media.make(tmp_path / name, 400, (320, 240), picture=noisy, **BIG[name])
    _, whole = made(path)
    _, index = indexed(path)
    for start in (0, 50, 201, 370):
        before = read_bytes()
        numbers = [media.number_of(f.rgb) for f in decode(path, start, start + 24, index=index)]
        n_read = read_bytes() - before
        assert numbers == [i % 256 for i in range(start, start + 24)]
        section = whole.section(range(start, start + 24))
        assert len(section.rows) <= 24 + 12 + 4
        assert n_read <= 1.15 * section.rows["size"].sum(), f"{n_read / section.rows['size'].sum():.3f} x the packets"


def read_bytes() -> int:
    """Bytes that this process has read from files."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_a_packet_that_is_another_one_gives_what_the_whole_video_gives(tmp_path: Path, name: str) -> None:
    path = media.make(tmp_path / name, 60, codec="mpeg4" if name == "a.avi" else "libx264")
    _, found = made(path)
    _, index = indexed(path)
    content = bytearray(path.read_bytes())
    row = found.rows[30]
    content[int(row["start"] + row["end"]) // 2] ^= 0x55
    path.write_bytes(content)

    def outcome(by: Path | None) -> list[Any]:
        frames: list[Any] = []
        try:
            frames += ((f.index, f.timestamp_s, f.rgb.tobytes()) for f in decode(path, 24, 48, index=by))
        except CorruptVideo as error:
            frames.append(str(error))
        return frames

    assert outcome(index) == outcome(None)


@pytest.mark.parametrize("what", ["missing", "empty", "foreign", "older version", "of another video", "cut"])
def test_an_index_that_cannot_be_used_changes_nothing(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    path = media.make(tmp_path / "a.mp4", 40)
    _, index = indexed(path)
    _, found = made(path)
    other = made(media.make(tmp_path / "b.mp4", 50, picture=noisy))[1]
    content = index.read_bytes()
    spoilt = {
        "empty": b"",
        "foreign": b"PAR1" * 1000,
        "older version": index_file.to_bytes(found, "1"),
        "of another video": index_file.to_bytes(other, DECODE_VERSION),
        "cut": content[:-100],
    }
    index.unlink() if what == "missing" else index.write_bytes(spoilt[what])
    want, got = list(decode(path, 20, 30)), list(decode(path, 20, 30, index=index))
    assert len(got) == len(want) == 10
    assert all(map(same, got, want))
    assert "decoded from its start" in caplog.text


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, list[Frame]]:
    path = media.make(tmp_path_factory.mktemp("small") / "a.mkv", 30)
    return path, indexed(path)[1].read_bytes(), list(decode(path, 12, 20))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_of_an_index_may_be_wrong(small: tuple[Path, bytes, list[Frame]], tmp_path: Path, data: st.DataObject) -> None:
    path, content, want = small
    spoilt = bytearray(content)
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        spoilt[at] ^= data.draw(st.integers(1, 255))
    index = tmp_path / "a.index"
    index.write_bytes(spoilt)
    got = list(decode(path, 12, 20, index=index))
    assert len(got) == len(want)
    assert all(map(same, got, want))


def test_an_index_that_cannot_be_read_now_is_the_storages_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = media.make(tmp_path / "a.mp4", 20)
    _, index = indexed(path)
    real = os.pread

    def pread(descriptor: int, size: int, at: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}") == str(index):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size, at)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(StorageUnavailable, match=r"a\.index: cannot be read"):
        list(decode(path, 5, 10, index=index))


def test_the_index_knows_leading_pictures_and_packets_that_are_not_shown() -> None:
    keys = np.array([1, 0, 0, 1, 0, 0, 0])
    frames = np.array([NOT_SHOWN, NOT_SHOWN, 0, 3, 1, 2, 4])
    assert begins(keys, frames, 0).tolist() == [0, 0, 0, 3, 0, 0, 3]
    assert begins(keys, frames, 1).tolist() == [0] * 7
    assert begins(np.zeros(3), np.arange(3), 0).tolist() == [0, 0, 0]


def test_a_section_spans_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_file, "ROWS", 7)
    path = media.make(tmp_path / "a.mp4", 60)
    _, found = made(path)
    _, index = indexed(path)
    for start, end in ((0, 1), (5, 9), (23, 47), (59, 60), (0, 60)):
        with IndexFile(index) as file:
            section = file.section(range(start, end))
        want = found.section(range(start, end))
        assert (section.first, section.rows.tolist()) == (want.first, want.rows.tolist())
    with IndexFile(index) as file, pytest.raises(IndexDiffers):
        file.section(range(58, 62))


@pytest.mark.parametrize("location", ["left", "topleft", "center"])
def test_chroma_samples_lie_where_the_container_says(tmp_path: Path, location: str) -> None:
    """In VP9 only the container says it, and PyAV does not hand it on; a picture that is scaled shows it."""
    path = media.make(tmp_path / "a.mkv", 30, codec="libvpx-vp9", picture=noisy, options={"chroma_sample_location": location})
    assert b"\x55\xb7\x81" in path.read_bytes(), "the case is made: the container says where they lie"
    scaled, maker = Layout(128, 96, Fraction(4, 3)), IndexMaker()
    probe(path, index=maker)
    maker.finish(path, scaled, damaged=False)
    found = maker.index
    assert found is not None
    assert found.about.stored.kind == "plain", found.about.stored.reason
    assert found.about.setup.chroma_location == {"left": "left", "topleft": "topleft", "center": ""}[location]
    with open_media(path, 1) as opened:
        want = [to_rgb(frame, Upright(scaled)) for frame in opened.container.decode(opened.stream)][14:20]
    got = frames_by_index(path, found.about, found.section(range(14, 20)), range(14, 20), 1)
    assert all(np.array_equal(to_rgb(frame, Upright(scaled)), rgb) for (_, _, frame), rgb in zip(got, want, strict=True))


def test_pictures_of_floating_point_are_read_through_the_demuxer(tmp_path: Path) -> None:
    options = {"strict": "experimental"}
    _, found = made(media.make(tmp_path / "a.mkv", 10, codec="ffv1", pix_fmt="gbrpf32le", options=options))
    assert found.about.stored.kind == "demuxed"
    assert "noise in gbrpf32le is no picture" in found.about.stored.reason


def test_a_damaged_video_has_no_index(tmp_path: Path) -> None:
    path = media.make(tmp_path / "a.mkv", 60)
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : 2 * len(content) // 3] = bytes(len(content) // 3)
    path.write_bytes(content)
    maker = IndexMaker()
    assert probe(path, index=maker).damaged
    assert maker.index is None
    assert "damaged" in (maker.reason or "")
