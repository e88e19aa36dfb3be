"""The ledger and the files agree after everything that can happen to a clip; two writers share the work."""

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from egoworld_assets import pipeline, raw_folder, recording
from egoworld_ops import dead_letters, ledger
from egoworld_ops.errors import OperatorCrash, StorageUnavailable
from egoworld_ops.lake import Lake
from egoworld_ops.ledger import ClipKey, State
from egoworld_ops.settings import Settings, load_settings
from gpu_workers.inline import InlinePool
from tests.egoworld_ops import media
from tests.test_trust import ONLY_DETECTIONS, FaultyPool

CRASH = OperatorCrash("clip", "ValueError: bad", "Report it")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    base = load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path / "raw"})
    return base.model_copy(update={"retry_after_s": (0.05,)})


@pytest.fixture
def video_id(settings: Settings, tmp_path: Path) -> str:
    (tmp_path / "raw").mkdir()
    path = media.make(tmp_path / "raw" / "two.mp4", 48, size=(160, 120), picture=media.scenes([24]))
    [found] = raw_folder.register(settings, [path]).video_ids
    run_part(settings, found, InlinePool(2), pipeline.Part(last=pipeline.MANIFEST))
    return found


def run_part(settings: Settings, video_id: str, pool: InlinePool, part: pipeline.Part) -> Counter[str]:
    return Counter(r.state for _, r in pipeline.process(pipeline.open_run(settings), [video_id], settings, pool, part))


def states(settings: Settings, video_id: str) -> list[State]:
    run = pipeline.open_run(settings)
    clips = ("f0000000_0000024", "f0000024_0000048")
    rows = recording.ledger_of(settings).rows([ClipKey(run.run_id, video_id, clip, "detections") for clip in clips])
    return [row.state for _, row in sorted(rows.items())]


def test_the_ledger_says_what_became_of_each_clip_and_agrees_with_the_files(settings: Settings, video_id: str) -> None:
    pool = FaultyPool(lambda task, tried: None if task.clip.frame_start else StorageUnavailable("disk", "full", "Free it"))
    run_part(settings, video_id, pool, ONLY_DETECTIONS)
    assert states(settings, video_id) == [State.DEAD_LETTER, State.DONE]
    book, run = recording.ledger_of(settings), pipeline.open_run(settings)
    [letter] = book.dead_letters(run.run_id)
    assert (letter.attempts, letter.error_class) == (2, "StorageUnavailable")
    counts = book.counts(run.run_id)
    ledger.rebuild(book, Lake(settings.lake))
    assert book.counts(run.run_id) == counts, "rebuilt from the files it says the same"

    dead_letters.redrive(run, dead_letters.Which())
    assert run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS) == {"computed": 1, "done": 1}
    assert states(settings, video_id) == [State.DONE, State.DONE]


def test_a_file_deleted_by_hand_is_made_again_whatever_the_ledger_says(settings: Settings, video_id: str) -> None:
    run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS)
    run = pipeline.open_run(settings)
    run.clip_table("detections", video_id, "f0000000_0000024").unlink()
    assert run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS) == {"computed": 1, "done": 1}
    assert states(settings, video_id) == [State.DONE, State.DONE]


def test_a_stage_that_is_broken_off_gives_back_what_it_had_taken(settings: Settings, video_id: str) -> None:
    results = pipeline.process(pipeline.open_run(settings), [video_id], settings, InlinePool(2), ONLY_DETECTIONS)
    next(results)
    results.close()
    assert sorted(states(settings, video_id)) == [State.PENDING, State.PENDING], (
        "the first was not entered: who took it did not say it was stored"
    )
    assert run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS) == {"done": 1, "computed": 1}


def test_two_writers_share_the_clips_and_neither_computes_what_the_other_has(settings: Settings, video_id: str) -> None:
    def slow(task: object, tried: int) -> None:
        time.sleep(0.5)

    pools, found = [FaultyPool(slow), FaultyPool(slow)], [Counter[str](), Counter[str]()]

    def work(n: int) -> None:
        found[n] += run_part(settings, video_id, pools[n], ONLY_DETECTIONS)

    threads = [threading.Thread(target=work, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum((p.tried for p in pools), Counter()).total() == 2, "each clip was computed once"
    assert sum(found, Counter()) == {"computed": 2, "done": 2}


def test_a_bad_clip_found_at_planning_is_entered_too(settings: Settings, video_id: str, tmp_path: Path) -> None:
    (tmp_path / "raw" / "two.egoworld.json").write_text("{not JSON")
    run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS)
    assert states(settings, video_id) == [State.FAILED, State.FAILED]


def test_the_url_of_the_ledger_is_never_written_down(settings: Settings, video_id: str) -> None:
    secret = Settings(**(settings.model_dump() | {"ledger": f"sqlite:////{settings.lake}/secret-name.sqlite", "sample_stride": 2}))
    run = pipeline.open_run(secret)
    assert "secret-name" not in (run.path / "run.json").read_text()
    assert "secret-name" not in repr(secret)
