"""A backfill whose broker, workers and run are killed meanwhile ends as an undisturbed one; a terminated run releases the pool."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import dagster as dg

from egoworld_ops.errors import PoolLost
from egoworld_ops.settings import PoolSettings, load_settings
from gpu_workers import client
from gpu_workers.inline import InlinePool
from tests import brokers
from tests.brokers import is_alive
from tests.e2e import chaos
from tests.e2e.conftest import command, instance
from tests.e2e.stack import Deployment, Stack
from tests.egoworld_ops import media

SEED = int(os.environ.get("CHAOS_SEED", "20261125"))
KILLS: dict[chaos.Kind, int] = {"broker": 1, "worker": 2, "run": 1}
"""Few of each, in the first two thirds of the work so that there is time for all; `make chaos-stack` does many, over nearly all of it."""


def pool_of(where: Deployment) -> PoolSettings:
    return PoolSettings(folder=Path(where.environment["EGOWORLD_POOL__FOLDER"]), start=True)


def register(where: Deployment, folder: Path) -> list[str]:
    done = command(where, "egoworld", "register", str(folder))
    assert done.returncode == 0, done.stderr
    return sorted(line.split()[1] for line in done.stdout.splitlines())


def test_a_backfill_goes_on_through_kills_and_ends_as_if_undisturbed(stack: Stack, tmp_path: Path, synthetic_example: Path) -> None:
    clips = chaos.make_videos(tmp_path / "raw", synthetic_example, copies=1, scenes=6, objects=False)
    video_ids = register(stack.where, tmp_path / "raw")
    results = clips * (len(chaos.STAGES) - 1)
    folders = [stack.where.lake / "latest" / f"video_id={v}" for v in video_ids]
    disturber = chaos.Disturber(SEED, chaos.plan(SEED, KILLS, 2 * clips * chaos.LASTING // 3), pool_of(stack.where), folders)

    backfill_id = stack.backfill(chaos.STAGES, video_ids)
    disturber.start()
    quiet = load_settings("laptop").model_copy(update={"lake": tmp_path / "quiet", "raw": tmp_path / "raw"})
    wanted = chaos.undisturbed(quiet, tmp_path / "raw", InlinePool(1))

    def ended() -> list[str] | None:
        with instance(stack.where) as dagster:
            runs = [r.status.value for r in dagster.get_runs() if r.tags.get("dagster/backfill") == backfill_id]
        return sorted(runs) if "SUCCESS" in runs or len(runs) > KILLS["run"] + 1 else None

    ends = stack.wait_for("the backfill's runs to end", ended, 300)
    killed = disturber.end()

    assert ends == ["FAILURE", "SUCCESS"], "the run that was killed, and its retry"
    assert video_ids == sorted(wanted)
    assert sum(chaos.check_same(folder, wanted[v]) for v, folder in zip(video_ids, folders, strict=True)) == results + 3 * len(video_ids)
    assert sum(f.rows.num_rows for f in chaos.contents(wanted[video_ids[0]]).values()) > 400, "there is something to compare"
    assert not chaos.leftovers(stack.where.lake)
    assert not [pid for _, pid in killed if is_alive(pid)]
    with instance(stack.where) as dagster:
        assert all(set(video_ids) <= dagster.get_materialized_partitions(dg.AssetKey(stage)) for stage in chaos.STAGES)


def test_a_run_that_is_terminated_lets_the_pool_go_and_its_workers_stay_warm(stack: Stack, tmp_path: Path) -> None:
    """The clips are long: none of them ends by itself in the time this takes."""
    (tmp_path / "raw").mkdir()
    media.make(tmp_path / "raw" / "long.mp4", 6_000, size=(64, 48), options={"preset": "ultrafast"}, picture=media.scenes([], 7))
    [video_id] = register(stack.where, tmp_path / "raw")
    run_id = stack.launch(("manifest", "detections"), video_id)

    def asker() -> dict[str, Any] | None:
        said = _status(pool_of(stack.where))
        found = [c for c in said["clients"] if c["name"] == f"detections, run {run_id[:8]}"] if said else []
        busy = [t for w in said["workers"] for t in w["tasks"] if t["phase"] == "computing" and t["frames_done"] > 0] if said else []
        return found[0] if found and busy else None

    asks = stack.wait_for("the run to have clips in the pool", asker, 120)
    before = client.status(pool_of(stack.where))
    began = time.monotonic()
    stack.terminate(run_id)
    brokers.wait_until(lambda: _is_free(pool_of(stack.where), asks["client"]), "the pool to be free", 15)
    took_s = time.monotonic() - began

    after = client.status(pool_of(stack.where))
    assert {w["pid"] for w in before["workers"]} <= {w["pid"] for w in after["workers"]}, "workers stay warm"
    assert after["counts"].get("worker deaths", 0) == before["counts"].get("worker deaths", 0)
    assert after["counts"]["cancelled"] > before["counts"].get("cancelled", 0)
    assert took_s < 10
    brokers.wait_until(lambda: not is_alive(asks["pid"]), "the run's process to end", 30)
    with instance(stack.where) as dagster:
        brokers.wait_until(lambda: dagster.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED, "the run to be canceled", 30)
    print(f"FIGURE clips of a terminated run abandoned after {took_s:.2f} s")


def _status(pool: PoolSettings) -> dict[str, Any] | None:
    try:
        return client.status(pool)
    except PoolLost:
        return None


def _is_free(pool: PoolSettings, client_name: str) -> bool:
    said = client.status(pool)
    return said["in_flight"] == 0 and client_name not in {c["client"] for c in said["clients"]}
