"""Removes runs that nobody needs (not released, not the latest, not held by a living process, not named to be kept) and the orphans of crashes.

A run's folder is renamed before anything in it is deleted, so that after a crash no reader takes the rest for a run. A file that other runs
link to stays there.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from egoworld_ops.errors import StorageUnavailable
from egoworld_ops.files import locks
from egoworld_ops.files.whole import RUN, TEMPORARY, matching, sync_folder
from egoworld_ops.lake import pointer, reference
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger import State
from egoworld_ops.release.place import ASIDE, exists, home, recover

if TYPE_CHECKING:
    from egoworld_ops.ledger.store import Ledger

OLDER_THAN_S = 24 * 3600.0
Keep = Callable[[str], str]
"""Gives the reason why the run of that id must stay; empty where it may be removed. It is called again just before the run is removed."""
_TRASH = f"{TEMPORARY}gc-"


@dataclass(frozen=True, slots=True)
class Doomed:
    """Something to be removed: a run's folder or something temporary, and why."""

    path: Path
    reason: str

    @property
    def run_id(self) -> str | None:
        """The id of the run; None for something temporary."""
        return self.path.name.removeprefix(RUN) if self.path.name.startswith(RUN) else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The things to remove and the runs to keep.

    Args:
        remove: runs and temporary files.
        keep: runs that stay, with the reason.
        freed_bytes: disk space that becomes free; files that other runs link to do not count.
        named_bytes: size of all files that are removed here, also of those that other runs link to.
    """

    remove: Sequence[Doomed]
    keep: Sequence[tuple[str, str]]
    freed_bytes: int = 0
    named_bytes: int = 0


def plan(store: Lake, keep: Keep = lambda run_id: "", older_than_s: float = OLDER_THAN_S) -> Plan:
    """What `collect` would remove now; removes nothing.

    Args:
        older_than_s: temporary files stay until they are this old, and while a process of this host has them open.

    Raises:
        StorageUnavailable: the storage refuses.
    """
    with _named_errors(store):
        remove, kept = _choose(store, keep, older_than_s)
        return Plan(remove, kept, *_sizes(doomed.path for doomed in remove))


def collect(
    store: Lake, keep: Keep = lambda run_id: "", older_than_s: float = OLDER_THAN_S, forget: Callable[[str], object] = lambda run_id: None
) -> Plan:
    """Remove what `plan` would; returns what was removed and what stayed. Waits while a release is made. A run that comes into use meanwhile stays.

    Args:
        forget: called with the id of a run that is about to go, while nobody can open it.

    Raises:
        StorageUnavailable: the storage refuses.
    """
    with _named_errors(store):
        home(store).mkdir(parents=True, exist_ok=True)
        with locks.alone(home(store)):
            recover(store)
            remove, kept = _choose(store, keep, older_than_s)
            away = {doomed: trash for doomed in remove if (trash := _taken_away(store, doomed.path, keep, forget))}
            freed, named = _sizes(away.values())
            for trash in away.values():
                _delete(trash)
    kept += [(doomed.run_id, "came into use") for doomed in remove if doomed.run_id and doomed not in away]
    return Plan(list(away), kept, freed, named)


def leased(book: Ledger, run_id: str) -> str:
    """The reason to keep a run while owners in the ledger, also on other hosts, work on its clips; empty if none do."""
    book.recover()
    n = sum(counted.get(State.RUNNING, 0) for counted in book.counts(run_id).values())
    return f"{n} clip(s) are being worked on" if n else ""


def changed(run: Run) -> float:
    """When anything in a run was last written, s since the epoch."""
    return _last_change(run.path)


def largest(store: Lake) -> tuple[str, int] | None:
    """The run with the most results and how many tables of clips those are; of equals the latest, else the newest. None where no run has any."""
    latest = store.latest_run()
    sizes = [(sum(1 for _ in matching(run.path, "video_id=*/clip_id=*/[!.]*.parquet")), run == latest, run.run_id) for run in store.runs()]
    results, _, run_id = max(sizes, default=(0, False, ""))
    return (run_id, results) if results else None


@contextmanager
def _named_errors(store: Lake) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(store.root, f"cannot be cleaned: {error}", "Mend the storage, then run it again") from error


def _choose(store: Lake, keep: Keep, older_than_s: float) -> tuple[list[Doomed], list[tuple[str, str]]]:
    """The things to remove, orphans first; and the runs that stay, with the reason."""
    runs = {run.run_id for run in store.runs()}
    reasons = {path.name.removeprefix(RUN): "has no run.json that says what it is" for path in matching(store.root, f"{RUN}*")}
    reasons |= {run_id: _reason_to_stay(Run(store, run_id), keep) or _held(Run(store, run_id)) for run_id in runs}
    doomed = [Doomed(Run(store, run_id).path, "not released") for run_id, reason in reasons.items() if not reason]
    left = sorted(_left_behind(store, {one.path for one in doomed}, older_than_s), key=lambda one: one.path)
    return [*left, *doomed], [(run_id, reason) for run_id, reason in reasons.items() if reason]


def _reason_to_stay(run: Run, keep: Keep) -> str:
    if exists(run):
        return "released"
    if (chosen := reference.read(run.lake.root)) is not None and chosen.run_id == run.run_id:
        return "the reference of drift"
    if (said := pointer.read(run.lake.root)) is not None and said.run_id == run.run_id:
        return "pinned as the latest run" if said.pinned else "the latest run"
    return keep(run.run_id)


def _held(run: Run) -> str:
    with locks.alone(run.path, wait=False) as alone:
        return "" if alone else "open in a living process"


def _left_behind(store: Lake, without: Collection[Path], older_than_s: float) -> Iterator[Doomed]:
    """Orphans of crashes: half-deleted runs at once; temporary files and folders once they are old and no process has them open."""
    held = locks.open_files(store.root)
    newest = time.time() - older_than_s
    for path in _temporary(store.root, without):
        if path.name.endswith(ASIDE):
            continue  # `recover` puts it back, or removes it, before anything goes
        if path.name.startswith(_TRASH):
            yield Doomed(path, "left of a run that was being removed")
        elif _last_change(path) < newest and not any(path.resolve() in (h, *h.parents) for h in held):
            yield Doomed(path, "left by a process that was killed")


def _temporary(folder: Path, without: Collection[Path]) -> Iterator[Path]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(TEMPORARY):
                yield path
            elif entry.is_dir(follow_symlinks=False) and path not in without:
                yield from _temporary(path, without)


def _last_change(path: Path) -> float:
    """When a file, or anything in a folder, was last written, s since the epoch; infinity if it is gone."""
    return max((state.st_mtime for state in _states(path)), default=math.inf)


def _states(path: str | Path) -> Iterator[os.stat_result]:
    """The `stat` of a path and of all below it; what is removed meanwhile is skipped. Memory is bounded, however many files there are."""
    with suppress(FileNotFoundError):
        state = os.lstat(path)
        yield state
        if stat.S_ISDIR(state.st_mode):
            with os.scandir(path) as entries:
                for entry in entries:
                    yield from _states(entry.path)


def _sizes(paths: Iterable[Path]) -> tuple[int, int]:
    """Bytes on the disk of files that have no hard link outside of these paths, and bytes of all."""
    freed = named = 0
    names_elsewhere: dict[tuple[int, int], int] = {}
    for state in (state for path in paths for state in _states(path) if not stat.S_ISDIR(state.st_mode)):
        file = state.st_dev, state.st_ino
        if file not in names_elsewhere:
            named += state.st_size
        if left := names_elsewhere.pop(file, state.st_nlink) - 1:
            names_elsewhere[file] = left
        else:
            freed += 512 * state.st_blocks
    return freed, named


def _taken_away(store: Lake, path: Path, keep: Keep, forget: Callable[[str], object]) -> Path | None:
    """The path of a thing that is ready to be deleted; a run is renamed first. None for a run that came into use meanwhile."""
    if not path.name.startswith(RUN):
        return path
    run, trash = Run(store, path.name.removeprefix(RUN)), store.root / f"{_TRASH}{os.getpid()}-{path.name}"
    with locks.alone(path, wait=False) as alone:
        if not alone or _reason_to_stay(run, keep):
            return None
        forget(run.run_id)
        os.rename(path, trash)
        sync_folder(store.root)
    return trash


def _delete(path: Path) -> None:
    """Remove a path that another process may be removing too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_unless_gone)
    else:
        path.unlink(missing_ok=True)


def _unless_gone(_function: object, _path: object, error: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(error[1], FileNotFoundError):
        raise error[1]
