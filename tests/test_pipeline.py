"""The chain without Dagster, on real files: what is done is kept, what changed is made anew, what is bad is named, neighbours finish."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from egoworld_assets import pipeline, raw_folder
from egoworld_ops import lake, operators, registry, schema
from egoworld_ops.errors import BadSettings, SetupError
from egoworld_ops.lake import Lake
from egoworld_ops.settings import Settings, load_settings
from egoworld_ops.sidecar import sidecar_path
from gpu_workers.inline import InlinePool
from tests.egoworld_ops import media

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
    return raw_folder.register(settings, paths).video_ids


def run_all(settings: Settings, video_ids: list[str], pool: InlinePool) -> dict[str, Counter[str]]:
    """States of every stage's results, after storing them."""
    run = pipeline.open_run(settings)
    states: dict[str, Counter[str]] = {}
    for stage in (pipeline.MANIFEST, *operators.stages()):
        for result in results_of(run, stage, video_ids, settings, pool):
            pipeline.store(run, stage, result)
            states.setdefault(stage, Counter())[result.state] += 1
    return states


def results_of(run: lake.Run, stage: str, video_ids: list[str], settings: Settings, pool: InlinePool) -> Iterator[pipeline.StageResult]:
    if stage == pipeline.MANIFEST:
        return pipeline.manifest_results(run, video_ids, settings)
    return pipeline.stage_results(run, stage, video_ids, settings, pool)


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
    run = pipeline.open_run(settings)
    for stage, description in operators.stages().items():
        for path in run.video_folder(video_id).glob(f"clip_id=*/{stage}.parquet"):
            schema.validate(stage, lake.read_table(path, stage))
            said = lake.provenance(path)
            assert said is not None
            assert said["identity"]["operator"]["stage"] == stage
            assert set(said["identity"]["inputs"]) == set(description.inputs)
            for name, digest in said["identity"]["inputs"].items():
                assert lake.digest_at(path.with_name(f"{name}.parquet")) == digest


def test_a_changed_setting_makes_anew_what_reads_it_and_all_below_and_links_the_rest(
    settings: Settings, video: Path, pool: InlinePool
) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    first = pipeline.open_run(settings)
    stages = json.loads(settings.model_dump_json())["stages"]
    stages["mapping"]["dex"] = {"scaling": 1.5}
    changed = Settings(**(settings.model_dump() | {"stages": stages}))
    states = run_all(changed, video_ids, pool)
    assert states.pop("mapping") == {"computed": 2}
    assert set(states) == {pipeline.MANIFEST, *operators.stages()} - {"mapping"}
    assert all(set(found) == {"linked"} for found in states.values())
    assert pipeline.open_run(changed).run_id != first.run_id
    assert run_all(settings, video_ids, pool) == everywhere("done", clips=2)


def test_a_changed_sidecar_makes_anew_only_the_stages_that_read_it_and_all_below(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    camera = {"fx": 150, "fy": 150, "cx": 79.5, "cy": 59.5, "width": 160, "height": 120}
    sidecar_path(video).write_text(json.dumps({"camera": camera}))
    states = run_all(settings, video_ids, pool)
    made = {stage for stage, found in states.items() if found == {"computed": 2}}
    assert made == {"hand_pose", "object_pose", "movement", "mapping"}
    assert states["detections"] == states["masks"] == {"done": 2}


def test_a_file_that_is_cut_off_after_registration_is_not_worked_on(settings: Settings, video: Path, pool: InlinePool) -> None:
    """The manifest knows the whole file; what is on disk now is something else."""
    other = video.with_name("other.mp4")
    media.make(other, FRAMES, size=(160, 120), picture=media.scenes([10]))
    video_ids = register(settings, video, other)
    run = pipeline.open_run(settings)
    for result in pipeline.manifest_results(run, video_ids, settings):
        pipeline.store(run, pipeline.MANIFEST, result)
    whole = video.read_bytes()
    video.write_bytes(whole[: len(whole) // 2])
    states = run_all(settings, video_ids[1:], pool)
    assert all(set(found) == {"computed"} or stage == pipeline.MANIFEST for stage, found in states.items())
    for result in results_of(run, "detections", video_ids[:1], settings, pool):
        pipeline.store(run, "detections", result)
        assert result.state == "failed"
    [row, _] = [r for p in failures_of(run) for r in lake.read_table(p, "failures").to_pylist()]
    assert row["error_class"] == "UnstableFile"
    assert "other content" in row["reason"]
    assert "register it again" in row["cure"]
    assert {r.state for r in results_of(run, "masks", video_ids[:1], settings, pool)} == {"blocked"}
    video.write_bytes(whole)
    assert run_all(settings, video_ids[:1], pool) | {pipeline.MANIFEST: Counter({"done": 1})} == everywhere("computed", clips=2) | {
        pipeline.MANIFEST: Counter({"done": 1})
    }
    assert not failures_of(run)


def test_a_bad_sidecar_fails_the_clips_of_its_video_alone_with_the_file_at_fault(settings: Settings, video: Path, pool: InlinePool) -> None:
    sidecar_path(video).write_text("{ not json")
    neighbour = video.with_name("neighbour.mp4")
    media.make(neighbour, 20, size=(160, 120))
    video_ids = register(settings, video, neighbour)
    states = run_all(settings, video_ids, pool)
    assert states["detections"] == {"failed": 2, "computed": 1}
    assert states["mapping"] == {"blocked": 2, "computed": 1}
    run = pipeline.open_run(settings)
    [path, _] = sorted(run.video_folder(video_ids[0]).glob("clip_id=*/detections.failure.parquet"))
    [row] = lake.read_table(path, "failures").to_pylist()
    assert row["error_class"] == "BadSidecar"
    assert "egoworld.json" in row["reason"]
    assert run_all(settings, video_ids, pool)["detections"] == {"failed": 2, "done": 1}


def test_a_rejected_video_is_a_row_with_a_reason_and_its_neighbours_finish(settings: Settings, video: Path, pool: InlinePool) -> None:
    text = video.with_name("text.mp4")
    text.write_text("this is not a video\n" * 50)
    video_ids = register(settings, text, video)
    states = run_all(settings, video_ids, pool)
    assert states["mapping"] == {"computed": 2}
    run = pipeline.open_run(settings)
    [row] = lake.read_table(run.video_table("videos", video_ids[0]), "videos").to_pylist()
    assert (row["status"], row["error_class"]) == ("rejected", "NotAVideo")
    assert row["reason"]
    assert row["cure"]


def test_a_damaged_output_is_made_again(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    run = pipeline.open_run(settings)
    damaged = next(run.video_folder(video_ids[0]).glob("clip_id=*/masks.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    states = run_all(settings, video_ids, pool)
    assert states["masks"] == {"computed": 1, "done": 1}
    assert states["object_pose"] == {"done": 2}


def test_what_is_not_registered_or_not_known_says_what_to_do(settings: Settings, video: Path, pool: InlinePool) -> None:
    run = pipeline.open_run(settings)
    with pytest.raises(SetupError, match="egoworld register"):
        list(pipeline.manifest_results(run, ["nobody-0123456789ab"], settings))
    video_ids = register(settings, video)
    with pytest.raises(SetupError, match="manifest"):
        list(pipeline.stage_results(run, "masks", video_ids, settings, pool))
    strict = Settings(**(settings.model_dump() | {"camera": {"require_known": True}}))
    with pytest.raises(BadSettings, match="require_known"):
        run_all(strict, video_ids, pool)


def test_a_moved_video_keeps_its_results(settings: Settings, video: Path, pool: InlinePool) -> None:
    video_ids = register(settings, video)
    run_all(settings, video_ids, pool)
    moved = video.with_name("moved.mp4")
    shutil.move(video, moved)
    assert register(settings, moved) == video_ids
    assert registry.registered(Lake(settings.lake))[video_ids[0]].path == moved
    states = run_all(settings, video_ids, pool)
    assert states.pop(pipeline.MANIFEST) == {"computed": 1}
    assert all(found == {"done": 2} for found in states.values())
