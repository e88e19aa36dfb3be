"""A webserver and a daemon at work: a backfill launched over GraphQL, and the sensor from a dropped file to finished outputs."""

from pathlib import Path

import dagster as dg
import duckdb

from egoworld_ops import operators
from tests.e2e.conftest import command, instance
from tests.e2e.stack import Deployment, Stack
from tests.egoworld_ops import media

STAGES = ("manifest", *operators.stages())
START_SENSOR = (
    """mutation ($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) { __typename ... on PythonError { message } } }"""
)
SENSOR = {"repositoryLocationName": "egoworld", "repositoryName": "__repository__", "sensorName": "new_raw_videos"}


def test_a_backfill_processes_every_video_but_the_corrupt_one(stack: Stack, tmp_path: Path) -> None:
    media.make(tmp_path / "short.mp4", 20, picture=media.scenes([]))
    media.make(tmp_path / "two scenes.mp4", 40, picture=media.scenes([20]))
    (tmp_path / "corrupt.mp4").write_bytes((tmp_path / "short.mp4").read_bytes()[:700])
    registered = command(stack.where, "egoworld", "register", str(tmp_path))
    assert registered.returncode == 0, registered.stderr
    corrupt, short, two = sorted(line.split()[1] for line in registered.stdout.splitlines())

    backfill_id = stack.backfill(STAGES, [corrupt, short, two])
    assert stack.wait_for_backfill(backfill_id, 420) == "COMPLETED_SUCCESS", stack.tails()
    with instance(stack.where) as dagster:
        runs = dagster.get_runs()
        assert len([r for r in runs if r.tags.get("dagster/backfill") == backfill_id]) == 1, "many videos go into one run"
        assert {v: _rows(dagster, "manifest", v) for v in (corrupt, short, two)} == {corrupt: 0, short: 1, two: 2}
        assert {v: _passed(dagster, "manifest_complete", v) for v in (corrupt, short, two)} == {corrupt: False, short: True, two: True}
        assert all(_passed(dagster, f"{stage}_contract", v) for stage in STAGES for v in (corrupt, short, two))
    query = "SELECT video_id, reason IS NOT NULL, cure IS NOT NULL FROM videos WHERE status = 'rejected'"
    assert _ask(stack.where, query) == [(corrupt, True, True)]
    query = "SELECT video_id, count(*) FROM clips WHERE video_id IN (?, ?, ?) GROUP BY ALL ORDER BY 2"
    assert _ask(stack.where, query, corrupt, short, two) == [(short, 1), (two, 2)]


def test_the_sensor_takes_a_dropped_file_to_finished_outputs(stack: Stack) -> None:
    started = stack.graphql(START_SENSOR, sensor=SENSOR)["startSensor"]
    assert started["__typename"] == "Sensor", started
    media.make(stack.where.raw / "dropped.mp4", 24, picture=media.scenes([]))
    (stack.where.raw / "notes.mp4").write_text("not a video")

    def outcome() -> dict[str, str] | None:
        with instance(stack.where) as dagster:
            runs = [r for r in dagster.get_runs() if r.tags.get("dagster/sensor_name") == "new_raw_videos"]
            ended = {r.tags["dagster/partition"]: r.status.value for r in runs if r.is_finished}
        return ended if len(ended) == 2 else None

    ended = stack.wait_for("the sensor's runs to end", outcome, 420)

    [dropped], [notes] = ([v for v in ended if v.startswith(name)] for name in ("dropped-", "notes-"))
    assert ended == {dropped: "SUCCESS", notes: "SUCCESS"}, stack.tails()
    with instance(stack.where) as dagster:
        assert all(dropped in dagster.get_materialized_partitions(dg.AssetKey(stage)) for stage in STAGES)
        assert _passed(dagster, "manifest_complete", dropped)
        assert not _passed(dagster, "manifest_complete", notes), "what a video is fails no run; its check says it"
        said = _said(dagster, "manifest_complete", notes)
    [(reason, cure)] = _ask(stack.where, "SELECT reason, cure FROM runs.videos WHERE video_id = ?", notes)
    assert "notes.mp4" in said
    assert reason in said
    assert cure in said
    assert _ask(stack.where, "SELECT status FROM intake WHERE video_id = ?", dropped) == [("registered",)]


def _rows(dagster: dg.DagsterInstance, stage: str, video_id: str) -> object:
    of_video = dg.AssetRecordsFilter(asset_key=dg.AssetKey(stage), asset_partitions=[video_id])
    [record] = dagster.fetch_materializations(of_video, limit=1).records
    return record.asset_materialization.metadata["dagster/row_count"].value


def _passed(dagster: dg.DagsterInstance, check: str, video_id: str) -> bool:
    return bool(_evaluation(dagster, check, video_id).passed)


def _said(dagster: dg.DagsterInstance, check: str, video_id: str) -> str:
    return str(_evaluation(dagster, check, video_id).description)


def _evaluation(dagster: dg.DagsterInstance, check: str, video_id: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey(check.rsplit("_", 1)[0]), check)
    [found] = [r for r in dagster.event_log_storage.get_asset_check_execution_history(key, limit=100) if r.partition == video_id]
    assert found.evaluation
    return found.evaluation


def _ask(where: Deployment, query: str, *values: str) -> list[tuple]:
    with duckdb.connect(str(where.lake / "egoworld.duckdb"), read_only=True) as database:
        return database.execute(query, list(values)).fetchall()
