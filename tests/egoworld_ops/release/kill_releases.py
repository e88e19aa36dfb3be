"""Releases killed by the clock or at a change of the disk, then made again: `python -m tests.egoworld_ops.release.kill_releases LAKE SEED N`.

LAKE holds one run. This process starts no thread, so that each release may run in a fork of it. A kill must leave the old release or the new
one, whole; the next release must give the bytes of an undisturbed one, and leave nothing temporary.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from egoworld_ops.files import exchange, locks
from egoworld_ops.lake.lake import Lake
from egoworld_ops.release.make import make_release
from egoworld_ops.release.place import LATEST, folder, home
from egoworld_ops.release.settings import ReleaseSettings

SETTINGS = ReleaseSettings(part_mb=0.1, writers=2)
CALLS = [(os, name) for name in ("replace", "rename", "link", "symlink", "unlink", "fsync", "mkdir")] + [(exchange, "exchange")]
Tree = dict[str, bytes]


def main(lake: Path, seed: int, n: int) -> None:
    rng = random.Random(seed)
    os.fsync = lambda handle: None  # type: ignore[assignment]
    scratch = lake.parent / "scratch"
    before = tree(lake)
    undisturbed = copy(lake, scratch / "undisturbed")
    started = time.monotonic()
    assert forked(lambda: make(undisturbed)) == 0
    took_s = time.monotonic() - started
    after = tree(undisturbed)
    assert after != before
    sites = count_sites(copy(lake, scratch / "count"))
    whole = 0
    for i in range(n):
        place = copy(lake, scratch / "killed")
        status = kill_by_clock(place, rng.uniform(0, took_s)) if i % 2 else kill_at_site(place, rng.randrange(sites))
        found = tree(place)
        assert found in (before, after), f"round {i}, status {status}: half a release"
        whole += found == after
        assert forked(lambda lake=place: make(lake)) == 0
        assert tree(place) == after, f"round {i}, status {status}: other bytes than undisturbed"
        left = [str(p) for p in place.rglob(".tmp-*")]
        assert not left, f"round {i}, status {status}: left {left}"
        assert (place / LATEST).resolve() == folder(Lake(place).runs()[0]).resolve()
    print(f"{n} kills, {sites} sites, {whole} after the release was in place")


def make(lake: Path) -> None:
    make_release(Lake(lake).runs()[0], SETTINGS)


def copy(lake: Path, target: Path) -> Path:
    """A copy of links: files of a lake are replaced, never changed."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-al", str(lake), str(target)], check=True)
    return target


def tree(lake: Path) -> Tree:
    """The files that a reader finds in the folder of releases."""
    root = home(Lake(lake))
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != locks.LOCK_NAME}


def forked(work: Callable[[], Any]) -> int:
    """Exit status of a fork that does some work."""
    if (pid := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_by_clock(lake: Path, after_s: float) -> int:
    if (pid := os.fork()) == 0:
        try:
            make(lake)
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at_site(lake: Path, site: int) -> int:
    def work() -> None:
        instrument(lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == site else None)
        make(lake)

    return forked(work)


def count_sites(lake: Path) -> int:
    """How many calls of a release change the disk."""
    reader, writer = os.pipe()

    def work() -> None:
        seen: list[int] = []
        instrument(seen.append)
        make(lake)
        os.write(writer, str(len(seen)).encode())

    assert forked(work) == 0
    return int(os.read(reader, 20))


def instrument(before: Callable[[int], object]) -> None:
    """Call `before` with a running number before each call that changes the disk."""
    number = iter(range(1_000_000))
    for module, name in CALLS:
        real = getattr(module, name)

        def call(*arguments: Any, real: Callable[..., Any] = real, **options: Any) -> Any:
            before(next(number))
            return real(*arguments, **options)

        setattr(module, name, call)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
