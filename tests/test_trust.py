"""The history of a clip, and reproducing it: retries, dead letters, redrive, explanations, fallbacks, partial runs, run diffs."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from egoworld_assets.chain import bookkeeping, configuration, pipeline
from egoworld_assets.cli.main import egoworld
from egoworld_ops import operators
from egoworld_ops.errors import (
    BadSettings,
    CorruptVideo,
    EgoworldError,
    InputChanged,
    OperatorCrash,
    OutOfMemory,
    SetupError,
    StorageUnavailable,
)
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import digest_at, provenance_at, read_table, write_table
from egoworld_ops.lake import failures, runs
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger import State
from egoworld_ops.raw import register
from egoworld_ops.settings import Settings, load_settings
from gpu_workers.inline import InlinePool
from gpu_workers.pool import Done, Failed
from tests.egoworld_ops import media
from tests.stages import below

Fault = Callable[[ClipTask, int], EgoworldError | None]
FULL_DISK = StorageUnavailable("disk", "full", "Free it")
NO_MEMORY = OutOfMemory("clip", "out of memory", "Lower the number of workers")
CRASH = OperatorCrash("clip", "ValueError: bad", "Report it")


class FaultyPool(InlinePool):
    """The inline pool, with errors that a test injects, by task and number of attempts."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(threads=2)
        self._fault = fault
        self.tried: Counter[str] = Counter()
        self.times: list[float] = []

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for task in tasks:
            self.times.append(time.monotonic())
            error = self._fault(task, self.tried[task.key])
            self.tried[task.key] += 1
            if error is None:
                yield from super().run([task])
            else:
                yield Failed(task, error, "Traceback\n  boom", 0.1, task.clip.frame_start + 3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    base = load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path / "raw"})
    return base.model_copy(update={"retry_after_s": (0.05, 0.1)})


@pytest.fixture
def video_id(settings: Settings, tmp_path: Path) -> str:
    """Two scenes, so two clips, with a manifest."""
    (tmp_path / "raw").mkdir()
    path = media.make(tmp_path / "raw" / "two.mp4", 48, size=(160, 120), picture=media.scenes([24]))
    [found] = register.register(settings.lake, [path]).video_ids
    process(settings, [found], InlinePool(2), pipeline.Part(last=pipeline.MANIFEST))
    return found


def process(settings: Settings, video_ids: list[str], pool: InlinePool, part: pipeline.Part = pipeline.ALL) -> Counter[tuple[str, str]]:
    return Counter(
        (stage, result.state) for stage, result in pipeline.process(configuration.open_run(settings), video_ids, settings, pool, part)
    )


ONLY_DETECTIONS = pipeline.Part("detections", "detections")


def every_file(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, time of change and target of everything in a folder."""
    found = {p: p.lstat() for p in folder.rglob("*") if not p.is_dir() or p.is_symlink()}
    return {str(p): (s.st_ino, s.st_mtime_ns, str(p.readlink()) if p.is_symlink() else "") for p, s in found.items()}


def failure(run: Run) -> dict:
    [path] = run.path.glob("video_id=*/clip_id=*/*.failure.parquet")
    [row] = read_table(path, "failures").to_pylist()
    return row


def test_an_error_that_may_pass_is_tried_again_after_the_pauses(settings: Settings, video_id: str) -> None:
    pool = FaultyPool(lambda task, tried: FULL_DISK if tried < 2 else None)
    assert process(settings, [video_id], pool, ONLY_DETECTIONS) == {("detections", "computed"): 2}
    assert set(pool.tried.values()) == {3}
    first, second, third = (pool.times[i] for i in (0, 2, 4))
    assert second - first >= 0.05
    assert third - second >= 0.1


def test_a_clip_whose_attempts_are_used_up_waits_for_a_person(settings: Settings, video_id: str) -> None:
    def first_clip(task: ClipTask, tried: int) -> EgoworldError | None:
        return NO_MEMORY if task.clip.frame_start == 0 else None

    run, pool = configuration.open_run(settings), FaultyPool(first_clip)
    assert process(settings, [video_id], pool, ONLY_DETECTIONS) == {("detections", "computed"): 1, ("detections", "failed"): 1}
    row = failure(run)
    assert (row["attempts"], row["dead_letter"], row["retryable"], row["frame_index"]) == (3, True, True, 3)

    again = FaultyPool(lambda task, tried: None)
    assert process(settings, [video_id], again, ONLY_DETECTIONS)["detections", "failed"] == 1
    assert not again.tried, "a dead letter is not tried again by itself"

    [letter] = failures.redrive(run, failures.Which(error_class="OutOfMemory"))
    assert letter.clip_id == "f0000000_0000024"
    assert process(settings, [video_id], again, ONLY_DETECTIONS) == {("detections", "done"): 1, ("detections", "computed"): 1}
    assert not list(failures.find(run, failures.Which()))


def test_bad_input_and_bugs_are_dead_letters_at_once_but_not_what_may_be_mended(settings: Settings, video_id: str) -> None:
    for error, dead in (
        (CorruptVideo("clip", "torn", "Copy it again"), True),
        (CRASH, True),
        (InputChanged("clip", "changed", "Again"), False),
    ):
        pool = FaultyPool(lambda task, tried, error=error: error if task.clip.frame_start else None)
        process(settings, [video_id], pool, ONLY_DETECTIONS)
        assert failure(configuration.open_run(settings))["dead_letter"] == dead
        failures.redrive(configuration.open_run(settings), failures.Which())


def test_a_wrong_set_up_stops_the_stage_at_once(settings: Settings, video_id: str) -> None:
    pool = FaultyPool(lambda task, tried: None)
    broken = settings.model_copy(update={"stages": {}})
    pool.run = lambda tasks: (_ for _ in ()).throw(SetupError("weights", "are missing", "Fetch them"))  # type: ignore[method-assign]
    with pytest.raises(SetupError, match="Fetch them"):
        process(broken, [video_id], pool, ONLY_DETECTIONS)


def test_a_change_of_what_it_depends_on_redrives_a_dead_letter(settings: Settings, video_id: str) -> None:
    process(settings, [video_id], FaultyPool(lambda task, tried: CRASH), ONLY_DETECTIONS)
    changed = settings.model_copy(update={"sample_stride": 2})
    process(changed, [video_id], InlinePool(2), pipeline.Part(last=pipeline.MANIFEST))
    assert process(changed, [video_id], InlinePool(2), ONLY_DETECTIONS) == {("detections", "computed"): 2}


def test_a_fallback_takes_a_failed_clip_and_both_stay_on_record(settings: Settings, video_id: str) -> None:
    stages = json.loads(settings.model_dump_json())["stages"]
    stages["masks"] = {"backend": "sam2", "fallback": "classical", "sam2": {"random_weights_seed": 1, "device": "cpu"}}
    with_fallback = Settings(**(settings.model_dump() | {"stages": stages}))
    upto_masks = pipeline.Part(last="masks")

    def no_sam(task: ClipTask, tried: int) -> EgoworldError | None:
        return CRASH if task.backend == "sam2" else None

    run = configuration.open_run(with_fallback)
    pool = FaultyPool(no_sam)
    found = [r for stage, r in pipeline.process(run, [video_id], with_fallback, pool, upto_masks) if stage == "masks"]
    assert [(r.state, r.beside.error if r.beside else None) for r in found] == [("computed", CRASH)] * 2
    assert {r.provenance["identity"]["operator"]["backend"] for r in found} == {"classical"}
    assert len(list(run.path.glob("*/*/masks.failure.parquet"))) == 2

    again = FaultyPool(no_sam)
    assert process(with_fallback, [video_id], again, pipeline.Part("masks", "masks")) == {("masks", "done"): 2}
    assert not again.tried, "neither the dead letter nor its stand-in is computed again"

    below = pipeline.Part("object_pose", "object_pose")
    assert process(with_fallback, [video_id], FaultyPool(no_sam), pipeline.Part("hand_pose", "object_pose"))["object_pose", "computed"] == 2
    for path in run.path.glob("*/*/masks.failure.parquet"):  # as older versions kept it
        known = provenance_at(path) or {}
        row = read_table(path, "failures")
        write_table(path, "failures", row, known | {"identity": {"raw": known["identity"]["raw"]}})
    assert process(with_fallback, [video_id], again, below) == {("object_pose", "blocked"): 2}
    process(with_fallback, [video_id], again, pipeline.Part("masks", "masks"))
    assert process(with_fallback, [video_id], again, below) == {("object_pose", "done"): 2}
    assert runs.counts(run)["masks"] == {"done": 2}

    failures.redrive(run, failures.Which())
    torn = FaultyPool(lambda task, tried: CorruptVideo("clip", "torn", "Copy it again") if task.backend == "sam2" else None)
    assert process(with_fallback, [video_id], torn, pipeline.Part("masks", "masks")) == {("masks", "done"): 2}
    assert len(list(run.path.glob("video_id=*/*/masks.parquet"))) == 2, "content that is at fault takes no stand-in away"
    with pytest.raises(ValueError, match="fallback"):
        Settings(**(settings.model_dump() | {"stages": {"masks": {"backend": "classical", "fallback": "classical"}}}))


def test_a_part_of_the_chain_is_what_lies_between_its_ends(settings: Settings) -> None:
    assert pipeline.Part("masks").stages(settings) == [stage for stage in operators.stages() if stage in {"masks"} | below("masks")]
    assert pipeline.Part("hand_pose", "movement").stages(settings) == ["hand_pose", "depth", "object_pose", "camera", "movement"]
    assert pipeline.Part(last="masks").stages(settings) == ["manifest", "detections", "masks"]
    with pytest.raises(BadSettings, match="no such stage"):
        pipeline.Part("mask").stages(settings)
    with pytest.raises(BadSettings, match="do not follow"):
        pipeline.Part("movement", "masks").stages(settings)


@pytest.fixture
def deployed(settings: Settings, video_id: str, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """The command line over the lake of the test."""
    monkeypatch.setenv("EGOWORLD_LAKE", str(settings.lake))
    return CliRunner()


def said(runner: CliRunner, *arguments: str, code: int = 0) -> str:
    done = runner.invoke(egoworld, arguments)
    assert done.exit_code == code, done.output
    return done.output


def test_a_partial_run_prints_seconds_rows_and_digests(deployed: CliRunner, settings: Settings, video_id: str) -> None:
    printed = said(deployed, "run", "--video", video_id, "--from", "detections", "--to", "detections", "--inline")
    run = runs.find(Lake(settings.lake), "latest")
    digests = [str(digest_at(p))[:12] for p in run.path.glob("video_id=*/clip_id=*/detections.parquet")]
    assert len(digests) == 2
    assert all(digest in printed for digest in digests)
    assert "2 computed" in printed
    again = said(deployed, "run", "--video", video_id, "--from", "detections", "--to", "detections", "--inline")
    assert "2 done" in again
    assert all(digest in again for digest in digests)
    one = said(
        deployed,
        "run",
        "--video",
        video_id,
        "--clip",
        "f0000024_0000048",
        "--from",
        "detections",
        "--to",
        "detections",
        "--dry",
        "--inline",
    )
    assert "1 computed" in one
    assert "f0000000" not in one


def test_a_dry_run_under_changed_settings_makes_no_run(
    deployed: CliRunner, settings: Settings, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(deployed, "run", "--video", video_id, "--to", "detections", "--inline")
    before = every_file(settings.lake)
    monkeypatch.setenv("EGOWORLD_SAMPLE_STRIDE", "3")
    assert "3 computed" in said(deployed, "run", "--video", video_id, "--to", "detections", "--inline", "--dry")
    assert every_file(settings.lake) == before


def test_a_dry_run_reads_what_it_has_just_made(deployed: CliRunner, settings: Settings, video_id: str) -> None:
    before = every_file(settings.lake)
    printed = said(deployed, "run", "--video", video_id, "--to", "hand_pose", "--inline", "--dry")
    assert "5 computed" in printed, "a manifest, and two clips in two stages; nothing of them was there before"
    assert "nothing was kept" in printed
    assert every_file(settings.lake) == before


def test_run_works_in_this_process_where_the_pool_is_inline(
    deployed: CliRunner, video_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGOWORLD_POOL__KIND", "inline")
    monkeypatch.setenv("EGOWORLD_POOL__FOLDER", str(tmp_path / "pool"))
    said(deployed, "run", "--video", video_id, "--to", "detections")
    assert not (tmp_path / "pool").exists(), "no broker was started"


def test_a_dead_letter_from_before_is_not_told_as_new_and_typing_errors_are_refused(
    deployed: CliRunner, settings: Settings, video_id: str
) -> None:
    frozen = load_settings("laptop")
    process(frozen, [video_id], InlinePool(2), pipeline.Part(last=pipeline.MANIFEST))
    process(frozen, [video_id], FaultyPool(lambda task, tried: CRASH), ONLY_DETECTIONS)
    again = said(deployed, "run", "--video", video_id, "--from", "detections", "--to", "detections", "--inline", code=1)
    assert again.count("a dead letter from before, not tried again: clip: ValueError: bad") == 2
    assert "Traceback" not in again
    for name in ("dead-letters", "redrive"):
        for option, wrong, meant in (
            ("--stage", "detection", "detections"),
            ("--class", "OperatorCrsh", "OperatorCrash"),
            ("--video", video_id[:-1], video_id),
            ("--clip", "f0000000_0000025", "f0000000_0000024"),
        ):
            done = deployed.invoke(egoworld, [name, option, wrong])
            assert isinstance(done.exception, SetupError)
            assert f"Did you mean {meant}" in str(done.exception)
    assert "2 dead letter(s)" in said(deployed, "dead-letters", "--video", video_id)


def test_dead_letters_are_listed_reproduced_and_redriven_from_the_command_line(
    deployed: CliRunner, settings: Settings, video_id: str
) -> None:
    frozen = load_settings("laptop")  # as the command line will see it
    run = configuration.open_run(frozen)
    process(frozen, [video_id], InlinePool(2), pipeline.Part(last=pipeline.MANIFEST))
    process(frozen, [video_id], FaultyPool(lambda task, tried: CRASH if task.clip.frame_start == 0 else None), ONLY_DETECTIONS)
    listed = said(deployed, "dead-letters", "--traceback")
    assert "1 dead letter(s)" in listed
    assert all(
        part in listed
        for part in ("f0000000_0000024 detections (mediapipe), at frame 3", "OperatorCrash: clip: ValueError: bad", "| Traceback")
    )
    [letter] = failures.find(run, failures.Which())
    assert letter.command in listed
    reproduced = said(deployed, *letter.command.split()[1:])
    assert "1 computed" in reproduced, "alone, in the foreground; here it was the pool that failed"
    assert list(failures.find(run, failures.Which())) == [letter], "looking at it changes nothing"
    assert "0 to be tried again" in said(deployed, "redrive", "--class", "CorruptVideo")
    assert "1 to be tried again" in said(deployed, "redrive", "--stage", "detections")
    assert "0 dead letter(s)" in said(deployed, "dead-letters")
    assert "choose by" in said(deployed, "redrive", code=2)


def test_a_run_that_could_not_do_what_was_asked_says_so_and_ends_with_1(deployed: CliRunner, settings: Settings, video_id: str) -> None:
    said(deployed, "run", "--video", video_id, "--to", "manifest", "--inline")
    blocked = said(deployed, "run", "--video", video_id, "--from", "masks", "--to", "masks", "--inline", code=1)
    assert "2 blocked" in blocked
    assert "begin upstream" in blocked
    for upto in ("manifest", "detections"):
        unknown = said(deployed, "run", "--video", video_id, "--clip", "f9", "--from", upto, "--to", "detections", "--inline", code=1)
        assert f"clip f9 is not in video {video_id}" in unknown


def test_a_manifest_is_made_anew_on_demand(deployed: CliRunner, settings: Settings, video_id: str) -> None:
    assert "1 computed" in said(deployed, "run", "--video", video_id, "--to", "manifest", "--inline", "--anew")
    before = every_file(settings.lake)
    assert "1 computed" in said(deployed, "run", "--video", video_id, "--to", "manifest", "--inline", "--dry")
    assert every_file(settings.lake) == before
    assert "1 done" in said(deployed, "run", "--video", video_id, "--to", "manifest", "--inline")


def test_only_what_is_redriven_moves_in_the_ledger(deployed: CliRunner, settings: Settings, video_id: str, tmp_path: Path) -> None:
    (tmp_path / "raw" / "text.mp4").write_text("not a video")
    [text] = register.register(settings.lake, [tmp_path / "raw" / "text.mp4"]).video_ids
    said(deployed, "run", "--video", text, "--to", "manifest", "--inline", code=1)
    said(deployed, "run", "--video", video_id, "--to", "manifest", "--inline")
    frozen = load_settings("laptop")
    process(frozen, [video_id], FaultyPool(lambda task, tried: CRASH), ONLY_DETECTIONS)
    run, book = configuration.open_run(frozen), bookkeeping.ledger_of(frozen.lake, frozen.ledger)
    [gone, _] = sorted(run.path.glob("video_id=*/*/detections.failure.parquet"))
    gone.unlink()
    assert "egoworld run" in said(deployed, "redrive", "--stage", "manifest", code=2)
    assert "1 to be tried again" in said(deployed, "redrive", "--all")
    assert book.counts(run.run_id) == {
        "detections": {State.DEAD_LETTER: 1, State.PENDING: 1},
        "manifest": {State.DEAD_LETTER: 1, State.DONE: 1},
    }


def test_runs_are_listed_shown_and_compared(
    deployed: CliRunner, settings: Settings, video_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said(deployed, "run", "--video", video_id, "--to", "detections", "--inline")
    [first] = (run.run_id for run in Lake(settings.lake).runs())
    monkeypatch.setenv("EGOWORLD_SAMPLE_STRIDE", "3")
    said(deployed, "run", "--video", video_id, "--to", "detections", "--inline")
    second = Lake(settings.lake).runs()[0].run_id
    listed = said(deployed, "runs", "list")
    assert first in listed
    assert "3 done, 0 failed, 0 dead letters" in listed
    shown = json.loads(deployed.invoke(egoworld, ["runs", "show", second]).stdout)
    assert shown["settings"]["sample_stride"] == 3
    assert shown["weights"]["palm_detection_full"]["licence"] == "Apache-2.0"
    assert shown["inputs"]["videos"] == 1
    assert {"schema", "camera_frame", "masks", "time"} <= shown["conventions"].keys()
    assert {"cores", "gpus", "name"} <= shown["host"].keys()
    difference = said(deployed, "runs", "diff", first, second)
    assert "frozen.sample_stride: 1 -> 3" in difference
    assert "2 result(s) differ; --clips prints each" in difference
    assert said(deployed, "runs", "diff", first, second, "--clips").count(f"detections   {video_id} f") == 2
    assert "0 result(s) differ" in said(deployed, "runs", "diff", first, first)
    command = [Path(sys.executable).with_name("egoworld"), "runs", "show", "nope"]
    assert f"is not in {settings.lake}" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_the_ledger_is_counted_and_rebuilt_from_the_command_line(deployed: CliRunner, settings: Settings, video_id: str) -> None:
    said(deployed, "run", "--video", video_id, "--to", "detections", "--inline")
    counted = said(deployed, "ledger", "counts")
    assert "manifest     1 Done" in counted
    assert "detections   2 Done" in counted
    assert "the files say: 3 Done; 0 rows changed" in said(deployed, "ledger", "rebuild")
    assert said(deployed, "ledger", "counts") == counted
