"""What the pages list of one run: its videos, clips, states, failures and metrics, in a DuckDB file of this process alone.

The lake has a few small files for each video; a page that opened all of them would take minutes in a lake of 100,000 clips. So they are read once, in
chunks, and again where their state (inode, size, times) has changed. Until a large run has been gone through, pages show what is known so far, and
say so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from egoworld_assets.review import gathering
from egoworld_ops.contract.quality import Bounds
from egoworld_ops.errors import EgoworldError, StorageUnavailable, classify
from egoworld_ops.lake import memo, states, verdicts
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.measured import FILE_NAME as QUALITY
from egoworld_ops.lake.verdicts import ClipKey, Verdict

CHUNK = 256
MEMORY = "512MB"
WATCHED = ("states.parquet", "videos.parquet", "clips.parquet", "metrics.parquet", QUALITY)
_RATE_OVER_S = 600.0
ENDED = "state IN ('done', 'failed', 'dead letter')"
"""Of results that have come to an end; a failure is one too."""
_LOG = logging.getLogger(__name__)
_TABLES = """
CREATE TABLE videos (video_id VARCHAR, path VARCHAR, bytes BIGINT, status VARCHAR, error_class VARCHAR, reason VARCHAR, cure VARCHAR,
    warning VARCHAR, duration_s DOUBLE, n_frames BIGINT, width INT, height INT);
CREATE TABLE clips (video_id VARCHAR, clip_id VARCHAR, frame_start BIGINT, frame_end BIGINT, own_start BIGINT, own_end BIGINT, start_s DOUBLE,
    end_s DOUBLE);
CREATE TABLE states (video_id VARCHAR, clip_id VARCHAR, stage VARCHAR, state VARCHAR, rows BIGINT);
CREATE TABLE failures (video_id VARCHAR, clip_id VARCHAR, stage VARCHAR, backend VARCHAR, culprit VARCHAR, error_class VARCHAR, reason VARCHAR,
    cure VARCHAR, attempts INT, frame_index BIGINT, traceback VARCHAR, dead_letter BOOLEAN);
CREATE TABLE metrics (video_id VARCHAR, clip_id VARCHAR, stage VARCHAR, metric VARCHAR, value DOUBLE);
CREATE TABLE objects (video_id VARCHAR, rows BIGINT, computed_at TIMESTAMPTZ);
CREATE TABLE metric_names (stage VARCHAR, metric VARCHAR, PRIMARY KEY (stage, metric));
CREATE TABLE warnings (video_id VARCHAR, stage VARCHAR, metric VARCHAR, said VARCHAR);
CREATE TABLE unreadable (video_id VARCHAR, reason VARCHAR);
CREATE TABLE verdicts (video_id VARCHAR, clip_id VARCHAR, word VARCHAR);
"""

_VERDICTS = pa.schema([(name, pa.string()) for name in ("video_id", "clip_id", "word")])


class Index:
    """The tables above for one run, kept up to date by `refresh`.

    Args:
        run: whose files are read; nothing is written there.
        path: of the DuckDB file, which is made.
        bounds: of the settings, by stage and metric.
    """

    def __init__(self, run: Run, path: Path, bounds: Mapping[str, Mapping[str, Bounds]]) -> None:
        self.run, self.bounds = run, bounds
        self._database = duckdb.connect(str(path), config={"threads": 2, "memory_limit": MEMORY})
        self._database.execute(_TABLES)
        self._known: dict[str, Any] = {}
        self._alone, self._judging = threading.Lock(), threading.Lock()
        self._history: tuple[Any, Mapping[str, Sequence[Verdict]]] = None, {}
        self._judged: Mapping[str, Any] = {}
        self.stands: Mapping[ClipKey, Sequence[Verdict]] = {}
        """The verdicts on the run's clips that stand."""
        self.given: Sequence[Verdict] = ()
        """All verdicts on the run, in the order in which they were given."""
        self._counted: deque[tuple[float, int]] = deque()
        self.whole = threading.Event()
        """Set once all videos that the run had were gone through."""
        self.seen, self.total = 0, 0
        self.away: EgoworldError | None = None
        """Why the run could not be read when it was last tried."""

    def close(self) -> None:
        """Let go of the file."""
        with self._alone:
            self._database.close()

    def rows(self, sql: str, values: Mapping[str, Any] | Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query, by column; safe in any thread."""
        cursor = self._database.cursor()
        try:
            found = cursor.execute(sql, values)
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        finally:
            cursor.close()

    def refresh(self, ended: threading.Event) -> None:
        """Read what has changed since, and forget what is gone, until `ended`. One thread at a time."""
        with self._alone:
            try:
                self._read_changed(ended)
                self.read_verdicts()
                self.away = None
            except Exception as error:  # noqa: BLE001 - whatever it is, the page says it, and the next look may do better
                self.away = classify(error, f"run {self.run.run_id}")
                if not isinstance(self.away, StorageUnavailable):
                    _LOG.error("index of run %s", self.run.run_id, exc_info=error)
            self._note_progress()
            self.whole.set()

    def _read_changed(self, ended: threading.Event) -> None:
        there = states.video_ids(self.run)
        self.total = len(there)
        looks = {video_id: self._look(video_id) for video_id in there}
        touched = [*(v for v, look in looks.items() if look != self._known.get(v)), *set(self._known).difference(there)]
        self.seen = self.total - len([v for v in touched if v in looks])
        with duckdb.connect(config={"threads": 2, "memory_limit": MEMORY}) as reader:
            for chunk in (touched[at : at + CHUNK] for at in range(0, len(touched), CHUNK)):
                if ended.is_set():
                    return
                now = {video_id: self._look(video_id) for video_id in chunk if video_id in looks}
                readable = [video_id for video_id, look in now.items() if not isinstance(look, str)]
                self._replace(chunk, gathering.gather(reader, self.run, readable, self.bounds))
                self._say([(video_id, look) for video_id, look in now.items() if isinstance(look, str)])
                for video_id in chunk:
                    self._known.pop(video_id, None)
                self._known |= now
                self.seen += len(now)

    def _look(self, video_id: str) -> list[Any] | str:
        """The states of a video's files that are read; or why they cannot be."""
        try:
            folder = self.run.video_folder(video_id)
            return [memo.file_state(folder / name) for name in WATCHED]
        except (StorageUnavailable, ValueError) as error:
            return str(error)

    def _say(self, unreadable: Sequence[tuple[str, str]]) -> None:
        cursor = self._database.cursor()
        for row in unreadable:
            cursor.execute("INSERT INTO unreadable VALUES (?, ?)", row)
        cursor.close()

    def _replace(self, video_ids: Sequence[str], found: gathering.Found) -> None:
        """Put the rows of these videos in the place of those there were, all in one step."""
        cursor = self._database.cursor()
        cursor.execute("BEGIN")
        for table, rows in found.items():
            cursor.execute(f"DELETE FROM {table} WHERE video_id IN (SELECT unnest($ids))", {"ids": list(video_ids)})
            if rows.num_rows:
                cursor.register("gathered", rows)
                cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM gathered")
                if table == "metrics":
                    cursor.execute("INSERT OR IGNORE INTO metric_names SELECT DISTINCT stage, metric FROM gathered")
                cursor.unregister("gathered")
        cursor.execute("COMMIT")
        cursor.close()

    def read_verdicts(self) -> None:
        """Put the verdicts on clips that stand now in the place of those there were; of videos with other verdicts, or other results, than before.

        Raises:
            ContractError, StorageUnavailable: they cannot be read.
        """
        with self._judging:
            given = self._given()
            looks = {v: ([said.verdict_id for said in of], memo.file_state(self.run.video_table("states", v))) for v, of in given.items()}
            touched = [v for v in looks.keys() | self._judged.keys() if looks.get(v) != self._judged.get(v)]
            if not touched:
                return
            found = verdicts.standing(self.run, [said for v in touched for said in given.get(v, ())])
            self.stands = {clip: of for clip, of in self.stands.items() if clip[0] not in set(touched)} | found
            rows = [{"video_id": clip[0], "clip_id": clip[1], "word": verdicts.word(of)} for clip, of in found.items()]
            self._replace(touched, {"verdicts": pa.Table.from_pylist(rows, _VERDICTS)})
            self._judged = looks

    def _given(self) -> Mapping[str, Sequence[Verdict]]:
        """The verdicts on the run by video; read again where their file has changed."""
        state = memo.file_state(verdicts.path(self.run.lake))
        if state != self._history[0]:
            self.given = [said for said in verdicts.read(self.run.lake) if said.run_id == self.run.run_id]
            of_videos: dict[str, list[Verdict]] = {}
            for said in self.given:
                of_videos.setdefault(said.video_id, []).append(said)
            self._history = state, of_videos
        return self._history[1]

    def _note_progress(self) -> None:
        [row] = self.rows(f"SELECT count(*) AS n FROM states WHERE {ENDED}")
        now = time.monotonic()
        self._counted.append((now, row["n"]))
        while now - self._counted[0][0] > _RATE_OVER_S:
            self._counted.popleft()

    def rate(self) -> float:
        """Results a second that were added while this index looked on, over the last ten minutes at most."""
        if not self._counted:
            return 0.0
        (began_s, before), (now_s, after) = self._counted[0], self._counted[-1]
        return max(after - before, 0) / (now_s - began_s) if now_s > began_s else 0.0


class Indexes:
    """The indexes of the runs that pages ask for, kept up to date by one thread; those asked for least lately are let go.

    Args:
        folder: for their files.
        bounds: as for `Index`.
        every_s: pause between two looks at the files.
    """

    MOST = 4
    PATIENCE_S = 0.4
    """How long the first page of a run waits for its index, which a small run has by then."""

    def __init__(self, folder: Path, bounds: Mapping[str, Mapping[str, Bounds]], every_s: float = 2.0) -> None:
        self._folder, self._bounds, self._every_s = folder, bounds, every_s
        self._open: dict[str, Index] = {}
        self._locked, self._wanted, self._ended = threading.Lock(), threading.Event(), threading.Event()
        self._n_made = 0
        self._thread = threading.Thread(target=self._keep_up, name="review-index", daemon=True)
        self._thread.start()

    def of(self, run: Run) -> Index:
        """The index of a run, made where there is none."""
        with self._locked:
            index = self._open.pop(run.run_id, None)
            if index is None or index.run != run:
                self._n_made += 1
                index = Index(run, self._folder / f"{self._n_made}.duckdb", self._bounds)
                self._wanted.set()
            self._open[run.run_id] = index
            for name in list(self._open)[: -self.MOST]:
                del self._open[name]  # its file is closed with its last reader
        index.whole.wait(self.PATIENCE_S)
        return index

    def close(self) -> None:
        """End the thread, and let go of all files."""
        self._ended.set()
        self._wanted.set()
        self._thread.join()
        for index in self._open.values():
            index.close()

    def _keep_up(self) -> None:
        while not self._ended.is_set():
            started = time.monotonic()
            for index in self._newest_first():
                if not self._ended.is_set():
                    index.refresh(self._ended)
            pause_s = max(self._every_s, 5 * (time.monotonic() - started))
            self._wanted.wait(pause_s)
            self._wanted.clear()

    def _newest_first(self) -> Iterator[Index]:
        with self._locked:
            indexes = list(self._open.values())
        return reversed(indexes)
