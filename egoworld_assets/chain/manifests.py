"""The first stage: the manifest of each video, known already or made in this process."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import partial

from egoworld_assets.chain import bookkeeping
from egoworld_assets.chain.clips import UNKNOWN_CURE, check_key
from egoworld_assets.chain.part import ALL, Part
from egoworld_assets.chain.stage_result import ResultState, StageResult
from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSidecar, EgoworldError, UnknownVideo, UnsupportedPicture
from egoworld_ops.execution import code
from egoworld_ops.files.tables import digest_at, make_provenance, provenance_at, read_table
from egoworld_ops.files.whole import link_or_copy
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake import counted, memo
from egoworld_ops.lake.failure_file import is_dead_letter
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import MANIFEST, rejection
from egoworld_ops.raw.intake import Registered, registered
from egoworld_ops.settings import Settings
from egoworld_ops.video.recordings import recordings
from egoworld_ops.video.sidecar import Sidecar, SidecarPicture, read_sidecar

IN_STEP = "step"
"""The worker that makes manifests: the process of the step itself."""
_LOG = logging.getLogger(__name__)


def manifest_results(run: Run, video_ids: Iterable[str], settings: Settings, part: Part = ALL) -> Iterator[StageResult]:
    """The `videos` and `clips` tables of each video. A file that cannot be read now fails alone and leaves existing results."""
    known, others = registered(run.lake), run.lake.runs()
    by_name = recordings({v: (entry.path, entry.sha256) for v, entry in known.items()}, settings.raw, settings.recordings)
    with (
        nullcontext() if part.dry else bookkeeping.entries(bookkeeping.ledger_of(settings.lake, settings.ledger), run, MANIFEST) as entries
    ):
        for video_id in video_ids:
            try:
                entry = _entry(known, video_id, run)
                result = _manifest_result(run, entry, settings, by_name[video_id], part.anew or part.dry, others)
            except EgoworldError as error:
                result = StageResult(video_id, None, "failed", error=error)
            yield result
            if entries:
                if result.state != "failed" or result.digest:
                    _count_manifest(run, result)
                if video_id in known:
                    entries.found([result])


def _count_manifest(run: Run, result: StageResult) -> None:
    """Add the state of a manifest and of all made from it to table `states`, where it is missing."""
    said = counted.rows_of(run, result.video_id) or {}
    row = said.get((counted.WHOLE_VIDEO, MANIFEST))
    if not result.recalled and (row is None or row["digest"] != result.digest):
        counted.count(run, result.video_id)


def _entry(known: Mapping[str, Registered], video_id: str, run: Run) -> Registered:
    check_key(video_id)
    if video_id not in known:
        raise UnknownVideo(f"video {video_id}", f"is not registered in the lake {run.lake.root.absolute()}", UNKNOWN_CURE)
    return known[video_id]


def _manifest_result(run: Run, entry: Registered, settings: Settings, by_name: str, anew: bool, others: Sequence[Run]) -> StageResult:
    """If the sidecar cannot be read, the name gives the recording; each stage that reads the sidecar will say what is wrong with it."""
    try:
        sidecar, unread = _sidecar(run, entry), None
    except BadSidecar as error:
        sidecar, unread = Sidecar(), error
    result = _manifest_of(run, entry, settings, sidecar.recording or by_name, sidecar.picture.use_as_pinhole, anew, others)
    if unread and isinstance(result.error, UnsupportedPicture):
        raise unread  # the sidecar may say how to interpret the picture
    return result


def _sidecar(run: Run, entry: Registered) -> Sidecar:
    """The sidecar of a video; if the raw file is missing, and the sidecar may be too, its content when the manifest was made."""
    before = provenance_at(run.video_table("videos", entry.video_id)) if memo.file_state(entry.path) is None else None
    if before is None:
        return read_sidecar(entry.path)
    identity = before["identity"]
    return Sidecar(recording=identity.get("recording"), picture=SidecarPicture(use_as_pinhole=identity.get("as_pinhole", False)))


def _manifest_of(
    run: Run, entry: Registered, settings: Settings, shared: str, as_pinhole: bool, anew: bool, others: Sequence[Run]
) -> StageResult:
    from egoworld_ops.video import index_file, manifest
    from egoworld_ops.video.decoding import DECODE_VERSION
    from egoworld_ops.video.indexing import IndexMaker

    identity = {
        "schema": schema.SCHEMA_VERSION,
        "decode": code.version(code.DECODE),
        "version": code.version(code.MANIFEST),
        "scenes": settings.scenes.model_dump(mode="json"),
        "video": entry.sha256,
        "path": str(entry.path),
        "recording": shared,
        "as_pinhole": as_pinhole,
    }
    key = sha256_of(identity)
    if not anew and (found := _known_manifest(run, entry, key, others)) is not None:
        return found
    started, began_at, maker = time.monotonic(), datetime.now(UTC), IndexMaker()
    videos, clips = manifest.make_manifest(
        entry.path, entry.video_id, entry.sha256, settings.scenes, recording=shared, as_pinhole=as_pinhole, index=maker
    )
    seconds = time.monotonic() - started
    made = {"worker": IN_STEP, "began_at": began_at.isoformat(timespec="milliseconds")}
    stamp = make_provenance(key, identity, clips.num_rows, seconds, run.run_id, made)
    error = rejection(videos.to_pylist()[0])
    tables = {"clips": clips, "videos": videos}
    dead = error is not None and is_dead_letter(error)
    state: ResultState = "failed" if error else "computed"
    if clips.num_rows and (slow := maker.reason or (maker.index and maker.index.about.stored.reason)):
        _LOG.warning(f"{entry.path}: each clip reads the file from its start: {slow}")
    index = index_file.to_bytes(maker.index, DECODE_VERSION) if maker.index else None
    return StageResult(
        entry.video_id, None, state, clips.num_rows, seconds, tables, stamp, error, digest=key, dead_letter=dead, packet_index=index
    )


def _known_manifest(run: Run, entry: Registered, key: str, others: Sequence[Run]) -> StageResult | None:
    """The manifest with this digest if one exists, in this run or in an earlier one."""
    seen = {"key": key, "tables": [memo.file_state(run.video_table(t, entry.video_id)) for t in ("clips", "videos")]}
    is_counted = memo.file_state(run.video_table(counted.TABLE, entry.video_id)) is not None
    if is_counted and (found := memo.recall(run.video_folder(entry.video_id), MANIFEST, seen, ())) is not None:
        return StageResult(entry.video_id, None, "done", len(found), digest=key, recalled=True)
    _adopt_packet_index(run, entry.video_id, key, others)
    withdraw = partial(counted.withdraw, run, entry.video_id, counted.WHOLE_VIDEO, MANIFEST)
    states = [run.adopt(run.video_table(t, entry.video_id), key, others, withdraw) for t in ("clips", "videos")]
    if not all(states):
        return None
    videos, clips = (read_table(run.video_table(t, entry.video_id), t) for t in ("videos", "clips"))
    state: ResultState = "linked" if "linked" in states else "done"
    error = rejection(videos.to_pylist()[0])
    if error is None and state == "done":
        clip_ids = clips["clip_id"].to_pylist()
        memo.remember(run.video_folder(entry.video_id), MANIFEST, seen, (), [memo.Remembered(clip_id, 0) for clip_id in clip_ids])
    dead = error is not None and is_dead_letter(error)
    return StageResult(entry.video_id, None, "failed" if error else state, clips.num_rows, error=error, digest=key, dead_letter=dead)


def _adopt_packet_index(run: Run, video_id: str, key: str, others: Sequence[Run]) -> None:
    """Take the packet index of another run's manifest with this digest, if this run's own differs or is missing."""
    if digest_at(run.video_table("videos", video_id)) == key:
        return
    for other in others:
        index = other.packet_index(video_id)
        if other != run and digest_at(other.video_table("videos", video_id)) == key and memo.file_state(index) is not None:
            with suppress(FileNotFoundError):  # that run was removed meanwhile
                link_or_copy(index, run.packet_index(video_id))
            return
