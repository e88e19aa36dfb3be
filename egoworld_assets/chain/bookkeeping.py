"""Writes to the ledger what a stage does: clips started, ended, or found done. A clip that another process works on stays with that process.

A clip is entered as done only after its file is stored: the files are the truth, and the ledger never says more than they do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops import ledger
from egoworld_ops.errors import EgoworldError
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger import WHOLE_VIDEO, Change, ClipKey, State

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import SecretStr

    from egoworld_ops.ledger.leases import Owner
    from egoworld_ops.ledger.store import Ledger

_OPEN: dict[tuple[str, str], Ledger] = {}
_OPENING = threading.Lock()
MANIFEST = "manifest"
_TOGETHER_S = 0.2
"""Results that end faster than this after each other are entered together: one transaction costs as much as storing a small result."""


def ledger_of(lake: Path, url: SecretStr | None) -> Ledger:
    """The ledger of a lake, opened once in a process.

    Args:
        lake: folder of the lake, created if missing.
        url: of the ledger's database, as in the settings; None stands for the file in the lake.

    Raises:
        EgoworldError: as `ledger.open_ledger`.
    """
    address = url.get_secret_value() if url else None
    place = (str(lake.absolute()), address or "")
    with _OPENING:
        if place not in _OPEN:
            lake.mkdir(parents=True, exist_ok=True)
            _OPEN[place] = ledger.open_ledger(Lake(lake), address)
        return _OPEN[place]


class Entries:
    """The entries of one stage in one run by one owner, who comes into being with the first clip that is started.

    Args:
        owning: is entered with that owner.
    """

    def __init__(self, book: Ledger, run: Run, stage: str, owning: ExitStack) -> None:
        self._book, self._run, self._stage, self._owning = book, run, stage, owning
        self._seen_ended: set[ClipKey] = set()
        self._unentered: list[Change] = []
        self._entered_s = 0.0

    @cached_property
    def _owner(self) -> Owner:
        return self._owning.enter_context(self._book.owner())

    def take(self, tasks: Sequence[ClipTask]) -> list[ClipTask]:
        """Start these clips; returns those that this owner now has. The others run in another process, or were finished after they were planned.

        So one that the ledger says has ended is not taken at first. If it is planned once more after that, its file is not valid: the files decide.
        """
        self.enter_rest()
        wanted = {self._key(t.clip.video_id, t.clip.clip_id): t for t in tasks}
        digests = {key: task.key for key, task in wanted.items()}
        self._book.add(digests)
        lost = self._book.start(wanted, self._owner).lost
        ended = {key for key, state in lost.items() if state is not State.RUNNING}
        if invalid := ended & self._seen_ended:
            self._book.add(dict.fromkeys(invalid))
            self._book.add({key: digests[key] for key in invalid})
            lost = {key: state for key, state in lost.items() if key not in invalid} | self._book.start(invalid, self._owner).lost
        self._seen_ended |= ended
        return [task for key, task in wanted.items() if key not in lost]

    def ended(self, result: StageResult, attempts: int, worker: str) -> None:
        """Enter the result of a clip that was started, at once or with the next ones; its file is stored."""
        self._unentered.append(self._change(result, attempts, worker))
        if time.monotonic() - self._entered_s > _TOGETHER_S:
            self.enter_rest()

    def enter_rest(self) -> None:
        """Enter the results that wait for others."""
        if self._unentered:
            self._book.finish(self._unentered, self._owner)
            self._unentered, self._entered_s = [], time.monotonic()

    def found(self, results: Iterable[StageResult]) -> None:
        """Enter results that needed no work, and clips that could not be started."""
        fresh = [r for r in results if not r.recalled and (r.clip_id is not None or self._stage == MANIFEST)]
        blocked = {self._key(r.video_id, r.clip_id): None for r in fresh if r.state == "blocked"}
        if blocked:
            self._book.add(blocked)
        if settled := [self._change(r) for r in fresh if r.state != "blocked"]:
            self._book.settle(settled)

    def free_abandoned(self) -> None:
        """Set the clips of owners that no longer exist to pending."""
        self._book.recover()

    def _key(self, video_id: str, clip_id: str | None) -> ClipKey:
        return ClipKey(self._run.run_id, video_id, clip_id or WHOLE_VIDEO, self._stage)

    def _change(self, result: StageResult, attempts: int | None = None, worker: str | None = None) -> Change:
        key, seconds = self._key(result.video_id, result.clip_id), result.seconds or None
        if result.error is None:
            return replace(Change.done(key, result.digest, result.rows, seconds, worker), attempts=attempts)
        return replace(Change.failure(key, result.error, result.digest, result.dead_letter, seconds, worker), attempts=attempts)


@contextmanager
def entries(book: Ledger, run: Run, stage: str) -> Iterator[Entries]:
    """Entries for a stage; at the end, clips that were started and not finished are pending again."""
    book.recover()
    with ExitStack() as owning:
        made = Entries(book, run, stage, owning)
        try:
            yield made
        except BaseException:
            with suppress(EgoworldError):  # what is not entered becomes pending, and is found done when it is next planned
                made.enter_rest()
            raise
        made.enter_rest()
