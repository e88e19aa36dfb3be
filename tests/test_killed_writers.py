"""A writer that is killed before any of its steps on the disk: table `states` says `done` only where the files do, and the next run repairs it."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from egoworld_assets.chain import pipeline
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, InputChanged, OperatorCrash
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import digest_at, make_provenance, read_result, read_table, write_table
from egoworld_ops.lake import counted, states
from egoworld_ops.lake.lake import Run
from egoworld_ops.settings import Settings
from egoworld_ops.video.sidecar import sidecar_path
from gpu_workers.pool import Done, Failed
from tests import finished

CAMERA = {"camera": {"fx": 500, "fy": 500, "cx": 320, "cy": 240, "width": 640, "height": 480}}


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """A disk on which a limited number of changes of names succeed."""

    def __init__(self, patch: pytest.MonkeyPatch, left: int) -> None:
        self.killed, self._left = False, left
        for name in ("replace", "unlink"):
            patch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **named: Any) -> Any:
            if self._left == 0:
                self.killed = True
                raise Killed
            self._left -= 1
            return call(*arguments, **named)

        return instead


class Failing(finished.RowsPool):
    """Everything that is asked of it fails."""

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        return (Failed(task, OperatorCrash("clip", "bad", "Report it"), "", 0.1) for task in tasks)


def chain(run: Run, video_id: str, settings: Settings, pool: finished.RowsPool) -> None:
    for _ in pipeline.process(run, [video_id], settings, pool, pipeline.Part(first="detections")):
        pass


def cut_anew(run: Run, video_id: str, seed: int) -> None:
    """Another manifest of the same video, as its stage would store it."""
    rows = {name: read_result(run.video_table(name, video_id), name)[0] for name in ("clips", "videos")}
    stamp = make_provenance(f"{seed}" * 64, {}, rows["clips"].num_rows, 0.1, run.run_id)
    pipeline.store(run, "manifest", StageResult(video_id, None, "computed", tables=rows, provenance=stamp, digest=stamp["digest"]))
    counted.count(run, video_id)


def over_counted(run: Run, video_id: str) -> list[tuple[str, str]]:
    """The clips that are done in the table but not for the reader."""
    rows = read_table(run.video_table("states", video_id), "states").to_pylist()
    try:
        video = states.video_state(run, video_id)
    except ContractError:
        return [(row["clip_id"], row["stage"]) for row in rows if row["state"] == "done"]
    assert video is not None
    true = {(clip.clip_id, stage): state for clip in video.clips for stage, state in clip.stages.items()} | {
        ("", "manifest"): video.manifest
    }
    return [key for row in rows if row["state"] == "done" and row["digest"] != true[key := (row["clip_id"], row["stage"])].counts]


def prepared(tmp_path: Path, name: str) -> tuple[Settings, Run, str]:
    """A finished video of one clip with a new sidecar, so that three stages must be recomputed."""
    (tmp_path / name).mkdir()
    settings = finished.settings_in(tmp_path / name)
    run, video_id = finished.registered_video(settings, n_frames=20)
    chain(run, video_id, settings, finished.RowsPool())
    sidecar_path(settings.raw / "v.mp4").write_text(json.dumps(CAMERA))
    if name.startswith("failed"):
        chain(run, video_id, settings, Failing())
    return settings, run, video_id


WORK: dict[str, Callable[[Run, str, Settings], None]] = {
    "replaced": lambda run, video_id, settings: chain(run, video_id, settings, finished.RowsPool()),
    "failed, then made": lambda run, video_id, settings: chain(run, video_id, settings, finished.RowsPool()),
    "made, then failed": lambda run, video_id, settings: chain(run, video_id, settings, Failing()),
    "cut anew": lambda run, video_id, settings: cut_anew(run, video_id, 1),
}


@pytest.mark.parametrize("what", WORK)
def test_a_writer_that_is_killed_leaves_nothing_counted_that_does_not_count(tmp_path: Path, what: str) -> None:
    for step in range(0, 200, 5 if "then made" in what or what == "replaced" else 2):
        settings, run, video_id = prepared(tmp_path, f"{what}-{step}")
        if what.startswith("failed"):
            for path in run.path.glob("video_id=*/*/*.failure.parquet"):  # a person redrove it
                [row] = read_result(path, "failures")[0].to_pylist()
                write_table(
                    path, "failures", schema.from_rows("failures", [row | {"dead_letter": False}]), read_result(path, "failures")[1]
                )
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, step)
            try:
                WORK[what](run, video_id, settings)
            except Killed:
                assert disk.killed
        assert over_counted(run, video_id) == [], f"{what}, killed before step {step}"
        if what == "cut anew":
            cut_anew(run, video_id, 2)
        chain(run, video_id, settings, finished.RowsPool() if what != "made, then failed" else Failing())
        rows = counted.rows_of(run, video_id)
        counted.count(run, video_id)
        assert counted.rows_of(run, video_id) == rows, f"{what}, killed before step {step}: the next run did not mend it"
        if not disk.killed:
            break
    assert not disk.killed
    assert step > 2, "there were steps to be killed before"


def test_a_failure_stays_until_the_table_that_takes_its_place_is_written(tmp_path: Path) -> None:
    """Killed in between, the table from before the failure would count."""
    _, run, video_id = prepared(tmp_path, "failed")
    [clip] = states.video_state(run, video_id).clips  # type: ignore[union-attr]
    failure, table = (where("hand_pose", video_id, clip.clip_id) for where in (run.failure, run.clip_table))
    old = digest_at(table)
    result = StageResult(
        video_id, clip.clip_id, "computed", 0, 0.1, {"hand_pose": schema.empty("hand_pose")}, {"digest": "new"}, digest="new"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_table", _killing)
        with pytest.raises(Killed):
            pipeline.store(run, "hand_pose", result)
    assert failure.exists()
    assert digest_at(table) == old
    assert states.clip_states(run, video_id, clip.clip_id)["hand_pose"].state == "failed"


def test_of_a_manifest_clips_is_written_before_videos(tmp_path: Path) -> None:
    """`videos` completes a manifest: a writer killed before it leaves no manifest, and never the clips of another one."""
    settings, run, video_id = prepared(tmp_path, "manifest")
    written: list[str] = []

    def write(path: Path, name: str, *arguments: Any, **named: Any) -> None:
        if written:
            raise Killed
        written.append(name)
        write_table(path, name, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "write_table", write)
        with pytest.raises(Killed):
            cut_anew(run, video_id, 3)
    assert written == ["clips"]
    with pytest.raises(ContractError, match="another manifest"):
        states.video_state(run, video_id)
    [result] = finished.go(run, video_id, settings, first="masks", last="masks")[1]
    assert isinstance(result.error, ContractError)


@pytest.mark.parametrize("how", ["replaced", "failed"])
def test_a_result_is_not_taken_where_an_input_changed_meanwhile(tmp_path: Path, how: str) -> None:
    settings = finished.settings_in(tmp_path)
    run, video_id = finished.registered_video(settings, n_frames=20)
    finished.go(run, video_id, settings, last="detections")

    class Changing(finished.RowsPool):
        def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
            for task in tasks:
                path = run.clip_table("detections", video_id, task.clip.clip_id)
                rows, origin = read_result(path, "detections")
                if how == "replaced":
                    write_table(path, "detections", rows, origin | {"digest": "another"})
                else:
                    path.unlink()
                yield from super().run([task])

    results = [r for _, r in pipeline.process(run, [video_id], settings, Changing(), pipeline.Part(first="masks", last="masks"))]
    assert [type(result.error) for result in results] == [InputChanged]
    assert not list(run.path.glob("video_id=*/*/masks.parquet"))
    assert not results[0].dead_letter


def _killing(*_: object, **__: object) -> None:
    raise Killed
