"""The sensor through several ticks, each result applied to a real instance as the daemon applies it."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from egoworld_assets.cli import processing
from egoworld_assets.resources import Egoworld
from egoworld_assets.sensors import new_raw_videos
from egoworld_ops.raw import register
from egoworld_ops.settings import load_settings
from tests.egoworld_ops import media


@dataclass
class Daemon:
    """Apply a sensor's result as the daemon does: partitions first, then a run for each run key that has none."""

    instance: dg.DagsterInstance
    home: Path
    cursor: str | None = None

    def tick(self, times: int = 1) -> list[str]:
        """Partitions that runs were launched for."""
        started: list[str] = []
        for _ in range(times):
            with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
                result = new_raw_videos(context, egoworld=Egoworld())
            assert isinstance(result, dg.SensorResult)
            assert (result.skip_reason is None) == bool(result.run_requests)  # a tick that launches nothing says why
            self.cursor = result.cursor
            for request in result.dynamic_partitions_requests or []:
                self.instance.add_dynamic_partitions(request.partitions_def_name, request.partition_keys)
            for run in result.run_requests or []:
                if not self.instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": str(run.run_key)})):
                    tags = {"dagster/run_key": str(run.run_key), "dagster/partition": str(run.partition_key)}
                    self.instance.add_run(dg.DagsterRun(job_name="process_videos", run_id=str(uuid.uuid4()), tags=tags))
                    started.append(str(run.partition_key))
        return started

    @property
    def partitions(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("video_id"))


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    home = tmp_path / "home"
    for folder in (home, tmp_path / "raw"):
        folder.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("EGOWORLD_RAW", str(tmp_path / "raw"))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Daemon(instance, home)


@pytest.fixture
def video(tmp_path: Path, daemon: Daemon) -> Path:
    return media.make(tmp_path / "raw" / "a.mp4", 5)


def test_a_new_file_is_launched_once(daemon: Daemon, video: Path) -> None:
    [video_id] = daemon.tick(4)
    assert daemon.partitions == [video_id]


def test_a_partition_that_was_deleted_stays_deleted(daemon: Daemon, video: Path) -> None:
    [video_id] = daemon.tick(2)
    daemon.instance.delete_dynamic_partition("video_id", video_id)
    assert daemon.tick(3) == []
    assert daemon.partitions == []
    video.rename(video.with_name("moved.mp4"))
    assert daemon.tick(3) == []
    assert daemon.partitions == []
    other = media.make(video.with_name("other.mp4"), 7)
    assert [v.startswith(other.stem) for v in daemon.tick(2)] == [True]


def test_a_new_lake_under_an_old_home_has_its_videos_processed(
    daemon: Daemon, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [video_id] = daemon.tick(2)
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "other"))
    assert daemon.tick(4) == [video_id]
    monkeypatch.setenv("EGOWORLD_LAKE", str(tmp_path / "lake"))
    assert daemon.tick(3) == []


def test_a_lake_that_was_moved_away_makes_place_for_a_new_one(daemon: Daemon, video: Path, tmp_path: Path) -> None:
    [video_id] = daemon.tick(2)
    (tmp_path / "lake").rename(tmp_path / "away")
    assert daemon.tick(4) == [video_id]
    assert daemon.tick(3) == []


def test_a_new_home_under_an_old_lake_gets_its_partitions(daemon: Daemon, video: Path, tmp_path: Path) -> None:
    [video_id] = daemon.tick(2)
    with dg.DagsterInstance.ephemeral() as instance:
        other = Daemon(instance, tmp_path)
        assert other.tick(3) == [video_id]
        assert other.partitions == [video_id]


def test_a_video_registered_before_a_crash_is_launched(daemon: Daemon, video: Path) -> None:
    [video_id] = register.register(load_settings().lake, [video]).video_ids
    assert daemon.tick(3) == [video_id]


def test_a_video_registered_by_hand_is_left_to_the_hand_and_stays_deleted(daemon: Daemon, video: Path) -> None:
    [video_id] = register.register(load_settings().lake, [video]).video_ids
    processing.add_partitions(load_settings(), [video_id])
    assert daemon.tick(3) == []
    assert daemon.partitions == [video_id]
    daemon.instance.delete_dynamic_partition("video_id", video_id)
    assert daemon.tick(3) == []
    assert daemon.partitions == []


def test_a_video_with_results_and_a_partition_is_not_launched_again(daemon: Daemon, video: Path, tmp_path: Path) -> None:
    """Partitions as in a deployment from before the sensor remembered what it offered."""
    [video_id] = register.register(load_settings().lake, [video]).video_ids
    daemon.instance.add_dynamic_partitions("video_id", [video_id])
    run = tmp_path / "lake" / "run_id=20260101_0000"
    (run / f"video_id={video_id}").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    assert daemon.tick(2) == []
    daemon.instance.delete_dynamic_partition("video_id", video_id)
    assert daemon.tick(2) == []
