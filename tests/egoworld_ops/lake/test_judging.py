"""What the metrics say of videos with nothing in them, and that people are told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from egoworld_assets.cli.main import egoworld
from egoworld_ops.contract.quality import Bounds
from egoworld_ops.files.tables import provenance_at, read_table, write_table
from egoworld_ops.lake import judging, measured
from egoworld_ops.lake.lake import Lake, Run
from tests.lakes import write_video

N_FRAMES = 60
CLIPS = 3
"""Of 30 frames each, with 6 in common."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two videos with all rows."""
    made = Lake(tmp_path_factory.mktemp("whole") / "lake").open_run({}, "20260101_0000", dict)
    for name in ("a", "b"):
        write_video(made, name, n_frames=N_FRAMES)
    return made.lake.root


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Run:
    """A copy of it, to take rows from."""
    shutil.copytree(whole, tmp_path / "lake")
    return Run(Lake(tmp_path / "lake"), "20260101_0000")


def of_name(run: Run, name: str) -> str:
    return next(path.name.removeprefix("video_id=") for path in run.path.glob(f"video_id={name}-*"))


def keep(run: Run, video_id: str, stage: str, wanted: Callable[[int, pa.Table], pa.Array]) -> None:
    """Keep of each clip's table only the rows wanted; files stay as they are otherwise."""
    paths = list(judging.files(run, stage, video_id))
    assert len(paths) == CLIPS
    for n, path in enumerate(paths):
        table = read_table(path, stage)
        write_table(path, stage, table.filter(wanted(n, table)), provenance_at(path) or {}, validated=True)


def none(_: int, table: pa.Table) -> pa.Array:
    return pa.repeat(pa.scalar(False), table.num_rows)


def judge(run: Run, stage: str, video_id: str) -> judging.Judged:
    with duckdb.connect() as connection:
        return judging.judge_videos(connection, run, stage, [video_id], {})[video_id]


def test_shares_of_frames_count_each_frame_of_overlapping_clips_once_and_those_without_rows(run: Run) -> None:
    video_id = of_name(run, "a")
    assert judge(run, "detections", video_id).measured["hand_any_share"] == 1
    keep(run, video_id, "detections", lambda _, table: pc.less(table["frame_index"], 15))
    assert judge(run, "detections", video_id).measured["hand_any_share"] == pytest.approx(15 / N_FRAMES)


def test_a_stride_leaves_frames_out(run: Run) -> None:
    video_id = write_video(run, "c", n_frames=N_FRAMES, sample_stride=7)
    assert judge(run, "detections", video_id).measured["hand_any_share"] == 1
    keep(run, video_id, "detections", lambda _, table: pc.not_equal(table["frame_index"], 28))
    assert judge(run, "detections", video_id).measured["hand_any_share"] == pytest.approx(8 / 9)


def test_a_video_in_which_nothing_was_found_warns_and_a_clip_does(run: Run) -> None:
    video_id = of_name(run, "a")
    keep(run, video_id, "detections", lambda n, table: pc.greater_equal(table["frame_index"], 0 if n != 1 else N_FRAMES))
    said = [w.partition(":")[0] for w in judge(run, "detections", video_id).warnings]
    assert "handless_clips is 1, want at most 0" in said
    assert not any(w.startswith("hand_any_share") for w in said)
    keep(run, video_id, "detections", none)
    found = judge(run, "detections", video_id)
    assert [w.partition(":")[0] for w in found.warnings] == ["hand_any_share is 0, want at least 0.2"]
    assert found.measured["hand_score_mean"] is None


@pytest.mark.parametrize("stage", ["masks", "hand_pose", "object_pose", "movement", "contacts", "mapping"])
def test_a_stage_that_is_empty_where_the_stage_before_it_is_not_says_so(run: Run, stage: str) -> None:
    video_id, metric = of_name(run, "a"), "masked_share" if stage == "masks" else "answered_share"
    assert judge(run, stage, video_id).measured[metric]
    keep(run, video_id, stage, none)
    [warned] = judge(run, stage, video_id).warnings
    assert warned.startswith(f"{metric} is 0, want at least 0.9")
    assert "process it again" in warned or "look at the preview" in warned


def test_a_quarter_of_the_masks_taken_away_warns(run: Run) -> None:
    video_id = of_name(run, "a")
    keep(run, video_id, "masks", lambda _, table: pc.greater(pc.bit_wise_and(table["frame_index"], 3), 0))
    assert judge(run, "masks", video_id).measured["masked_share"] == pytest.approx(0.75, abs=0.02)


def test_the_warnings_of_a_run_name_all_videos_of_a_metric_and_obey_the_bounds_of_settings(run: Run) -> None:
    for name in ("a", "b"):
        keep(run, of_name(run, name), "detections", none)

    def found(bounds: dict[str, dict[str, Bounds]]) -> list[list[str]]:
        return [list(w.videos) for w in judging.of_run(run, bounds).warned if w.said.startswith("hand_any_share")]

    assert found({}) == [[of_name(run, "a"), of_name(run, "b")]]
    assert found({"detections": {"hand_any_share": Bounds(minimum=0.0)}}) == []


def test_runs_show_prints_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(run, of_name(run, "a"), "detections", none)
    monkeypatch.setenv("EGOWORLD_LAKE", str(run.lake.root))
    done = CliRunner().invoke(egoworld, ["runs", "show", run.run_id])
    assert done.exit_code == 0, done.output
    said = [line for line in done.stderr.splitlines() if "hand_any_share" in line]
    assert len(said) == 1
    assert said[0].startswith(
        f"warning: detections of 1 video(s) ({of_name(run, 'a')}): hand_any_share is 0, want at least 0.2: share of all"
    )
    assert said[0].endswith("Look at the video: hands may be out of view, gloved, too small or too dark")


def test_what_was_measured_is_kept_until_a_file_changes(run: Run) -> None:
    video_id = of_name(run, "a")
    before = judge(run, "detections", video_id)
    kept = run.video_folder(video_id) / measured.FILE_NAME
    content = json.loads(kept.read_text())
    assert content["detections"]["measured"]["metrics"] == before.measured
    content["detections"]["measured"]["metrics"]["hand_any_share"] = 0.125
    kept.write_text(json.dumps(content))
    assert judge(run, "detections", video_id).measured["hand_any_share"] == 0.125
    keep(run, video_id, "detections", lambda _, table: pc.less(table["frame_index"], 15))
    assert judge(run, "detections", video_id).measured["hand_any_share"] == pytest.approx(15 / N_FRAMES)
    kept.write_text("{")
    assert judge(run, "detections", video_id).measured["hand_any_share"] == pytest.approx(15 / N_FRAMES)


def test_a_metric_that_reads_another_stage_is_measured_again_where_that_has_changed(run: Run) -> None:
    video_id = of_name(run, "a")
    assert judge(run, "masks", video_id).measured["masked_share"] == 1
    keep(run, video_id, "detections", none)
    assert judge(run, "masks", video_id).measured["masked_share"] is None


def test_a_run_warns_of_rows_none_of_which_has_a_value_as_the_checks_do(run: Run) -> None:
    video_id = of_name(run, "a")
    for path in judging.files(run, "object_pose", video_id):
        table = read_table(path, "object_pose")
        at = table.column_names.index("reason")
        unknown = table.set_column(at, table.field(at), pa.repeat(pa.scalar("its size is unknown"), table.num_rows))
        write_table(path, "object_pose", unknown, provenance_at(path) or {}, validated=True)
    said = [w for w in judging.of_run(run, {}).warned if w.stage == "object_pose" and "its size is unknown" in w.said]
    assert [(w.said.partition(";")[0], list(w.videos)) for w in said] == [("rows with a value that stands: 0 of 72", [video_id])]
