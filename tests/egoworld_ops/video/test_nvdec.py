"""Decoding on a GPU's own decoder: a stand-in hands frames over as NVDEC does, decoded by the CPU; what is not the CPU's frame is not used."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from egoworld_ops.types import Frame
from egoworld_ops.video import decoding, nvdec
from egoworld_ops.video.decoder import DecoderSetup
from egoworld_ops.video.packet_index import IndexDiffers
from tests.egoworld_ops import media
from tests.egoworld_ops.operators.clips import clip_input
from tests.egoworld_ops.video.indexes import indexed

_HANDED_OVER = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
SIZE = (128, 96)
FILES: dict[str, dict[str, Any]] = {
    "h264.mp4": {"options": {"x264-params": "keyint=12:bframes=3:open-gop=1"}},
    "ten_bits.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none:keyint=12:bframes=3"}},
    "full_range.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "turned.mov": {"rotation_deg": 90},
}


class StandIn:
    """A decoder like a GPU's: semi-planar frames; `fault` is what is wrong with the luma of frame n."""

    def __init__(self, setup: DecoderSetup, fault: Callable[[int, np.ndarray], None]) -> None:
        self._decoder, self._fault, self._n = setup.decoder(1), fault, 0

    def decode(self, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
        for frame in self._decoder.decode(packet):
            handed = VideoReformatter().reformat(frame, format=_HANDED_OVER[frame.format.name])
            handed.pts, handed.colorspace = frame.pts, frame.colorspace
            luma = np.frombuffer(handed.planes[0], np.uint8).reshape(handed.planes[0].height, -1).copy()
            self._fault(self._n, luma)
            handed.planes[0].update(luma.tobytes())
            self._n += 1
            yield handed


def right(n: int, luma: np.ndarray) -> None:
    """No fault."""


def a_level_off(n: int, luma: np.ndarray) -> None:
    luma += 1


def off_between_checked_rows(n: int, luma: np.ndarray) -> None:
    luma[5::16] ^= 64


def off_later(n: int, luma: np.ndarray) -> None:
    luma += n >= 7


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """From now on the GPU's decoder has a fault."""
    monkeypatch.setattr(decoding, "_SAID", set())
    return lambda fault: monkeypatch.setattr(nvdec, "opened", lambda setup: StandIn(setup, fault))


def both(path: Path, index: Path, frames: range, stride: int = 1) -> tuple[list[Frame], list[Frame]]:
    """The frames by the CPU and by the GPU."""
    cpu, gpu = (list(decoding.decode(path, frames.start, frames.stop, stride, threads=2, index=index, on=on)) for on in ("cpu", "cuda"))
    assert [(f.index, f.timestamp_s) for f in gpu] == [(f.index, f.timestamp_s) for f in cpu]
    return cpu, gpu


@pytest.mark.parametrize("name", FILES)
def test_frames_of_the_gpu_are_those_of_the_cpu(
    name: str, on_gpu: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on_gpu(right)
    path = media.make(tmp_path / name, 40, SIZE, **FILES[name])
    _, index = indexed(path)
    for frames, stride in ((range(40), 1), (range(13, 30), 4)):
        cpu, gpu = both(path, index, frames, stride)
        assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(cpu, gpu, strict=True))
    assert not caplog.records, "none was decoded again"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (a_level_off, "frame 0 is another one"),
        (off_between_checked_rows, r"frame 0 differs from the CPU's by \d\d of 255"),
        (off_later, r"frame \d+ is another one"),
    ],
)
def test_other_pixels_are_not_used_and_the_log_says_so_once(
    fault: Callable[[int, np.ndarray], None], said: str, on_gpu: Callable[..., None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    on_gpu(fault)
    path = media.make(tmp_path / "clip.mp4", 20, SIZE)
    _, index = indexed(path)
    for _ in range(2):
        cpu, gpu = both(path, index, range(20))
        assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(cpu, gpu, strict=True))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "decoded on the CPU, though pool.decode_on is cuda" in record.message
    assert caplog.text.count(str(path)) == 1
    assert re.search(said, record.message)


def test_a_clip_on_the_gpu_alone_is_an_error_where_it_cannot_be(on_gpu: Callable[..., None], tmp_path: Path) -> None:
    path = media.make(tmp_path / "clip.mp4", 12, SIZE)
    _, index = indexed(path)
    clip = replace(clip_input(path, 2, 12, *SIZE, lambda: iter(())).clip, packet_index=index)
    on_gpu(right)
    assert [frame.index for frame in decoding.decode_clip_on_gpu(clip, 3)] == [3, 6, 9]
    on_gpu(a_level_off)
    for wrong, said in (
        (clip, "is another one"),
        (replace(clip, packet_index=None), "no packet index"),
        (replace(clip, damaged=True), "damaged"),
    ):
        with pytest.raises(IndexDiffers, match=said):
            list(decoding.decode_clip_on_gpu(wrong))


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU here")
def test_where_there_is_no_gpu_that_is_said_and_the_cpu_decodes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(decoding, "_SAID", set())
    path = media.make(tmp_path / "clip.mp4", 12, SIZE)
    _, index = indexed(path)
    cpu, gpu = both(path, index, range(12))
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(cpu, gpu, strict=True))
    assert "CUDA decodes nothing here" in caplog.text
