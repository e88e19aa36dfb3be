"""Frame times where containers have false, missing or cut ones; the truth is known by construction."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egoworld_ops.video.decoding import decode
from egoworld_ops.video.probing import probe
from egoworld_ops.video.timeline import LOOK_AHEAD, Stamped, Timeline
from tests.egoworld_ops import media
from tests.egoworld_ops.video.indexes import indexed

CASES = Path(__file__).parents[3].parent / "shared" / "cases"
NO_REORDER = {"x264-params": "bframes=0"}


def remuxed(source: Path, path: Path, change: Callable[[int, av.Packet], None], sound_s: float = 0) -> Path:
    """The packets of a video, each changed by its number, in another file; with silence of that length from time 0 on beside them."""
    with av.open(str(source)) as given_, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given_.streams.video[0])
        sound = out.add_stream("aac", rate=16000) if sound_s else None
        for packet in media.silence(sound, sound_s) if sound else []:
            out.mux(packet)
        for number, packet in enumerate(p for p in given_.demux(video=0) if p.size):
            packet.stream = stream
            change(number, packet)
            out.mux(packet)
    return path


def moved(source: Path, path: Path, by_s: dict[int, float]) -> Path:
    """The video with the PTS of some packets, by number, moved; decoding times stay where they are."""

    def change(number: int, packet: av.Packet) -> None:
        if number in by_s:
            packet.pts += round(by_s[number] / packet.time_base)

    return remuxed(source, path, change)


def shifted(source: Path, path: Path, after: int, by_s: float, sound_s: float = 0) -> Path:
    """The video with all packets from number `after` on moved in time."""

    def change(number: int, packet: av.Packet) -> None:
        if number >= after:
            ticks = round(by_s / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks

    return remuxed(source, path, change, sound_s)


@pytest.mark.parametrize(
    ("suffix", "by_s"),
    [
        ("mkv", {50: 0.1}),
        ("mp4", {50: 50.0}),
        ("ts", {50: 50.0}),
        ("mkv", {50: 50.0, 51: 50.0}),
        ("mp4", {20: 5.0, 50: 9.0}),
        ("mkv", {0: 50.0}),
        ("mp4", {59: 50.0}),
        ("ts", {59: 3.0}),
    ],
)
@pytest.mark.parametrize("reorder", [False, True])
def test_a_time_far_off_shifts_no_other(tmp_path: Path, suffix: str, by_s: dict[int, float], reorder: bool) -> None:
    if reorder and 59 in by_s:
        pytest.skip("a last frame after a pause and a last frame with a false time look the same where frames are reordered")
    source = media.make(tmp_path / "a.mp4", 60, options={} if reorder else NO_REORDER)
    path = moved(source, tmp_path / f"b.{suffix}", by_s)
    seen, index = indexed(path)
    assert (seen.n_frames, seen.fps, seen.vfr, seen.damaged) == (60, 30, False, False)
    assert np.abs(seen.timestamps_s - seen.timestamps_s[30] - (np.arange(60) - 30) / 30).max() < 0.0015
    assert seen.duration_s == pytest.approx(2, abs=0.002)
    assert (seen.decoded_share, seen.n_frames_expected) == (1.0, 60)
    assert "no timestamp that fits those around" in (seen.warning or "")
    whole = list(decode(path, 0, 60))
    for start in (1, 30, 48, 55):
        part = list(decode(path, start, 60, index=index))
        assert [f.timestamp_s for f in part] == seen.timestamps_s[start:].tolist()
        assert all(np.array_equal(f.rgb, whole[f.index].rgb) for f in part)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_pause_of_minutes_is_no_fault(tmp_path: Path, suffix: str) -> None:
    path = shifted(media.make(tmp_path / "a.mp4", 60), tmp_path / f"b.{suffix}", 36, 180.0)
    seen = probe(path)
    times_s = seen.timestamps_s - seen.timestamps_s[0]
    assert times_s == pytest.approx(np.arange(60) / 30 + 180 * (np.arange(60) >= 36), abs=0.002)
    assert (seen.vfr, seen.warning, seen.damaged) == (True, None, False)
    assert seen.duration_s == pytest.approx(182, abs=0.01)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize(("after", "where"), [(1, "after the first frame"), (59, "before the last frame")])
def test_a_pause_that_parts_one_frame_from_the_others_is_kept_and_named(tmp_path: Path, suffix: str, after: int, where: str) -> None:
    """A false time of that frame alone looks the same."""
    path = shifted(media.make(tmp_path / "a.mp4", 60, options=NO_REORDER), tmp_path / f"b.{suffix}", after, 180.0)
    seen = probe(path)
    assert seen.timestamps_s[-1] - seen.timestamps_s[0] == pytest.approx(180 + 59 / 30, abs=0.01)
    assert "a pause of 180.03" in (seen.warning or "")
    assert f" s {where}: if there was none, the time of that frame is false" in (seen.warning or "")


def test_a_false_time_of_the_last_frame_is_named_where_no_decoding_times_tell(tmp_path: Path) -> None:
    source = media.make(tmp_path / "a.mp4", 60, options=NO_REORDER)
    said = {suffix: probe(moved(source, tmp_path / f"b.{suffix}", {59: 3.0})) for suffix in ("mkv", "mp4", "ts")}
    assert "a pause of 3.03" in (said["mkv"].warning or "")
    for suffix in ("mp4", "ts"):
        assert "a pause of" not in (said[suffix].warning or "")
        assert said[suffix].duration_s == pytest.approx(2, abs=0.01)


def test_steps_that_are_always_long_are_no_pause(tmp_path: Path) -> None:
    seen = probe(media.make(tmp_path / "a.mp4", 6, fps=Fraction(1, 10)))
    assert (seen.warning, seen.duration_s) == (None, pytest.approx(60))


def test_a_clock_that_is_set_back_runs_on(tmp_path: Path) -> None:
    part = media.make(tmp_path / "a.ts", 60)
    (tmp_path / "both.ts").write_bytes(part.read_bytes() * 2)
    seen = probe(tmp_path / "both.ts")
    assert (seen.n_frames, seen.fps, seen.vfr) == (120, 30, False)
    assert "start anew at frame 60" in (seen.warning or "")


def test_a_transport_stream_whose_clock_wraps(tmp_path: Path) -> None:
    wraps_s = 2**33 / 90000
    seen = probe(shifted(media.make(tmp_path / "a.mp4", 60), tmp_path / "b.ts", 0, wraps_s - 2.5))
    assert (seen.n_frames, seen.fps, seen.vfr, seen.warning) == (60, 30, False, None)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_late_start_is_no_fault(tmp_path: Path, suffix: str) -> None:
    source = media.make(tmp_path / "a.mp4", 60)
    for name, path in {
        "alone": shifted(source, tmp_path / f"b.{suffix}", 0, 7200.0),
        "after its sound": shifted(source, tmp_path / f"c.{suffix}", 0, 3.0, sound_s=5.0),
        "before its sound ends": shifted(source, tmp_path / f"d.{suffix}", 0, 0.0, sound_s=9.0),
    }.items():
        seen = probe(path)
        assert (seen.warning, seen.damaged, seen.decoded_share, seen.fps, seen.vfr) == (None, False, 1.0, 30, False), name
        assert seen.duration_s == pytest.approx(2, abs=0.002)


def test_a_cut_tail_says_how_much_is_there(tmp_path: Path) -> None:
    source = media.make(tmp_path / "a.mp4", 120)
    late = shifted(source, tmp_path / "late.mkv", 0, 7200.0)
    late.write_bytes(late.read_bytes()[: late.stat().st_size // 2])
    seen = probe(late)
    assert seen.n_frames_expected is None
    assert seen.decoded_share == pytest.approx(seen.n_frames / 120, abs=0.03)
    assert "the header promises 4.0" in (seen.warning or "")
    cut = media.make(tmp_path / "b.avi", 120)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    seen = probe(cut)
    assert seen.n_frames_expected == 120
    assert seen.decoded_share == pytest.approx(seen.n_frames / 120)
    assert seen.decoded_share < 0.9


def trimmed(source: Path, path: Path, lead: int, n_shown: int) -> Path:
    """As ffmpeg -ss ... -c copy leaves it: packets from a keyframe on, of which an edit list shows only those from `lead` on."""

    def change(number: int, packet: av.Packet) -> None:
        ticks = round(lead / 30 / packet.time_base)
        packet.pts, packet.dts = packet.pts - ticks, packet.dts - ticks

    return remuxed(source, path, change)


@pytest.mark.parametrize("reorder", [False, True])
def test_a_trimmed_copy_is_whole(tmp_path: Path, reorder: bool) -> None:
    source = media.make(tmp_path / "a.mp4", 60, options={} if reorder else NO_REORDER)
    path = trimmed(source, tmp_path / "b.mp4", 8, 52)
    with av.open(str(path)) as container:
        assert sum(p.is_discard for p in container.demux(video=0)) > 0, "the case is made: some packets are not to be shown"
    seen, index = indexed(path)
    assert (seen.n_frames, seen.damaged, seen.warning, seen.decoded_share, seen.vfr) == (52, False, None, 1.0, False)
    assert [media.number_of(f.rgb) for f in decode(path, 0, 52)] == list(range(8, 60))
    for start in (1, 20, 50):
        numbers = [media.number_of(f.rgb) for f in decode(path, start, 52, index=index)]
        assert numbers == list(range(start + 8, 60))


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("dropped", [range(20, 50), range(1, 8), range(20, 21), []])
def test_dropped_frames_of_avi_keep_their_time(tmp_path: Path, codec: str, dropped: Sequence[int]) -> None:
    ticks = [i for i in range(70) if i not in dropped]
    path = media.make(tmp_path / "a.avi", len(ticks), codec=codec, pts=ticks, time_base=Fraction(1, 30), options={"bf": "0"})
    seen, index = indexed(path)
    assert seen.n_frames == len(ticks)
    assert [f.timestamp_s for f in decode(path, 3, len(ticks), 2, index=index)] == seen.timestamps_s[4::2].tolist()
    assert seen.timestamps_s == pytest.approx(np.array(ticks) / 30, abs=1e-9)
    assert (seen.vfr, seen.damaged, seen.warning, seen.decoded_share) == (bool(dropped), False, None, 1.0)
    assert seen.duration_s == pytest.approx(70 / 30)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(("before", "after"), [(0, 10), (10, 0), (5, 3)])
def test_empty_chunks_at_the_ends_of_avi_are_time(tmp_path: Path, before: int, after: int, indexed: bool) -> None:
    content = media.make(tmp_path / "a.avi", 30, codec="mpeg4").read_bytes()
    movi, end, n = content.index(b"movi"), content.index(b"idx1"), 30 + before + after
    empty, chunk = b"00dc\0\0\0\0", struct.Struct("<4sIII")
    size = int.from_bytes(content[movi - 4 : movi], "little") + 8 * (before + after)
    moved_by = 8 * before
    entries = [chunk.unpack_from(content, at) for at in range(end + 8, end + 8 + 16 * 30, 16)]
    listed = [(b"00dc", 0, 4 + 8 * i, 0) for i in range(before)]
    listed += [(kind, flags, at + moved_by, n_bytes) for kind, flags, at, n_bytes in entries]
    listed += [(b"00dc", 0, size - 8 * (after - i), 0) for i in range(after)]
    index = b"idx1" + (16 * n).to_bytes(4, "little") + b"".join(chunk.pack(*entry) for entry in listed)
    grown = content[: movi - 4] + size.to_bytes(4, "little") + b"movi" + empty * before + content[movi + 4 : end] + empty * after
    head = grown.index(b"strh") + 8 + 32
    (tmp_path / "b.avi").write_bytes(grown[:head] + n.to_bytes(4, "little") + grown[head + 4 :] + (index if indexed else b""))
    seen = probe(tmp_path / "b.avi")
    assert (seen.n_frames, seen.n_frames_expected, seen.damaged, seen.warning, seen.vfr) == (30, 30, False, None, False)
    assert seen.timestamps_s == pytest.approx((np.arange(30) + before) / 30)
    assert seen.duration_s == pytest.approx((30 + after) / 30)


def test_the_cases_from_the_wild() -> None:
    if not CASES.is_dir():
        pytest.skip("shared/cases is not here")
    avi = probe(CASES / "avi_null_frames" / "mpeg4.avi")
    k = np.arange(90)
    assert avi.timestamps_s == pytest.approx(np.where(k < 30, k / 30, 3 + (k - 30) / 30))
    assert (avi.duration_s, avi.vfr, avi.damaged, avi.warning) == (pytest.approx(5), True, False, None)
    late = probe(CASES / "mkv_late_start" / "late.mkv")
    assert (late.warning, late.damaged, late.n_frames) == (None, False, 150)
    trim = probe(CASES / "trimmed_by_copy" / "trim.mp4")
    assert (trim.warning, trim.damaged, trim.n_frames) == (None, False, 108)
    for name in ("outlier50s.mp4", "outlier100ms.mkv"):
        seen = probe(CASES / "pts_outlier" / name)
        assert (seen.fps, seen.vfr, seen.duration_s) == (30, False, pytest.approx(5))
        assert np.abs(seen.timestamps_s - np.arange(150) / 30).max() < 0.0011


def timed(times_s: Sequence[float | None], duration_s: float | None = 1 / 30) -> list[float]:
    frames = (Stamped(None, time_s, duration_s) for time_s in times_s)
    return [time_s for time_s, _ in Timeline(Path("a")).times(frames)]


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True), st.floats(0, 5), st.integers(0, 20).map(float)), max_size=60))
def test_times_always_increase(times_s: list[float | None]) -> None:
    found = timed(times_s)
    assert len(found) == len(times_s)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()


@given(st.lists(st.floats(0.001, 400), min_size=1, max_size=60))
def test_times_that_increase_are_kept(steps_s: list[float]) -> None:
    times_s = np.cumsum(steps_s).tolist()
    assert timed(times_s) == times_s


@given(st.sets(st.integers(8, 57), max_size=3), st.booleans(), st.data())
def test_a_few_false_times_leave_the_others_alone(which: set[int], first: bool, data: st.DataObject) -> None:
    """Among the first frames, where as many times are false as are true, nobody can tell which is which."""
    times_s = (np.arange(60) / 30).tolist()
    false = {i: data.draw(st.one_of(st.floats(-50, -3), st.floats(3, 50))) for i in which} | ({0: 50.0} if first else {})
    found = timed([times_s[i] + false.get(i, 0) for i in range(60)])
    assert found == pytest.approx(times_s, abs=1 / 30)
    assert [t for i, t in enumerate(found) if i not in false] == [t for i, t in enumerate(times_s) if i not in false]


def test_only_a_few_frames_are_held() -> None:
    taken = 0

    def frames() -> list[Stamped[int]]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield Stamped(i, 7.0 * i, 1 / 30)

    for time_s, i in Timeline(Path("a")).times(frames()):
        assert time_s == 7.0 * i
        assert taken <= i + 1 + LOOK_AHEAD
