"""Times of frames from the packet index are those of decoding; without a usable index there are none."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from egoworld_ops.types import Clip
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.frame_times import indexed_times
from tests.egoworld_ops import media
from tests.egoworld_ops.video.indexes import indexed


def test_times_are_those_of_decoding(tmp_path: Path) -> None:
    ticks = [i * 40 + (i % 3) * 7 for i in range(40)]
    path = media.make(tmp_path / "uneven.mp4", 40, pts=ticks, time_base=Fraction(1, 1000))
    _, index = indexed(path)
    clip = Clip("v-0123456789ab", "c", path, "0" * 64, 7, 33, 7, 33, 0.0, 1.0, Fraction(25), 128, 96, packet_index=index)
    for stride in (1, 3):
        assert indexed_times(clip, stride) == {f.index: f.timestamp_s for f in decode(path, 7, 33, stride)}
    index.write_bytes(index.read_bytes()[:-9])
    for unusable in (clip, replace(clip, damaged=True), replace(clip, packet_index=None), replace(clip, packet_index=tmp_path / "none")):
        assert indexed_times(unusable, 1) == {}
