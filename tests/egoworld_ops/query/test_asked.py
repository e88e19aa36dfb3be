"""The views that people ask for, over two videos of overlapping clips of which every second frame is processed, against the rows in the files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from egoworld_ops import operators
from egoworld_ops.contract import quality, schema
from egoworld_ops.contract.quality import Bounds
from egoworld_ops.files.tables import make_provenance, read_table, write_table
from egoworld_ops.lake import counted, judging, states
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query import asked, catalog
from egoworld_ops.release.make import make_release
from egoworld_ops.settings import ReleaseSettings
from tests.egoworld_ops.query.test_questions import owned
from tests.egoworld_ops.query.test_world import rewrite
from tests.lakes import FPS, fail, write_manifest, write_video

STRIDE, N_FRAMES = 2, 64
HELD = {}
"""Who holds the object of video `one`, by frame."""
for hand, frames in {"none": (0, 8), "right": (8, 40), "unknown": (40, 46), "both": (46, 52), "left": (52, N_FRAMES)}.items():
    HELD |= dict.fromkeys(range(*frames), hand)
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Video `one` holds as HELD says, `two` loses its object for a second; nothing is wrong in `one` but a bound, `two` has a failure."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        about = {"settings": {"quality": {"hand_pose": {"solved_share": {"minimum": 2.0}}}}}
        made = Lake(tmp_path_factory.mktemp("asked") / "lake").open_run({}, "20260101_0000", lambda: about)
        one, two = (write_video(made, name, n_frames=N_FRAMES, sample_stride=STRIDE) for name in ("one", "two"))
        rewrite(made, one, "movement", lambda row: row | {"held_by": HELD[row["frame_index"]], "label": "cup", "speed_background_m_s": 0.3})
        drop(made, two, "movement", range(10, 40))
        with duckdb.connect() as connection:
            for stage in states.upstream("mapping"):
                judging.judge_videos(connection, made, stage, [one, two], {})
        first = sorted(p.name.removeprefix("clip_id=") for p in made.video_folder(two).glob("clip_id=*"))[0]
        fail(made, two, first, "events")
        catalog.write_catalog(made.lake)
        yield made


def drop(run: Run, video_id: str, table: str, frames: range) -> None:
    """Take rows of these frames out of the files of a table."""
    for path in run.video_folder(video_id).glob(f"clip_id=*/{table}.parquet"):
        rows = [row for row in read_table(path, table).to_pylist() if row["frame_index"] not in frames]
        said = states.clip_states(run, video_id, path.parent.name.removeprefix("clip_id="))[table].said
        stamp = make_provenance(said["digest"], said["identity"], len(rows), 0.1, run.run_id)
        write_table(path, table, schema.from_rows(table, rows), stamp)


def ask(run: Run, sql: str) -> Rows:
    with duckdb.connect(str(run.lake.root / catalog.FILE_NAME), read_only=True) as connection:
        answer = connection.execute(sql)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def test_a_hold_goes_on_over_clips_and_ends_where_the_hand_changes_or_the_object_is_gone(run: Run) -> None:
    clips = [row for row in ask(run, "FROM clips ORDER BY video_id, clip_id") if row["video_id"].startswith("one")]
    assert any(8 < clip["own_start"] < 39 for clip in clips), "a clip ends amid the hold"
    found = ask(run, "FROM holds ORDER BY video_id, from_s")
    of_one = [(r["hand"], r["first_frame"], r["last_frame"], r["frames"]) for r in found if r["video_id"].startswith("one")]
    assert of_one == [("right", 8, 38, 16), ("both", 46, 50, 3), ("left", 52, 62, 6)]
    assert [(r["from_s"], r["to_s"], r["label"]) for r in found[:1]] == [(8 / FPS, 38 / FPS, "cup")]
    assert [r["path_m"] for r in found[:3]] == pytest.approx([0.3 * 30 / FPS, 0.3 * 4 / FPS, 0.3 * 10 / FPS])
    assert [(r["first_frame"], r["last_frame"]) for r in found[3:]] == [(0, 8), (40, 62)]
    assert sum(r["frames"] for r in found) == sum(r["held_by"] not in ("none", "unknown") for r in owned(run, "movement"))


def test_what_reads_released_tables_is_the_same_in_a_release(run: Run) -> None:
    whole = Lake(run.lake.root.with_name("whole")).open_run({}, "20260101_0000", dict)
    write_video(whole, "one", n_frames=N_FRAMES, sample_stride=STRIDE)
    make_release(whole, ReleaseSettings(writers=1))
    catalog.write_catalog(whole.lake)
    names = [view.name for view in asked.VIEWS if view.is_released]
    assert names == ["holds", "mask_shares", "hand_joints", "fused_hand_joints", "robot_joints"]
    for name in names:
        here = ask(whole, f"FROM {name} ORDER BY ALL")
        assert here
        for schema_ in ("runs", "release", "releases"):
            assert ask(whole, f"FROM {schema_}.{name} ORDER BY ALL") == here, (schema_, name)


def test_joints_have_names_and_each_owned_frame_once(run: Run) -> None:
    rows = {(r["video_id"], r["frame_index"], r["hand"]): r for r in owned(run, "hand_pose")}
    found = ask(run, "FROM hand_joints")
    assert len(found) == 21 * len(rows) == 21 * 2 * 2 * N_FRAMES // STRIDE
    for row in found[::97]:
        at = asked.HAND_JOINTS.index(row["joint"])
        source = rows[row["video_id"], row["frame_index"], row["hand"]]
        assert [row["x_m"], row["y_m"], row["z_m"], row["x_px"], row["y_px"]] == [*source["joints_m"][at], *source["joints_px"][at]]
    assert asked.HAND_JOINTS[4::4] == ("thumb_tip", "index_tip", "middle_tip", "ring_tip", "little_tip"), "OpenPose's order"
    robots = {(r["video_id"], r["frame_index"], r["hand"]): r for r in owned(run, "mapping")}
    of_robots = ask(run, "FROM robot_joints")
    assert len(of_robots) == sum(len(r["joint_names"]) for r in robots.values())
    for row in of_robots[::97]:
        source = robots[row["video_id"], row["frame_index"], row["hand"]]
        assert row["angle_rad"] == source["qpos_rad"][source["joint_names"].index(row["joint"])]


def test_a_mask_covers_its_pixels_over_those_of_its_picture(run: Run) -> None:
    rows = {(r["video_id"], r["frame_index"], r["track_id"]): r["area_px"] / np.prod(r["rle"]["size"]) for r in owned(run, "masks")}
    assert {(r["video_id"], r["frame_index"], r["track_id"]): r["share"] for r in ask(run, "FROM mask_shares")} == pytest.approx(rows)


def test_seconds_are_those_of_each_clip_and_stage(run: Run) -> None:
    found = ask(run, "FROM stage_seconds WHERE stage = 'masks' AND video_id LIKE 'one%' ORDER BY clip_id")
    clips = ask(run, "FROM clips WHERE video_id LIKE 'one%' ORDER BY clip_id")
    assert [(r["clip_id"], r["compute_s"], r["processed_frames"]) for r in found] == [
        (c["clip_id"], 0.5, sum(i % STRIDE == 0 for i in range(c["frame_start"], c["frame_end"]))) for c in clips
    ]


def test_a_clip_is_good_where_all_of_it_is_done_measured_and_within_bounds(run: Run) -> None:
    found = {(r["video_id"][:3], r["clip_id"]): r for r in ask(run, "FROM clip_quality")}
    assert len(found) == len(ask(run, "FROM clips"))
    first = min(found)
    assert found[first]["done"] == found[first]["stages"] > found[first]["measured"] == len(states.upstream("mapping")), (
        "mapping was not measured"
    )
    assert "hand_pose.solved_share" in found[first]["outside"], "by the bound that the run's settings have moved"
    [(_, lost)] = [(key, r) for key, r in found.items() if key[0] == "two" and r["lacking"]]
    assert "events: failed" in lost["lacking"]
    assert ask(run, "FROM good_clips") == []
    measured = {
        m["metric"]: m["value"] for m in ask(run, f"FROM metrics WHERE clip_id = '{first[1]}' AND stage = 'masks' AND video_id LIKE 'one%'")
    }
    assert {f"masks.{k}": v for k, v in measured.items() if v is not None}.items() <= found[first]["metrics"].items()


def test_good_clips_are_those_that_no_bound_of_a_video_warns_of(tmp_path: Path) -> None:
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    video_id = write_video(made, "one", n_frames=30)
    with duckdb.connect() as connection:
        said = {s: judging.judge_videos(connection, made, s, [video_id], {})[video_id] for s in operators.stages()}
    warned = {f"{stage}.{w.partition(' ')[0]}" for stage, judged in said.items() for w in judged.warnings if " is " in w}
    catalog.write_catalog(made.lake)
    [clip] = ask(made, "FROM clip_quality")
    assert warned == set(clip["outside"]), "of a video of one clip both say the same"
    assert clip["measured"] == clip["stages"]
    stages = {name.partition(".")[0] for name in warned}
    wide = Bounds(minimum=-1e9, maximum=1e9).model_dump()
    moved = {stage: {m.name: wide for m in quality.metrics(stage)} for stage in stages}
    lenient = made.lake.open_run({"a": 2}, "20260102_0000", lambda: {"settings": {"quality": moved}})
    shutil.copytree(made.video_folder(video_id), lenient.video_folder(video_id))
    catalog.write_catalog(made.lake)
    good = ask(made, "SELECT run_id, clip_id FROM runs.good_clips")
    assert good == [{"run_id": "20260102_0000", "clip_id": clip["clip_id"]}]


def test_problems_are_rejected_failed_and_damaged_together(run: Run, tmp_path: Path) -> None:
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    one = write_video(made, "one", n_frames=30)
    write_manifest(made, "two", n_frames=30)
    [clip_id] = [p.name.removeprefix("clip_id=") for p in made.video_folder(one).glob("clip_id=*")]
    fail(made, one, clip_id, "mapping")
    made.clip_table("events", one, clip_id).write_bytes(b"PAR1 but no more")
    two = next(made.path.glob("video_id=two*"))
    [row] = read_table(two / "videos.parquet", "videos").to_pylist()
    said = states.manifest_of(made, row["video_id"])
    assert said is not None
    stamp = make_provenance(str(said.state.digest), {}, 1, 0.1, made.run_id)
    refused = row | {"status": "rejected", "error_class": "CorruptVideo", "reason": "no frames", "cure": "copy it again"}
    write_table(two / "videos.parquet", "videos", schema.from_rows("videos", [refused]), stamp)
    for video_id in (one, row["video_id"]):
        counted.count(made, video_id)
    catalog.write_catalog(made.lake)
    found = ask(made, "SELECT kind, stage, error_class, cure, clip_id FROM problems ORDER BY kind")
    assert [tuple(r.values()) for r in found] == [
        ("damaged", "events", None, "`egoworld verify` names the file", clip_id),
        ("dead_letter", "mapping", "CorruptVideo", "mend it", clip_id),
        ("rejected", "manifest", "CorruptVideo", "copy it again", ""),
    ]
