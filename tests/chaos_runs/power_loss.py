"""A power loss at any moment of a small materialization, after which the chain is run again."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path
from random import Random

from egoworld_assets.chain import bookkeeping, configuration
from egoworld_ops import ledger
from egoworld_ops.errors import EgoworldError
from egoworld_ops.files import locks
from egoworld_ops.files.tables import digest_at, read_table
from egoworld_ops.lake.lake import Lake
from egoworld_ops.settings import Settings
from tests.chaos_runs import disk_model, world


def run(size: int, seed: int) -> str:
    """`size` possible states of the disk after a power loss; the first are just after each kind of write."""
    random, began, losses, sites = Random(f"power {seed}"), time.monotonic(), 0, Counter[str]()
    with world.scratch() as root:
        chain = world.chain(root)
        world.make_video(chain[0].raw)
        recorder = disk_model.Recorder(chain[0].lake)
        with recorder.at_work():
            world.go(chain)
        operations = recorder.operations
        wanted = [world.snapshot(configuration.open_run(settings)) for settings in chain]
        _close(root)
        ahead = (root / "ledger").absolute()
        shutil.copy(chain[0].lake / ledger.FILE_NAME, ahead)
        moments = _moments(operations, size, random)
        for number, at in enumerate(moments):
            _empty(chain[0].lake)
            losses += disk_model.crash(operations, at, random)
            sites[_site(operations[at - 1].path)] += 1
            if (number % 2) and chain[0].lake.is_dir():
                shutil.copy(
                    ahead, chain[0].lake / ledger.FILE_NAME
                )  # the ledger knows more than the disk holds: worse than any state SQLite would leave
            _resumes(root, chain, wanted, f"state {number}, cut before operation {at} of {len(operations)}: {operations[at - 1]}")
    where = ", ".join(f"{n} at {site}" for site, n in sorted(sites.items()))
    return (
        f"{len(moments)} states of the disk after a loss of power at {len(set(moments))} of {len(operations)} moments ({where}), with {losses} "
        f"operations lost or contents torn; half of them without a ledger, half with one that says too much: each ends as the undisturbed one, "
        f"no table that is not right is ever taken for valid; {time.monotonic() - began:.0f} s"
    )


def _moments(operations: list[disk_model.Operation], size: int, random: Random) -> list[int]:
    """One after an operation at each kind of site, then anywhere."""
    by_site: dict[str, list[int]] = {}
    for number, operation in enumerate(operations, 1):
        by_site.setdefault(_site(operation.path), []).append(number)
    first = [random.choice(numbers) for numbers in by_site.values()]
    return (first + [random.randrange(1, len(operations) + 1) for _ in range(size)])[: max(size, len(first))]


def _site(path: Path) -> str:
    """What is written there."""
    if path.is_dir() and not path.is_symlink():
        return "folder"
    name = path.name
    if name.startswith(".tmp-"):
        return "temporary"
    if "_contract" in path.parts or name == "run.json" or (name.startswith("run_id=") and path.parent.name == "lake"):
        return "run"
    known = (
        "meta.json",
        "memo.json",
        "quality.json",
        "latest.json",
        "intake.parquet",
        "egoworld.duckdb",
        ".egoworld.duckdb.sha256",
        "packets.index",
        "clips.parquet",
        "videos.parquet",
    )
    if name in known:
        return name
    return "failure" if name.endswith(".failure.parquet") else "table" if name.endswith(".parquet") else "folder"


def _resumes(root: Path, chain: list[Settings], wanted: list[world.Snapshot], what: str) -> None:
    try:
        _nothing_wrong_is_valid(chain[0].lake, wanted)
        world.go(chain)
        for settings, rows in zip(chain, wanted, strict=True):
            run = configuration.open_run(settings)
            world.same(rows, world.snapshot(run), run.run_id)
            world.no_temporaries(run.path)
            ledger.rebuild(bookkeeping.ledger_of(settings.lake, settings.ledger), Lake(settings.lake))
            world.ledger_agrees(settings, run)
        world.no_temporaries(chain[0].lake)
        world.catalog_answers(Lake(chain[0].lake))
    except (AssertionError, EgoworldError, OSError) as error:
        raise AssertionError(f"{what}: {error}") from error
    finally:
        _close(root)


def _nothing_wrong_is_valid(root: Path, wanted: list[world.Snapshot]) -> None:
    """A file whose footer has a digest holds the rows of that digest."""
    rows_of = {(Path(path).name, digest): rows for found in wanted for path, (rows, digest) in found.items() if digest}
    for path in root.glob("run_id=*/video_id=*/**/*.parquet"):
        if (digest := digest_at(path)) is not None:
            table = "failures" if path.name.endswith(".failure.parquet") else path.stem
            here = {rows.num_rows: rows for (name, d), rows in rows_of.items() if (name, d) == (path.name, digest)}
            assert read_table(path, table) in here.values(), f"{path} is taken for valid"


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    assert not os.path.lexists(folder)


def _close(root: Path) -> None:
    world.forget(root)
    assert not [path for path in locks._held if path.is_relative_to(root)]
