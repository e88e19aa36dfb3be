"""Checks that a release matches its release.json, keeps the contract, and holds exactly the frames that the clips of its run own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops.contract import encodings, schema, validation
from egoworld_ops.errors import BadSettings, ContractError, EgoworldError, unreadable
from egoworld_ops.files import regular
from egoworld_ops.files.tables import provenance_at, read_table
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake import chosen, states
from egoworld_ops.lake.chosen import Choice
from egoworld_ops.lake.lake import RELEASED_TABLES, Run
from egoworld_ops.release import cards, place
from egoworld_ops.release.page import page
from egoworld_ops.release.place import MANIFEST_NAME, FileRecord, PartRecord, ReleaseManifest
from egoworld_ops.release.plan import RunFiles, identity
from egoworld_ops.release.rows import released_rows

_BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Piece:
    """A file or folder to check, and the function that returns everything wrong with it."""

    path: Path
    check: Callable[[], list[EgoworldError]]


def pieces(run: Run) -> list[Piece]:
    """The pieces to check in the release of a run; none if it has no release."""
    folder = place.folder(run)
    try:
        manifest = place.read(run)
    except EgoworldError as error:
        return [Piece(folder, partial(list, [error]))]
    if manifest is None:
        return [Piece(folder, partial(_no_release, run))]
    try:
        contents = RunFiles(run, _choice(run, manifest))
    except EgoworldError as error:
        return [Piece(folder, partial(list, [error]))]
    parts = [
        Piece(place.part_path(folder, table, part.name), partial(_part, run, contents, manifest, part, table))
        for part in manifest.parts
        for table in RELEASED_TABLES
        if table in part.tables
    ]
    whole = (partial(check, run, contents, manifest) for check in (_manifest, _beside, _chosen))
    return [*(Piece(folder, check) for check in whole), *parts]


def _no_release(run: Run) -> list[EgoworldError]:
    path = place.folder(run)
    cure = f"Release the run again: egoworld release {run.run_id}"
    return [ContractError(path, f"has no {MANIFEST_NAME}", cure)] if path.exists() else []


def _release(run: Run, manifest: ReleaseManifest) -> str:
    """The cure of a release that is behind: the command, with the choice of clips that it was made by."""
    return f"Release the run again: {_command(run, manifest)}"


def _delete(run: Run, manifest: ReleaseManifest) -> str:
    """The cure of a damaged file of a release."""
    return f"Delete it and release the run again: {_command(run, manifest)}"


def _command(run: Run, manifest: ReleaseManifest) -> str:
    said = manifest.verdicts
    return " ".join(["egoworld release", run.run_id, *([chosen.options(said["verdict"], said["without"])] if said else [])])


def _choice(run: Run, manifest: ReleaseManifest) -> Choice | None:
    """The choice of clips that a release says it was made by, among the verdicts that stand now."""
    said = manifest.verdicts or {"verdict": None, "without": ()}
    return chosen.choose(run, said["verdict"], said["without"])


def _chosen(run: Run, contents: RunFiles, manifest: ReleaseManifest) -> list[EgoworldError]:
    """Whether the clips that the release leaves out, and why, are those that the verdicts that stand now leave out."""
    path = place.folder(run) / place.LEFT_OUT_NAME
    if manifest.verdicts is None:
        return [ContractError(path, f"is not of a release that {MANIFEST_NAME} names", "Delete it")] if path.exists() else []
    try:
        selection = contents.select("include")
    except (BadSettings, ContractError):
        return [ContractError(path, "is of clips that are no longer chosen", _release(run, manifest))]
    [wanted] = contents.left_out(selection).values()
    if contents.chosen(selection) == manifest.verdicts and path.is_file() and path.read_bytes() == wanted:
        return []
    return [ContractError(path, "does not say what people say of the clips now, or of other results", _release(run, manifest))]


def _manifest(run: Run, contents: RunFiles, manifest: ReleaseManifest) -> list[EgoworldError]:
    """Whether the files are those that the manifest names, and the videos those of the run, each once."""
    folder = place.folder(run)
    path = folder / MANIFEST_NAME
    found: list[EgoworldError] = []
    if path.read_bytes() != manifest.to_json() or manifest.run_id != run.run_id:
        found.append(ContractError(path, "is not as a release wrote it: it was changed", _delete(run, manifest)))
    strange = {part.name: ", ".join(sorted(set(part.tables) ^ set(RELEASED_TABLES))) for part in manifest.parts}
    found += [
        ContractError(path, f"{name} has other tables than the contract: {these}", _delete(run, manifest))
        for name, these in strange.items()
        if these
    ]
    named = {place.part_path(folder, table, part.name) for part in manifest.parts for table in RELEASED_TABLES if table in part.tables}
    there = {p for table in RELEASED_TABLES for p in (folder / table).glob("*")}
    found += [ContractError(p, f"is not in {MANIFEST_NAME}", "Delete it: readers of the folder take its rows too") for p in there - named]
    found += [ContractError(p, "is not there", _release(run, manifest)) for p in sorted(named - there)]
    videos = [v for part in manifest.parts for v in part.videos]
    if len(set(videos)) != len(videos):
        found.append(ContractError(path, "names a video in two parts", _delete(run, manifest)))
    known = set(states.video_ids(run))
    unreleased = sorted(v for v in known - {*videos} if _is_behind(contents, v, manifest))
    found += [
        ContractError(run.path / f"video_id={v}", "is not in the release of its run as it is now", _release(run, manifest))
        for v in unreleased
    ]
    found += [
        ContractError(path, f"has video {v}, which is no longer in the run", _release(run, manifest)) for v in sorted({*videos} - known)
    ]
    return found


def _beside(run: Run, contents: RunFiles, manifest: ReleaseManifest) -> list[EgoworldError]:
    """Whether the truth cards and the page are those that the manifest names, and the cards those of the run that speak of these rows."""
    folder = place.folder(run)
    there = {path.stem: regular.read_bytes(path) for path in sorted(place.card_path(folder, "").parent.glob("*"))}
    hashes = cards.Cards(there, ()).hashes
    if hashes != manifest.truth_cards:
        strange = min(video_id for video_id, _ in hashes.items() ^ manifest.truth_cards.items())
        return [
            ContractError(place.card_path(folder, strange), f"is not the truth card that {MANIFEST_NAME} names", _release(run, manifest))
        ]
    path = folder / place.PAGE_NAME
    if not path.is_file() or path.read_bytes() != page(manifest, there):
        return [ContractError(path, "is not the page of this release", _release(run, manifest))]
    try:
        wanted = cards.of_run(run, [video_id for part in manifest.parts for video_id in part.videos], contents).kept
    except EgoworldError:
        return []  # a file of the run is damaged or gone: reported where the run is checked
    return [
        ContractError(place.card_path(folder, video_id), "is not the card of its video in the run as it is now", _release(run, manifest))
        for video_id in sorted(wanted.keys() | there.keys())
        if wanted.get(video_id) != there.get(video_id)
    ]


def _is_behind(contents: RunFiles, video_id: str, manifest: ReleaseManifest) -> bool:
    """Whether the tables that an unreleased video lacks are no longer those that the release says, or the release does not name the video."""
    try:
        if not contents.takes(video_id):
            return False
        return video_id not in manifest.incomplete or manifest.incomplete[video_id] != contents.lacking(video_id)
    except ContractError:
        return video_id not in manifest.incomplete  # else reported where the run is checked


def _part(run: Run, contents: RunFiles, manifest: ReleaseManifest, part: PartRecord, table: str) -> list[EgoworldError]:
    """Everything wrong with one file of the release."""
    path, record = place.part_path(place.folder(run), table, part.name), part.tables[table]
    if not path.exists():
        return []
    delete = _delete(run, manifest)
    found = _bytes(path, record, delete) or _origin(path, record, delete)
    if found:
        return found
    reading = _Reading(path, table, _owned_ranges(run, part) if _is_per_frame(table) else None)
    try:
        found = [*_against_run(reading, run, contents, manifest, part, table)]
        for _ in reading.batches:
            pass
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and (away := unreadable(error, path)) is not None:
            return [away]
        return [ContractError(path, f"cannot be read: {error}", delete)]
    if reading.n_rows != record.rows:
        reading.reasons.setdefault(f"holds {reading.n_rows} rows, and {MANIFEST_NAME} says {record.rows}")
    return [*(ContractError(path, reason, delete) for reason in reading.reasons), *found]


def _is_per_frame(table: str) -> bool:
    return table != "failures" and "frame_index" in schema.table(table).arrow_schema().names


def _bytes(path: Path, record: FileRecord, cure: str) -> list[EgoworldError]:
    size, sha256 = path.stat().st_size, place.sha256_of_file(path)
    if (size, sha256) == (record.bytes, record.sha256):
        return []
    said = f"has {size} bytes with SHA-256 {sha256[:12]}, and {MANIFEST_NAME} says {record.bytes} with {record.sha256[:12]}"
    return [ContractError(path, f"{said}: it is damaged, or was changed", cure)]


def _origin(path: Path, record: FileRecord, cure: str) -> list[EgoworldError]:
    said = provenance_at(path) or {}
    if said.get("digest") == record.digest == sha256_of(said.get("identity") or {}):
        return []
    return [ContractError(path, f"does not come from what {MANIFEST_NAME} says", cure)]


class _Reading:
    """One pass over a file of a release, batch by batch; collects what is wrong with its rows by themselves."""

    def __init__(self, path: Path, table: str, owned: Mapping[tuple[str, str], tuple[int, int]] | None) -> None:
        self.path, self._table, self._owned = path, table, owned
        self.reasons: dict[str, None] = {}
        self.n_rows = 0
        self.batches = self._read()

    def _read(self) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
            last: list[pa.Table] = []
            for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                rows = encodings.as_contract(self._table, pa.Table.from_batches([batch]))
                self.n_rows += rows.num_rows
                joined = pa.concat_tables([*last, rows])  # so that order and uniqueness hold from batch to batch
                self.reasons |= dict.fromkeys(validation.violations(self._table, joined))
                self.reasons |= dict.fromkeys(self._not_owned(rows))
                last = [rows.slice(rows.num_rows - 1)]
                yield rows

    def _not_owned(self, rows: pa.Table) -> Iterator[str]:
        if self._owned is None:
            return
        by_clip = rows.select(["video_id", "clip_id", "frame_index"]).group_by(["video_id", "clip_id"])
        for row in by_clip.aggregate([("frame_index", "min"), ("frame_index", "max")]).to_pylist():
            first, end = self._owned.get((row["video_id"], row["clip_id"]), (0, 0))
            if not first <= row["frame_index_min"] <= row["frame_index_max"] < end:
                frames = f"{row['frame_index_min']} to {row['frame_index_max']}"
                yield f"holds frames {frames} of clip {row['clip_id']} of {row['video_id']}, which owns {first} to {end}"


def _owned_ranges(run: Run, part: PartRecord) -> dict[tuple[str, str], tuple[int, int]]:
    """The frames that each clip of a part owns, as stated by the release itself."""
    try:
        clips = read_table(place.part_path(place.folder(run), "clips", part.name), "clips").to_pylist()
    except ContractError:
        return {}  # reported separately
    return {(c["video_id"], c["clip_id"]): (c["own_start"], c["own_end"]) for c in clips}


def _against_run(
    reading: _Reading, run: Run, contents: RunFiles, manifest: ReleaseManifest, part: PartRecord, table: str
) -> Iterator[EgoworldError]:
    """Rows that differ from those that the clips of the run own, compared one by one."""
    path = reading.path
    try:
        files = contents.sources(part.videos, [table])[table]
        if sha256_of(identity(table, manifest.parquet, files)) != part.tables[table].digest:
            yield ContractError(path, "is behind its run: files that it is made of have changed since", _release(run, manifest))
            return
        rest = schema.empty(table)
        for source, wanted in zip(files, released_rows(files, bool(manifest.parquet.get("assumed_metric"))), strict=True):
            while rest.num_rows < wanted.num_rows and (rows := next(reading.batches, None)) is not None:
                rest = pa.concat_tables([rest, rows])
            if not rest.slice(0, wanted.num_rows).equals(wanted):
                yield ContractError(
                    path, f"has other rows than those that {source.path} has of the frames its clip owns", _delete(run, manifest)
                )
                return
            rest = rest.slice(wanted.num_rows)
    except EgoworldError:
        return  # a file of the run is damaged or gone: reported where the run is checked
    if rest.num_rows or next(reading.batches, None) is not None:
        yield ContractError(path, "has rows that no clip of the run owns", _delete(run, manifest))
