"""The ledger on SQLite and on a real Postgres: moves, races, leases, faults of a database, and the rebuild from files."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from egoworld_ops.contract import schema
from egoworld_ops.errors import (
    BadSettings,
    CorruptVideo,
    IllegalMove,
    LedgerDamaged,
    LedgerTooNew,
    OutOfMemory,
    SetupError,
    StorageUnavailable,
)
from egoworld_ops.files.tables import make_provenance, write_table
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger import FILE_NAME, MOVES, WHOLE_VIDEO, Change, ClipKey, State, moves, open_ledger, rebuild
from egoworld_ops.ledger.database import Database
from egoworld_ops.ledger.leases import Owner, Process
from egoworld_ops.ledger.store import Ledger
from tests import postgres
from tests.conftest import ROOT

RUN = "20260101_1200"
FUTURE = "2999-01-01T00:00:00.000+00:00"
HERE = Process.current()
ELSEWHERE = Process("elsewhere/0", "another-boot", HERE.pid_namespace, 1, 1)
P, R, D, F, X = State.PENDING, State.RUNNING, State.DONE, State.FAILED, State.DEAD_LETTER


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    programs = postgres.binaries()
    if programs is None:
        pytest.skip("no Postgres: install the system's, or the package pgserver")
    with postgres.server(programs) as url:
        yield url


_numbers = count()


@pytest.fixture
def postgres_url(server: str) -> str:
    name = f"ledger_{next(_numbers)}"
    run_sql(server, f"CREATE DATABASE {name}")
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else f"sqlite:///{tmp_path / FILE_NAME}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with opened(url) as ledger:
        yield ledger


def opened(url: str, busy_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> Ledger:
    return Ledger(Database.open(url, busy_s), 60.0, 5.0, clock)


def run_sql(url: str, sql: str) -> None:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(sql)
    finally:
        engine.dispose()


def key(n: int, stage: str = "masks", video_id: str = "v1") -> ClipKey:
    return ClipKey(RUN, video_id, f"f{n:07d}", stage)


def keys(n: int) -> list[ClipKey]:
    return [key(i) for i in range(n)]


def far_owner(ledger: Ledger) -> Owner:
    """One on another host, as its row says; it beats when told to."""
    owner = Owner(ledger, 5.0)
    ledger.beat(owner.id, ELSEWHERE, 0)
    return owner


def put(ledger: Ledger, clip: ClipKey, state: State, owner: Owner) -> None:
    """Bring a clip that is new to a state, of digest d1."""
    ledger.add({clip: "d1"})
    if state is R:
        ledger.start([clip], owner)
    elif state is not P:
        ledger.settle([Change(clip, state, "d1")])


def states_of(ledger: Ledger, clips: Iterable[ClipKey]) -> dict[ClipKey, State]:
    """The state of each of these clips that has a row."""
    return {clip: row.state for clip, row in ledger.rows(clips).items()}


def dead_letters(ledger: Ledger, run_id: str) -> list[ClipKey]:
    """The dead letters of a run, sorted."""
    return sorted(row.key for page in ledger.all_rows(run_id, X) for row in page)


class Clock:
    """Monotonic seconds that go when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


# Moves


def test_each_allowed_move_works_and_each_other_raises(ledger: Ledger) -> None:
    clips = (key(n) for n in count())
    with ledger.owner() as owner:
        for verb in MOVES:
            for source in State:
                for target in State:
                    clip = next(clips)
                    put(ledger, clip, source, owner)
                    needs_same = source is R or (verb == "rebuild" and source is P)
                    change = Change(clip, target, "d1" if needs_same else "d2")
                    if target in MOVES[verb].get(source, ()):
                        assert ledger.move(verb, [change], source, owner).moved == [clip], (verb, source, target)
                        assert states_of(ledger, [clip]) == {clip: target}
                    else:
                        with pytest.raises(IllegalMove, match=verb):
                            ledger.move(verb, [change], source, owner)
                        assert states_of(ledger, [clip]) == {clip: source}


def test_who_comes_second_is_told_and_changes_nothing(ledger: Ledger) -> None:
    ledger.add(dict.fromkeys(keys(2), "d1"))
    with ledger.owner() as first, ledger.owner() as second:
        assert ledger.start([key(0)], first).moved == [key(0)]
        moves = ledger.start([key(0), key(1), key(7)], second)
        assert (moves.moved, moves.same, moves.lost) == ([key(1)], [], {key(0): R, key(7): None})
        assert ledger.finish([Change.done(key(0), "d1", 1)], second).lost == {key(0): R}
        assert ledger.give_back([key(0)], second).lost == {key(0): R}
        assert ledger.finish([Change.done(key(0), "d1", 1)], first).moved == [key(0)]
        assert ledger.finish([Change.done(key(0), "d2", 1)], first).lost == {key(0): D}
    assert ledger.rows([key(0)])[key(0)].digest == "d1"


RACER = """
import sys, random
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.lake.lake import Lake
from pathlib import Path
url, seed = sys.argv[1:]
keys = [ClipKey("20260101_1200", "v1", f"f{n:07d}", "masks") for n in range(200)]
random.Random(seed).shuffle(keys)
import egoworld_ops.ledger.store
print("ready", flush=True); sys.stdin.readline()
with open_ledger(Lake(Path("nowhere")), url) as ledger:
    ledger.add(dict.fromkeys(keys, "d1"))
    with ledger.owner() as owner:
        while keys:
            batch = [keys.pop() for _ in range(min(len(keys), random.Random(len(keys)).randint(1, 9)))]
            moves = ledger.start(batch, owner)
            assert set(moves.lost.values()) <= {"Running"} and not moves.same
            for key in moves.moved: print(key.clip_id)
        print("done", flush=True); sys.stdin.readline()
"""


@pytest.fixture
def racers(url: str) -> Iterator[list[subprocess.Popen[str]]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    processes = [subprocess.Popen([sys.executable, "-c", RACER, url, str(n)], **pipes) for n in range(5)]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def test_of_processes_that_open_a_new_ledger_and_start_the_same_clips_each_clip_has_one_winner(
    url: str, racers: list[subprocess.Popen[str]]
) -> None:
    assert [racer.stdout.readline() for racer in racers] == ["ready\n"] * 5
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [line.strip() for racer in racers for line in takewhile(lambda line: line != "done\n", racer.stdout)]
    assert sorted(won) == [k.clip_id for k in keys(200)]
    with opened(url) as ledger:
        assert ledger.counts(RUN) == {"masks": {R: 200}}
        for racer in racers:
            racer.communicate("\n", timeout=30)
            assert racer.returncode == 0
        assert ledger.counts(RUN) == {"masks": {P: 200}}


def test_what_is_known_is_not_added_again_unless_other_work_is_wanted(ledger: Ledger) -> None:
    with ledger.owner() as owner:
        for n, state in enumerate(State):
            put(ledger, key(n), state, owner)
        states = dict(zip(keys(5), State, strict=True))
        assert ledger.add(dict.fromkeys(keys(6), "d1")) == states | {key(5): P}
        assert ledger.add(dict.fromkeys(keys(6), "d2")) == dict.fromkeys(keys(6), P) | {key(1): R}
        rows = ledger.rows(keys(6))
        assert {rows[k].digest for k in keys(6)} == {"d1", "d2"}
        assert rows[key(1)].digest == "d1"
        assert ledger.add({key(0): None}) == {key(0): P}
        assert ledger.rows([key(0)])[key(0)].digest is None


def test_the_row_tells_what_happened(ledger: Ledger) -> None:
    error = OutOfMemory("clip 1", "no memory\nleft", "Buy some")
    ledger.add({key(0): "d1"})
    with ledger.owner() as owner:
        ledger.start([key(0)], owner, "gpu-1")
        row = ledger.rows([key(0)])[key(0)]
        assert (row.state, row.attempts, row.owner, row.worker) == (R, 1, owner.id, "gpu-1")
        ledger.finish([Change.failure(key(0), error, "d1", dead_letter=False, seconds=2.0)], owner)
        row = ledger.rows([key(0)])[key(0)]
        assert (row.state, row.error_class, row.message) == (F, "OutOfMemory", r"clip 1: no memory\nleft")
        ledger.add({key(0): "d2"})
        ledger.start([key(0)], owner)
        assert ledger.rows([key(0)])[key(0)].attempts == 1, "other work, counted anew"
        ledger.give_back([key(0)], owner)
        assert ledger.rows([key(0)])[key(0)].attempts == 0
        ledger.start([key(0)], owner)
        ledger.finish([Change.done(key(0), "d2", 7, 1.5, "gpu-2")], owner)
    row = ledger.rows([key(0)])[key(0)]
    assert (row.state, row.attempts, row.owner, row.worker, row.digest) == (D, 1, None, "gpu-2", "d2")
    assert (row.error_class, row.message, row.seconds, row.rows) == (None, None, 1.5, 7)
    assert row.first_at < row.last_at


def test_what_is_found_settles_a_clip_but_no_failure_takes_the_place_of_its_result(ledger: Ledger) -> None:
    with ledger.owner() as owner:
        for n, state in enumerate(State):
            put(ledger, key(n), state, owner)
        moves = ledger.settle([Change.done(k, "d1", 1) for k in keys(6)])
        assert (moves.moved, moves.same, moves.lost) == ([key(0), key(1), key(3), key(4), key(5)], [key(2)], {})
        assert ledger.finish([Change.done(key(1), "d1", 1)], owner).same == [key(1)]
        assert ledger.settle([Change(key(0), F, "d1")]).lost == {key(0): D}
        assert ledger.settle([Change(key(0), F, "d2")]).moved == [key(0)]
        put(ledger, key(8), R, owner)
        assert ledger.settle([Change.done(key(8), "d2", 1)]).lost == {key(8): R}


def test_dead_letters_are_listed_by_run_and_redriven(ledger: Ledger) -> None:
    letters = [key(0), key(1), key(0, "mapping"), key(0, video_id="v2"), ClipKey(RUN, "v3", WHOLE_VIDEO, "manifest")]
    ledger.settle([Change(k, X, "d1", error_class="CorruptVideo" if k.video_id == "v2" else "PoisonClip", attempts=3) for k in letters])
    ledger.settle([Change(ClipKey("another", "v1", "c", "masks"), X, "d1"), Change(key(3), F, "d1")])
    assert dead_letters(ledger, RUN) == sorted(letters)
    assert dead_letters(ledger, "another") == [ClipKey("another", "v1", "c", "masks")]
    assert set(ledger.move("redrive", [Change(k, P) for k in letters]).moved) == set(letters)
    assert dead_letters(ledger, RUN) == []
    assert {(row.state, row.attempts) for row in ledger.rows(letters).values()} == {(P, 0)}
    assert ledger.counts("another") == {"masks": {X: 1}}


def test_many_clips_go_in_one_call(ledger: Ledger) -> None:
    many = keys(12_000)
    with ledger.owner() as owner:
        ledger.add({**dict.fromkeys(many, "d1"), key(0, "mapping"): None})
        assert ledger.start(many, owner).moved == many
        assert [row.key for page in ledger.all_rows(RUN, P) for row in page] == [key(0, "mapping")]
        assert len(ledger.finish([Change.done(k, "d1", 1) for k in many], owner).moved) == 12_000
    assert ledger.counts(RUN) == {"mapping": {P: 1}, "masks": {D: 12_000}}
    assert ledger.add({many[5]: "d2"}) == {many[5]: P}
    assert sum(len(page) for page in ledger.all_rows(RUN, D, F)) == 11_999
    assert ledger.forget(RUN) == 12_001
    assert states_of(ledger, many) == {}


def test_of_transactions_that_block_each_other_one_is_run_again(postgres_url: str) -> None:
    both_hold_one, tries = Barrier(2), []

    def settle_both(database: Database, order: list[ClipKey], digest: str) -> None:
        def work(connection: sa.Connection) -> None:
            tries.append(digest)
            moves.move(connection, "settle", [Change.done(order[0], digest, 1)])
            if len(tries) <= 2:
                both_hold_one.wait(60)
            moves.move(connection, "settle", [Change.done(order[1], digest, 1)])

        database.write(work)

    database = Database.open(postgres_url, 60.0)
    with Ledger(database, 60.0, 5.0) as ledger, ThreadPoolExecutor(2) as threads:
        ledger.add(dict.fromkeys(keys(2), "d0"))
        for each in [threads.submit(settle_both, database, keys(2)[::step], f"d{step}") for step in (1, -1)]:
            each.result()
        assert len(tries) > 2, "none was run again"
        assert {row.digest for row in ledger.rows(keys(2)).values()} in ({"d1"}, {"d-1"})


def test_many_who_open_a_new_ledger_at_once_make_it_once(url: str) -> None:
    together = Barrier(6)

    def open_it(n: int) -> None:
        together.wait(60)
        with opened(url) as ledger:
            ledger.add({key(n): "d1"})

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(open_it, range(6)))
    with opened(url) as ledger:
        assert ledger.counts(RUN) == {"masks": {P: 6}}


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


# Faults of a database


def test_a_ledger_of_a_newer_version_is_refused_with_the_cure(url: str, tmp_path: Path) -> None:
    opened(url).close()
    run_sql(url, "UPDATE ledger_version SET version = 99")
    with pytest.raises(LedgerTooNew, match=r"format 99.*Run that version"):
        open_ledger(Lake(tmp_path), url)


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_ledger_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(LedgerDamaged, match=FILE_NAME):
        open_ledger(Lake(tmp_path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("url", ["mysql://host/x", "sqlite://", "nonsense", "postgresql://u:secret@[::1:x/"])
def test_a_url_that_can_hold_no_ledger_is_a_bad_setting(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadSettings) as raised:
        open_ledger(Lake(tmp_path), url)
    assert "secret" not in str(raised.value)


def test_a_lease_must_outlast_some_beats(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="lease"):
        open_ledger(Lake(tmp_path), lease_s=10, beat_s=5)


def test_a_locked_database_is_waited_for_then_named_and_works_again(url: str) -> None:
    lock = "BEGIN EXCLUSIVE" if url.startswith("sqlite") else "BEGIN; LOCK TABLE ledger_clips IN ACCESS EXCLUSIVE MODE"
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
    with opened(url, busy_s=0.3) as ledger:
        with engine.connect() as holder:
            holder.exec_driver_sql(lock)
            started = time.monotonic()
            with pytest.raises(StorageUnavailable, match="lock") as raised:
                ledger.add({key(0): "d1"})
            assert 0.25 < time.monotonic() - started < 10
            assert raised.value.retryable
            holder.exec_driver_sql("ROLLBACK")
        assert states_of(ledger, [key(0)]) == {}
        assert ledger.add({key(0): "d1"}) == {key(0): P}
    engine.dispose()


def test_a_full_disk_is_named_and_half_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.getuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode == 0
    if not mounted:
        pytest.skip("needs to mount a small tmpfs, as root")
    try:
        with open_ledger(Lake(folder)) as ledger:
            whole = fill_until_full(ledger)
            assert ledger.counts(RUN) == {"masks": {P: whole}}
            subprocess.run(["mount", "-o", "remount,size=20m", folder], check=True)
            ledger.add(dict.fromkeys(keys(whole + 500), "d1"))
            assert ledger.counts(RUN) == {"masks": {P: whole + 500}}
    finally:
        subprocess.run(["umount", folder], check=True)


def fill_until_full(ledger: Ledger) -> int:
    """How many clips were added, 500 a call, before the disk was full."""
    added: list[ClipKey] = []
    with pytest.raises(StorageUnavailable, match=FILE_NAME):
        add_forever(ledger, added)
    return len(added)


def add_forever(ledger: Ledger, added: list[ClipKey]) -> None:
    while len(added) < 100_000:
        more = [key(n) for n in range(len(added), len(added) + 500)]
        ledger.add(dict.fromkeys(more, "d1"))
        added += more


def test_a_full_database_is_named_and_half_writes_nothing(tmp_path: Path) -> None:
    database = Database.open(tmp_path / FILE_NAME, 5.0)
    sa.event.listen(database._engine, "begin", lambda c: c.connection.driver_connection.execute("PRAGMA max_page_count = 200"))
    with Ledger(database, 60.0, 5.0) as ledger:
        whole = fill_until_full(ledger)
        assert ledger.counts(RUN) == {"masks": {P: whole}}
        with pytest.raises(StorageUnavailable, match=r"full.*Free space"):
            ledger.add(dict.fromkeys([key(n) for n in range(whole, whole + 500)], "d1"))


READER = """
import os, sys
from pathlib import Path
import egoworld_ops.ledger.store, sqlalchemy.dialects.sqlite
from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.lake.lake import Lake
if os.getuid() == 0: os.setgid(65534); os.setuid(65534)
try:
    with open_ledger(Lake(Path(sys.argv[1]))) as ledger: ledger.add({ClipKey("r", "v", "c", "masks"): "d1"})
except StorageUnavailable as error: print(error)
"""


@pytest.mark.parametrize("of_folder", [False, True])
def test_a_read_only_file_is_named(tmp_path: Path, of_folder: bool) -> None:
    base = Path("/tmp") / f"egoworld-readonly-{os.getpid()}-{of_folder}"
    base.mkdir()
    try:
        open_ledger(Lake(base)).close()
        os.chmod(base / FILE_NAME, 0o444)
        os.chmod(base, 0o555 if of_folder else 0o777)
        done = subprocess.run([sys.executable, "-c", READER, base], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    finally:
        os.chmod(base, 0o755)
        shutil.rmtree(base)
    assert f"ledger {base / FILE_NAME}: " in done.stdout
    assert "run again" in done.stdout


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_file_that_is_removed_or_replaced_while_it_is_open_is_opened_anew(
    tmp_path: Path, replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with open_ledger(Lake(tmp_path)) as open_all_along, open_all_along.owner() as owner:
        open_all_along.add({key(0): "old"})
        for file in tmp_path.glob(f"{FILE_NAME}*"):
            file.unlink()
        if replaced:
            with open_ledger(Lake(tmp_path)) as other:
                other.add({key(1): "other"})
        open_all_along.add({key(2): "new"})
        assert open_all_along.start([key(2)], owner).moved == [key(2)]
        with open_ledger(Lake(tmp_path)) as fresh:
            assert fresh.rows([key(2)])[key(2)].state is R
            assert (key(1) in fresh.rows([key(1)])) is replaced
    assert f"ledger {tmp_path / FILE_NAME}: another file has taken its place" in caplog.text
    assert "egoworld ledger rebuild" in caplog.text


def test_a_server_that_is_not_there_is_named_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable, match="server") as raised:
        open_ledger(Lake(tmp_path), f"postgresql://egoworld:secret@/x?host={tmp_path}", busy_s=2)
    assert "secret" not in str(raised.value)


def test_connections_that_the_server_ends_are_made_again(postgres_url: str, server: str) -> None:
    with opened(postgres_url) as ledger:
        ledger.add({key(0): "d1"})
        run_sql(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname <> 'postgres'")
        assert states_of(ledger, [key(0)]) == {key(0): P}


ADDER = """
import sys
from pathlib import Path
from egoworld_ops.ledger import ClipKey, open_ledger
from egoworld_ops.lake.lake import Lake
keys = [ClipKey("20260101_1200", "v1", f"f{n:07d}", "masks") for n in range(30_000)]
with open_ledger(Lake(Path(sys.argv[1]))) as ledger:
    print("ready", flush=True)
    ledger.add(dict.fromkeys(keys, "d1"))
"""


def test_a_process_killed_in_the_middle_of_a_call_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    for wait_s in (0.05, 0.3, 0.6):
        adder = subprocess.Popen([sys.executable, "-c", ADDER, tmp_path], stdout=subprocess.PIPE, cwd=ROOT)
        with closing(adder.stdout):  # type: ignore[type-var]
            assert adder.stdout.readline() == b"ready\n"  # type: ignore[union-attr]
            signal.sigtimedwait([], wait_s)
            adder.kill()
            adder.wait()
        with open_ledger(Lake(tmp_path)) as ledger:
            assert ledger.counts(RUN) in ({}, {"masks": {P: 30_000}})
            ledger.forget(RUN)


def test_sqlalchemy_is_not_loaded_before_a_ledger_is_opened() -> None:
    code = "import sys, egoworld_ops.ledger, egoworld_ops.ledger.files; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


# Rebuilt from the files


def write_result(run: Run, clip: ClipKey, digest: str, made_in: str = RUN, **more: object) -> None:
    stamp = make_provenance(digest, {}, 3, 0.25, made_in) | more
    write_table(run.clip_table(clip.stage, clip.video_id, clip.clip_id), clip.stage, schema.empty(clip.stage), stamp)


def write_failure(run: Run, clip: ClipKey, digest: str, dead_letter: bool) -> None:
    row = {"video_id": clip.video_id, "clip_id": clip.clip_id, "stage": clip.stage, "backend": "b", "cure": "c", "retryable": False}
    row |= {"error_class": "CorruptVideo", "culprit": "a.mp4", "reason": "torn", "attempts": 3, "dead_letter": dead_letter, "traceback": ""}
    rows = schema.from_rows("failures", [row])
    write_table(run.failure(clip.stage, clip.video_id, clip.clip_id), "failures", rows, make_provenance(digest, {}, 1, 0.5, RUN))


def write_manifest(run: Run, video_id: str, rejected: bool, clips: list[ClipKey]) -> None:
    row: dict[str, Any] = {
        "video_id": video_id,
        "path": "/raw/a.mp4",
        "sha256": "0" * 64,
        "bytes": 1,
        "status": "rejected" if rejected else "ok",
        "split": "train",
        "recording": "a",
    }
    row |= {"error_class": "CorruptVideo", "reason": "torn", "cure": "Copy it again"} if rejected else {}
    stamp = make_provenance("m1", {}, len(clips), 0.5, RUN)
    frames = {"frame_start": 0, "frame_end": 2, "own_start": 0, "own_end": 2, "start_s": 0.0, "end_s": 1.0, "overlap_s": 0.0}
    frames |= {"video_id": video_id, "scene_index": 0, "method": "whole_video"}
    rows = schema.from_rows("clips", [frames | {"clip_id": clip.clip_id} for clip in clips])
    write_table(run.video_table("clips", video_id), "clips", rows, stamp)
    write_table(run.video_table("videos", video_id), "videos", schema.from_rows("videos", [row]), stamp)


def work(ledger: Ledger, run: Run) -> list[ClipKey]:
    """Some clips brought to each end, in the ledger as in the files."""
    manifests = [ClipKey(RUN, video_id, WHOLE_VIDEO, "manifest") for video_id in ("v1", "v2")]
    clips = keys(4)
    torn = CorruptVideo("a.mp4", "torn", "Copy it again")
    ledger.add(dict.fromkeys([*manifests, *clips], None))
    with ledger.owner() as owner:
        ledger.start([*manifests, clips[0]], owner)
        ledger.finish([Change.done(clips[0], "d0", 3, 0.25), Change.done(manifests[0], "m1", 4, 0.5)], owner)
        rejection = CorruptVideo("/raw/a.mp4", "torn", "Copy it again")
        ledger.finish([Change.failure(manifests[1], rejection, "m1", dead_letter=True, seconds=0.5)], owner)
    outcomes = [replace(Change.failure(clips[n], torn, f"d{n}", dead_letter=n == 2, seconds=0.5), attempts=3) for n in (1, 2)]
    ledger.settle([*outcomes, Change.done(clips[3], "d3", 3, 0.25)])
    for n, clip in enumerate(clips):
        if n in (0, 3):
            write_result(run, clip, f"d{n}", made_in=RUN if n == 0 else "an_earlier_one")
        else:
            write_failure(run, clip, f"d{n}", dead_letter=n == 2)
    write_manifest(run, "v1", rejected=False, clips=clips)
    write_manifest(run, "v2", rejected=True, clips=[])
    return [*manifests, *clips]


def said(ledger: Ledger, clips: list[ClipKey]) -> dict[ClipKey, tuple[object, ...]]:
    return {
        k: (row.state, row.digest, row.attempts, row.error_class, row.message, row.seconds, row.rows)
        for k, row in ledger.rows(clips).items()
    }


def test_a_ledger_made_again_from_the_files_says_what_the_lost_one_said(url: str, tmp_path: Path) -> None:
    store = Lake(tmp_path / "lake")
    run = store.open_run({}, RUN, dict)
    with opened(url) as ledger:
        clips = work(ledger, run)
        before = said(ledger, clips)
        agreeing = rebuild(ledger, store)
        assert (agreeing.changed, agreeing.reset, agreeing.unreadable) == (0, 0, [])
        ledger.forget(RUN)
        assert rebuild(ledger, store, RUN).found == {D: 3, F: 1, X: 2}
        assert said(ledger, clips) == before
        assert sum(map(len, ledger.all_rows(RUN, *State))) == len(clips)
        again = rebuild(ledger, store)
        assert (again.changed, again.reset) == (0, 0)


def test_the_files_win_over_the_ledger(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    run = store.open_run({}, RUN, dict)
    with open_ledger(store) as ledger, ledger.owner() as owner:
        gone, damaged, stale, failed_later, finished_first, running, elsewhere = keys(7)
        ledger.settle([Change.done(k, "d1", 1) for k in (gone, damaged, stale)])
        ledger.settle([Change(key(8), X, "d1")])
        write_manifest(run, "v1", rejected=False, clips=keys(9))
        for clip in (damaged, stale, failed_later, finished_first, running, elsewhere):
            write_result(run, clip, "d1")
        run.clip_table("masks", "v1", damaged.clip_id).write_bytes(b"PAR1 torn PAR1")
        write_failure(run, failed_later, "d2", dead_letter=True)
        write_failure(run, finished_first, "d1", dead_letter=True)
        ledger.add({stale: "d2", running: "d1", elsewhere: "d2"})
        ledger.start([running, elsewhere], owner)
        (run.video_folder("v1") / "clip_id=Not An Id").mkdir()
        (run.clip_folder("v1", gone.clip_id)).mkdir()
        (run.clip_folder("v1", gone.clip_id) / ".tmp-7-masks.parquet").write_bytes(b"x")
        rebuilt = rebuild(ledger, store)
        states = states_of(ledger, [*keys(7), key(8)])
        assert list(states.values()) == [P, P, P, X, D, D, R, P]
        assert (rebuilt.reset, rebuilt.running, len(rebuilt.unreadable)) == (3, 1, 1)


def test_a_failure_file_of_older_days_is_a_dead_letter_where_no_retry_helps(tmp_path: Path) -> None:
    store = Lake(tmp_path)
    run = store.open_run({}, RUN, dict)
    write_manifest(run, "v1", rejected=False, clips=[key(0)])
    write_failure(run, key(0), "d1", dead_letter=False)
    path = run.failure("masks", "v1", key(0).clip_id)
    import pyarrow.parquet as pq

    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(["dead_letter"]), path)
    with open_ledger(store) as ledger:
        rebuild(ledger, store)
        assert states_of(ledger, [key(0)]) == {key(0): X}


def test_a_run_that_is_not_there_cannot_be_rebuilt(tmp_path: Path) -> None:
    with open_ledger(Lake(tmp_path)) as ledger, pytest.raises(SetupError, match="20990101"):
        rebuild(ledger, Lake(tmp_path), "20990101_0000")
