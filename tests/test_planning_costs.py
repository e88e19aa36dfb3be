"""Files that planning opens and reads, counted: each one once, however many clips and runs there are."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from egoworld_assets.chain import pipeline, settling
from egoworld_assets.chain.planning import Planner
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops import sources
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw.intake import registered
from egoworld_ops.settings import Settings
from egoworld_ops.video.sidecar import sidecar_path
from gpu_workers import client
from tests import finished
from tests.opens import opened

N_CLIPS = 25


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return finished.settings_in(tmp_path)


@pytest.fixture
def video(settings: Settings) -> tuple[Run, str]:
    return finished.registered_video(settings, n_frames=600)


def raw(settings: Settings) -> Path:
    return settings.raw / "v.mp4"


def plan(planner: Planner, video_id: str) -> Counter[str]:
    return Counter(p.state if isinstance(p, StageResult) else "task" for p in planner.plan(video_id))


def test_a_raw_file_that_was_touched_is_read_once_for_all_its_clips_and_never_again(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    os.utime(raw(settings), ns=(1, 1))
    with opened() as opens:
        assert plan(Planner(run, "detections", settings), video_id) == {"task": N_CLIPS}
    assert opens[str(raw(settings))] == 1
    with opened() as opens:
        assert plan(Planner(run, "detections", settings), video_id) == {"task": N_CLIPS}
    assert opens[str(raw(settings))] == 0
    assert registered(run.lake)[video_id].mtime_ns == 1


def test_a_raw_file_with_other_content_is_read_once_and_leaves_the_registry_as_it_is(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    before = registered(run.lake)
    raw(settings).write_bytes(b"something else")
    with opened() as opens:
        assert plan(Planner(run, "detections", settings), video_id) == {"failed": N_CLIPS}
    assert opens[str(raw(settings))] == 1
    assert registered(run.lake) == before


def test_a_mesh_is_read_once_as_long_as_it_stays_as_it_is(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    mesh = settings.raw / "cup.obj"
    mesh.write_bytes(b"v 0 0 0\n" * 1000)
    sidecar_path(raw(settings)).write_text(json.dumps({"objects": [{"label": "cup", "mesh": mesh.name}]}))
    with opened() as opens:
        first = [task.key for task in Planner(run, "detections", settings).plan(video_id) if isinstance(task, ClipTask)]
        again = [task.key for task in Planner(run, "detections", settings).plan(video_id) if isinstance(task, ClipTask)]
    assert len(first) == N_CLIPS
    assert first == again
    assert opens[str(mesh)] == 1
    mesh.write_bytes(b"v 0 0 1\n" * 1000)
    changed = [task.key for task in Planner(run, "detections", settings).plan(video_id) if isinstance(task, ClipTask)]
    assert not set(changed) & set(first)


def test_no_source_is_parsed_anew_for_each_clip(settings: Settings, video: tuple[Run, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The versions in a clip's digest are read from the code once per process."""
    run, video_id = video
    assert plan(Planner(run, "detections", settings), video_id) == {"task": N_CLIPS}
    parsed = Counter[str]()
    tree = sources.tree
    monkeypatch.setattr(sources, "tree", lambda module: parsed.update([module]) or tree(module))
    assert plan(Planner(run, "detections", settings), video_id) == {"task": N_CLIPS}
    assert not parsed


def test_the_runs_of_a_lake_are_read_once_a_plan_and_only_where_they_have_the_video(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    others = [run.lake.open_run({"other": n}, f"20260101_000{n}", dict) for n in range(5)]
    others[0].video_folder(video_id).mkdir()
    with opened() as opens:
        assert plan(Planner(run, "detections", settings), video_id) == {"task": N_CLIPS}
    assert {opens[str(other.path / "run.json")] for other in (run, *others)} == {1}
    asked = [other.run_id for other in others if any(path.startswith(str(other.path / "video_id")) for path in opens)]
    assert asked == [others[0].run_id]


def test_clip_by_clip_the_manifest_and_the_sidecar_are_read_once(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    sidecar = sidecar_path(raw(settings))
    sidecar.write_text("{}")
    planner = Planner(run, "detections", settings)
    clip_ids = [task.clip.clip_id for task in planner.plan(video_id) if isinstance(task, ClipTask)]
    with opened() as opens:
        again = [task for clip_id in clip_ids for task in planner.plan(video_id, clip_id)]
    assert len(again) == N_CLIPS
    assert {opens[str(run.video_table(name, video_id))] for name in ("videos", "clips")} == {0}
    assert opens[str(sidecar)] == 0


def test_a_finished_clip_costs_one_footer_of_each_table_and_a_recalled_video_none(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    finished.go(run, video_id, settings)
    (run.video_folder(video_id) / "memo.json").unlink()
    with opened() as opens:
        assert plan(Planner(run, "movement", settings), video_id) == {"done": N_CLIPS}
    tables = {path: n for path, n in opens.items() if "clip_id=" in path and path.endswith(".parquet")}
    assert set(tables.values()) == {1}
    assert {Path(path).stem for path in tables} == {"movement", "camera", "masks", "object_pose", "depth", "hand_pose", "detections"}
    finished.go(run, video_id, settings)
    with opened() as opens:
        assert plan(Planner(run, "movement", settings), video_id) == {"done": N_CLIPS}
    assert not [path for path in opens if path.endswith(".parquet") and "video_id=" in path]


def test_the_first_clip_is_submitted_when_one_is_planned(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    planned = 0

    class Counted(Planner):
        def plan(self, video_id: str, clip_id: str | None = None) -> Iterator[StageResult | ClipTask]:
            nonlocal planned
            for one in super().plan(video_id, clip_id):
                planned += 1
                yield one

    class Watching(finished.RowsPool):
        def __init__(self) -> None:
            super().__init__()
            self.planned_then: list[int] = []

        def run(self, tasks):  # type: ignore[no-untyped-def]
            for task in tasks:
                self.planned_then.append(planned)
                yield from super().run([task])

    pool, planner = Watching(), Counted(run, "detections", settings)
    assert len(list(settling.settle(planner, [planner.plan(video_id)], pool, (), None))) == N_CLIPS
    assert pool.planned_then[:4] == [1, 3, 3, 7]
    assert max(ahead - n for n, ahead in enumerate(pool.planned_then)) <= settling._MOST_AT_ONCE


def test_a_client_submits_the_first_order_before_it_has_taken_all_that_it_takes_ahead() -> None:
    taken = 0

    def orders() -> Iterator[client.Order]:
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield client.Order(_Submitted(float(n)), b"")  # type: ignore[arg-type]

    ahead = client._Plan(orders())
    assert ahead.fill()
    assert taken == 1
    for _ in range(12):
        ahead.fill()
    assert taken == client.LOOKAHEAD
    assert [ahead.pop().submit.est_s for _ in range(3)] == [255.0, 254.0, 253.0]  # type: ignore[union-attr]


class _Submitted:
    def __init__(self, est_s: float) -> None:
        self.est_s = est_s


def test_under_fallback_the_manifest_is_read_once_a_backend(settings: Settings, video: tuple[Run, str]) -> None:
    run, video_id = video
    finished.go(run, video_id, settings, last="detections")
    stages = settings.model_dump()["stages"]
    stages["masks"] = {"backend": "sam2", "fallback": "classical", "sam2": {"random_weights_seed": 1, "device": "cpu"}}
    chosen = Settings(**(settings.model_dump() | {"stages": stages}))

    class Failing(finished.RowsPool):
        def run(self, tasks):  # type: ignore[no-untyped-def]
            from egoworld_ops.errors import OperatorCrash
            from gpu_workers.pool import Failed

            for task in tasks:
                if task.backend == "sam2":
                    yield Failed(task, OperatorCrash("clip", "bad", "Report it"), "", 0.1)
                else:
                    yield from super().run([task])

    with opened() as opens:
        results = list(pipeline.stage_results(run, "masks", [video_id], chosen, Failing()))
    assert Counter(r.state for r in results) == {"computed": N_CLIPS}
    assert opens[str(run.video_table("clips", video_id))] <= 4, "once a planner, and a footer where it is counted"


def test_pictures_of_depth_are_looked_at_once_for_all_clips_and_a_changed_one_is_seen(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, video_id = finished.registered_video(settings, n_frames=120)
    folder = settings.raw / "depth"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.png").write_bytes(b"a picture of depth")
    sidecar_path(raw(settings)).write_text(json.dumps({"depth": {"folder": "depth"}}))
    finished.go(run, video_id, settings, last="hand_pose")
    finished.go(run, video_id, settings, "masks", "masks")
    seen: Counter[str] = Counter()
    whole = Path.stat

    def counted(path: Path, *args: Any, **kwargs: Any) -> os.stat_result:
        seen[path.name] += path.parent == folder
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(Path, "stat", counted)
    planner = Planner(run, "depth", settings)
    keys = [{p.clip.clip_id: p.key for p in planner.plan(video_id) if isinstance(p, ClipTask)} for _ in range(2)]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 5
    assert {seen[f"{i}.png"] for i in range(10)} == {2}
    (folder / "3.png").write_bytes(b"another picture")
    changed = {p.clip.clip_id: p.key for p in planner.plan(video_id) if isinstance(p, ClipTask)}
    assert not set(changed.values()) & set(keys[0].values())
