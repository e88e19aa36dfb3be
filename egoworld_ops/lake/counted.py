"""Table `states`: one file beside the tables of a video, `video_id=V/states.parquet`, that says of each clip and stage what it is.

For those who ask in SQL. The rows of a clip's table in a stage count where this table has a row of that `video_id`, `clip_id` and `stage` whose
`state` is `done`; those of `videos` and `clips` where the row of stage `manifest`, whose `clip_id` is empty, is `done` or, of a rejected video,
`failed`; those of `failures` where the row has an `error_class` (a failure that a fallback backend stands in for has one too). A clip or stage
without a row here does not count. `digest` is that of the table that is meant: a file beside it with another digest does not count either, which
`parquet_kv_metadata` can tell, if a reader wants to see that even while a result takes the place of another.

It is derived from the files, which are the truth, by `states.py` alone, and never says more than they do, whenever its writer is killed:

1. `withdraw` before anything that counts is replaced or loses its standing: it forgets what `memo.py` knows of the video, and makes the rows by
   which the clip counts in that stage and in all downstream of it `pending`, and those of clips that go on with it. Both are durable before the
   first file is touched. Where nothing
   counts, there is nothing to do: a result that is written then counts only once it is counted.
2. The files are written.
3. `count` looks at the clip again and writes what it now is, downstream stages included.
4. Only then is the video remembered as gone through.

So what is remembered is counted, and whoever next goes through a video whose writer was killed between 1 and 3 mends it. A reader that began
before 1 may still see the old rows, or the new ones, until its query ends.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError, StorageUnavailable
from egoworld_ops.files import locks
from egoworld_ops.files.tables import digest_at, provenance_at, read_table, write_table
from egoworld_ops.files.whole import make_folder, named_errors
from egoworld_ops.lake import memo, states
from egoworld_ops.lake.lake import VIDEO_TABLES, Run
from egoworld_ops.lake.states import MANIFEST, StageState

TABLE = "states"
WHOLE_VIDEO = ""
"""The `clip_id` of stage `manifest`."""
Key = tuple[str, str]
"""Clip and stage."""
Rows = dict[Key, dict[str, Any]]
_PENDING = {"state": "pending", "digest": None, "rows": None, "error_class": None, "dead_letter": None}
_EVERY_S = 2.0
REMEMBERED = 16
"""Videos whose rows are kept in memory."""
_seeing = threading.Lock()
_seen: OrderedDict[str, tuple[memo.FileState, Rows]] = OrderedDict()


def rows_of(run: Run, video_id: str) -> Rows | None:
    """The table of a video by clip and stage; None where there is none that is whole.

    Raises:
        StorageUnavailable: it is there and cannot be read now.
    """
    path = run.video_table(TABLE, video_id)
    state = memo.file_state(path)
    if state is None:
        return None
    known = _seen.get(str(path))
    if known is None or known[0] != state:
        try:
            listed = read_table(path, TABLE).to_pylist()
        except ContractError:
            return None
        known = state, {(row["clip_id"], row["stage"]): row for row in listed}
        _remember(str(path), *known)
    return known[1]


def that_count(run: Run, video_id: str) -> dict[Key, str]:
    """The digest of each result of a video that counts, by clip and stage: as the table has it, and as the files are where there is no table.

    Raises:
        StorageUnavailable: that cannot be told now.
    """
    rows = rows_of(run, video_id)
    if rows is None:
        rows = as_it_is(run, video_id)
        if lost := next((key for key, row in rows.items() if row["state"] == "unreadable"), None):
            raise StorageUnavailable(run.clip_folder(video_id, lost[0]), f"{lost[1]} cannot be read", "Restore the storage, then run again")
    manifest = WHOLE_VIDEO, MANIFEST
    return {key: row["digest"] for key, row in rows.items() if row["state"] == "done" or (key == manifest and row["state"] == "failed")}


def digests_of(run: Run, video_id: str, stage: str) -> dict[str, str] | None:
    """The digest of each clip's table in a stage, as the table of a video has it; None as `rows_of`.

    For many runs that are asked for one stage: `rows_of` makes objects of every row, and remembers them.

    Raises:
        StorageUnavailable: as `rows_of`.
    """
    import pyarrow.compute as pc

    path = run.video_table(TABLE, video_id)
    if memo.file_state(path) is None:
        return None
    try:
        rows = read_table(path, TABLE)
    except ContractError:
        return None
    rows = rows.filter(pc.and_(pc.equal(rows["stage"], stage), pc.is_valid(rows["digest"])))
    return dict(zip(rows["clip_id"].to_pylist(), rows["digest"].to_pylist(), strict=True))


def _remember(path: str, state: memo.FileState, rows: Rows) -> None:
    with _seeing:
        _seen[path] = state, rows
        while len(_seen) > REMEMBERED:
            _seen.popitem(last=False)


def is_counted(run: Run, video_id: str, clip_id: str, stage: str, state: str, digest: str | None) -> bool:
    """Whether the table has the right row for a clip in a stage."""
    row = (rows_of(run, video_id) or {}).get((clip_id, stage))
    return row is not None and row["state"] == state and digest in (None, row["digest"])


def withdraw(run: Run, video_id: str, clip_id: str, stage: str) -> None:
    """Before a clip's result in a stage is replaced or loses its standing: it does not count any more, nor does what was made from it.

    Args:
        clip_id: WHOLE_VIDEO, with stage `manifest`, for all there is of the video.

    Raises:
        StorageUnavailable: the storage refuses; everything is as it was.
    """
    if not _that_rest_on(run, video_id, clip_id, stage):
        return
    with _alone(run, video_id):
        rows = rows_of(run, video_id) or {}
        memo.forget(run.video_folder(video_id))
        _write(run, video_id, rows | {key: rows[key] | _PENDING for key in _that_rest_on(run, video_id, clip_id, stage)})


def count(run: Run, video_id: str, clip_ids: Collection[str] | None = None) -> dict[str, dict[str, StageState]]:
    """Write what these clips of a video are now in each stage, and whether its manifest counts; of all clips where none are named.

    A video whose manifest is damaged has nothing that counts.

    Returns:
        what the clips are that were looked at one by one, by clip and stage: the named ones, and those that go on with them.

    Raises:
        StorageUnavailable: the manifest cannot be read now, or the storage refuses; the table is as it was.
    """
    with _alone(run, video_id):
        before, looked_at = rows_of(run, video_id), {}
        if clip_ids is None or before is None or not _is_of_the_manifest(run, video_id, before):
            after = as_it_is(run, video_id)
        else:
            of_the_manifest = sorted({clip_id for clip_id, _ in before} - {WHOLE_VIDEO})
            touched = {*clip_ids, *_go_on_with(run, video_id, clip_ids, of_the_manifest)}
            after, known = {key: row for key, row in before.items() if key[0] not in touched}, dict[Key, StageState]()
            for clip_id in (clip_id for clip_id in of_the_manifest if clip_id in touched):
                looked_at[clip_id] = states.clip_states(run, video_id, clip_id, known=known)
                after |= _clip_rows(video_id, clip_id, looked_at[clip_id])
        if before is None or after != before:
            _write(run, video_id, after)
        return looked_at


class Counting:
    """Collects which clips of a run were touched, and counts them now and then and when asked; so a clip more costs little in a long video.
    Writes the `meta.json` of clips at the same time: like the table, it is derived from the files.

    Args:
        run: the run that is written to.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._touched: dict[str, set[str]] = {}
        self._behind: dict[str, set[str]] = {}
        self._due_s: dict[str, float] = {}

    def touched(self, video_id: str, clip_id: str) -> None:
        """A clip's files were written, or found as the table does not have them; its video is counted if that was not done lately."""
        self._touched.setdefault(video_id, set()).add(clip_id)
        self._count_in_time(video_id)

    def is_behind(self, video_id: str, clip_id: str) -> None:
        """The `meta.json` of a clip does not say what its files do; it is written if that was not done lately for its video."""
        self._behind.setdefault(video_id, set()).add(clip_id)
        self._count_in_time(video_id)

    def count(self, video_id: str) -> None:
        """Count what was touched of a video since it was last counted."""
        started = time.monotonic()
        clip_ids = self._touched.pop(video_id, None)
        looked_at = count(self._run, video_id, clip_ids) if clip_ids else {}
        for clip_id in sorted(self._behind.pop(video_id, ())):
            known = {stage: state.said for stage, state in looked_at.get(clip_id, {}).items()}
            self._run.write_meta(video_id, clip_id, known)
        ended = time.monotonic()
        self._due_s[video_id] = ended + max(_EVERY_S, 10 * (ended - started))

    def count_rest(self) -> None:
        """Count what was touched and is not counted yet."""
        for video_id in {**self._touched, **self._behind}:
            self.count(video_id)

    def _count_in_time(self, video_id: str) -> None:
        now = time.monotonic()
        if now >= self._due_s.setdefault(video_id, now + _EVERY_S):
            self.count(video_id)


def _that_rest_on(run: Run, video_id: str, clip_id: str, stage: str) -> list[Key]:
    """The rows by which a clip's result in a stage counts, or one that was made from it, in this clip or in those that go on with it."""
    rows, gone = rows_of(run, video_id) or {}, _made_from(run, video_id, clip_id, stage)
    found = _that_count(rows, clip_id, gone)
    if clip_id != WHOLE_VIDEO:
        for handed in gone.intersection(_handed_on()):
            with_results = sorted(clip for clip, name in rows if name == handed and _counts(rows[clip, name]))
            for follower in _followers(run, video_id, clip_id, handed, with_results):
                found += _that_count(rows, follower, _made_from(run, video_id, follower, handed))
    return found


def _made_from(run: Run, video_id: str, clip_id: str, stage: str) -> set[str]:
    """A stage, and those whose results of a clip are made from its own, directly or not."""
    if clip_id == WHOLE_VIDEO:
        return {stage, *operators.stages()}
    found = {stage}
    for name, known in operators.stages().items():
        optional = [read.table for read in known.optional if read.table in found]
        if found.intersection(known.inputs) or (optional and _read_one_of(run.clip_table(name, video_id, clip_id), optional)):
            found.add(name)
    return found


def _read_one_of(path: Path, tables: Collection[str]) -> bool:
    """Whether a table was made from one of these; also where that cannot be told now."""
    try:
        return not states.made_from(provenance_at(path) or {}).keys().isdisjoint(tables)
    except StorageUnavailable:
        return True


def _handed_on() -> list[str]:
    return [name for name, stage in operators.stages().items() if stage.handed_on]


def _go_on_with(run: Run, video_id: str, clip_ids: Collection[str], of_the_manifest: Sequence[str]) -> Iterator[str]:
    """Further clips of a video that go on with one of these."""
    named = set(clip_ids)
    for stage in _handed_on():
        for clip_id in clip_ids:
            following = of_the_manifest[bisect_right(of_the_manifest, clip_id) :][:1]
            if not named.issuperset(following):
                yield from _followers(run, video_id, clip_id, stage, of_the_manifest)


def _followers(run: Run, video_id: str, clip_id: str, stage: str, clip_ids: Sequence[str]) -> Iterator[str]:
    """Those of some clips, in order, that go on with a clip's result in a stage, directly or one after the other."""
    for following in clip_ids[bisect_right(clip_ids, clip_id) :]:
        link = states.before(provenance_at(run.clip_table(stage, video_id, following)) or {})
        if link is None or link[0] != clip_id:
            return
        yield following
        clip_id = following


def _that_count(rows: Rows, clip_id: str, stages: Collection[str]) -> list[Key]:
    """The rows of a clip, or of the whole video, in these stages by which something counts, a result or a failure.

    The first result of a clip takes the place of nothing, so it costs no write of the table; there is one for each clip and stage.
    """
    asked = rows if clip_id == WHOLE_VIDEO else ((clip_id, stage) for stage in stages)
    return [key for key in asked if key[1] in stages and (row := rows.get(key)) is not None and _counts(row)]


def _counts(row: Mapping[str, Any]) -> bool:
    return row["state"] in ("done", "failed") or row["error_class"] is not None


def _is_of_the_manifest(run: Run, video_id: str, rows: Rows) -> bool:
    """Whether the clips that the table has are those of the manifest that is there."""
    digest = rows.get((WHOLE_VIDEO, MANIFEST), _PENDING)["digest"]
    return digest is not None and all(digest_at(run.video_table(name, video_id)) == digest for name in VIDEO_TABLES)


def as_it_is(run: Run, video_id: str) -> Rows:
    """What the table of a video would say if it were counted now; empty for a video without a manifest.

    Raises:
        StorageUnavailable: the manifest cannot be read now.
    """
    try:
        video = states.video_state(run, video_id)
    except ContractError:
        return {(WHOLE_VIDEO, MANIFEST): _row(video_id, WHOLE_VIDEO, MANIFEST, StageState("damaged"))}
    if video is None:
        return {}
    rows = {(WHOLE_VIDEO, MANIFEST): _row(video_id, WHOLE_VIDEO, MANIFEST, video.manifest)}
    for clip in video.clips:
        rows |= _clip_rows(video_id, clip.clip_id, clip.stages)
    return rows


def _clip_rows(video_id: str, clip_id: str, stages: Mapping[str, StageState]) -> Rows:
    return {(clip_id, stage): _row(video_id, clip_id, stage, state) for stage, state in stages.items()}


def _row(video_id: str, clip_id: str, stage: str, state: StageState) -> dict[str, Any]:
    failed = state.failure
    return {
        "video_id": video_id,
        "clip_id": clip_id,
        "stage": stage,
        "state": state.state,
        "digest": state.digest,
        "rows": state.rows,
        "error_class": failed.row["error_class"] if failed else None,
        "dead_letter": failed.dead_letter if failed else None,
    }


def _write(run: Run, video_id: str, rows: Rows) -> None:
    path = run.video_table(TABLE, video_id)
    write_table(path, TABLE, schema.from_rows(TABLE, [rows[key] for key in sorted(rows)]), {})
    _remember(str(path), memo.file_state(path), rows)


@contextmanager
def _alone(run: Run, video_id: str) -> Iterator[None]:
    folder = run.video_folder(video_id)
    with named_errors(folder):
        make_folder(folder)
        with locks.alone(folder):
            yield
