"""The shipped questions are right for two videos at once, of overlapping clips, of which every second frame is processed."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import duckdb
import numpy as np
import pytest

from egoworld_ops.files.tables import read_table
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query import catalog
from egoworld_ops.query.questions import QUERIES
from tests.lakes import write_video

STRIDE, N_FRAMES = 2, 64
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Lake(tmp_path_factory.mktemp("questions") / "lake").open_run({}, "20260101_0000", dict)
    for name in ("one", "two"):
        write_video(made, name, n_frames=N_FRAMES, sample_stride=STRIDE)
    return made


def asked(run: Run, about: str) -> Rows:
    [sql] = [sql for question, sql in QUERIES.items() if about in question]
    with duckdb.connect(str(catalog.write_catalog(run.lake)), read_only=True) as connection:
        answer = connection.execute(sql)
        names = [column[0] for column in answer.description or ()]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def owned(run: Run, table: str) -> Rows:
    """The rows of a table by its files, each frame from the clip that owns it."""
    rows: Rows = []
    for folder in sorted(run.path.glob("video_id=*")):
        for clip in read_table(folder / "clips.parquet", "clips").to_pylist():
            found = read_table(folder / f"clip_id={clip['clip_id']}" / f"{table}.parquet", table).to_pylist()
            rows += [row for row in found if clip["own_start"] <= row["frame_index"] < clip["own_end"]]
    return rows


def test_every_video_is_there_with_its_clips(run: Run) -> None:
    files = {p.parent.name.removeprefix("video_id="): p for p in run.path.glob("video_id=*/clips.parquet")}
    clips = {video_id: read_table(path, "clips").num_rows for video_id, path in files.items()}
    assert {row["video_id"]: (row["clips"], row["failures"]) for row in asked(run, "every video")} == {v: (n, 0) for v, n in clips.items()}
    assert len(clips) == 2
    assert min(clips.values()) > 1


def test_hands_are_counted_once_a_frame(run: Run) -> None:
    truth = Counter((row["video_id"], row["clip_id"], row["hand"]) for row in owned(run, "hand_pose"))
    answers = asked(run, "which hand")
    for row in answers:
        counts = [row["left_hand"], row["right_hand"]]
        assert counts == [truth[row["video_id"], row["clip_id"], hand] for hand in ("left", "right")]
        assert max(counts) <= -(-row["frames"] // STRIDE)
    assert sum(row["left_hand"] + row["right_hand"] for row in answers) == truth.total() == 2 * 2 * N_FRAMES // STRIDE
    assert sum(row["frames"] for row in answers) == 2 * N_FRAMES


def test_a_pinch_is_of_one_video(run: Run) -> None:
    truth: dict[tuple[str, int], list[float]] = defaultdict(list)
    for row in owned(run, "hand_pose"):
        if row["hand"] == "right" and row["joints_m"] is not None:
            thumb, index = np.array(row["joints_m"][4]), np.array(row["joints_m"][8])
            truth[row["video_id"], int(row["timestamp_s"])].append(1000 * float(np.linalg.norm(thumb - index)))
    answers = {(row["video_id"], row["second"]): row["pinch_mm"] for row in asked(run, "thumb")}
    assert len({video_id for video_id, _ in answers}) == 2
    assert answers == pytest.approx({key: np.mean(values) for key, values in truth.items()}, abs=0.06)


@pytest.mark.parametrize("question", QUERIES)
def test_each_answer_names_its_video(run: Run, question: str) -> None:
    assert all(row["video_id"] for row in asked(run, question))
