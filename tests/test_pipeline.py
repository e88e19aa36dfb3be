"""The chain without Dagster, on real files: finished results are kept, changed ones recomputed, bad ones named, and the others finish."""

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import pytest

from egoworld_assets.chain import configuration, pipeline, planning
from egoworld_ops import operators
from egoworld_ops.contract import validation
from egoworld_ops.errors import BadSidecar, CorruptVideo, EgoworldError, OperatorCrash, OutOfMemory, StorageUnavailable, UnstableFile
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import digest_at, provenance_at, read_table
from egoworld_ops.lake import failures, lake, runs
from egoworld_ops.lake.lake import Lake
from egoworld_ops.lake.states import video_state
from egoworld_ops.raw import register as raw_folder
from egoworld_ops.raw.intake import registered
from egoworld_ops.settings import Settings, load_settings
from egoworld_ops.video import containers
from egoworld_ops.video.sidecar import sidecar_path
from gpu_workers.inline import InlinePool
from gpu_workers.pool import Done, Failed
from tests import damage
from tests.egoworld_ops import media, splice
from tests.stages import below

CAMERA = {"fx": 150, "fy": 150, "cx": 79.5, "cy": 59.5, "width": 160, "height": 120}
CUT = 24
FRAMES = 48


@pytest.fixture(scope="module")
def pool() -> InlinePool:
    return InlinePool(threads=2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path / "raw"})


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Two scenes without hands: every stage runs and has next to nothing to do."""
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "two scenes; 'quoted'\n\u00e9.mp4"
    media.make(path, FRAMES, size=(160, 120), picture=media.scenes([CUT]))
    return path


def register(settings: Settings, *paths: Path) -> list[str]:
    return raw_folder.register(settings.lake, paths).video_ids


def run_all(settings: Settings, video_ids: list[str], pool: InlinePool) -> dict[str, Counter[str]]:
    """States of every stage's results, after storing them."""
    run = configuration.open_run(settings)
    states = {stage: Counter[str]() for stage in (pipeline.MANIFEST, *operators.stages())}
    for stage, result in pipeline.process(run, video_ids, settings, pool):
        states[stage][result.state] += 1
    return states


def store_all(run: lake.Run, stage: str, video_ids: list[str], settings: Settings, pool: InlinePool) -> Counter[str]:
    states: Counter[str] = Counter()
    for result in pipeline.results(run, stage, video_ids, settings, pool):
        pipeline.store(run, stage, result)
        states[result.state] += 1
    return states


def failures_of(run: lake.Run) -> list[Path]:
    return sorted(run.path.glob("video_id=*/clip_id=*/*.failure.parquet"))


def everywhere(state: str, clips: int, videos: int = 1) -> dict[str, Counter[str]]:
    return {pipeline.MANIFEST: Counter({state: videos})} | {s: Counter({state: clips}) for s in operators.stages()}


def test_a_second_run_computes_nothing_and_changes_no_file(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    assert run_all(settings, video_ids, pool) == everywhere("computed", clips=2)
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in settings.lake.rglob("*.parquet")}
    assert run_all(settings, video_ids, pool) == everywhere("done", clips=2)
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in settings.lake.rglob("*.parquet")} == before
    assert not list(settings.lake.rglob(".tmp-*"))


def test_every_file_keeps_the_contract_and_says_what_it_depends_on(settings: Settings, video: Path, pool: InlinePool) -> None:
    [video_id] = register(settings, video)
    run_all(settings, [video_id], pool)
    run = configuration.open_run(settings)
    for stage, description in operators.stages().items():
        for path in run.video_folder(video_id).glob(f"clip_id=*/{stage}.parquet"):
            validation.validate(stage, read_table(path, stage))
            said = provenance_at(path)
            assert said is not None
            assert said["identity"]["operator"]["stage"] == stage
            assert set(said["identity"]["inputs"]) == set(description.inputs)
            for name, digest in said["identity"]["inputs"].items():
                assert digest_at(path.with_name(f"{name}.parquet")) == digest


def test_a_changed_setting_makes_anew_what_reads_it_and_all_below_and_links_the_rest(
    settings: Settings, video: Path, pool: InlinePool
) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    first = configuration.open_run(settings)
    stages = json.loads(settings.model_dump_json())["stages"]
    stages["mapping"]["dex"] = {"scaling": 1.5}
    changed = Settings(**(settings.model_dump() | {"stages": stages}))
    states = run_all(changed, video_ids, pool)
    assert states.pop("mapping") == {"computed": 2}
    assert set(states) == {pipeline.MANIFEST, *operators.stages()} - {"mapping"}
    assert all(set(found) == {"linked"} for found in states.values())
    assert configuration.open_run(changed).run_id != first.run_id
    assert run_all(settings, video_ids, pool) == everywhere("done", clips=2)


def test_a_changed_sidecar_makes_anew_only_the_stages_that_read_it_and_all_below(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    sidecar_path(video).write_text(json.dumps({"camera": CAMERA}))
    states = run_all(settings, video_ids, pool)
    made = {stage for stage, found in states.items() if found == {"computed": 2}}
    assert made == {"hand_pose"} | below("hand_pose")
    assert states["detections"] == states["masks"] == {"done": 2}


def test_a_file_that_is_cut_off_after_registration_is_not_worked_on(settings: Settings, video: Path, pool: InlinePool) -> None:
    """The manifest is of the whole file; the file on the disk now is another."""
    video_ids = register(settings, video)
    run = configuration.open_run(settings)
    store_all(run, pipeline.MANIFEST, video_ids, settings, pool)
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    assert store_all(run, "detections", video_ids, settings, pool) == {"failed": 2}
    [row, _] = [r for p in failures_of(run) for r in read_table(p, "failures").to_pylist()]
    assert row["error_class"] == "UnstableFile"
    assert "other content" in row["reason"]
    assert "register it again" in row["cure"]
    assert store_all(run, "masks", video_ids, settings, pool) == {"blocked": 2}
    video.write_bytes(whole)
    states = run_all(settings, video_ids, pool)
    assert all(found == {"computed": 2} for stage, found in states.items() if stage != pipeline.MANIFEST)
    assert not failures_of(run)


def test_results_outlive_a_raw_file_that_is_gone_for_a_while(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    run = configuration.open_run(settings)
    tables = sorted(run.video_folder(video_ids[0]).rglob("*.parquet"))
    hidden = video.with_name("hidden")
    video.rename(hidden)
    assert run_all(settings, video_ids, pool) == everywhere("done", clips=2)
    changed = Settings(**(settings.model_dump() | {"sample_stride": 2}))
    assert run_all(changed, video_ids, pool)["detections"] == {"failed": 2}
    hidden.rename(video)
    assert sorted(run.video_folder(video_ids[0]).rglob("*.parquet")) == tables
    assert run_all(settings, video_ids, pool) == everywhere("done", clips=2)
    assert run_all(changed, video_ids, pool)["detections"] == {"computed": 2}


class VanishingPool(InlinePool):
    """The inline pool, with a raw file that is missing while it works."""

    def __init__(self, video: Path) -> None:
        super().__init__(threads=2)
        self._video = video

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for task in tasks:
            hidden = self._video.rename(self._video.with_name("hidden"))
            yield from super().run([task])
            hidden.rename(self._video)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_raw_file_that_is_away_is_no_dead_letter_and_costs_no_result(
    settings: Settings, video: Path, pool: InlinePool, when: str
) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    run = configuration.open_run(settings)
    for path in run.path.glob("video_id=*/*/detections.parquet"):
        path.unlink()
    below = sorted(run.path.glob("video_id=*/*/*.parquet"))
    if when == "before":
        video.rename(video.with_name("hidden"))
    states = run_all(settings, video_ids, pool if when == "before" else VanishingPool(video))
    assert states["detections"] == {"failed": 2}
    assert states["masks"] == states["hand_pose"] == {"blocked": 2}
    assert [p for p in below if not p.exists()] == []
    assert not list(failures.find(run, failures.Which()))
    [row, _] = [r for p in failures_of(run) for r in read_table(p, "failures").to_pylist()]
    assert row["error_class"] == "RawFileAway"
    if when == "before":
        video.with_name("hidden").rename(video)
    states = run_all(settings, video_ids, pool)
    assert states["detections"] == {"computed": 2}
    assert states["mapping"] == {"done": 2}
    assert not failures_of(run)


def test_a_raw_folder_that_is_away_with_its_sidecars_costs_no_result(settings: Settings, video: Path, pool: InlinePool) -> None:
    sidecar_path(video).write_text(json.dumps({"camera": CAMERA}))
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    run = configuration.open_run(settings)
    hidden = video.parent.rename(video.parent.with_name("unmounted"))
    ended = run_all(settings, video_ids, pool)
    assert ended["hand_pose"] == ended["object_pose"] == {"failed": 2}
    assert ended["mapping"] == {"done": 2}
    assert not failures_of(run)
    for video_id in video_ids:
        state = video_state(run, video_id)
        assert state is not None
        assert state.lacking() == {}
    hidden.rename(video.parent)
    assert run_all(settings, video_ids, pool) == everywhere("done", clips=2)


def test_a_raw_file_that_was_replaced_by_a_broken_one_meanwhile_is_no_dead_letter(
    settings: Settings, video: Path, pool: InlinePool
) -> None:
    video_ids = register(settings, video)
    run = configuration.open_run(settings)
    store_all(run, pipeline.MANIFEST, video_ids, settings, pool)
    planned = planning.Planner(run, "detections", settings)
    task = next(t for t in planned.plan(video_ids[0]) if isinstance(t, ClipTask))
    video.write_bytes(video.read_bytes()[:1000])
    result = planned.result(Failed(task, CorruptVideo(video, "torn", "Copy it again"), "", 0.1))
    assert (type(result.error), result.dead_letter, result.stale) == (UnstableFile, False, False)


def test_a_raw_file_that_the_disk_does_not_give_is_no_dead_letter(
    settings: Settings, video: Path, pool: InlinePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    video_ids = register(settings, video)
    run = configuration.open_run(settings)
    store_all(run, pipeline.MANIFEST, video_ids, settings, pool)
    os.utime(video, ns=(1, 1))  # so that its content is read
    with monkeypatch.context() as patch:
        patch.setattr(containers, "hash_file", raising(StorageUnavailable(video, "Input/output error", "Check the disk")))
        assert store_all(run, "detections", video_ids, settings, pool) == {"failed": 2}
    assert not list(failures.find(run, failures.Which()))
    assert store_all(run, "detections", video_ids, settings, pool) == {"computed": 2}


class FailingPool(InlinePool):
    """The inline pool, in which one stage fails."""

    def __init__(self, stage: str, error: EgoworldError) -> None:
        super().__init__(threads=2)
        self._stage, self._error = stage, error

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        for task in tasks:
            if task.stage == self._stage:
                yield Failed(task, self._error, "", 0.1)
            else:
                yield from super().run([task])


def test_a_table_beside_a_later_failure_feeds_nothing_below_and_stays(settings: Settings, video: Path, pool: InlinePool) -> None:
    settings = settings.model_copy(update={"retry_after_s": ()})
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    run = configuration.open_run(settings)
    tables = sorted(run.path.glob("video_id=*/*/*.parquet"))
    sidecar_path(video).write_text(json.dumps({"camera": CAMERA}))
    states = run_all(settings, video_ids, FailingPool("hand_pose", OutOfMemory("clip", "no memory", "Try again")))
    assert states["hand_pose"] == {"failed": 2}
    assert states["object_pose"] == states["mapping"] == states["movement"] == {"blocked": 2}
    assert [p for p in tables if not p.exists()] == []

    failures.redrive(run, failures.Which())
    states = run_all(settings, video_ids, pool)
    assert states["hand_pose"] == states["object_pose"] == states["mapping"] == {"computed": 2}
    assert not failures_of(run)


def test_a_failure_that_cannot_be_read_counts_as_none(settings: Settings, video: Path, pool: InlinePool) -> None:
    settings = settings.model_copy(update={"retry_after_s": ()})
    video_ids = register(settings, video)
    crash = OperatorCrash("clip", "bad", "Report it")
    run_all(settings, video_ids, FailingPool("masks", crash))
    run = configuration.open_run(settings)
    first, second = failures_of(run)
    damage.flip(first, 200)
    assert digest_at(first), "what it says of its origin is whole"
    assert [letter.path for letter in failures.find(run, failures.Which())] == [second]
    assert runs.counts(run)["masks"] == {"dead letters": 1}
    states = run_all(settings, video_ids, FailingPool("detections", crash))
    assert states["masks"] == {"computed": 1, "failed": 1}
    assert states["object_pose"] == {"computed": 1, "blocked": 1}
    assert failures_of(run) == [second]


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise error

    return fail


def test_a_video_that_cannot_be_read_at_the_moment_is_not_rejected_for_good(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    hidden = video.with_name("hidden")
    video.rename(hidden)
    run = configuration.open_run(settings)
    [result] = pipeline.manifest_results(run, video_ids, settings)
    assert result.state == "failed"
    assert str(video.name.split(";")[0]) in str(result.error)
    assert not result.tables
    hidden.rename(video)
    assert run_all(settings, video_ids, pool) == everywhere("computed", clips=2)


def test_a_file_swapped_between_two_clips_gives_no_rows_of_the_other_content(settings: Settings, video: Path, pool: InlinePool) -> None:
    other = video.with_name("other.mkv")
    media.make(other, FRAMES, size=(160, 120), picture=media.scenes([10]))
    video_ids = register(settings, video)
    run = configuration.open_run(settings)
    store_all(run, pipeline.MANIFEST, video_ids, settings, pool)
    results = pipeline.results(run, "detections", video_ids, settings, pool)
    first = next(results)
    other.rename(video)
    [second] = results
    assert (first.state, second.state) == ("computed", "failed")
    assert "changed while it was worked on" in str(second.error) or "other content" in str(second.error)


def test_a_late_failure_never_takes_the_place_of_a_result_that_another_writer_finished(
    settings: Settings, video: Path, pool: InlinePool
) -> None:
    video_ids = register(settings, video)
    run = configuration.open_run(settings)
    store_all(run, pipeline.MANIFEST, video_ids, settings, pool)
    planner = planning.Planner(run, "detections", settings)
    task = next(t for t in planner.plan(video_ids[0]) if isinstance(t, ClipTask))
    assert store_all(run, "detections", video_ids, settings, pool) == {"computed": 2}
    late = planner.result(Failed(task, OutOfMemory("clip", "no memory", "Try again"), "", 1.0))
    pipeline.store(run, "detections", late)
    assert store_all(run, "detections", video_ids, settings, pool) == {"done": 2}
    assert not failures_of(run)


def test_a_failure_goes_when_its_result_is_linked_from_an_earlier_run(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    changed = Settings(**(settings.model_dump() | {"camera": {"assumed_hfov_deg": 80}}))
    sidecar_path(video).write_text("{ broken")
    assert run_all(changed, video_ids, pool)["detections"] == {"failed": 2}
    sidecar_path(video).unlink()
    assert run_all(changed, video_ids, pool)["detections"] == {"linked": 2}
    run = configuration.open_run(changed)
    assert not failures_of(run)
    metas = [json.loads(p.read_text()) for p in run.video_folder(video_ids[0]).glob("clip_id=*/meta.json")]
    assert len(metas) == 2
    assert all("detections" in meta for meta in metas)


def test_a_bad_sidecar_fails_the_clips_of_its_video_alone_with_the_file_at_fault(settings: Settings, video: Path, pool: InlinePool) -> None:
    sidecar_path(video).write_text("{ not json")
    neighbour = video.with_name("neighbour.mp4")
    media.make(neighbour, 20, size=(160, 120))
    video_ids = register(settings, video, neighbour)
    states = run_all(settings, video_ids, pool)
    assert states["detections"] == {"failed": 2, "computed": 1}
    assert states["mapping"] == {"blocked": 2, "computed": 1}
    run = configuration.open_run(settings)
    [path, _] = sorted(run.video_folder(video_ids[0]).glob("clip_id=*/detections.failure.parquet"))
    [row] = read_table(path, "failures").to_pylist()
    assert row["error_class"] == "BadSidecar"
    assert "egoworld.json" in row["culprit"]
    assert run_all(settings, video_ids, pool)["detections"] == {"failed": 2, "done": 1}


def test_a_rejected_video_is_a_row_with_a_reason_and_its_neighbours_finish(settings: Settings, video: Path, pool: InlinePool) -> None:
    text = video.with_name("text.mp4")
    text.write_text("this is not a video\n" * 50)
    video_ids = register(settings, text, video)
    states = run_all(settings, video_ids, pool)
    assert states["mapping"] == {"computed": 2}
    run = configuration.open_run(settings)
    [row] = read_table(run.video_table("videos", video_ids[0]), "videos").to_pylist()
    assert (row["status"], row["error_class"]) == ("rejected", "NotAVideo")
    assert row["reason"]
    assert row["cure"]


def test_a_damaged_output_is_made_again(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    run = configuration.open_run(settings)
    damaged = next(run.video_folder(video_ids[0]).glob("clip_id=*/masks.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    states = run_all(settings, video_ids, pool)
    assert states["masks"] == {"computed": 1, "done": 1}
    assert states["object_pose"] == {"done": 2}


def test_a_video_that_is_not_registered_or_has_no_manifest_fails_alone_and_says_what_to_do(
    settings: Settings, video: Path, pool: InlinePool
) -> None:
    video_ids = register(settings, video)
    run = configuration.open_run(settings)
    unknown, known = pipeline.manifest_results(run, ["nobody-0123456789ab", *video_ids], settings)
    assert "egoworld register" in str(unknown.error)
    pipeline.store(run, pipeline.MANIFEST, known)
    missing, *clips = pipeline.results(run, "detections", ["nobody-0123456789ab", *video_ids], settings, pool)
    assert "manifest" in str(missing.error)
    assert [c.state for c in clips] == ["computed", "computed"]


def test_a_damaged_manifest_fails_its_own_video_alone(settings: Settings, video: Path, pool: InlinePool) -> None:
    neighbour = media.make(video.with_name("neighbour.mp4"), 20, size=(160, 120))
    video_ids = register(settings, video, neighbour)
    run = configuration.open_run(settings)
    store_all(run, pipeline.MANIFEST, video_ids, settings, pool)
    run.video_table("clips", video_ids[0]).write_bytes(b"PAR1")
    damaged, clip = pipeline.results(run, "detections", video_ids, settings, pool)
    assert (damaged.state, clip.state) == ("failed", "computed")
    assert "clips.parquet" in str(damaged.error)


def test_unknown_intrinsics_are_refused_on_demand_where_they_are_read_and_nowhere_else(
    settings: Settings, video: Path, pool: InlinePool
) -> None:
    strict = Settings(**(settings.model_dump() | {"camera": {"require_known": True}}))
    states = run_all(strict, register(settings, video), pool)
    assert states["detections"] == states["masks"] == {"computed": 2}
    assert states["hand_pose"] == {"failed": 2}
    assert states["mapping"] == {"blocked": 2}


def test_a_moved_video_keeps_its_results(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    moved = video.with_name("moved.mp4")
    shutil.move(video, moved)
    assert register(settings, moved) == video_ids
    assert registered(Lake(settings.lake))[video_ids[0]].path == moved
    states = run_all(settings, video_ids, pool)
    assert states.pop(pipeline.MANIFEST) == {"computed": 1}
    assert all(found == {"done": 2} for found in states.values())


def manifest_rows(settings: Settings, video_ids: list[str], pool: InlinePool) -> list[dict[str, object]]:
    run = configuration.open_run(settings)
    store_all(run, pipeline.MANIFEST, video_ids, settings, pool)
    return [read_table(run.video_table("videos", v), "videos").to_pylist()[0] for v in video_ids]


def test_chapters_fall_in_one_split_and_a_sidecar_can_say_so_too(settings: Settings, pool: InlinePool) -> None:
    settings.raw.mkdir()
    names = [*(f"GH{chapter:02d}0123.MP4" for chapter in range(1, 7)), *(f"door {n}.mp4" for n in range(6))]
    for n, name in enumerate(names):
        path = media.make(settings.raw / name, 2, (64, 48), container="mp4", picture=media.scenes([], first=n))
        if name.startswith("door"):
            sidecar_path(path).write_text(json.dumps({"recording": "the door"}))
    rows = manifest_rows(settings, register(settings, *(settings.raw / name for name in names)), pool)
    assert [row["recording"] for row in rows] == ["gopro 0123"] * 6 + ["the door"] * 6
    assert len({row["split"] for row in rows[:6]}) == len({row["split"] for row in rows[6:]}) == 1


def test_stereo_is_rejected_until_its_sidecar_says_how_to_take_it(settings: Settings, pool: InlinePool) -> None:
    settings.raw.mkdir()
    path = splice.into_sample_entry(media.make(settings.raw / "a.mp4", 3, (64, 48)), splice.stereo(2))
    video_ids = register(settings, path)
    [row] = manifest_rows(settings, video_ids, pool)
    assert (row["status"], row["error_class"]) == ("rejected", "UnsupportedPicture")
    sidecar_path(path).write_text("{ broken")
    [result] = pipeline.manifest_results(configuration.open_run(settings), video_ids, settings)
    assert isinstance(result.error, BadSidecar)
    sidecar_path(path).write_text(json.dumps({"picture": {"use_as_pinhole": True}}))
    [row] = manifest_rows(settings, video_ids, pool)
    assert (row["status"], row["stereo_mode"]) == ("ok", "side_by_side")
    away = path.rename(path.with_name("a.away"))
    sidecar_path(path).unlink()
    [result] = pipeline.manifest_results(configuration.open_run(settings), video_ids, settings)
    assert result.state == "done"
    away.rename(path)
    [row] = manifest_rows(settings, video_ids, pool)
    assert row["status"] == "rejected"


def test_clips_of_anamorphic_video_are_planned_with_the_camera_of_the_picture_shown(settings: Settings, pool: InlinePool) -> None:
    settings.raw.mkdir()
    path = media.make(settings.raw / "a.mp4", 3, (120, 120), sample_aspect_ratio=Fraction(4, 3))
    [video_id] = register(settings, path)
    manifest_rows(settings, [video_id], pool)
    run = configuration.open_run(settings)
    [task] = planning.Planner(run, "detections", settings).plan(video_id)
    assert isinstance(task, ClipTask)
    assert (task.camera.width, task.camera.height) == (160, 120)
    assert task.camera.fx_px == task.camera.fy_px == pytest.approx(80 / math.tan(math.radians(settings.camera.assumed_hfov_deg / 2)))
    sidecar_path(path).write_text(json.dumps({"camera": CAMERA | {"fx": 60, "fy": 80, "cx": 59.5, "width": 120, "height": 120}}))
    [task] = planning.Planner(run, "detections", settings).plan(video_id)
    assert isinstance(task, ClipTask)
    assert (task.camera.fx_px, task.camera.fy_px, task.camera.cx_px) == pytest.approx((80, 80, 79.5))
    assert ClipTask.from_json(json.loads(json.dumps(task.to_json()))) == task
