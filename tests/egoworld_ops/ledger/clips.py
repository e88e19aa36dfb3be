"""Ledgers, clips and owners for the tests of the ledger."""

import time
from collections.abc import Callable, Iterable

import sqlalchemy as sa

from egoworld_ops.ledger import Change, ClipKey, State
from egoworld_ops.ledger.database import Database
from egoworld_ops.ledger.leases import Owner, Process
from egoworld_ops.ledger.store import Ledger

RUN = "20260101_1200"
FUTURE = "2999-01-01T00:00:00.000+00:00"
HERE = Process.current()
ELSEWHERE = Process("elsewhere/0", "another-boot", HERE.pid_namespace, 1, 1)
P, R, D, F, X = State.PENDING, State.RUNNING, State.DONE, State.FAILED, State.DEAD_LETTER


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
