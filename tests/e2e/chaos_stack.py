"""A backfill of 100 clips whose broker is killed 10 times, its workers 50 times and its run 5 times: the output is that of an undisturbed one.

    python -m tests.e2e.chaos_stack [--seed N] [--brokers N] [--workers N] [--runs N] [--copies N]

A real webserver and daemon with the repository's own dagster.yaml; the kills fall at random places in the work, which the seed gives again. Takes
some minutes. Ends with 1, and keeps the folder, where anything is lost, doubled, left behind or other than it should be.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from egoworld_ops import ledger
from egoworld_ops.lake.lake import Lake
from egoworld_ops.ledger import State
from egoworld_ops.settings import PoolSettings, load_settings
from gpu_workers.broker_pool import BrokerPool
from tests import brokers
from tests.conftest import ROOT
from tests.e2e import chaos
from tests.e2e.conftest import command, deployment, instance
from tests.e2e.stack import Deployment, Stack

SCENES = 12
WORKERS = 2
TIMEOUT_S = 7200.0


def main() -> int:
    wanted = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all started processes are ended
    root = Path(tempfile.mkdtemp(prefix="egoworld-chaos-"))
    print(f"seed {wanted.seed}, in {root}", flush=True)
    pool = PoolSettings(folder=root / "p", workers=WORKERS, idle_exit_s=120.0)
    try:
        _run(root, pool, wanted)
    except AssertionError as error:
        print(f"FAILED with seed {wanted.seed}: {error}\nThe folder is kept: {root}")
        return 1
    finally:
        brokers.stop(pool.folder)
    shutil.rmtree(root)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    for name, n in (("brokers", 10), ("workers", 50), ("runs", 5), ("copies", 9)):
        parser.add_argument(f"--{name}", type=int, default=n)
    return parser.parse_args()


def _run(root: Path, pool: PoolSettings, wanted: argparse.Namespace) -> None:
    clips = chaos.make_videos(root / "videos", ROOT / "examples" / "synthetic" / "kitchen.mp4", wanted.copies, SCENES, objects=True)
    results = clips * (len(chaos.STAGES) - 1)
    began = time.monotonic()
    quiet = {"lake": root / "quiet", "raw": root / "videos", "pool": pool}
    right = chaos.undisturbed(load_settings("laptop").model_copy(update=quiet), root / "videos", BrokerPool(pool, "undisturbed"))
    print(f"{clips} clips, {results} results; undisturbed and without Dagster {time.monotonic() - began:.0f} s", flush=True)

    where = deployment(root / "dagster", POOL__FOLDER=pool.folder, POOL__WORKERS=pool.workers, POOL__IDLE_EXIT_S=pool.idle_exit_s)
    kills: dict[chaos.Kind, int] = {"broker": wanted.brokers, "worker": wanted.workers, "run": wanted.runs}
    folders = [where.lake / "latest" / f"video_id={v}" for v in right]
    disturber = chaos.Disturber(wanted.seed, chaos.plan(wanted.seed, kills, clips * chaos.LASTING), pool, folders)
    stack = Stack(where)
    try:
        stack.start()
        done = command(where, "egoworld", "register", str(root / "videos"))
        assert done.returncode == 0, done.stderr
        began = time.monotonic()
        backfill_id = stack.backfill(chaos.STAGES, list(right))
        disturber.start()
        status = stack.wait_for_backfill(backfill_id, TIMEOUT_S)
        took_s = time.monotonic() - began
        killed = disturber.end()
        assert status == "COMPLETED_SUCCESS", f"{status}\n{stack.tails()}"
    finally:
        stack.stop()
    _check(where, right, folders, results, killed, backfill_id)
    counts = Counter(kind for kind, _ in killed)
    print(f"FIGURE {results} results of {clips} clips as undisturbed after {dict(counts)} kills; the backfill took {took_s:.0f} s")


def _check(
    where: Deployment, right: dict[str, Path], folders: list[Path], results: int, killed: list[tuple[chaos.Kind, int]], backfill_id: str
) -> None:
    same = sum(chaos.check_same(folder, wanted) for folder, wanted in zip(folders, right.values(), strict=True))
    assert same == results + 3 * len(right), same
    assert not chaos.leftovers(where.lake), chaos.leftovers(where.lake)
    assert not [pid for _, pid in killed if brokers.is_alive(pid)]
    with ledger.open_ledger(Lake(where.lake)) as book:
        [run] = Lake(where.lake).runs()
        counted = book.counts(run.run_id)
    assert {state for of_stage in counted.values() for state, n in of_stage.items() if n} == {State.DONE}, counted
    with instance(where) as dagster:
        ends = Counter(r.status.value for r in dagster.get_runs() if r.tags.get("dagster/backfill") == backfill_id)
    runs = sum(kind == "run" for kind, _ in killed)
    assert ends == Counter(FAILURE=runs, SUCCESS=1), f"{dict(ends)}, want one retry for each kill"


if __name__ == "__main__":
    sys.exit(main())
