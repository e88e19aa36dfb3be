"""What is called converged must be right: poses planted wrong are refused, symmetry is named, and the size of the picture changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.object_pose import _verify
from egoworld_ops.operators.object_pose._points import sample_points
from egoworld_ops.operators.object_pose._shapes import Shape, cuboid, read_mesh
from egoworld_ops.operators.object_pose._twins import exchangeable
from egoworld_ops.operators.object_pose._verify import Judged, held_between, judge_track
from egoworld_ops.operators.object_pose._working import scaled
from egoworld_ops.operators.object_pose.classical import Backend, observe
from egoworld_ops.types import Frame
from egoworld_ops.video.sidecar import SidecarObject
from egoworld_ops.vision.geometry import make_transform, rotations
from tests.boxes import CAMERA, FPS, SIZE_M, draw, mask_row, pose, pose_of
from tests.boxes import clip_of as clip_of_box
from tests.shapes import Shot, clip_of, motion, said_of, thing

AXES = {"x": np.eye(3)[0], "z": np.eye(3)[2], "diagonal": np.full(3, 3**-0.5)}


@cache
def seen(kind: str, folder: Path, frames: int = 8) -> tuple[Shape, Shot, list]:
    """A thing's shape and shot, and what the stage keeps of its frames."""
    shot = Shot(kind, 1012, frames=frames)
    item, _ = clip_of(shot, folder)
    return read_mesh(folder / f"{kind}.ply"), shot, observe(item)


def judged(kind: str, folder: Path, planted: Sequence[np.ndarray]) -> Judged:
    """The verdict on poses of a clip's frames."""
    shape, shot, [track] = seen(kind, folder, len(planted))
    camera = scaled(shot.camera, track.scale)
    return judge_track(camera, shape, planted, [s.timestamp_s for s in track.sightings], [s.seen for s in track.sightings], track.checks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("things")


@pytest.mark.parametrize("kind", ["box", "pan"])
def test_true_poses_are_accepted(kind: str, folder: Path) -> None:
    shot = seen(kind, folder)[1]
    found = judged(kind, folder, motion(shot))
    assert [found.reason(i) for i in range(shot.frames)] == [None] * shot.frames


@pytest.mark.parametrize("kind", ["box", "pan"])
def test_poses_planted_wrong_are_refused(kind: str, folder: Path) -> None:
    shot = seen(kind, folder)[1]
    truth, accepted = motion(shot), []
    for degrees in (30, 90, 180):
        for name, axis in AXES.items():
            turn = rotations(np.radians(degrees) * axis[None])[0]
            if thing(kind).angle_deg(turn, np.eye(3), box_too=False) > 10:
                found = judged(kind, folder, [T @ make_transform(turn, np.zeros(3)) for T in truth])
                accepted += [(degrees, name, i) for i in range(shot.frames) if found.reason(i) is None]
    for share in (0.8, 1.2):
        found = judged(kind, folder, [make_transform(T[:3, :3], T[:3, 3] * share) for T in truth])
        accepted += [("depth", share, i) for i in range(shot.frames) if found.reason(i) is None]
    assert not accepted


def test_frames_after_a_jump_are_refused(folder: Path) -> None:
    """Which side of a jump is wrong poses alone do not tell: the longer one stands."""
    shot = seen("box", folder)[1]
    turn = make_transform(rotations(np.radians(60) * AXES["x"][None])[0], np.zeros(3))
    found = judged("box", folder, [T if i < 5 else T @ turn for i, T in enumerate(motion(shot))])
    assert found.torn_off == [False] * 5 + [True] * 3
    assert [found.reason(i) is None for i in range(8)] == [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    ("frames", "wrong"),
    [pytest.param(8, 4, id="solved by"), pytest.param(18, 13, id="one of three kept out of the solution")],
)
def test_frames_beside_one_that_is_wrong_stand(frames: int, wrong: int, folder: Path) -> None:
    shot = seen("box", folder, frames)[1]
    turn = make_transform(rotations(np.radians(60) * AXES["x"][None])[0], np.zeros(3))
    planted = [T @ turn if i == wrong else T for i, T in enumerate(motion(shot))]
    found = judged("box", folder, planted)
    said = held_between(seen("box", folder, frames)[0], planted, [i / FPS for i in range(frames)], [found.reason(i) for i in range(frames)])
    assert [i for i, reason in enumerate(said) if reason is not None] == [wrong]


def test_a_track_that_turns_from_the_true_one_is_refused(tmp_path: Path) -> None:
    """A book followed some 77 degrees beside its pose, smoothly, and not always the same: 8 rows were converged where no rival moved along."""
    item, truth = clip_of(Shot("book", 57051, 1080, 75.0, frames=12), tmp_path)
    rows = [row for row in Backend(Backend.Settings(), 1).run(item).to_pylist() if row["converged"]]
    wrong = [row for row in rows if thing("book").angle_deg(pose_of(row)[:3, :3], truth[row["frame_index"]][:3, :3], box_too=False) > 10]
    assert not wrong


UNSEEN = Reason("too_hidden", "it is hidden")


@pytest.mark.parametrize(
    ("turned_deg", "hidden", "frames_per_s", "refused"),
    [
        pytest.param(0, range(3, 6), 30, [], id="on the way from one that stands to the next"),
        pytest.param(10, range(3, 6), 30, [4], id="beside it"),
        pytest.param(0, range(3, 6), 10, [3, 4, 5], id="too long a way"),
        pytest.param(0, range(6, 9), 30, [6, 7, 8], id="nothing stands behind it"),
    ],
)
def test_a_pose_is_held_by_those_before_and_after_it(turned_deg: float, hidden: range, frames_per_s: float, refused: list[int]) -> None:
    turns = rotations(np.radians(2.0 * np.arange(9))[:, None] * AXES["diagonal"])
    poses = [make_transform(turn, np.array([0.002 * i, 0.0, 0.5])) for i, turn in enumerate(turns)]
    poses[4] = poses[4] @ make_transform(rotations(np.radians(turned_deg) * AXES["x"][None])[0], np.zeros(3))
    reasons = [UNSEEN if i in hidden else None for i in range(9)]
    found = held_between(cuboid((0.16, 0.11, 0.06)), poses, [i / frames_per_s for i in range(9)], reasons)
    assert [i for i, reason in enumerate(found) if reason] == refused


@pytest.mark.parametrize(
    ("kind", "symmetry", "turns"),
    [
        ("mug", "none", 1),
        ("knife", "none", 1),
        ("tray", "turns", 2),
        ("book", "turns", 4),
        ("can", "round", 2),
        ("bowl", "round", 1),
        ("ball", "ball", 1),
    ],
)
def test_symmetry_is_found_in_the_mesh(kind: str, symmetry: str, turns: int, tmp_path: Path) -> None:
    thing(kind).mesh.export(tmp_path / "thing.ply")
    found = read_mesh(tmp_path / "thing.ply").symmetry
    assert (found.kind, len(found.turns)) == (symmetry, turns)


def test_angles_are_counted_up_to_symmetry(tmp_path: Path) -> None:
    thing("can").mesh.export(tmp_path / "can.ply")
    can, box = read_mesh(tmp_path / "can.ply").symmetry, cuboid((0.16, 0.11, 0.06)).symmetry
    about_z, about_x = (rotations(np.radians(50) * np.eye(3)[i][None])[0] for i in (2, 0))
    assert can.angle_deg(np.eye(3), about_z) == pytest.approx(0, abs=1)
    assert can.angle_deg(about_x, np.diag([1.0, -1, -1]) @ about_z) == pytest.approx(50, abs=1)
    assert box.angle_deg(np.diag([1.0, -1, -1]), about_z) == pytest.approx(50, abs=0.1)


def test_points_that_opencv_can_make_no_pose_of_give_none() -> None:
    along = np.linspace(0, 1, 12)[:, None]
    assert sample_points(CAMERA, along * [[0.1, 0.02, 0.03]], 150 + 50 * along * [[1, 0.5]]) is None


def test_the_size_of_the_picture_changes_nothing(tmp_path: Path) -> None:
    """One video at four sizes: what is called converged, why it is not, states and warnings agree but for a frame."""
    every, angles, depths = [], [], []
    for lines in (1080, 720, 480, 360):
        shot = Shot("box", 1012, lines=lines, frames=8, occluded=False)
        item, truth = clip_of(shot, tmp_path)
        said = said_of(item, tmp_path)
        every.append(said)
        found = [(T, truth[frame]) for frame, row in said.poses.items() if (T := pose_of(row)) is not None]
        angles.append(np.median([thing("box").angle_deg(T[:3, :3], true[:3, :3], box_too=False) for T, true in found]))
        depths.append(np.median([abs(T[2, 3] / true[2, 3] - 1) for T, true in found]))
    first = every[0]
    for said in every:
        assert sum(said.poses[i]["reason_class"] != first.poses[i]["reason_class"] for i in range(8)) <= 1
        assert sum(said.states[i] != first.states[i] for i in range(8)) <= 1
        assert said.warnings == first.warnings
        assert np.mean([row["converged"] for row in said.poses.values()]) >= 0.8
    assert np.ptp(angles) <= 5
    assert max(angles) <= 10
    assert max(depths) <= 0.1


def two_boxes(gaps_m: Sequence[float], unlike: bool = False, farther: float = 1.0) -> ClipInput:
    """A box that comes from the right up to another, tracks 10 and 11; its colours may be others, or it larger and as much farther away."""
    wall, frames, rows = pose(0, 0, 0, (0, 0, 0.9)), [], []
    for i, gap_m in enumerate(gaps_m):
        still, still_mask = draw(STILL, wall)
        other, other_mask = draw(pose(20, -25, 10, (0.06 + gap_m, 0, 0.5)), wall)
        rgb = np.where(other_mask[..., None], 255 - other if unlike else other, still)
        frames.append(Frame(i, i / FPS, rgb))
        rows += [mask_row(i, 10, "object", still_mask & ~other_mask, "a"), mask_row(i, 11, "object", other_mask, "b")]
    objects = [
        SidecarObject(label=label, dimensions_m=size_m)
        for label, size_m in (("a", SIZE_M), ("b", tuple(farther * side for side in SIZE_M)))
    ]
    item = clip_of_box([None] * len(frames), [wall] * len(frames), objects)
    return replace(item, tables=dict(item.tables) | {"masks": schema.from_rows("masks", rows)}, open_frames=lambda: iter(frames))


GAPS_M = (0.12, 0.08, 0.0, 0.0, 0.08)
STILL = pose(20, -25, 10, (-0.09, 0, 0.5))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({}, True, id="equal"),
        pytest.param({"farther": 1.3}, False, id="of two sizes"),
        pytest.param({"unlike": True}, False, id="of two colours"),
    ],
)
def test_equal_things_that_touch_are_named(change: dict[str, Any], named: bool) -> None:
    item = two_boxes(GAPS_M, **change)
    shapes = {10 + i: cuboid(given.dimensions_m) for i, given in enumerate(item.sidecar.objects)}
    found = exchangeable(observe(item), shapes)
    assert found == ({(track, i): 21 - track for track in (10, 11) for i in (2, 3)} if named else {})


def test_the_pose_of_a_thing_does_not_stand_where_its_equal_touches_it() -> None:
    rows = [row for row in Backend(Backend.Settings(), 1).run(two_boxes(GAPS_M)).to_pylist() if row["track_id"] == 10]
    assert [row["converged"] for row in rows] == [True, True, False, False, True]
    assert [row["reason_class"] for row in rows] == [None, None, "ambiguous", "ambiguous", None]
    assert "track 11" in rows[2]["reason"]
    for row in rows:
        T = pose_of(row)
        assert T is not None
        assert cuboid(SIZE_M).symmetry.angle_deg(T[:3, :3], STILL[:3, :3]) < 3


def test_two_tracks_of_one_mask_are_no_fault_of_the_program() -> None:
    """Each is all hidden by the other: nothing of them is seen, and each row says so."""
    item = two_boxes(GAPS_M[:2])
    rows = item.tables["masks"].to_pylist()
    doubled = [row | {"rle": rows[2 * (i // 2)]["rle"], "area_px": rows[2 * (i // 2)]["area_px"]} for i, row in enumerate(rows)]
    item = replace(item, tables=dict(item.tables) | {"masks": schema.from_rows("masks", doubled)})
    found = Backend(Backend.Settings(), 1).run(item).to_pylist()
    assert sorted((row["track_id"], row["reason_class"]) for row in found) == [(10, "too_hidden")] * 2 + [(11, "too_hidden")] * 2


def test_the_longest_chain_looks_back_as_far_as_poses_may_be_passed_over_and_no_farther() -> None:
    """600 poses, every second of which jumps; and as many of which each jumps: red where each was compared with all before it."""
    reach, asked = [max(0, b - 5) for b in range(600)], 0

    def second(a: int, b: int) -> bool:
        return (b - a) % 2 == 0 and b - a <= 5

    def never(a: int, b: int) -> bool:
        nonlocal asked
        asked += 1
        return False

    assert _verify._longest_chain(reach, second) == _verify._longest_chain([0] * 600, second) == list(range(598, -1, -2))
    assert _verify._longest_chain(reach, never) == [0]
    assert asked <= 5 * 600
