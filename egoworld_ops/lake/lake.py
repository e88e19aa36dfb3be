"""The lake: where tables lie, how they are written so that a reader sees a whole file or none, and what each file says of its origin."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from egoworld_ops.contract import schema
from egoworld_ops.contract.links import LINKS
from egoworld_ops.errors import BadSettings, ContractError, SetupError, unreadable
from egoworld_ops.files import regular
from egoworld_ops.files.tables import digest_at, provenance_at, read_table, write_table
from egoworld_ops.files.whole import (
    hold_swept,
    is_there,
    link_or_copy,
    make_folder,
    matching,
    named_errors,
    no_folder,
    remove,
    sync_folder,
    temporary_folder,
    write_bytes,
)
from egoworld_ops.lake import pointer
from egoworld_ops.types import check_id

VIDEO_TABLES = ("videos", "clips")
LAKE_TABLES = ("intake", "verdicts")
"""Of the whole lake, in one file each, in a folder of their name."""
RUN_TABLES = tuple(name for name in schema.TABLES if name not in LAKE_TABLES)
DERIVED_TABLES = ("states", "metrics")
"""Of a whole video, each in one file beside its tables, derived from them."""
RELEASED_TABLES = (*(name for name in RUN_TABLES if name not in DERIVED_TABLES), *LINKS)
"""A release holds only what counts, so that it needs no table `states`; and links of clips, which its rows no longer tell."""


PACKET_INDEX = "packets.index"
TRUTH_CARD = "truth_card.json"
PLACEHOLDER_SUFFIX = ".parque_"
"""Patterns for Parquet files (`*.parquet`) do not match a placeholder; only those of `table_glob` do."""


def clip_depth(name: str) -> int:
    """How many folders below that of its video the files of a table lie: 1 for those of clips."""
    return 0 if name in (*VIDEO_TABLES, *DERIVED_TABLES) else 1


def table_glob(name: str) -> str:
    """Pattern, below a run's folder, of the files of a table. It always matches the run's typed, empty placeholder too."""
    return "*/" * (1 + clip_depth(name)) + ("[a-z]*.failure" if name == "failures" else name) + f".parque[t{PLACEHOLDER_SUFFIX[-1]}]"


def placeholder(name: str) -> Path:
    """Where, below a run's folder, the typed, empty file of a table lies that its pattern always matches."""
    stem = "none.failure" if name == "failures" else name
    return Path("_contract", *["_"] * clip_depth(name), f"{stem}{PLACEHOLDER_SUFFIX}")


@dataclass(frozen=True, slots=True)
class Run:
    """One run in the lake: a frozen configuration and all it produced."""

    lake: Lake
    run_id: str

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.lake.root / f"run_id={self.run_id}"

    def video_folder(self, video_id: str) -> Path:
        """Where all tables of a video lie."""
        return self.lake.root / f"run_id={self.run_id}/video_id={check_id('video_id', video_id)}"

    def clip_folder(self, video_id: str, clip_id: str) -> Path:
        """Where all tables of a clip lie."""
        return self.lake.root / self._clip(video_id, clip_id)

    def video_table(self, table: str, video_id: str) -> Path:
        """The file of `videos` or `clips`."""
        return self.video_folder(video_id) / f"{table}.parquet"

    def packet_index(self, video_id: str) -> Path:
        """Where the packet index of a video lies, if it has one: of use beside its manifest alone, and no table."""
        return self.video_folder(video_id) / PACKET_INDEX

    def truth_card(self, video_id: str) -> Path:
        """Where the truth card of a video lies, if it was scored."""
        return self.video_folder(video_id) / TRUTH_CARD

    def clip_table(self, table: str, video_id: str, clip_id: str) -> Path:
        """The file of a stage's table."""
        return self.lake.root / f"{self._clip(video_id, clip_id)}/{table}.parquet"

    def failure(self, stage: str, video_id: str, clip_id: str) -> Path:
        """Where a clip's failure in a stage is written."""
        return self.lake.root / f"{self._clip(video_id, clip_id)}/{stage}.failure.parquet"

    def _clip(self, video_id: str, clip_id: str) -> str:
        """The folder of a clip below the lake: one text, because paths joined part by part cost more than all else here."""
        return f"run_id={self.run_id}/video_id={check_id('video_id', video_id)}/clip_id={check_id('clip_id', clip_id)}"

    def adopt(
        self, path: Path, digest: str, others: Sequence[Run] | None = None, before: Callable[[], object] = lambda: None
    ) -> Literal["done", "linked"] | None:
        """Make sure `path` holds the result with this digest, if any run has it.

        Args:
            others: the runs to look in, the best first; None stands for all of the lake, newest first.
            before: called before the result of another run takes its place.

        Returns:
            "done" where it was there, "linked" where an earlier run had it, None where it has to be computed.

        Raises:
            StorageUnavailable: a file that may be it cannot be read now.
        """
        if digest_at(path) == digest:
            return "done"
        return None if self.link(path, digest, self.lake.runs() if others is None else others, before) is None else "linked"

    def link(self, path: Path, digest: str, others: Sequence[Run], before: Callable[[], object] = lambda: None) -> Mapping[str, Any] | None:
        """Make `path`, which does not hold it, the result with this digest if one of these runs has it; as `adopt`.

        Returns:
            what that result says of its origin; None where it has to be computed.
        """
        below = path.relative_to(self.path)
        for other in others:
            candidate = other.path / below
            if other.run_id != self.run_id and (said := provenance_at(candidate) or {}).get("digest") == digest:
                before()
                try:
                    link_or_copy(candidate, path)
                except FileNotFoundError:  # that run was removed in this moment
                    continue
                return said
        return None

    def meta(self, video_id: str, clip_id: str) -> Mapping[str, Any]:
        """What the clip's `meta.json` says of each file beside it, by stem; nothing where there is none or it is broken.

        Raises:
            StorageUnavailable: it is there and cannot be read now.
        """
        return _said(self.clip_folder(video_id, clip_id) / "meta.json")

    def meta_is_behind(self, video_id: str, clip_id: str, stage: str, digest: str) -> bool:
        """Whether the clip's `meta.json` is broken, or does not say of this stage that its result has that digest: its writer was killed."""
        known = self.meta(video_id, clip_id)
        said, failed = known.get(stage), self.failure(stage, video_id, clip_id)
        return not isinstance(said, dict) or said.get("digest") != digest or (failed.stem in known) != failed.exists()

    def write_placeholders(self) -> None:
        """Make sure that every table has its placeholder, of the contract as it is now: the run may be older than a stage, or than a column."""
        for name in RUN_TABLES:
            path = self.path / placeholder(name)
            try:
                as_it_is = read_table(path, name).schema == schema.table(name).arrow_schema()
            except ContractError:
                as_it_is = False
            if not as_it_is:
                write_table(path, name, schema.empty(name), {})

    def write_meta(self, video_id: str, clip_id: str, known: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        """Write the clip's `meta.json`: the provenance of every table in its folder.

        Args:
            known: provenance of tables that was read just now; that of the others is read here.
        """
        folder = self.clip_folder(video_id, clip_id)
        with named_errors(folder):
            make_folder(folder)  # nothing of the clip may have been stored
            tables = [name.removesuffix(".parquet") for name in os.listdir(folder) if name.endswith(".parquet")]
        gathered = {table: known.get(table) or provenance_at(f"{folder}/{table}.parquet") for table in tables}
        write_bytes(folder / "meta.json", json.dumps(gathered, sort_keys=True).encode(), durable=False)


@dataclass(frozen=True, slots=True)
class Lake:
    """The folder of Parquet the stages write. Holds runs; knows nothing of what is in them."""

    root: Path

    def check_place(self) -> None:
        """Raise BadSettings where something else than a folder is in the lake's place, or a link to nothing; it may be that nothing is there."""
        if is_there(self.root) and not self.root.is_dir():
            raise BadSettings(f"lake {self.root}", no_folder(self.root), "Name a folder: setting lake, or EGOWORLD_LAKE")

    def runs(self) -> list[Run]:
        """All runs, newest first.

        Raises:
            StorageUnavailable: what is there, or the run.json of one, cannot be read now.
            BadSettings: something else than a folder is there.
        """
        try:
            self.check_place()
            names = [p.name.removeprefix("run_id=") for p in matching(self.root, "run_id=*") if (p / "run.json").is_file()]
        except OSError as error:
            raise unreadable(error, self.root) or error from error
        return sorted((Run(self, n) for n in names), key=_created, reverse=True)

    def open_run(self, frozen: Mapping[str, Any], wanted: str | None, about: Callable[[], Mapping[str, Any]]) -> Run:
        """The run to write to: the one `wanted`, else the newest whose frozen configuration equals `frozen`, else a new one.

        This process holds it from then on, so that nobody removes it.

        Args:
            about: gives what else `run.json` of a new run says; not part of its identity.

        Raises:
            SetupError: the run wanted has another configuration.
        """
        if wanted is not None:
            _check_run_id(wanted)
        with named_errors(self.root):
            make_folder(self.root)
        hold_swept(self.root)
        while not hold_swept((run := self.find_run(frozen, wanted) or self._create(frozen, wanted, about)).path):
            pass  # it was removed in this moment
        if self.latest_run() is None and self.runs() == [run]:
            pointer.write(self.root, pointer.Pointer(run.run_id))
        return run

    def latest_run(self) -> Run | None:
        """The run that is meant where none is named; None where the lake does not say, or the run it names is gone.

        It is the run that became the latest by its results, or that a person pinned: see `latest.py`.

        Raises:
            StorageUnavailable, SetupError: as `pointer.read`.
        """
        said = pointer.read(self.root)
        if said is None:
            return None
        run = Run(self, said.run_id)
        with named_errors(run.path), named_errors(run.path):
            return run if (run.path / "run.json").is_file() else None

    def find_run(self, frozen: Mapping[str, Any], wanted: str | None) -> Run | None:
        """The run that `open_run` would find; None where it would make one. Makes and changes nothing.

        Raises:
            SetupError: the run wanted has another configuration.
        """
        canonical = _canonical(frozen)
        for run in self.runs():
            if wanted in (None, run.run_id) and _frozen(run) == canonical:
                return run
            if wanted == run.run_id:
                raise SetupError(
                    f"run {wanted}",
                    "was made with another configuration",
                    "Name another run, or none; run.json in its folder holds its configuration",
                )
        return None

    def _create(self, frozen: Mapping[str, Any], wanted: str | None, about: Callable[[], Mapping[str, Any]]) -> Run:
        for run_id in _candidates(wanted):
            run = Run(self, run_id)
            described = {"run_id": run_id, "created_at": datetime.now(UTC).isoformat(), "frozen": frozen, **about()}
            content = json.dumps(described, indent=1, sort_keys=True).encode()
            if self._claim(run, content) or _frozen(run) == _canonical(frozen):
                return run
        raise SetupError(self.root, "no free run id", "Name a run in the settings")

    def _claim(self, run: Run, content: bytes) -> bool:
        """Create the run's folder with its run.json in one rename; False where the run is there already."""
        with named_errors(run.path):
            folder = temporary_folder(self.root, "run")
            try:
                for name in RUN_TABLES:
                    write_table(folder / placeholder(name), name, schema.empty(name), {})
                write_bytes(folder / "run.json", content)
                os.rename(folder, run.path)
            except BaseException as error:
                remove(folder)
                if isinstance(error, OSError) and run.path.exists():
                    return False
                raise
            sync_folder(self.root)
            return True


def _said(path: Path) -> dict[str, Any]:
    """What a JSON file says; nothing where there is none or it is broken.

    Raises:
        StorageUnavailable: it is there and cannot be read now.
    """
    try:
        said = json.loads(regular.read_bytes(path))
    except ValueError:
        return {}
    except OSError as error:
        if (away := unreadable(error, path)) is not None:
            raise away from error
        return {}
    return said if isinstance(said, dict) else {}


def _frozen(run: Run) -> Any:
    return _said(run.path / "run.json").get("frozen")


def _canonical(frozen: Mapping[str, Any]) -> Any:
    """A configuration as `run.json` gives it back."""
    return json.loads(json.dumps(frozen))


def _created(run: Run) -> tuple[str, str]:
    """When a run was made, as its run.json says; the sort key of runs."""
    return str(_said(run.path / "run.json").get("created_at", "")), run.run_id


def _check_run_id(run_id: str) -> None:
    try:
        check_id("run_id", run_id)
    except ValueError as error:
        raise BadSettings("setting run_id", str(error), "Name it like 20260131_1200, or leave it out") from error


def _candidates(wanted: str | None) -> Iterator[str]:
    if wanted is not None:
        yield wanted
        return
    minute = datetime.now(UTC).strftime("%Y%m%d_%H%M")
    yield minute
    yield from (f"{minute}_{n}" for n in range(2, 1000))
