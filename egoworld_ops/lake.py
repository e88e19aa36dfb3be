"""The lake: where tables lie, how they are written so that a reader sees a whole file or none, and what each file says of its origin."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops import footer, layout, schema, seal
from egoworld_ops.errors import BadSettings, ContractError, SetupError
from egoworld_ops.types import check_id
from egoworld_ops.whole_files import TEMPORARY, hold_swept, make_folder, named_errors, remove
from egoworld_ops.whole_files import link_or_copy as link_or_copy
from egoworld_ops.whole_files import sync_folder as sync_folder
from egoworld_ops.whole_files import write_bytes as write_bytes

VIDEO_TABLES = ("videos", "clips")
RUN_TABLES = tuple(name for name in schema.TABLES if name != "intake")
PROVENANCE_KEY = b"egoworld.provenance"
PARQUET: Mapping[str, Any] = {"compression": "zstd", "small_compression": "snappy", "small_bytes": 1_000_000, "page_checksums": True}
"""How clip files are written. Below `small_bytes` in memory, setting up zstd for each column costs more time than it saves bytes."""
_DELETE_IT = "Delete the file and run the stage again"


def write_table(path: Path, name: str, rows: pa.Table, provenance: Mapping[str, Any], validated: bool = False) -> None:
    """Write rows of table `name`, checked against the contract, with their provenance in the same file.

    Args:
        validated: the caller has checked them.

    Raises:
        ContractError: the rows break the data contract.
    """
    if not validated:
        from egoworld_ops import validation

        validation.validate(name, rows)
    metadata = dict(schema.table(name).arrow_schema().metadata or {})
    metadata[PROVENANCE_KEY] = json.dumps(provenance, sort_keys=True).encode()
    sink = pa.BufferOutputStream()
    rows = rows.replace_schema_metadata(metadata)
    options = {"compression": _compression(rows), "write_page_checksum": PARQUET["page_checksums"], **layout.encodings(name)}
    with pq.ParquetWriter(sink, rows.schema, **options) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({seal.KEY: seal.OPEN})
    write_bytes(path, seal.sealed(sink.getvalue().to_pybytes()))


def _compression(rows: pa.Table) -> str:
    return str(PARQUET["small_compression" if rows.nbytes < PARQUET["small_bytes"] else "compression"])


def read_table(path: Path, name: str) -> pa.Table:
    """Rows of table `name` from one file; see `read_result`."""
    return read_result(path, name)[0]


def read_result(path: Path, name: str) -> tuple[pa.Table, dict[str, Any]]:
    """Rows of table `name` and what the same file says of their origin, nothing where it says nothing.

    Raises:
        ContractError: the file is not Parquet, is damaged, or is not of this contract.
    """
    try:
        if (whole := seal.is_whole(content := path.read_bytes())) is False:
            raise ContractError(path, "is damaged: its bytes are not those that were written", _DELETE_IT)
        # not pq.read_table: small files cost several times as much there
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=not whole) as file:
            rows, said = file.read(use_threads=False), json.loads((file.metadata.metadata or {}).get(PROVENANCE_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ContractError(path, f"cannot be read as Parquet: {error}", _DELETE_IT) from error
    if rows.schema.names != schema.table(name).arrow_schema().names:
        raise ContractError(path, f"holds columns {rows.schema.names}, not those of table {name}", _DELETE_IT)
    return rows, said if isinstance(said, dict) else {}


def provenance(path: Path) -> dict[str, Any] | None:
    """What a file says of its origin; None where there is no such file or it is not a whole file of the lake."""
    try:
        return footer.provenance(path)
    except OSError:
        return None


def digest_at(path: Path) -> str | None:
    """Digest of the result a file holds; None where there is none."""
    return (provenance(path) or {}).get("digest")


def table_glob(name: str) -> str:
    """Pattern, below a run's folder, of the files of a table. It always matches the run's typed, empty placeholder too."""
    if name == "failures":
        return "*/*/*.failure.parquet"
    return f"*/{name}.parquet" if name in VIDEO_TABLES else f"*/*/{name}.parquet"


def placeholder(name: str) -> Path:
    """Where, below a run's folder, the typed, empty file of a table lies that its pattern always matches."""
    parts = table_glob(name).replace("*.", "_.").split("/")
    return Path("_contract", *("_" for _ in parts[1:-1]), parts[-1])


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
        return self.path / f"video_id={check_id('video_id', video_id)}"

    def clip_folder(self, video_id: str, clip_id: str) -> Path:
        """Where all tables of a clip lie."""
        return self.video_folder(video_id) / f"clip_id={check_id('clip_id', clip_id)}"

    def video_table(self, table: str, video_id: str) -> Path:
        """The file of `videos` or `clips`."""
        return self.video_folder(video_id) / f"{table}.parquet"

    def clip_table(self, table: str, video_id: str, clip_id: str) -> Path:
        """The file of a stage's table."""
        return self.clip_folder(video_id, clip_id) / f"{table}.parquet"

    def failure(self, stage: str, video_id: str, clip_id: str) -> Path:
        """Where a clip's failure in a stage is written."""
        return self.clip_folder(video_id, clip_id) / f"{stage}.failure.parquet"

    def adopt(self, path: Path, digest: str) -> Literal["done", "linked"] | None:
        """Make sure `path` holds the result with this digest, if any run has it.

        Returns:
            "done" where it was there, "linked" where an earlier run had it, None where it has to be computed.
        """
        if digest_at(path) == digest:
            return "done"
        below = path.relative_to(self.path)
        for other in self.lake.runs():
            candidate = other.path / below
            if other.run_id != self.run_id and digest_at(candidate) == digest:
                try:
                    link_or_copy(candidate, path)
                except FileNotFoundError:  # that run was removed in this moment
                    continue
                return "linked"
        return None

    def meta_is_behind(self, video_id: str, clip_id: str, stage: str, digest: str) -> bool:
        """Whether the clip's `meta.json` is broken, or does not say of this stage that its result has that digest: its writer was killed."""
        known = _gathered(self.clip_folder(video_id, clip_id) / "meta.json")
        said, failed = known.get(stage), self.failure(stage, video_id, clip_id)
        return not isinstance(said, dict) or said.get("digest") != digest or (failed.stem in known) != failed.exists()

    def write_meta(self, video_id: str, clip_id: str) -> None:
        """Write the clip's `meta.json`: the provenance of every table in its folder."""
        folder = self.clip_folder(video_id, clip_id)
        gathered = {path.stem: provenance(path) for path in sorted(folder.glob("*.parquet"))}
        write_bytes(folder / "meta.json", json.dumps(gathered, sort_keys=True).encode(), durable=False)


@dataclass(frozen=True, slots=True)
class Lake:
    """The folder of Parquet the stages write. Holds runs; knows nothing of what is in them."""

    root: Path

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        names = [p.name.removeprefix("run_id=") for p in self.root.glob("run_id=*") if (p / "run.json").is_file()]
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
        return self._point_latest(run)

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
            folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}run-", dir=self.root))
            try:
                for name in RUN_TABLES:
                    write_table(folder / placeholder(name), name, schema.empty(name), {})
                write_bytes(folder / "run.json", content)
                os.chmod(folder, 0o755)  # noqa: S103 - mkdtemp made it private; a run is for all who may read the lake
                os.rename(folder, run.path)
            except BaseException as error:
                remove(folder)
                if isinstance(error, OSError) and run.path.exists():
                    return False
                raise
            sync_folder(self.root)
            return True

    def _point_latest(self, run: Run) -> Run:
        link = self.root / "latest"
        if not link.is_symlink() or os.readlink(link) != run.path.name:
            temporary = self.root / f"{TEMPORARY}latest-{os.getpid()}"
            with named_errors(link):
                temporary.unlink(missing_ok=True)
                temporary.symlink_to(run.path.name)
                os.replace(temporary, link)
        return run


def stamp(digest: str, identity: Mapping[str, Any], rows: int, seconds: float, run_id: str) -> dict[str, Any]:
    """Provenance of a file: what its result depends on, and what making it took."""
    return {
        "digest": digest,
        "identity": dict(identity),
        "rows": rows,
        "seconds": round(seconds, 6),
        "host": socket.gethostname(),
        "run_id": run_id,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _described(run: Run) -> dict[str, Any]:
    try:
        described = json.loads((run.path / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return described if isinstance(described, dict) else {}


def _gathered(meta: Path) -> dict[str, Any]:
    """What a `meta.json` says; nothing where there is none or it is broken."""
    try:
        said = json.loads(meta.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _frozen(run: Run) -> Any:
    return _described(run).get("frozen")


def _canonical(frozen: Mapping[str, Any]) -> Any:
    """A configuration as `run.json` gives it back."""
    return json.loads(json.dumps(frozen))


def _created(run: Run) -> tuple[str, str]:
    """When a run was made, as its run.json says; the sort key of runs."""
    return str(_described(run).get("created_at", "")), run.run_id


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
