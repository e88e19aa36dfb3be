"""Where releases lie, what their `release.json` says, and the typed, empty stand-in for a lake without a release.

A release is one folder that changes in one step: whoever lists it sees one release and never parts of two. `released` in the lake's root
points at the one made last: a symbolic link, or, on a file system that has none, a file that holds the path.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from egoworld_ops.contract.links import LINKS
from egoworld_ops.contract.schema import empty
from egoworld_ops.errors import ContractError, unreadable
from egoworld_ops.files import locks, regular
from egoworld_ops.files.tables import write_table
from egoworld_ops.files.whole import NO_LINKS, is_there, make_folder, matching, named_errors, sweep, sync_folder, write_bytes
from egoworld_ops.lake.lake import PLACEHOLDER_SUFFIX, RUN_TABLES, Lake, Run
from egoworld_ops.verdict_words import VERDICT_WORDS

MANIFEST_NAME = "release.json"
LEFT_OUT_NAME = "left_out.jsonl"
"""The clips that people's verdicts leave out and why, where a release is chosen by them."""
PAGE_NAME = "README.md"
LATEST = "released"
STAND_IN = "_contract"
_FORMER_STAND_IN = "part-_.parquet"
_STAGING = ".tmp-release-"
_POINTING = f".tmp-{LATEST}-"
ASIDE = ".aside"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a release.

    Args:
        sha256: of its bytes.
        digest: of all that decides its rows: the digests of the files it is made of, and how it is laid out. Its footer names them one by one.
        sources: how many files it is made of.
    """

    sha256: str
    bytes: int
    rows: int
    digest: str
    sources: int


@dataclass(frozen=True, slots=True)
class PartRecord:
    """One part: whole videos, and the file that holds their rows in each table."""

    name: str
    videos: Sequence[str]
    tables: Mapping[str, FileRecord]


@dataclass(frozen=True, slots=True)
class ReleaseManifest:
    """What `release.json` says.

    Args:
        parquet: how the files are laid out, and whether lengths of an assumed focal length are in them (`assumed_metric`).
        incomplete: by video and stage, how many clips have no table that counts and why; None stands for a video without a manifest, of which there
            are no rows.
        truth_cards: by video, the SHA-256 of the bytes of its truth card, which lies in `truth_cards/`.
        licences: of the weights behind its rows, by name: address, commercial use (`yes`, `no`, `ask`), and the weights under it.
        verdicts: where clips are chosen by people's verdicts, by which, SHA-256 over those that stood, and how many clips are left out by what
            was said of them; None where all are taken.
    """

    run_id: str
    schema: str
    parquet: Mapping[str, Any]
    incomplete: Mapping[str, Mapping[str, Mapping[str, int]] | None]
    parts: Sequence[PartRecord]
    truth_cards: Mapping[str, str] = field(default_factory=dict)
    licences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    verdicts: Mapping[str, Any] | None = None

    @property
    def rows(self) -> dict[str, int]:
        """Rows by table."""
        counted: Counter[str] = Counter()
        for part in self.parts:
            counted.update({table: record.rows for table, record in part.tables.items()})
        return dict(counted)

    @property
    def total_bytes(self) -> int:
        """Size of all parts."""
        return sum(record.bytes for part in self.parts for record in part.tables.values())

    def to_json(self) -> bytes:
        """The content of `release.json`: the same for the same release."""
        said = {name: value for name, value in asdict(self).items() if value or name not in ("truth_cards", "verdicts")} | {
            "rows": self.rows
        }
        return json.dumps(said, indent=1, sort_keys=True).encode()


def home(store: Lake) -> Path:
    """The folder of all releases of a lake."""
    return store.root / "release"


def folder(run: Run) -> Path:
    """The folder of a run's release."""
    return home(run.lake) / run.path.name


def staging(run: Run) -> Path:
    """Where a release is written before it is renamed into place; outside of `home`, so that no pattern for releases matches it."""
    return run.lake.root / f"{_STAGING}{run.path.name}"


def exists(run: Run) -> bool:
    """Whether a run has a release, damaged or not; also where a crash cut an exchange of folders short.

    Raises:
        StorageUnavailable: that cannot be told now.
    """
    return any(is_there(path) for path in (folder(run), staging(run).with_name(f"{staging(run).name}{ASIDE}")))


def part_name(run: Run, number: int) -> str:
    """Name of a part of a run's release. No other run uses it, so that a reader that listed the files of one release never opens those of another."""
    return f"{_parts_of(run)}{number:05d}"


def part_number(run: Run, name: str) -> int:
    """The number in the name of a part; -1 where the run gives no part such a name."""
    number = name.removeprefix(_parts_of(run))
    return int(number) if number != name and number.isdecimal() else -1


def part_names(run: Run) -> set[str]:
    """The parts that have files in a run's release, whatever its `release.json` says."""
    return {path.stem for path in matching(folder(run), "*/part-*.parquet")}


def _parts_of(run: Run) -> str:
    return f"part-{hashlib.sha256(run.run_id.encode()).hexdigest()[:8]}-"


def part_path(release: Path, table: str, part: str) -> Path:
    """The file of a table in a part."""
    return release / table / f"{part}.parquet"


def card_path(release: Path, video_id: str) -> Path:
    """The truth card of a video, if the release carries one."""
    return release / "truth_cards" / f"{video_id}.json"


def read(run: Run) -> ReleaseManifest | None:
    """What the release of a run says of itself; None where there is none.

    Raises:
        ContractError: its release.json is damaged.
        StorageUnavailable: its release.json is there and cannot be read now.
    """
    path = folder(run) / MANIFEST_NAME
    try:
        said = json.loads(regular.read_bytes(path))
        parts = [
            PartRecord(p["name"], p["videos"], {table: FileRecord(**record) for table, record in p["tables"].items()})
            for p in said["parts"]
        ]
        whole = (said["run_id"], said["schema"], said["parquet"], said["incomplete"], parts)
        return ReleaseManifest(*whole, said.get("truth_cards", {}), said.get("licences", {}), _verdicts(said.get("verdicts")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and (away := unreadable(error, path)) is not None:
            raise away from error
        raise ContractError(path, f"cannot be read: {error!r}", "Delete it and release the run again") from error


def _verdicts(said: Any) -> Mapping[str, Any] | None:
    """What `release.json` says of the choice of clips, where it is of the shape that `Choice.described` gives."""
    if said is None:
        return None
    words = [*said["without"], *([said["verdict"]] if said["verdict"] is not None else [])]
    counts = [said["judged"], *said["left_out"].values()]
    if not words or {*words} - {*VERDICT_WORDS} or {type(count) for count in counts} != {int} or not isinstance(said["snapshot"], str):
        raise ValueError(f"verdicts: {said}")
    return dict(said)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hex."""
    with regular.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def point_latest(run: Run) -> None:
    """Make this run's release the one that the views of schema `release` show."""
    _point(run.lake, folder(run))


def shown(store: Lake) -> Path:
    """The folder that the views of schema `release` show: of the release made last, or of the stand-in where there is none."""
    pointer = store.root / LATEST
    if pointer.is_symlink() or not pointer.is_file():
        return pointer
    return store.root / regular.read_text(pointer)


def stand_in(store: Lake, table: str) -> Path:
    """The typed, empty file of a table that the views of releases always find."""
    return home(store) / STAND_IN / table / f"part-00000000-00000{PLACEHOLDER_SUFFIX}"


def ensure(store: Lake, again: bool = False) -> None:
    """Make sure that every pattern over releases matches a typed file, where no release is there.

    Args:
        again: write them anew: the contract may be another than it was.
    """
    folder = home(store) / STAND_IN
    wanted = {name: path for name in (*RUN_TABLES, *LINKS) if not (path := stand_in(store, name)).exists() or again}
    if wanted:
        with named_errors(folder):
            make_folder(folder)
            with locks.alone(folder):
                for name, path in wanted.items():
                    sweep(path.parent)
                    write_table(path, name, empty(name), {})
                    path.with_name(_FORMER_STAND_IN).unlink(missing_ok=True)
    if not shown(store).is_dir():
        with named_errors(store.root / LATEST):
            _point(store, home(store) / STAND_IN)


def recover(store: Lake) -> None:
    """End an exchange of folders that a crash cut short, on a file system that has no such step."""
    for aside in store.root.glob(f"{_STAGING}*{ASIDE}"):
        target = home(store) / aside.name.removeprefix(_STAGING).removesuffix(ASIDE)
        if target.exists():
            shutil.rmtree(aside)
        else:
            os.rename(aside, target)


def _point(store: Lake, target: Path) -> None:
    link, wanted = store.root / LATEST, str(target.relative_to(store.root))
    for left in store.root.glob(f"{_POINTING}*"):
        if not Path("/proc", left.name.removeprefix(_POINTING)).exists():  # whoever made it was killed
            left.unlink(missing_ok=True)
    if link.is_symlink() and os.readlink(link) == wanted:
        return
    temporary = store.root / f"{_POINTING}{os.getpid()}"
    temporary.unlink(missing_ok=True)
    try:
        temporary.symlink_to(wanted)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        write_bytes(link, wanted.encode())  # a file system without symbolic links
        return
    os.replace(temporary, link)
    sync_folder(store.root)
