"""What a clip reads of a video, in bytes that the process asks for: hardly more than the packets that must be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_seek


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
