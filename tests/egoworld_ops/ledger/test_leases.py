"""The ledger on SQLite and on a real Postgres: who holds a clip, and who loses it."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from egoworld_ops.lake.lake import Lake
from egoworld_ops.ledger import Change, open_ledger
from egoworld_ops.ledger.leases import Owner, Process
from egoworld_ops.ledger.store import Ledger
from tests.conftest import ROOT
from tests.egoworld_ops.ledger.clips import (
    ELSEWHERE,
    FUTURE,
    HERE,
    RUN,
    Clock,
    P,
    R,
    far_owner,
    key,
    keys,
    opened,
    run_sql,
    states_of,
)

# Leases

SLEEPER = """
import sys, time
from pathlib import Path
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.lake.lake import Lake
ledger = open_ledger(Lake(Path("nowhere")), sys.argv[1])
with ledger.owner() as owner:
    print(len(ledger.start([ClipKey("20260101_1200", "v1", f"f{n:07d}", "masks") for n in range(3)], owner).moved), flush=True)
    time.sleep(60)
"""


def test_a_killed_process_on_this_host_loses_its_clips_at_once(url: str, ledger: Ledger) -> None:
    ledger.add(dict.fromkeys(keys(4), "d1"))
    sleeper = subprocess.Popen([sys.executable, "-c", SLEEPER, url], stdout=subprocess.PIPE, cwd=ROOT)
    with closing(sleeper.stdout):  # type: ignore[type-var]
        assert sleeper.stdout.readline() == b"3\n"  # type: ignore[union-attr]
        assert ledger.recover() == []
        sleeper.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie: dead, but not yet reaped
        assert ledger.recover() == keys(3)
        sleeper.wait()
    assert ledger.recover() == []
    assert ledger.counts(RUN) == {"masks": {P: 4}}


def test_an_owner_on_another_host_loses_its_clips_after_a_lease_without_a_beat_whatever_the_wall_clock_says(url: str) -> None:
    clock = Clock()
    with opened(url, clock=clock) as ledger:
        ledger.add(dict.fromkeys(keys(3), "d1"))
        silent, beating = far_owner(ledger), far_owner(ledger)
        ledger.start(keys(1), silent)
        ledger.start([key(1)], beating)
        run_sql(url, f"UPDATE ledger_clips SET first_at = '{FUTURE}', last_at = '{FUTURE}'")
        run_sql(url, f"UPDATE ledger_owners SET started_at = '{FUTURE}'")
        for n in range(6):
            ledger.beat(beating.id, ELSEWHERE, n)
            assert ledger.recover() == []
            clock.now_s += 11.9
        with opened(url, clock=clock) as newcomer:
            assert newcomer.recover() == []
        ledger.beat(beating.id, ELSEWHERE, 6)
        clock.now_s += 0.6
        assert ledger.recover() == keys(1)
        assert states_of(ledger, keys(3)) == {key(0): P, key(1): R, key(2): P}


@pytest.mark.parametrize(
    ("process", "is_gone"),
    [
        (HERE, False),
        (Process(HERE.host, "an-earlier-boot", HERE.pid_namespace, HERE.pid, HERE.start_ticks), True),
        (Process(HERE.host, HERE.boot_id, HERE.pid_namespace, HERE.pid, HERE.start_ticks - 1), True),
        (Process(HERE.host, HERE.boot_id, "pid:[1]", 1, 1), False),
        (Process("elsewhere/0", HERE.boot_id, "pid:[1]", HERE.pid, 1), False),
        (ELSEWHERE, False),
        (Process(HERE.host, "", "", HERE.pid, 0), False),
    ],
    ids=["alive", "another boot", "pid taken over", "container", "named container", "another host", "nothing known"],
)
def test_what_can_be_seen_of_a_process(process: Process, is_gone: bool) -> None:
    assert process.is_gone(HERE) == is_gone


def test_two_who_recover_at_once_move_each_clip_once(url: str) -> None:
    gone = Process(HERE.host, "an-earlier-boot", "", 1, 1)
    with opened(url) as ledger, opened(url) as other, ThreadPoolExecutor(2) as threads:
        for _ in range(8):
            ledger.add(dict.fromkeys(keys(20), "d1"))
            owner = Owner(ledger, 5.0)
            ledger.beat(owner.id, gone, 0)
            ledger.start(keys(20), owner)
            both = list(threads.map(lambda each: each.recover(), (ledger, other)))
            assert sorted(both[0] + both[1]) == keys(20)


def test_an_owner_that_beats_while_it_is_judged_keeps_its_clips(url: str) -> None:
    class Late(Clock):
        """A clock that is read after the owners were: just then the owner beats."""

        def __call__(self) -> float:
            ledger.beat(owner.id, ELSEWHERE, round(self.now_s))
            return super().__call__()

    clock = Clock()
    with opened(url, clock=clock) as other, opened(url) as ledger:
        owner = far_owner(ledger)
        ledger.add({key(0): "d1"})
        ledger.start([key(0)], owner)
        assert other.recover() == []
        clock.now_s += 61
        late = Late()
        late.now_s = clock.now_s
        other._observer._clock = late
        assert other.recover() == []
        assert states_of(ledger, [key(0)]) == {key(0): R}


def test_clips_of_an_owner_that_is_not_known_any_more_are_recovered(url: str, ledger: Ledger) -> None:
    ledger.add(dict.fromkeys(keys(2), "d1"))
    ledger.start(keys(2), far_owner(ledger))
    run_sql(url, "DELETE FROM ledger_owners")
    assert ledger.recover() == keys(2)


def test_an_owner_that_slept_too_long_finds_its_clips_gone_and_may_start_others(url: str) -> None:
    clock = Clock()
    with opened(url, clock=clock) as ledger:
        ledger.add(dict.fromkeys(keys(2), "d1"))
        sleepy, other = far_owner(ledger), far_owner(ledger)
        ledger.start([key(0)], sleepy)
        ledger.recover()
        clock.now_s += 61
        assert ledger.recover() == [key(0)]
        ledger.beat(other.id, ELSEWHERE, 1)
        ledger.start([key(0)], other)
        ledger.beat(sleepy.id, ELSEWHERE, 1)
        assert ledger.finish([Change.done(key(0), "d1", 1)], sleepy).lost == {key(0): R}
        assert ledger.start([key(1)], sleepy).moved == [key(1)]
        assert ledger.recover() == []


def test_an_owner_beats_and_its_end_gives_back_what_it_still_runs(url: str, tmp_path: Path) -> None:
    def beats() -> int:
        with engine.connect() as connection:
            return connection.exec_driver_sql("SELECT coalesce(max(beat), -1) FROM ledger_owners").scalar_one()

    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with open_ledger(Lake(tmp_path), url, lease_s=1.0, beat_s=0.05) as ledger:
        ledger.add(dict.fromkeys(keys(2), "d1"))
        with ledger.owner() as owner:
            ledger.start(keys(2), owner)
            until = time.monotonic() + 20
            while beats() < 3 and time.monotonic() < until:
                time.sleep(0.02)
            assert beats() >= 3
        assert [(row.state, row.attempts) for row in ledger.rows(keys(2)).values()] == [(P, 0), (P, 0)]
        assert beats() == -1
    engine.dispose()


def test_clips_that_an_owner_could_not_give_back_are_recovered_at_once(url: str) -> None:
    """Its process lives on, as where a run fails on a full disk and is started again in the same process."""
    lock = "BEGIN EXCLUSIVE" if url.startswith("sqlite") else "BEGIN; LOCK TABLE ledger_clips IN ACCESS EXCLUSIVE MODE"
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with opened(url, busy_s=0.3) as ledger, engine.connect() as holder:
        ledger.add(dict.fromkeys(keys(2), "d1"))
        with ledger.owner() as owner:
            ledger.start(keys(2), owner)
            holder.exec_driver_sql(lock)
        holder.exec_driver_sql("ROLLBACK")
        assert set(states_of(ledger, keys(2)).values()) == {R}
        with opened(url) as again:
            assert again.recover() == keys(2)
    engine.dispose()
