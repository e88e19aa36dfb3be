"""The ledger on SQLite and on a real Postgres: moves and races."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, takewhile
from threading import Barrier

import pytest
import sqlalchemy as sa

from egoworld_ops.errors import (
    IllegalMove,
    OutOfMemory,
)
from egoworld_ops.ledger import MOVES, WHOLE_VIDEO, Change, ClipKey, State, moves
from egoworld_ops.ledger.database import Database
from egoworld_ops.ledger.store import Ledger
from tests.conftest import ROOT
from tests.egoworld_ops.ledger.clips import RUN, D, F, P, R, X, dead_letters, key, keys, opened, put, states_of

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
