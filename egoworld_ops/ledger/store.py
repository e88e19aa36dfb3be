"""The ledger itself: its verbs and its questions. Each call is one transaction. Imports SQLAlchemy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from egoworld_ops.errors import BadSettings
from egoworld_ops.ledger import moves
from egoworld_ops.ledger.database import Database
from egoworld_ops.ledger.leases import Observer, Owner, OwnerRow, Process
from egoworld_ops.ledger.states import Change, ClipKey, Moves, Row, State, Verb
from egoworld_ops.ledger.tables import CLIPS, KEY_COLUMNS, OWNERS, word

_PAGE = 5_000


class Ledger:
    """The record of every clip's state in every stage. Safe to use from several threads, processes and, on Postgres, hosts.

    Every call raises StorageUnavailable where the database does not answer, is locked, full or read-only; then it has changed nothing.

    Args:
        database: an open one; closed with the ledger.
        lease_s: as `open_ledger`.
        beat_s: as `open_ledger`.
        clock: gives monotonic seconds.

    Raises:
        BadSettings: a lease is shorter than three beats.
    """

    def __init__(self, database: Database, lease_s: float, beat_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if lease_s < 3 * beat_s:
            raise BadSettings("the ledger's lease", f"{lease_s:g} s is shorter than three beats of {beat_s:g} s", "Make it longer")
        self._database, self._beat_s = database, beat_s
        self._observer = Observer(lease_s, clock)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    # Moves

    def move(self, verb: Verb, changes: Iterable[Change], source: State | None = None, owner: Owner | None = None) -> Moves:
        """Move clips, all in one transaction, each only if it is in a state from which `verb` may take it; from `source` alone where that is given.

        The other methods that move clips are this one, by name.

        Args:
            owner: who takes the clips (`start`), or must have them (`finish`, `give_back`, `recover`).

        Raises:
            IllegalMove: the table of moves does not have it.
        """
        listed = list(changes)
        owners = {change.key: owner.id for change in listed} if owner else {}
        return self._database.write(lambda connection: moves.move(connection, verb, listed, source, owners))

    def add(self, wanted: Mapping[ClipKey, str | None]) -> dict[ClipKey, State]:
        """Add the clips that are wanted, each with the digest of its work; None where it is not known yet.

        A clip that is new, or was known with another digest and is not running, is Pending, with no attempt made. The others stay as they are.

        Returns:
            the state of each of them now.
        """

        def work(connection: sa.Connection) -> dict[ClipKey, State]:
            done = moves.move(connection, "add", [Change(key, State.PENDING, digest) for key, digest in wanted.items()])
            pending = dict.fromkeys((*done.moved, *done.same), State.PENDING)
            return pending | {key: state for key, state in done.lost.items() if state}

        return self._database.write(work)

    def start(self, keys: Iterable[ClipKey], owner: Owner, worker: str | None = None) -> Moves:
        """Pending -> Running: `owner` takes clips. Of several who start the same clip one moves it, the others lose."""
        return self.move("start", [Change(key, State.RUNNING, worker=worker) for key in keys], owner=owner)

    def finish(self, outcomes: Iterable[Change], owner: Owner) -> Moves:
        """Running -> Done, Failed or DeadLetter, by their owner. Lost where it is not the owner any more."""
        return self.move("finish", outcomes, owner=owner)

    def give_back(self, keys: Iterable[ClipKey], owner: Owner) -> Moves:
        """Running -> Pending, by their owner, who did not get to them: the attempt does not count."""
        return self.move("give_back", _to(State.PENDING, keys), owner=owner)

    def settle(self, found: Iterable[Change]) -> Moves:
        """Record what was found and need not run: a result on disk, made or linked; a failure on record, or of what cannot be begun."""
        return self.move("settle", found)

    # Questions

    def rows(self, keys: Iterable[ClipKey]) -> dict[ClipKey, Row]:
        """The rows of these clips; clips without a row are left out."""
        listed = list(keys)
        return self._database.read(lambda connection: moves.rows(connection, listed))

    def counts(self, run_id: str) -> dict[str, dict[State, int]]:
        """How many clips of a run are in which state, by stage. States that no clip is in are left out."""
        columns = CLIPS.c.stage, CLIPS.c.state
        statement = sa.select(*columns, sa.func.count()).where(CLIPS.c.run_id == run_id).group_by(*columns).order_by(*columns)
        counted: dict[str, dict[State, int]] = {}
        for stage, state, n in self._database.read(lambda connection: connection.execute(statement).all()):
            counted.setdefault(stage, {})[State(state)] = n
        return counted

    def all_rows(self, run_id: str, *states: State) -> Iterator[list[Row]]:
        """All rows of a run that are in one of these states, a page at a time. Rows that move meanwhile may be missed."""
        for stage, counted in self.counts(run_id).items():
            for state in counted.keys() & set(states):
                last = -1
                while page := self._page(run_id, stage, state, last):
                    last = page[-1][0]
                    yield [row for _, row in page]

    def _page(self, run_id: str, stage: str, state: State, after: int) -> list[tuple[int, Row]]:
        fits = (CLIPS.c.run_id == run_id, CLIPS.c.stage == stage, CLIPS.c.state == state.value, CLIPS.c.id > after)
        statement = sa.select(CLIPS).where(*fits).order_by(CLIPS.c.id).limit(_PAGE)
        return self._database.read(lambda connection: [(row.id, moves.row_of(row)) for row in connection.execute(statement)])

    def forget(self, run_id: str) -> int:
        """Remove all rows of a run that was removed. Returns how many there were."""
        return self._database.write(lambda connection: connection.execute(sa.delete(CLIPS).where(CLIPS.c.run_id == run_id)).rowcount)

    # Owners

    def owner(self) -> Owner:
        """A new owner, to be used as a context manager: it beats until its end, which gives back what it still runs."""
        return Owner(self, self._beat_s)

    def recover(self) -> list[ClipKey]:
        """Running -> Pending for the clips of owners that are gone, and of those that this ledger has seen without a beat for a lease.

        An owner on this machine that has ended is found at once; one elsewhere only by its missing beats over several calls: call this regularly.

        Returns:
            the clips that were moved.
        """
        owners, ownerless = self._database.read(lambda connection: (_owners(connection), _ownerless(connection)))
        expired = self._observer.expired(owners)
        if not expired and not ownerless:
            return []

        def work(connection: sa.Connection) -> list[ClipKey]:
            for seen in expired:  # one that has beaten again meanwhile, or that somebody else has removed, is left alone
                connection.execute(sa.delete(OWNERS).where(OWNERS.c.id == seen.owner, OWNERS.c.beat == seen.beat))
            abandoned = _ownerless(connection)
            return sorted(moves.move(connection, "recover", _to(State.PENDING, abandoned), owners=abandoned).moved)

        return self._database.write(work)

    def beat(self, owner: str, process: Process, beat: int) -> None:
        """Say that an owner is alive; for `Owner`."""
        about = {"host": process.host, "boot_id": process.boot_id, "pid_namespace": process.pid_namespace, "pid": process.pid}
        about |= {"start_ticks": process.start_ticks, "started_at": datetime.now(UTC).isoformat(timespec="milliseconds")}
        insert = postgresql.insert(OWNERS) if self._database.dialect == "postgresql" else sqlite.insert(OWNERS)
        statement = insert.values(id=owner, beat=beat, **about).on_conflict_do_update(index_elements=["id"], set_={"beat": beat})
        self._database.write(lambda connection: connection.execute(statement))

    def release(self, owner: Owner) -> list[ClipKey]:
        """Running -> Pending for all that an owner still runs, and forget the owner; for `Owner`."""

        def work(connection: sa.Connection) -> list[ClipKey]:
            held = {
                ClipKey(*row): owner.id
                for row in connection.execute(
                    sa.select(*KEY_COLUMNS).where(CLIPS.c.state == word(State.RUNNING), CLIPS.c.owner == owner.id)
                )
            }
            connection.execute(sa.delete(OWNERS).where(OWNERS.c.id == owner.id))
            return sorted(moves.move(connection, "give_back", _to(State.PENDING, held), owners=held).moved)

        return self._database.write(work)


def _to(state: State, keys: Iterable[ClipKey]) -> list[Change]:
    return [Change(key, state) for key in keys]


def _owners(connection: sa.Connection) -> list[OwnerRow]:
    return [
        OwnerRow(row.id, Process(row.host, row.boot_id, row.pid_namespace, row.pid, row.start_ticks), row.beat)
        for row in connection.execute(sa.select(OWNERS))
    ]


def _ownerless(connection: sa.Connection) -> dict[ClipKey, Any]:
    """Clips that run for an owner that is not there."""
    statement = sa.select(*KEY_COLUMNS, CLIPS.c.owner).where(
        CLIPS.c.state == word(State.RUNNING), CLIPS.c.owner.not_in(sa.select(OWNERS.c.id))
    )
    return {ClipKey(*row[:4]): row.owner for row in connection.execute(statement)}
