"""States, the one table of allowed moves between them, and the values that go into and come out of the ledger. No database here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from egoworld_ops.errors import EgoworldError, IllegalMove, printable
from egoworld_ops.types import check_id

WHOLE_VIDEO = ""
"""The `clip_id` of a stage that works on whole videos: the manifest."""


class State(StrEnum):
    """What is known of one clip in one stage."""

    PENDING = "Pending"
    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"
    DEAD_LETTER = "DeadLetter"


Verb = Literal["add", "start", "finish", "give_back", "recover", "settle", "redrive", "rebuild"]

_P, _R, _D, _F, _X = State.PENDING, State.RUNNING, State.DONE, State.FAILED, State.DEAD_LETTER

MOVES: Mapping[Verb, Mapping[State, frozenset[State]]] = {
    # Wanted with another digest than the row has: other work at the same place, so that what was known no longer holds.
    "add": {source: frozenset({_P}) for source in (_P, _D, _F, _X)},
    # An owner takes it: one attempt.
    "start": {_P: frozenset({_R})},
    # Its owner, and nobody else, says what it ended in.
    "finish": {_R: frozenset({_D, _F, _X})},
    # Its owner did not get to it: no attempt.
    "give_back": {_R: frozenset({_P})},
    # Its owner is gone.
    "recover": {_R: frozenset({_P})},
    # Found, not run: a result by its digest (also while another owner still runs the same work), or a failure that is on record or that
    # needs no attempt (a bad sidecar). A failure takes the place of a result only where it is of other work.
    "settle": {_R: frozenset({_D}), **{source: frozenset({_D, _F, _X}) for source in (_P, _D, _F, _X)}},
    # By a person.
    "redrive": {_X: frozenset({_P})},
    # What the files say, like settle; a row without its file is pending again. A stale file does not settle what waits with another digest.
    "rebuild": {_P: frozenset({_D, _F, _X}), _R: frozenset({_D}), **{source: frozenset({_P, _D, _F, _X}) for source in (_D, _F, _X)}},
}
"""Who may move a clip from where to where: verb, state it is in, states it may go to. A clip without a row counts as Pending."""


def allowed(verb: Verb, target: State, source: State | None = None) -> tuple[State, ...]:
    """The states from which `verb` may move a clip to `target`; where `source` is named, that one alone.

    Raises:
        IllegalMove: there is none.
    """
    sources = tuple(s for s, targets in MOVES[verb].items() if target in targets and source in (None, s))
    if not sources:
        raise IllegalMove(
            f"{verb}: {source or 'any state'} -> {target}", "is not in the table of allowed moves", "This is a bug: report it"
        )
    return sources


@dataclass(frozen=True, order=True, slots=True)
class ClipKey:
    """One clip of one run in one stage; `clip_id` is WHOLE_VIDEO for a stage that works on whole videos."""

    run_id: str
    video_id: str
    clip_id: str
    stage: str

    def __post_init__(self) -> None:
        for name in ("run_id", "video_id", "stage"):
            check_id(name, getattr(self, name))
        if self.clip_id != WHOLE_VIDEO:
            check_id("clip_id", self.clip_id)


@dataclass(frozen=True, slots=True)
class Change:
    """A clip, the state it goes to, and what is to be recorded with it. None leaves digest, worker and attempts as they are.

    Args:
        digest: of the result; of the work, where there is none.
        worker: the pool's name of who did it.
        seconds: that it took.
        rows: of the result.
        at: when it was, ISO 8601 in UTC, for people; now, where it is None.
    """

    key: ClipKey
    state: State
    digest: str | None = None
    worker: str | None = None
    error_class: str | None = None
    message: str | None = None
    seconds: float | None = None
    rows: int | None = None
    attempts: int | None = None
    at: str | None = None

    @classmethod
    def done(cls, key: ClipKey, digest: str, rows: int, seconds: float | None = None, worker: str | None = None) -> Change:
        """A result."""
        return cls(key, State.DONE, digest, worker, seconds=seconds, rows=rows)

    @classmethod
    def failure(
        cls, key: ClipKey, error: EgoworldError, digest: str, dead_letter: bool, seconds: float | None = None, worker: str | None = None
    ) -> Change:
        """An error, in the words that table `failures` has for it."""
        state = State.DEAD_LETTER if dead_letter else State.FAILED
        message = printable(f"{error.culprit}: {error.reason}")
        return cls(key, state, digest, worker, type(error).__name__, message, seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """What the ledger says of one clip.

    Args:
        attempts: how often it was started for the digest it has, since it was last redriven.
        owner: who runs it; None where nobody does.
        worker: the pool's name of who worked on it last.
        digest: of the work that is wanted, or that was done; None where it is not known yet.
        seconds: that the result, or the last attempt, took.
        rows: of the result.
        first_at, last_at: when the row was made and when it moved last, ISO 8601 in UTC. For people: nothing is decided by them.
    """

    key: ClipKey
    state: State
    attempts: int
    owner: str | None
    worker: str | None
    digest: str | None
    error_class: str | None
    message: str | None
    seconds: float | None
    rows: int | None
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class Moves:
    """What became of a request to move clips.

    Args:
        moved: those this call moved.
        same: those that were already what they were to become, of the same digest.
        lost: the others, somebody else having moved them, with the state each is in; None for a clip without a row.
    """

    moved: list[ClipKey]
    same: list[ClipKey]
    lost: dict[ClipKey, State | None]
