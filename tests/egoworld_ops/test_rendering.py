"""A rendered video shows each owned frame once, at its own time, with the layers of that very frame; and leaves nothing behind where it fails."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from egoworld_ops.contract import schema
from egoworld_ops.errors import SetupError, StorageUnavailable
from egoworld_ops.operators.rows import intrinsics
from egoworld_ops.report import _overlay, rendering
from egoworld_ops.report.layers import ClipLayers
from egoworld_ops.report.rendering import Rendering, render
from egoworld_ops.synthetic import load_truth
from egoworld_ops.types import Clip
from egoworld_ops.video.decoding import decode
from tests.egoworld_ops import media
from tests.kitchen import CAMERA
from tests.rows import hand_pose_row, sample_row


def clip_of(path: Path, start: int, own_end: int, frame_end: int | None = None, size: tuple[int, int] = (640, 480)) -> Clip:
    name = f"f{start:07d}_{own_end:07d}"
    return Clip("v-0123456789ab", name, path, "0" * 64, start, frame_end or own_end, start, own_end, 0.0, 1.0, Fraction(30), *size)


def decoded(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as video:
        return [(float(frame.time or 0), frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]


def near(picture: np.ndarray, at_px: np.ndarray, color: tuple[int, int, int]) -> float:
    """How far the colours about a pixel are from this one, at the least."""
    x, y = at_px.round().astype(int)
    return float(np.abs(picture[y - 1 : y + 2, x - 1 : x + 2].astype(int) - color).max(-1).min())


def test_a_drawn_joint_is_where_the_truth_of_that_very_frame_has_it(synthetic_example: Path, tmp_path: Path) -> None:
    """The carrying hand moves: in the frame before and after its fingertips are elsewhere."""
    truth = load_truth(synthetic_example.with_suffix(".truth"))
    rows, tips = [], {}
    for row in truth.hands.to_pylist():
        if 30 <= row["frame_index"] < 60:
            rows.append(hand_pose_row(row["frame_index"], hand=row["hand"], joints_m=row["joints_m"], **intrinsics(CAMERA)))
            tips[row["frame_index"], row["hand"]] = np.array(row["joints_px"][8])
    layers = ClipLayers({"hand_pose": schema.from_rows("hand_pose", rows)})
    out = tmp_path / "out.mp4"
    clips = [clip_of(synthetic_example, 30, 45, 48), clip_of(synthetic_example, 45, 60)]
    assert render(clips, lambda _: layers, out, Rendering(["hands"], crf=12), lambda _: None) == 30

    shown, raw = decoded(out), list(decode(synthetic_example, 30, 60))
    assert [t for t, _ in shown] == pytest.approx([frame.timestamp_s for frame in raw], abs=1e-4)
    hits = dict.fromkeys((-1, 0, 1), 0)
    for i, (_, picture) in enumerate(shown):
        nearest = range(max(i - 2, 0), min(i + 3, len(raw)))
        apart = [np.abs(picture[60::4, ::4].astype(int) - raw[j].rgb[60::4, ::4]).mean() for j in nearest]
        assert nearest[int(np.argmin(apart))] == i, "the picture is that of the frame"
        for hand in ("left", "right"):
            for shift in hits:
                if (at := tips.get((30 + i + shift, hand))) is not None and (at > 3).all() and (at < [636, 476]).all():
                    hits[shift] += near(picture, at, _overlay.ROLE_COLORS[f"hand_{hand}"]) < 60
    print(f"FIGURE render: fingertips found at the truth of the frame {hits[0]}, of the one before {hits[-1]}, after {hits[1]}")
    assert hits[0] >= 55
    assert max(hits[-1], hits[1]) < 0.75 * hits[0]


def test_frames_keep_their_uneven_times_and_only_processed_ones_are_shown(tmp_path: Path) -> None:
    pts = [0, 40, 50, 130, 135, 200, 300, 310]
    path = media.make(tmp_path / "vfr.mkv", 8, (128, 96), pts=pts, time_base=Fraction(1, 1000))
    layers = ClipLayers(
        {"movement": schema.from_rows("movement", [sample_row("movement", i, sample_stride=2) for i in (0, 2, 4, 6)])}, sample_stride=2
    )
    out = tmp_path / "out.mp4"
    gone: list[int] = []
    assert render([clip_of(path, 0, 8, size=(128, 96))], lambda _: layers, out, Rendering(["holds"]), gone.append) == 4
    shown = decoded(out)
    assert [t for t, _ in shown] == pytest.approx([0, 0.05, 0.135, 0.3], abs=1e-3)
    assert [media.number_of(picture[24:96, :128]) & 0b1110 for _, picture in shown] == [0, 2, 4, 6]
    assert gone == list(range(1, 9))


def test_a_large_picture_is_made_smaller_and_a_gap_and_missing_tables_are_said(tmp_path: Path) -> None:
    path = media.make(tmp_path / "large.mp4", 6, (642, 482))
    out, small = tmp_path / "out.mp4", tmp_path / "small.mp4"
    clips = [clip_of(path, 0, 2), clip_of(path, 4, 6)]
    render(clips, lambda _: ClipLayers({}), out, Rendering(["masks"], crf=5), lambda _: None)
    render(
        clips,
        lambda _: ClipLayers({s: schema.empty(s) for s in schema.TABLES}),
        small,
        Rendering(["masks"], size_px=321, crf=5),
        lambda _: None,
    )
    lacking, whole = ([picture for _, picture in decoded(file)] for file in (out, small))
    assert (lacking[0].shape, whole[0].shape) == ((482, 642, 3), (240, 320, 3))
    warned = [bool((np.abs(picture[-24:].astype(int) - (255, 190, 60)).max(-1) < 60).any()) for picture in lacking]
    assert warned == [True] * 6, "no masks: was not given; frames 2 and 3 are in no clip"
    warned = [bool((np.abs(picture[-24:].astype(int) - (255, 190, 60)).max(-1) < 60).any()) for picture in whole]
    assert warned == [False, False, True, True, False, False]


def test_a_failure_leaves_nothing_and_what_was_there(tmp_path: Path) -> None:
    path = media.make(tmp_path / "v.mp4", 12, (64, 48))
    out = tmp_path / "out" / "out.mp4"
    out.parent.mkdir()
    clips = [clip_of(path, 0, 12, size=(64, 48))]

    def go(progress: object = None) -> int:
        return render(clips, lambda _: ClipLayers({}), out, Rendering(["hands"]), progress or (lambda _: None))  # type: ignore[arg-type]

    def interrupted(n: int) -> Iterator[None]:
        if n == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(interrupted)
    assert os.listdir(out.parent) == []
    go()
    before = out.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        go(interrupted)
    assert (os.listdir(out.parent), out.read_bytes()) == (["out.mp4"], before)
    go()
    assert out.read_bytes() == before, "the same again"


def test_other_files_are_not_overwritten_and_two_do_not_write_at_once(tmp_path: Path) -> None:
    path = media.make(tmp_path / "v.mp4", 3, (64, 48))
    clips, held = [clip_of(path, 0, 3, size=(64, 48))], Rendering(["hands"])
    before = path.read_bytes()
    (tmp_path / "notes.mp4").write_text("not a video")
    for other in (path, tmp_path / "notes.mp4"):
        with pytest.raises(SetupError, match="was not made by"):
            render(clips, lambda _: ClipLayers({}), other, held, lambda _: None)
    assert path.read_bytes() == before
    out = tmp_path / "out.mp4"
    with rendering.place(out) as temporary:
        temporary.write_bytes(b"x")
        with pytest.raises(SetupError, match="another process"):
            render(clips, lambda _: ClipLayers({}), out, held, lambda _: None)
        assert temporary.read_bytes() == b"x"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_named_and_nothing_is_left_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(StorageUnavailable, match="has no locks"), rendering.place(tmp_path / "out.mp4"):
        pass
    assert os.listdir(tmp_path) == []


def test_a_file_whose_writer_ended_between_opening_and_locking_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock that is had then is that of the finished video."""
    out, lock = tmp_path / "out.mp4", fcntl.flock
    part = tmp_path / ".out.mp4.part"
    part.write_bytes(b"whole")

    def ended(handle: int, how: int) -> None:
        if not out.exists():
            part.rename(out)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", ended)
    with rendering.place(out) as temporary:
        monkeypatch.undo()
        with pytest.raises(SetupError, match="another process"), rendering.place(out):
            pass
        temporary.write_bytes(b"mine")
        assert out.read_bytes() == b"whole"
    assert (os.listdir(tmp_path), out.read_bytes()) == (["out.mp4"], b"mine")


def test_a_video_without_a_picture_is_refused_and_takes_no_place(tmp_path: Path) -> None:
    path, out = media.make(tmp_path / "v.mp4", 6, (64, 48)), tmp_path / "out.mp4"
    render([clip_of(path, 0, 6, size=(64, 48))], lambda _: ClipLayers({}), out, Rendering(["hands"]), lambda _: None)
    before = out.read_bytes()
    with pytest.raises(SetupError, match="frames 1 to 4 none was processed"):
        render([clip_of(path, 1, 5, size=(64, 48))], lambda _: ClipLayers({}, sample_stride=5), out, Rendering(["hands"]), lambda _: None)
    assert out.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["out.mp4", "v.mp4"]
