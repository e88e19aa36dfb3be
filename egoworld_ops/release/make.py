"""Compact a run into a release: few large files, each owned frame once, sorted; what people query.

A release is put together beside its place, out of files that are durable one by one, and takes its place in one step. So a reader that goes by
`release.json`, or by a pattern, sees the old release or the new one; after a crash the files that were whole are not written again. A part is
made of whole videos and keeps its name and its videos: a new video makes a new part, a changed or removed one rewrites its own part alone, and
the same run and settings give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSettings, SetupError, StorageUnavailable
from egoworld_ops.files import exchange, locks, regular
from egoworld_ops.files.tables import digest_at
from egoworld_ops.files.whole import hard_link, make_folder, sync_folder, write_bytes
from egoworld_ops.lake import chosen, licences
from egoworld_ops.lake.chosen import Choice
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.runs import contract_of
from egoworld_ops.models import policy
from egoworld_ops.models.policy import PolicySettings
from egoworld_ops.release import cards, place
from egoworld_ops.release.cards import Cards
from egoworld_ops.release.page import page
from egoworld_ops.release.part import laid_out, record_of, write_part
from egoworld_ops.release.place import FileRecord, PartRecord, ReleaseManifest
from egoworld_ops.release.plan import PlannedPart, RunFiles, changed, planned_parts
from egoworld_ops.release.settings import ReleaseSettings

Say = Callable[[str], None]
_SAY_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class ReleaseOutcome:
    """What came of releasing a run.

    Args:
        path: folder of the release.
        written, kept: files of parts that were written now, and those that stayed as they were.
        written_bytes: size of the former.
        left_out: the videos whose truth card is not released, because it speaks of other rows or cannot be read.
    """

    path: Path
    manifest: ReleaseManifest
    written: int
    kept: int
    written_bytes: int
    seconds: float
    left_out: Sequence[str]


def make_release(
    run: Run,
    settings: ReleaseSettings,
    anew: bool = False,
    say: Say = lambda line: None,
    rules: PolicySettings = policy.ANY,
    all_clips: bool = False,
) -> ReleaseOutcome:
    """Bring the release of a run up to date with the run. Where it is, nothing is written.

    Args:
        settings: where they choose no clips by verdict, the release goes on with the choice that it was made by.
        anew: put all videos into new parts: many small parts, of many small additions, become few.
        all_clips: choose no clips by verdict, whatever the settings and the release say.
        rules: which licences its rows may rest on.
        say: takes a line now and then while this takes long.

    Raises:
        BadSettings: its rows rest on weights that the rules do not allow; no clip is of the verdict that is asked for; or by which its clips were
            chosen is lost with its release.json.
        SetupError: the run is gone, or of another version of the data contract; or there are incomplete videos, and the settings refuse them.
        ContractError: a file of the run, or the release.json of its last release, is damaged.
        InputChanged: a file of the run changed meanwhile; what was released before is still there.
        StorageUnavailable: the storage refuses; likewise.
    """
    started = time.monotonic()
    store = run.lake
    try:
        place.home(store).mkdir(parents=True, exist_ok=True)
        with locks.alone(place.home(store)), _memory_of_the_system():
            place.recover(store)
            _check(run)
            policy.check(f"run {run.run_id}", licences.weights_of(run), rules)
            manifest, assembly, left_out = _update(run, settings, anew, say, all_clips)
            shutil.rmtree(place.staging(run), ignore_errors=True)
            place.point_latest(run)
    except OSError as error:
        raise StorageUnavailable(
            place.home(store),
            f"cannot be written: {error}",
            "Mend or free the storage and release again; what was released is untouched",
        ) from error
    files = sum(len(part.tables) for part in manifest.parts)
    seconds = time.monotonic() - started
    written = (assembly.written, files - assembly.written, assembly.written_bytes)
    return ReleaseOutcome(place.folder(run), manifest, *written, seconds, left_out)


def _check(run: Run) -> None:
    """Raise SetupError where a run is gone, or not of this version of the data contract."""
    culprit = f"run {run.run_id}"
    if not (run.path / "run.json").is_file():
        raise SetupError(culprit, f"is gone: {run.path} was removed", "Name another run, or process the videos again")
    if (version := contract_of(run)) != schema.SCHEMA_VERSION:
        reason = f"was made under version {version} of the data contract, this is version {schema.SCHEMA_VERSION}"
        raise SetupError(culprit, reason, "Release it with the code that made it, or process the videos again")


def _now_and_then(say: Say) -> Say:
    """Says no more than a line in ten seconds."""
    said_at = time.monotonic()

    def seldom(line: str) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > _SAY_EVERY_S:
            said_at = time.monotonic()
            say(line)

    return seldom


@contextmanager
def _memory_of_the_system() -> Iterator[None]:
    """Let Arrow take memory from the C library meanwhile.

    Its own allocator gives pages back as soon as they rest, so that a release, which reads file
    after file, has the kernel clear new ones all the time: a third of its processor time.
    """
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


def _choice(run: Run, settings: ReleaseSettings, previous: ReleaseManifest | None) -> Choice | None:
    """The choice of clips that the settings make; where they make none, that of the release before."""
    if settings.verdict or settings.without:
        return chosen.choose(run, settings.verdict, settings.without)
    if previous is None and (place.folder(run) / place.LEFT_OUT_NAME).exists():
        raise BadSettings(
            place.folder(run) / place.LEFT_OUT_NAME,
            f"is of a release of chosen clips, and there is no {place.MANIFEST_NAME} to say by which verdicts",
            f"Name them again: egoworld release {run.run_id} with --verdict or --without; or --all-clips",
        )
    before = (previous.verdicts if previous else None) or {"verdict": None, "without": ()}
    return chosen.choose(run, before["verdict"], before["without"])


def _update(run: Run, settings: ReleaseSettings, anew: bool, say: Say, all_clips: bool) -> tuple[ReleaseManifest, _Assembly, Sequence[str]]:
    """Bring the release up to date; returns its manifest, what was written, and whose truth cards are left out."""
    layout, previous, say = laid_out(settings), place.read(run), _now_and_then(say)
    contents = RunFiles(run, None if all_clips else _choice(run, settings, previous))
    selection = contents.select(settings.incomplete, say)
    planned = planned_parts(run, selection.videos, previous, settings.part_mb, anew)
    assembly = _Assembly(run, settings, contents, previous)
    with ThreadPoolExecutor(settings.writers) as workers:
        parts = []
        for part in workers.map(lambda part: contents.with_digests(part, layout), planned):
            parts.append(part)
            say(f"looked at the files of {len(parts)} of {len(planned)} parts")
    under = licences.licences_of(run)
    scored = cards.of_run(run, selection.videos, contents)
    told, files = contents.chosen(selection), scored.files | contents.left_out(selection)
    bare = ReleaseManifest(run.run_id, schema.SCHEMA_VERSION, layout, selection.incomplete, (), scored.hashes, under, told)
    if previous is not None and all(assembly.in_place(part) for part in parts):
        manifest = replace(bare, parts=previous.parts)
        if manifest == previous and assembly.has(_beside(manifest, scored, files)):
            return manifest, assembly, scored.left_out
    manifest = replace(bare, parts=_in_turn(assembly, parts, settings.writers, say))
    assembly.put_in_place(manifest, _beside(manifest, scored, files))
    return manifest, assembly, scored.left_out


def _beside(manifest: ReleaseManifest, scored: Cards, files: Mapping[Path, bytes]) -> dict[Path, bytes]:
    """The files beside the parts, by their place in the release."""
    return {Path(place.MANIFEST_NAME): manifest.to_json(), Path(place.PAGE_NAME): page(manifest, scored.kept), **files}


def _in_turn(assembly: _Assembly, parts: Sequence[PlannedPart], writers: int, say: Say) -> list[PartRecord]:
    """The parts, some of their files at a time; at the first error no further one is begun."""
    workers = ThreadPoolExecutor(writers, thread_name_prefix="release")
    wanted = [(part, table) for part in parts for table in part.digests]
    tables: dict[str, dict[str, FileRecord]] = {part.name: {} for part in parts}
    try:
        for n, ((part, table), record) in enumerate(zip(wanted, workers.map(lambda one: assembly.file(*one), wanted), strict=True), 1):
            tables[part.name][table] = record
            say(f"{n} of {len(wanted)} files, {assembly.written_bytes / 1e9:.2f} GB written")
    finally:
        workers.shutdown(cancel_futures=True)
    return [PartRecord(part.name, part.videos, tables[part.name]) for part in parts]


class _Assembly:
    """A release that is written beside its place. Files that an earlier release has, or one that was cut short, are not written again."""

    def __init__(self, run: Run, settings: ReleaseSettings, contents: RunFiles, previous: ReleaseManifest | None) -> None:
        self._run, self._settings, self._contents = run, settings, contents
        self._before = {part.name: part for part in previous.parts} if previous else {}
        self._known = {
            (table, record.digest): (place.part_path(place.folder(run), table, part.name), record)
            for part in self._before.values()
            for table, record in part.tables.items()
        }
        self._counting = threading.Lock()
        self.written = self.written_bytes = 0

    def in_place(self, part: PlannedPart) -> bool:
        """Whether the release that is there has this part as it is wanted, by what release.json and the files themselves say."""
        before = self._before.get(part.name)
        if before is None or before.videos != part.videos:
            return False
        paths = {table: place.part_path(place.folder(self._run), table, part.name) for table in part.digests}
        said = {table: record.digest for table, record in before.tables.items()}
        return said == part.digests and all(digest_at(paths[table]) == digest for table, digest in said.items())

    def file(self, part: PlannedPart, table: str) -> FileRecord:
        """The file of a table in a part, durable beside its place; written only where it has to be."""
        target, wanted = place.part_path(place.staging(self._run), table, part.name), part.digests[table]
        for path, record in self._candidates(part.name, table, wanted):
            if digest_at(path) == wanted:
                _link(path, target)
                return record
        if (left := record_of(target, wanted, part.sources[table])) is not None:
            return left
        files = self._contents.sources(part.videos, [table])[table]
        made = write_part(target, table, files, self._settings, self._run.run_id)
        if made.digest != wanted:
            raise changed(f"run {self._run.run_id}")
        with self._counting:
            self.written += 1
            self.written_bytes += made.bytes
        return made

    def _candidates(self, part: str, table: str, wanted: str) -> Iterator[tuple[Path, FileRecord]]:
        """Files of the release that is there which may be the wanted one, that of the same name first."""
        before = self._before.get(part)
        record = before.tables.get(table) if before else None
        if record is not None and record.digest == wanted:
            yield place.part_path(place.folder(self._run), table, part), record
        if (table, wanted) in self._known:
            yield self._known[table, wanted]

    def has(self, beside: Mapping[Path, bytes]) -> bool:
        """Whether the release that is there has these files beside its parts, and no other truth cards."""
        folder = place.folder(self._run)
        paths = {folder / name: content for name, content in beside.items()}
        strange = set(place.card_path(folder, "").parent.glob("*")) - paths.keys()
        return not strange and all(path.is_file() and path.read_bytes() == content for path, content in paths.items())

    def put_in_place(self, manifest: ReleaseManifest, beside: Mapping[Path, bytes]) -> None:
        """Replace the release that is there by the parts of a manifest and the files beside them, and nothing else."""
        staging, target = place.staging(self._run), place.folder(self._run)
        wanted = {place.part_path(staging, table, part.name) for part in manifest.parts for table in part.tables}
        for name, content in beside.items():
            make_folder((staging / name).parent)
            write_bytes(staging / name, content)
            wanted.add(staging / name)
        for path in [p for p in staging.rglob("*") if p.is_file() and p not in wanted]:
            path.unlink()
        for folder in [p for p in staging.iterdir() if p.is_dir()]:
            sync_folder(folder)
        sync_folder(staging)
        if target.exists():
            exchange.exchange(staging, target)
        else:
            os.rename(staging, target)
        sync_folder(target.parent)
        sync_folder(staging.parent)


def _link(source: Path, target: Path) -> None:
    """Put a file of the release before into the new one: linked, or copied where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if not hard_link(source, target):
        write_bytes(target, regular.read_bytes(source))
