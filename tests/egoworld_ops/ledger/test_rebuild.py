"""The ledger on SQLite and on a real Postgres, made again from the files of the lake."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from egoworld_ops.contract import schema
from egoworld_ops.errors import (
    CorruptVideo,
    SetupError,
)
from egoworld_ops.files.tables import make_provenance, write_table
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger import WHOLE_VIDEO, Change, ClipKey, State, open_ledger, rebuild
from egoworld_ops.ledger.store import Ledger
from tests.egoworld_ops.ledger.clips import RUN, D, F, P, R, X, key, keys, opened, states_of

# Rebuilt from the files


def write_result(run: Run, clip: ClipKey, digest: str, made_in: str = RUN, **more: object) -> None:
    stamp = make_provenance(digest, {}, 3, 0.25, made_in) | more
    write_table(run.clip_table(clip.stage, clip.video_id, clip.clip_id), clip.stage, schema.empty(clip.stage), stamp)


def write_failure(run: Run, clip: ClipKey, digest: str, dead_letter: bool) -> None:
    row = {"video_id": clip.video_id, "clip_id": clip.clip_id, "stage": clip.stage, "backend": "b", "cure": "c", "retryable": False}
    row |= {"error_class": "CorruptVideo", "culprit": "a.mp4", "reason": "torn", "attempts": 3, "dead_letter": dead_letter, "traceback": ""}
    rows = schema.from_rows("failures", [row])
    write_table(run.failure(clip.stage, clip.video_id, clip.clip_id), "failures", rows, make_provenance(digest, {}, 1, 0.5, RUN))


def write_manifest(run: Run, video_id: str, rejected: bool, clips: list[ClipKey]) -> None:
    row: dict[str, Any] = {
        "video_id": video_id,
        "path": "/raw/a.mp4",
        "sha256": "0" * 64,
        "bytes": 1,
        "status": "rejected" if rejected else "ok",
        "split": "train",
        "recording": "a",
    }
    row |= {"error_class": "CorruptVideo", "reason": "torn", "cure": "Copy it again"} if rejected else {}
    stamp = make_provenance("m1", {}, len(clips), 0.5, RUN)
    frames = {"frame_start": 0, "frame_end": 2, "own_start": 0, "own_end": 2, "start_s": 0.0, "end_s": 1.0, "overlap_s": 0.0}
    frames |= {"video_id": video_id, "scene_index": 0, "method": "whole_video"}
    rows = schema.from_rows("clips", [frames | {"clip_id": clip.clip_id} for clip in clips])
    write_table(run.video_table("clips", video_id), "clips", rows, stamp)
    write_table(run.video_table("videos", video_id), "videos", schema.from_rows("videos", [row]), stamp)


def work(ledger: Ledger, run: Run) -> list[ClipKey]:
    """Some clips brought to each end, in the ledger as in the files."""
    manifests = [ClipKey(RUN, video_id, WHOLE_VIDEO, "manifest") for video_id in ("v1", "v2")]
    clips = keys(4)
    torn = CorruptVideo("a.mp4", "torn", "Copy it again")
    ledger.add(dict.fromkeys([*manifests, *clips], None))
    with ledger.owner() as owner:
        ledger.start([*manifests, clips[0]], owner)
        ledger.finish([Change.done(clips[0], "d0", 3, 0.25), Change.done(manifests[0], "m1", 4, 0.5)], owner)
        rejection = CorruptVideo("/raw/a.mp4", "torn", "Copy it again")
        ledger.finish([Change.failure(manifests[1], rejection, "m1", dead_letter=True, seconds=0.5)], owner)
    outcomes = [replace(Change.failure(clips[n], torn, f"d{n}", dead_letter=n == 2, seconds=0.5), attempts=3) for n in (1, 2)]
    ledger.settle([*outcomes, Change.done(clips[3], "d3", 3, 0.25)])
    for n, clip in enumerate(clips):
        if n in (0, 3):
            write_result(run, clip, f"d{n}", made_in=RUN if n == 0 else "an_earlier_one")
        else:
            write_failure(run, clip, f"d{n}", dead_letter=n == 2)
    write_manifest(run, "v1", rejected=False, clips=clips)
    write_manifest(run, "v2", rejected=True, clips=[])
    return [*manifests, *clips]


def said(ledger: Ledger, clips: list[ClipKey]) -> dict[ClipKey, tuple[object, ...]]:
    return {
        k: (row.state, row.digest, row.attempts, row.error_class, row.message, row.seconds, row.rows)
        for k, row in ledger.rows(clips).items()
    }


def test_a_ledger_made_again_from_the_files_says_what_the_lost_one_said(url: str, tmp_path: Path) -> None:
    store = Lake(tmp_path / "lake")
    run = store.open_run({}, RUN, dict)
    with opened(url) as ledger:
        clips = work(ledger, run)
        before = said(ledger, clips)
        agreeing = rebuild(ledger, store)
        assert (agreeing.changed, agreeing.reset, agreeing.unreadable) == (0, 0, [])
        ledger.forget(RUN)
        assert rebuild(ledger, store, RUN).found == {D: 3, F: 1, X: 2}
        assert said(ledger, clips) == before
        assert sum(map(len, ledger.all_rows(RUN, *State))) == len(clips)
        again = rebuild(ledger, store)
        assert (again.changed, again.reset) == (0, 0)


def test_the_files_win_over_the_ledger(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    run = store.open_run({}, RUN, dict)
    with open_ledger(store) as ledger, ledger.owner() as owner:
        gone, damaged, stale, failed_later, finished_first, running, elsewhere = keys(7)
        ledger.settle([Change.done(k, "d1", 1) for k in (gone, damaged, stale)])
        ledger.settle([Change(key(8), X, "d1")])
        write_manifest(run, "v1", rejected=False, clips=keys(9))
        for clip in (damaged, stale, failed_later, finished_first, running, elsewhere):
            write_result(run, clip, "d1")
        run.clip_table("masks", "v1", damaged.clip_id).write_bytes(b"PAR1 torn PAR1")
        write_failure(run, failed_later, "d2", dead_letter=True)
        write_failure(run, finished_first, "d1", dead_letter=True)
        ledger.add({stale: "d2", running: "d1", elsewhere: "d2"})
        ledger.start([running, elsewhere], owner)
        (run.video_folder("v1") / "clip_id=Not An Id").mkdir()
        (run.clip_folder("v1", gone.clip_id)).mkdir()
        (run.clip_folder("v1", gone.clip_id) / ".tmp-7-masks.parquet").write_bytes(b"x")
        rebuilt = rebuild(ledger, store)
        states = states_of(ledger, [*keys(7), key(8)])
        assert list(states.values()) == [P, P, P, X, D, D, R, P]
        assert (rebuilt.reset, rebuilt.running, len(rebuilt.unreadable)) == (3, 1, 1)


def test_a_failure_file_of_older_days_is_a_dead_letter_where_no_retry_helps(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    run = store.open_run({}, RUN, dict)
    write_manifest(run, "v1", rejected=False, clips=[key(0)])
    write_failure(run, key(0), "d1", dead_letter=False)
    path = run.failure("masks", "v1", key(0).clip_id)
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(["dead_letter"]), path)
    with open_ledger(store) as ledger:
        rebuild(ledger, store)
        assert states_of(ledger, [key(0)]) == {key(0): X}


def test_a_run_that_is_not_there_cannot_be_rebuilt(tmp_path: Path) -> None:
    with open_ledger(Lake(tmp_path)) as ledger, pytest.raises(SetupError, match="20990101"):
        rebuild(ledger, Lake(tmp_path), "20990101_0000")
