"""A backfill with another profile is cancelled half-way and re-executed as the UI does: the profile stays, and every clip is done once."""

import json
from pathlib import Path

import pytest

from egoworld_assets.chain import configuration
from egoworld_assets.resources import PROFILE_TAG
from egoworld_ops.files.tables import provenance_at
from egoworld_ops.lake.lake import Lake
from egoworld_ops.settings import load_settings
from tests.conftest import ROOT
from tests.e2e.conftest import command, deployment, instance
from tests.e2e.stack import LOCATION, Deployment, Stack
from tests.egoworld_ops import media

LAUNCH = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
AGAIN = """mutation ($id: String!, $how: ReexecutionStrategy!) {
  reexecutePartitionBackfill(reexecutionParams: {parentRunId: $id, strategy: $how}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
FROM_THE_PAGE_OF_THE_RUN = """mutation ($id: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STAGES = ("manifest", "detections")
OF_ASSETS = {"assetSelection": [{"path": [s]} for s in STAGES]}
OF_JOB = {"selector": {"partitionSetName": "process_videos_partition_set", "repositorySelector": LOCATION}}
SELECTION = {"assetSelection": [{"path": [s]} for s in STAGES]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A stack of its own, whose steps take one clip after the other."""
    stack = Stack(deployment(tmp_path_factory.mktemp("resume")))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.mark.parametrize("target", [OF_ASSETS, OF_JOB | SELECTION], ids=["assets", "job"])
def test_a_cancelled_backfill_goes_on_with_its_profile(running: Stack, tmp_path: Path, target: dict[str, object]) -> None:
    where, first = running.where, 100 if "selector" in target else 10
    profile = tmp_path / "every second.toml"
    profile.write_text(
        f"sample_stride = {2 if first == 10 else 3}\n" + (ROOT / "egoworld_ops" / "profiles" / "laptop.toml").read_text("utf-8")
    )
    paths = [media.make(tmp_path / f"v{n}.mp4", 120, picture=media.scenes([30, 60, 90], first=first * (n + 1))) for n in range(3)]
    registered = command(where, "egoworld", "register", *map(str, paths))
    assert registered.returncode == 0, registered.stderr
    videos = [line.split()[1] for line in registered.stdout.splitlines() if line.startswith("registered")]
    tags = [{"key": PROFILE_TAG, "value": str(profile)}]

    launched = running.graphql(LAUNCH, params=target | {"partitionNames": videos, "tags": tags})["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill_id = launched["backfillId"]
    running.wait_for("a clip to be done", lambda: _done(where.lake, videos) or None, 180)
    with instance(where) as dagster:
        [run] = [r for r in dagster.get_runs() if r.tags.get("dagster/backfill") == backfill_id]
    running.terminate(run.run_id)
    assert running.wait_for_backfill(backfill_id, 180) in ("COMPLETED_FAILED", "CANCELED", "FAILED", "COMPLETED")
    before = {path: path.stat().st_mtime_ns for path in _done(where.lake, videos)}

    if target is not OF_ASSETS:  # the backfill of a job is re-executed from failure by the page of its run alone
        one = running.graphql(FROM_THE_PAGE_OF_THE_RUN, id=run.run_id)["launchRunReexecution"]
        assert one["__typename"] == "LaunchRunSuccess", one
        assert running.wait_for("the run to end", lambda: _ended(where, one["run"]["runId"]), 420) == "SUCCESS", running.tails()
        assert len(_done(where.lake, videos)) == 12

    how = "FROM_FAILURE" if target is OF_ASSETS else "ALL_STEPS"
    again = running.graphql(AGAIN, id=backfill_id, how=how)["reexecutePartitionBackfill"]
    assert again["__typename"] == "LaunchBackfillSuccess", again
    assert running.wait_for_backfill(again["backfillId"], 420) == "COMPLETED_SUCCESS", running.tails()

    settings = load_settings(profile).model_copy(update={"lake": where.lake})
    meant = Lake(where.lake).find_run(json.loads(json.dumps(configuration.frozen_configuration(settings))), None)
    assert meant is not None
    tables = _done(where.lake, videos)
    assert len(tables) == 12
    assert {path.parents[2] for path in tables} == {meant.path}, "no run of the default profile was opened"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "nothing is computed twice"
    assert all((provenance_at(path) or {})["identity"]["sample_stride"] == settings.sample_stride for path in tables)


def _ended(where: Deployment, run_id: str) -> str | None:
    with instance(where) as dagster:
        run = dagster.get_run_by_id(run_id)
        return str(run.status.value) if run and run.is_finished else None


def _done(lake: Path, videos: list[str]) -> list[Path]:
    return sorted(path for v in videos for path in lake.glob(f"run_id=*/video_id={v}/clip_id=*/detections.parquet"))
