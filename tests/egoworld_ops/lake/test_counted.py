"""Table `states` agrees with the files, and never says `done` where they do not, whenever its writer is killed."""

from collections import Counter
from pathlib import Path

import pytest

from egoworld_ops import ledger
from egoworld_ops.contract import validation
from egoworld_ops.files.tables import make_provenance, read_result, read_table, write_table
from egoworld_ops.lake import counted, memo, runs, states
from egoworld_ops.lake.lake import Lake, Run
from tests import lakes
from tests.stages import below


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)


@pytest.fixture
def video_id(run: Run) -> str:
    return lakes.write_video(run, "v", n_frames=50)


def clip_ids(run: Run, video_id: str) -> list[str]:
    video = states.video_state(run, video_id)
    assert video is not None
    return [clip.clip_id for clip in video.clips]


def said(run: Run, video_id: str) -> Counter[tuple[str, str]]:
    rows = read_table(run.video_table("states", video_id), "states")
    validation.validate("states", rows)
    return Counter((row["stage"], row["state"]) for row in rows.to_pylist())


def replace(run: Run, video_id: str, clip_id: str, stage: str, digest: str) -> None:
    """Another result of the same inputs in the place of one."""
    path = run.clip_table(stage, video_id, clip_id)
    rows, origin = read_result(path, stage)
    write_table(path, stage, rows, make_provenance(digest, origin["identity"], rows.num_rows, 0.1, run.run_id))


def test_a_table_made_from_another_input_is_stale_and_so_is_what_was_made_from_it(run: Run, video_id: str) -> None:
    first, second = clip_ids(run, video_id)
    assert set(said(run, video_id).values()) == {1, 2}
    replace(run, video_id, first, "masks", "d" * 64)
    counted.count(run, video_id, [first])
    below = {("object_pose", "stale"): 1, ("movement", "stale"): 1, ("masks", "done"): 2, ("hand_pose", "done"): 2}
    assert below.items() <= said(run, video_id).items()
    rows = {(r["clip_id"], r["stage"]): r for r in read_table(run.video_table("states", video_id), "states").to_pylist()}
    assert rows[first, "masks"]["digest"] == "d" * 64
    assert rows[second, "object_pose"]["state"] == "done"
    assert runs.counts(run)["movement"] == {"done": 1, "stale": 1}


def test_what_is_withdrawn_counts_nothing_downstream_and_is_not_remembered(run: Run, video_id: str) -> None:
    first, _ = clip_ids(run, video_id)
    memo.remember(run.video_folder(video_id), "masks", {}, (), [memo.Remembered(first, 1)])
    counted.withdraw(run, video_id, first, "hand_pose")
    now = said(run, video_id)
    below = ("hand_pose", "fusion", "mapping", "object_pose", "movement", "contacts", "events")
    assert {now[stage, "pending"] for stage in below} == {1}
    assert now["masks", "done"] == now["detections", "done"] == 2
    assert memo.recall(run.video_folder(video_id), "masks", {}, ()) is None
    counted.count(run, video_id, [first])
    assert {state for _, state in said(run, video_id)} == {"done"}


def test_nothing_is_written_where_nothing_changed(run: Run, video_id: str) -> None:
    path = run.video_table("states", video_id)
    before = memo.file_state(path)
    counted.count(run, video_id)
    counted.count(run, video_id, clip_ids(run, video_id))
    assert memo.file_state(path) == before
    counted.withdraw(run, video_id, counted.WHOLE_VIDEO, "manifest")
    pending = memo.file_state(path)
    counted.withdraw(run, video_id, counted.WHOLE_VIDEO, "manifest")
    assert memo.file_state(path) == pending


def test_a_result_that_replaces_nothing_that_counts_costs_no_write_of_the_table(run: Run, video_id: str) -> None:
    """Else each clip and stage of a new video would write the rows of all clips and stages."""
    first, _ = clip_ids(run, video_id)
    run.clip_table("masks", video_id, first).unlink()
    counted.count(run, video_id, [first])
    path = run.video_table("states", video_id)
    before = memo.file_state(path)
    for stage in ("masks", *below("masks")):
        counted.withdraw(run, video_id, first, stage)
    assert memo.file_state(path) == before
    counted.withdraw(run, video_id, first, "detections")
    assert memo.file_state(path) != before
    assert said(run, video_id)["detections", "pending"] == 1


def test_a_clip_of_another_manifest_is_never_counted(run: Run, video_id: str) -> None:
    """Only the manifest decides which clips exist: a new one has others, even if a process still works on the old ones."""
    old = clip_ids(run, video_id)
    lakes.write_video(run, "v", n_frames=50, clip_s=1.5, overlap_s=0.3, seed=1)
    counted.count(run, video_id, old)
    rows = read_table(run.video_table("states", video_id), "states").to_pylist()
    assert {row["clip_id"] for row in rows} == {"", *clip_ids(run, video_id)}


@pytest.mark.parametrize("lost", ["missing", "damaged"])
def test_a_lost_table_is_made_again_from_the_files(run: Run, video_id: str, lost: str) -> None:
    path, before = run.video_table("states", video_id), said(run, video_id)
    path.write_bytes(b"PAR1 torn") if lost == "damaged" else path.unlink()
    with ledger.open_ledger(run.lake) as book:
        ledger.rebuild(book, run.lake)
    assert said(run, video_id) == before


def test_a_video_with_half_a_manifest_counts_nothing(run: Run, video_id: str) -> None:
    path = run.video_table("clips", video_id)
    rows, origin = read_result(path, "clips")
    write_table(path, "clips", rows, origin | {"digest": "another"})
    counted.count(run, video_id)
    assert said(run, video_id) == {("manifest", "damaged"): 1}
