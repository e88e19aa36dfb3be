"""A backfill whose broker, workers and run are killed under way ends as if nothing had happened; a run that is terminated lets the pool go."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import dagster as dg

from egoworld_ops.errors import PoolLost
from egoworld_ops.settings import PoolSettings, load_settings
from gpu_workers import client
from tests import brokers
from tests.brokers import is_alive
from tests.e2e import chaos
from tests.e2e.conftest import command, instance
from tests.e2e.stack import Deployment, Stack
from tests.egoworld_ops import media

SEED = int(os.environ.get("EGOWORLD_CHAOS_SEED", "20261125"))
KILLS: dict[chaos.Kind, int] = {"broker": 2, "worker": 4, "run": 1}


def pool_of(where: Deployment) -> PoolSettings:
    return PoolSettings(folder=Path(where.environment["EGOWORLD_POOL__FOLDER"]), start=True)


def register(where: Deployment, folder: Path) -> list[str]:
    done = command(where, "egoworld", "register", str(folder))
    assert done.returncode == 0, done.stderr
    return sorted(line.split()[1] for line in done.stdout.splitlines())


def test_a_backfill_goes_on_through_kills_and_ends_as_if_undisturbed(stack: Stack, tmp_path: Path, synthetic_example: Path) -> None:
    clips = chaos.make_videos(tmp_path / "raw", synthetic_example, copies=1, scenes=6, objects=False)
    quiet = {"lake": tmp_path / "quiet", "raw": tmp_path / "raw", "pool": pool_of(stack.where)}
    wanted = chaos.undisturbed(load_settings("laptop").model_copy(update=quiet), tmp_path / "raw")
    video_ids = register(stack.where, tmp_path / "raw")
    assert video_ids == sorted(wanted)
    results = clips * (len(chaos.STAGES) - 1)
    folders = [stack.where.lake / "latest" / f"video_id={v}" for v in video_ids]
    disturber = chaos.Disturber(SEED, chaos.plan(SEED, KILLS, results), pool_of(stack.where), folders)

    backfill_id = stack.backfill(chaos.STAGES, video_ids)
    disturber.start()
    assert stack.wait_for_backfill(backfill_id, 300) == "COMPLETED_SUCCESS", stack.tails()
    killed = disturber.end()

    assert sum(chaos.check_same(folder, wanted[v]) for v, folder in zip(video_ids, folders, strict=True)) == results + 2 * len(video_ids)
    assert sum(f.rows.num_rows for f in chaos.contents(wanted[video_ids[0]]).values()) > 400, "there is something to compare"
    assert not chaos.leftovers(stack.where.lake)
    assert not [pid for _, pid in killed if is_alive(pid)]
    with instance(stack.where) as dagster:
        runs = [r for r in dagster.get_runs() if r.tags.get("dagster/backfill") == backfill_id]
        assert sorted(r.status.value for r in runs) == ["FAILURE", "SUCCESS"], "the run that was killed, and its retry"
        assert all(set(video_ids) <= dagster.get_materialized_partitions(dg.AssetKey(stage)) for stage in chaos.STAGES)


def test_a_run_that_is_terminated_lets_the_pool_go_and_its_workers_stay_warm(stack: Stack, tmp_path: Path) -> None:
    """The clips are long: none of them ends by itself in the time this takes."""
    (tmp_path / "raw").mkdir()
    media.make(tmp_path / "raw" / "long.mp4", 6_000, size=(64, 48), options={"preset": "ultrafast"}, picture=media.scenes([], 7))
    video_ids = register(stack.where, tmp_path / "raw")
    assert stack.backfill(("manifest", "detections"), video_ids)

    def asker() -> dict[str, Any] | None:
        said = _status(pool_of(stack.where))
        found = [c for c in said["clients"] if c["name"].startswith("detections, run ")] if said else []
        busy = [t for w in said["workers"] for t in w["tasks"] if t["phase"] == "computing" and t["frames_done"] > 0] if said else []
        return found[0] if found and busy else None

    asks = stack.wait_for("the run to have clips in the pool", asker, 120)
    before = client.status(pool_of(stack.where))
    with instance(stack.where) as dagster:
        [run] = [r for r in dagster.get_runs() if r.run_id.startswith(asks["name"].rsplit(" ", 1)[1])]
    began = time.monotonic()
    stack.terminate(run.run_id)
    brokers.wait_until(lambda: _is_free(pool_of(stack.where), asks["client"]), "the pool to be free", 15)
    took_s = time.monotonic() - began

    after = client.status(pool_of(stack.where))
    assert {w["pid"] for w in before["workers"]} <= {w["pid"] for w in after["workers"]}, "workers stay warm"
    assert after["counts"].get("worker deaths", 0) == before["counts"].get("worker deaths", 0)
    assert after["counts"]["cancelled"] > before["counts"].get("cancelled", 0)
    assert took_s < 10
    brokers.wait_until(lambda: not is_alive(asks["pid"]), "the run's process to end", 30)
    with instance(stack.where) as dagster:
        brokers.wait_until(lambda: dagster.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED, "the run to be canceled", 30)
    print(f"FIGURE clips of a terminated run abandoned after {took_s:.2f} s")


def _status(pool: PoolSettings) -> dict[str, Any] | None:
    try:
        return client.status(pool)
    except PoolLost:
        return None


def _is_free(pool: PoolSettings, client_name: str) -> bool:
    said = client.status(pool)
    return said["in_flight"] == 0 and client_name not in {c["client"] for c in said["clients"]}
