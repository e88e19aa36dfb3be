"""Checks a run, its release, the intake and the verdicts: every file against its own footer, the files beside it, and release.json.

Nothing is repaired here. A finding is a ContractError: the file, what is wrong with it, and what to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, EgoworldError, StorageUnavailable, unreadable
from egoworld_ops.lake import verdicts
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.runs import contract_of
from egoworld_ops.lake.states import video_ids
from egoworld_ops.raw import intake
from egoworld_ops.upkeep import verify_intake, verify_release, verify_video
from egoworld_ops.upkeep.verify_release import Piece

Progress = Callable[[int, int], None]
_AT_ONCE = 16
"""Pieces submitted at once per thread, so that findings come in order and while there is still work."""


def verify(run: Run, progress: Progress = lambda done, total: None, threads: int | None = None) -> Iterator[EgoworldError]:
    """All that is wrong with a run and its release, as it is found. Memory is bounded by one clip, or a few batches of rows, per thread.

    A process that writes to the run or releases it meanwhile causes findings of its own.

    Args:
        progress: called with the pieces (videos, and files of the release) that are done, and all there are.
        threads: None means one per core.
    """
    if (version := contract_of(run)) != schema.SCHEMA_VERSION:
        reason = f"was made under version {version} of the data contract, this is version {schema.SCHEMA_VERSION}"
        yield ContractError(run.path / "run.json", reason, "Verify it with the code that made it")
        return
    n_threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as workers:
        pieces = [Piece(intake.path(run.lake), partial(verify_intake.check_intake, run))]
        pieces += [Piece(verdicts.path(run.lake), partial(_check_verdicts, run))]
        pieces += [Piece(run.path, partial(verify_video.check_strays, run))]
        pieces += [Piece(run.path / f"video_id={v}", partial(verify_video.check_video, run, v)) for v in video_ids(run)]
        pieces += verify_release.pieces(run)
        waiting, done = iter(pieces), 0
        while batch := list(islice(waiting, _AT_ONCE * n_threads)):
            for findings in workers.map(_findings, batch):
                done += 1
                yield from findings
                progress(done, len(pieces))


def _check_verdicts(run: Run) -> list[EgoworldError]:
    verdicts.read(run.lake)  # raises what is wrong
    return []


def _findings(piece: Piece) -> list[EgoworldError]:
    """Everything wrong with a piece, including that it cannot be read."""
    try:
        return piece.check()
    except EgoworldError as error:
        return [error]
    except OSError as error:
        where, reason = error.filename or piece.path, f"cannot be read: {error.strerror}"
        if unreadable(error, where) is None:
            return [ContractError(where, reason, "Remove what is not of the lake")]
        return [StorageUnavailable(where, reason, "Mend the storage, then verify again")]
    except Exception as error:  # noqa: BLE001 - foreign files may hold anything; the other pieces must still be checked
        return [
            ContractError(piece.path, f"cannot be looked at: {error!r}", "Remove what is not of the lake; else this is a bug: report it")
        ]
