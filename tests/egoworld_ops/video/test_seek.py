"""The bytes that the process reads for a clip: hardly more than the packets that must be decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_seek
from egoworld_ops.video import index_file, packet_index
from tests.egoworld_ops import media
from tests.egoworld_ops.video import indexes


@pytest.mark.parametrize("container", bench_seek.CONTAINERS)
def test_a_clip_reads_hardly_more_than_the_packets_it_needs(tmp_path: Path, container: str) -> None:
    taken = bench_seek.take(bench_seek.make_video(tmp_path / "video", container, 15_000_000))
    assert (taken.index is not None, taken.reason) == (True, "")
    n_frames = taken.seen.n_frames
    assert n_frames >= 3 * bench_seek.GOP
    list(bench_seek.decoded(taken, range(1), 1))
    for start, stride in ((0, 1), (n_frames // 3 + 7, 1), (n_frames // 2 + 1, 5), (n_frames - bench_seek.GOP - 1, 1), (n_frames - 1, 1)):
        cost = bench_seek.cost(taken, range(start, min(start + bench_seek.GOP, n_frames)), stride)
        assert 0.9 < cost.ratio <= bench_seek.LIMIT, (start, stride, cost)


def test_the_index_of_an_hour_costs_a_clip_of_five_seconds_little(tmp_path: Path) -> None:
    """At half a megabit a second such a clip has packets of 310,000 bytes: the bytes read of the index are a tenth of that at most."""
    _, index = indexes.made(media.make(tmp_path / "a.mp4", 10))
    n, rng = 3600 * 30, np.random.default_rng(0)
    rows, number, size = np.zeros(n, packet_index.ROW), np.arange(n), rng.integers(500, 60_000, n)
    rows["start"] = np.cumsum(size + rng.integers(9, 400, n))
    rows["end"], rows["size"], rows["frame"], rows["time_s"] = rows["start"] + size, size, number, number / 30
    rows["key"], rows["begin"] = number % 60 == 0, number - number % 60
    rows["crc"], rows["picture"] = rng.integers(0, 1 << 32, (2, n))
    path = tmp_path / "packets.index"
    path.write_bytes(index_file.to_bytes(replace(index, rows=rows), "2"))
    for start in (n // 3, 0, 1000, n // 2, n - 150):  # the first also loads modules
        before = bench_seek.bytes_read()
        with index_file.IndexFile(path) as file:
            section = file.section(range(start, start + 150))
        assert start == n // 3 or bench_seek.bytes_read() - before < 31_000
        assert (section.rows == rows[section.first : start + 150]).all()
