"""The ledger and the files agree after everything that can happen to a clip; two writers share the work."""

import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from egoworld_assets.chain import bookkeeping, configuration, pipeline
from egoworld_assets.chain.planning import Planner
from egoworld_ops import ledger, models, operators
from egoworld_ops.errors import OperatorCrash, OutOfMemory, StorageUnavailable
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import failures, memo
from egoworld_ops.lake.lake import Lake
from egoworld_ops.ledger import ClipKey, State
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings, load_settings
from gpu_workers.inline import InlinePool
from tests.egoworld_ops import media
from tests.stages import below
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
    [found] = register.register(settings.lake, [path]).video_ids
    run_part(settings, found, InlinePool(2), pipeline.Part(last=pipeline.MANIFEST))
    return found


def run_part(settings: Settings, video_id: str, pool: InlinePool, part: pipeline.Part) -> Counter[str]:
    return Counter(r.state for _, r in pipeline.process(configuration.open_run(settings), [video_id], settings, pool, part))


def states(settings: Settings, video_id: str) -> list[State]:
    run = configuration.open_run(settings)
    clips = ("f0000000_0000024", "f0000024_0000048")
    rows = bookkeeping.ledger_of(settings.lake, settings.ledger).rows([ClipKey(run.run_id, video_id, clip, "detections") for clip in clips])
    return [row.state for _, row in sorted(rows.items())]


def test_the_ledger_says_what_became_of_each_clip_and_agrees_with_the_files(settings: Settings, video_id: str) -> None:
    pool = FaultyPool(lambda task, tried: None if task.clip.frame_start else OutOfMemory("clip", "no memory", "Try again"))
    run_part(settings, video_id, pool, ONLY_DETECTIONS)
    assert states(settings, video_id) == [State.DEAD_LETTER, State.DONE]
    book, run = bookkeeping.ledger_of(settings.lake, settings.ledger), configuration.open_run(settings)
    [[letter]] = book.all_rows(run.run_id, State.DEAD_LETTER)
    assert (letter.attempts, letter.error_class) == (2, "OutOfMemory")
    counts = book.counts(run.run_id)
    ledger.rebuild(book, Lake(settings.lake))
    assert book.counts(run.run_id) == counts, "rebuilt from the files it says the same"

    failures.redrive(run, failures.Which())
    assert run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS) == {"computed": 1, "done": 1}
    assert states(settings, video_id) == [State.DONE, State.DONE]


def test_a_stand_in_is_done_also_in_a_ledger_that_is_made_again(settings: Settings, video_id: str) -> None:
    stages = settings.model_dump()["stages"]
    stages["masks"] = {"backend": "sam2", "fallback": "classical", "sam2": {"random_weights_seed": 1, "device": "cpu"}}
    chosen = Settings(**(settings.model_dump() | {"stages": stages}))
    run_part(chosen, video_id, FaultyPool(lambda task, tried: CRASH if task.backend == "sam2" else None), pipeline.Part(last="masks"))
    book, run = bookkeeping.ledger_of(chosen.lake, chosen.ledger), configuration.open_run(chosen)
    counts = book.counts(run.run_id)
    assert counts["masks"] == {State.DONE: 2}
    assert ledger.rebuild(book, Lake(settings.lake)).changed == 0
    assert book.counts(run.run_id) == counts


def test_a_file_deleted_by_hand_is_made_again_whatever_the_ledger_says(settings: Settings, video_id: str) -> None:
    run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS)
    run = configuration.open_run(settings)
    run.clip_table("detections", video_id, "f0000000_0000024").unlink()
    assert run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS) == {"computed": 1, "done": 1}
    assert states(settings, video_id) == [State.DONE, State.DONE]


def test_a_stage_that_is_broken_off_gives_back_what_it_had_taken(settings: Settings, video_id: str) -> None:
    results = pipeline.process(configuration.open_run(settings), [video_id], settings, InlinePool(2), ONLY_DETECTIONS)
    next(results)
    results.close()
    assert states(settings, video_id) == [State.PENDING], (
        "it was not entered: who took it did not say it was stored; the other was not begun"
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


def test_a_clip_that_another_writer_ends_between_plan_and_start_is_not_computed_again(settings: Settings, video_id: str) -> None:
    run, book = configuration.open_run(settings), bookkeeping.ledger_of(settings.lake, settings.ledger)
    planner, others = Planner(run, "detections", settings), Planner(run, "detections", settings)

    def planned(by: Planner) -> list[ClipTask]:
        return [plan for plan in by.plan(video_id) if isinstance(plan, ClipTask)]

    with bookkeeping.entries(book, run, "detections") as entries, bookkeeping.entries(book, run, "detections") as of_another:
        [first, _] = theirs = of_another.take(planned(others))
        assert entries.take(planned(planner)) == []
        waits = planned(planner)
        [outcome] = InlinePool(2).run([first])
        pipeline.store(run, "detections", result := others.result(outcome))
        of_another.ended(result, 1, "")
        assert entries.take(waits) == [], "planned before it was stored: the plan does not know the file"
        assert [task.key for task in planned(planner)] == [theirs[1].key]
        run.clip_table("detections", video_id, first.clip.clip_id).unlink()
        assert [task.key for task in entries.take(planned(planner))] == [first.key], "planned after it had ended: its file is not valid"


def test_what_breaks_a_stage_off_is_not_hidden_by_a_ledger_that_cannot_take_the_rest(
    settings: Settings, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, book = configuration.open_run(settings), bookkeeping.ledger_of(settings.lake, settings.ledger)
    planner = Planner(run, "detections", settings)
    monkeypatch.setattr(bookkeeping, "_TOGETHER_S", 3600.0)

    def refuse(*_: object) -> None:
        raise StorageUnavailable("ledger", "is read-only", "Restore the storage")

    def broken_off() -> None:
        with bookkeeping.entries(book, run, "detections") as entries:
            taken = entries.take([plan for plan in planner.plan(video_id) if isinstance(plan, ClipTask)])
            for outcome in InlinePool(2).run(taken):
                pipeline.store(run, "detections", result := planner.result(outcome))
                entries.ended(result, 1, "")
            monkeypatch.setattr(book, "finish", refuse)
            entries.ended(result, 1, "")
            raise KeyError("what broke it off")

    with pytest.raises(KeyError, match="what broke it off"):
        broken_off()


def test_a_bad_clip_found_at_planning_is_entered_too(settings: Settings, video_id: str, tmp_path: Path) -> None:
    (tmp_path / "raw" / "two.egoworld.json").write_text("{not JSON")
    run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS)
    assert states(settings, video_id) == [State.FAILED, State.FAILED]


def test_results_that_are_found_are_entered_together(settings: Settings, video_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS)
    memo.forget(configuration.open_run(settings).video_folder(video_id))
    settled: list[int] = []
    book = bookkeeping.ledger_of(settings.lake, settings.ledger)
    monkeypatch.setattr(book, "settle", lambda changes: settled.append(len(changes)))
    assert run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS) == {"done": 2}
    assert settled == [2]


def test_the_url_of_the_ledger_is_never_written_down(settings: Settings, video_id: str) -> None:
    secret = Settings(**(settings.model_dump() | {"ledger": f"sqlite:////{settings.lake}/secret-name.sqlite", "sample_stride": 2}))
    run = configuration.open_run(secret)
    assert "secret-name" not in (run.path / "run.json").read_text()
    assert "secret-name" not in repr(secret)


def all_states(settings: Settings, video_id: str) -> dict[str, str]:
    """The state of each stage's clips, for the stages in which all have the same."""
    found: dict[str, set[str]] = {}
    for stage, result in pipeline.process(configuration.open_run(settings), [video_id], settings, InlinePool(2)):
        found.setdefault(stage, set()).add(result.state)
    return {stage: states.pop() for stage, states in found.items() if len(states) == 1}


def test_a_change_computes_exactly_what_reads_it_and_all_below(
    settings: Settings, video_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [pipeline.MANIFEST, *operators.stages()]
    assert all_states(settings, video_id) == dict.fromkeys(every, "computed") | {pipeline.MANIFEST: "done"}

    threshold = Settings(**(settings.model_dump() | {"quality": {"masks": {"score_mean": {"minimum": 0.9}}}}))
    assert configuration.open_run(threshold) == configuration.open_run(settings), "what is thought of results is not what they depend on"
    assert all_states(threshold, video_id) == dict.fromkeys(every, "done")

    stages = settings.model_dump()["stages"]
    stages["masks"] = {"backend": "classical", "classical": {"max_carried": 3}}
    one_setting = Settings(**(settings.model_dump() | {"stages": stages}))
    below_masks = {"masks"} | below("masks")
    assert all_states(one_setting, video_id) == {stage: "computed" if stage in below_masks else "linked" for stage in every}

    other_weights = tmp_path / "weights"
    shutil.copytree(models.folder(), other_weights)
    shutil.copy(other_weights / "hand_landmark_lite.tflite", other_weights / "hand_landmark_full.tflite")
    lite = models.REGISTRY["hand_landmark_lite"]
    known = models.REGISTRY["hand_landmark_full"]
    monkeypatch.setenv("EGOWORLD_WEIGHTS", str(other_weights))
    monkeypatch.setitem(models.REGISTRY, known.name, replace(known, sha256=lite.sha256, bytes=lite.bytes))
    assert all_states(settings, video_id) == dict.fromkeys(operators.stages(), "computed") | {pipeline.MANIFEST: "linked"}
    print("FIGURE a change computes: quality threshold 0 stages, a setting of masks 3 (masks, object_pose, movement), hand weights all 6")


def test_an_output_that_is_damaged_or_foreign_is_made_again_and_nothing_good_is_lost(settings: Settings, video_id: str) -> None:
    run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS)
    run = configuration.open_run(settings)
    good, path = (run.clip_table("detections", video_id, clip) for clip in ("f0000000_0000024", "f0000024_0000048"))
    before, whole = good.read_bytes(), path.read_bytes()
    older = pq.read_table(path, partitioning=None).drop_columns(["score"]).replace_schema_metadata()
    for damage in (b"", whole[: len(whole) // 2], b"PAR1 nonsense PAR1", None):
        if damage is None:
            pq.write_table(older, path)  # of an older schema, without provenance
        else:
            path.write_bytes(damage)
        assert run_part(settings, video_id, InlinePool(2), ONLY_DETECTIONS) == {"computed": 1, "done": 1}
        assert read_table(path, "detections").num_rows == 0
        assert good.read_bytes() == before
