"""The disk is full, at every write site in turn: a small file system without room for one more file or for some more bytes."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from egoworld_assets.chain import configuration
from egoworld_ops.errors import EgoworldError, StorageUnavailable
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake.lake import Lake
from egoworld_ops.settings import Settings
from tests.chaos_runs import world
from tests.conftest import ROOT

_ROOMY = "size=64m,nr_inodes=10000"
_MOST_ERRORS = 200
_SITES = {
    "ledger": r"^ledger ",
    "intake": r"/intake",
    "catalog": r"egoworld\.duckdb",
    "meta": r"meta\.json$",
    "memo": r"memo\.json$",
    "latest": r"latest\.json$",
    "failure row": r"\.failure\.parquet$",
    "manifest": r"/(videos|clips)\.parquet$",
    "table": r"clip_id=[^/]*/\w+\.parquet$",
    "run": r"run_id=[^/]*(/run\.json|/_contract.*)?$",
}


class Unmounted(Exception):
    """This user may not mount a file system."""


def run(size: int, seed: int) -> str:
    """`size` chains on a disk too small for them, half in files and half in bytes, each given more until it ends by itself."""
    random, began, met = Random(f"full {seed}"), time.monotonic(), Counter[str]()
    with world.scratch() as root:
        world.make_video(root / "raw")
        with _disk(root / "disk") as disk:
            chain = [settings.model_copy(update={"raw": root / "raw"}) for settings in world.chain(disk)]
            files, n_bytes, wanted = _undisturbed(disk, chain)
            for number in range(size):
                _clear(disk)
                if number % 2:
                    met += _more_and_more(disk, chain, "size", random.randrange(4 << 10, n_bytes, 4 << 10), n_bytes // 30, random)
                else:
                    met += _more_and_more(
                        disk, chain, "nr_inodes", random.randrange(2, files) if number else 2, 1 if size > 2 else 2, random
                    )
                _is_as_undisturbed(disk, chain, wanted)
            told = _command_line(disk, chain[0])
    sites = ", ".join(f"{n} at {site}" for site, n in sorted(met.items()))
    return (
        f"{size} chains on disks too small for them: {met.total()} errors ({sites}), each one of ours that names the place and a cure, nothing half "
        f"taken for whole; with space again all {size} end as the undisturbed one; {told}; {time.monotonic() - began:.0f} s"
    )


def _undisturbed(disk: Path, chain: list[Settings]) -> tuple[int, int, list[world.Snapshot]]:
    """How many files and bytes a chain needs, and its results."""
    world.go(chain)
    state = os.statvfs(disk)
    wanted = [world.snapshot(configuration.open_run(settings)) for settings in chain]
    return state.f_files - state.f_ffree, (state.f_blocks - state.f_bfree) * state.f_bsize, wanted


def _more_and_more(disk: Path, chain: list[Settings], limit: str, start: int, step: int, random: Random) -> Counter[str]:
    """Run the chain on a disk that grows by a step at each error; where the errors were."""
    met, given = Counter[str](), start
    while met.total() < _MOST_ERRORS:
        _resize(disk, limit, given)
        try:
            world.go(chain)
        except EgoworldError as error:
            met[_site(error)] += 1
            _all_whole(chain[0].lake)
        else:
            return met
        finally:
            world.forget(disk)
            _resize(disk, "size", 64 << 20)
        given += random.choice((1, 2, 3)) * step
    raise AssertionError(f"after {_MOST_ERRORS} errors still no end: {met}")


def _site(error: EgoworldError) -> str:
    assert isinstance(error, StorageUnavailable), f"{type(error).__name__}: {error}"
    assert error.cure, error
    for site, pattern in _SITES.items():
        if re.search(pattern, error.culprit):
            return site
    return "folder" if error.culprit.startswith("/") else "elsewhere"


def _all_whole(root: Path) -> None:
    """Every file with the name of a table can be read."""
    for path in root.glob("run_id=*/video_id=*/**/*.parquet"):
        read_table(path, "failures" if path.name.endswith(".failure.parquet") else path.stem)


def _is_as_undisturbed(disk: Path, chain: list[Settings], wanted: list[world.Snapshot]) -> None:
    _resize(disk, "size", 64 << 20)
    world.go(chain)
    for settings, rows in zip(chain, wanted, strict=True):
        found = configuration.open_run(settings)
        world.same(rows, world.snapshot(found), found.run_id)
        world.metas_say_what_files_say(found)
        world.ledger_agrees(settings, found)
    world.no_temporaries(disk)
    world.catalog_answers(Lake(chain[0].lake))
    world.forget(disk)


def _command_line(disk: Path, settings: Settings) -> str:
    """What a person sees of it: a line, no traceback."""
    _clear(disk)
    home = settings.raw.parent / "home"
    home.mkdir(exist_ok=True)
    environment = os.environ | {
        "EGOWORLD_LAKE": str(settings.lake),
        "EGOWORLD_RAW": str(settings.raw),
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }
    commands = {"nr_inodes": ["register", str(settings.raw)], "size": ["ledger", "rebuild"]}
    for limit, arguments in commands.items():
        _resize(disk, limit, 4 << 10 if limit == "size" else 2)
        done = subprocess.run(
            [Path(sys.executable).with_name("egoworld"), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        said = f"egoworld {' '.join(arguments)}: {done.stdout}{done.stderr}"
        assert done.returncode == 1, said
        assert "Traceback" not in done.stderr, said
        assert str(disk) in done.stderr, said
        assert "then run again" in done.stderr, said
        _clear(disk)
    return f"{len(commands)} commands on a full disk say so in a line"


@contextlib.contextmanager
def _disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", _ROOMY, "tmpfs", place], capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise Unmounted(mounted.stderr.strip())
    try:
        yield place
    finally:
        world.forget(place)
        subprocess.run(["umount", place], check=True)


def _resize(disk: Path, limit: str, value: int) -> None:
    """Only one of the two limits at a time; existing files always fit."""
    state = os.statvfs(disk)
    used_bytes, used_files = (state.f_blocks - state.f_bfree) * state.f_bsize, state.f_files - state.f_ffree
    options = {"size": max(64 << 20, used_bytes), "nr_inodes": max(10_000, used_files)}
    options[limit] = max(value, used_bytes if limit == "size" else used_files)
    subprocess.run(["mount", "-o", f"remount,size={options['size']},nr_inodes={options['nr_inodes']}", disk], check=True)


def _clear(disk: Path) -> None:
    world.forget(disk)
    subprocess.run(["find", disk, "-mindepth", "1", "-delete"], check=True)
    _resize(disk, "size", 64 << 20)
