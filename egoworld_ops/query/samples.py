"""The metrics of videos of a run as `drift.py` compares them, out of the view `runs.metrics`; and the clips in which one is most unusual."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from egoworld_ops.errors import SetupError
from egoworld_ops.lake.reference import Reference
from egoworld_ops.query.drift import Drift, Metrics, Values

MOST_WORST = 10
_OF_MACHINES = ("compute_s", "processed_frames")
"""Metrics that tell of machines and of the length of videos, not of the data."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Two sets of videos to be compared, each in one run, with the words for them.

    Args:
        reference, current: run and videos.
    """

    reference: tuple[str, Sequence[str]]
    current: tuple[str, Sequence[str]]
    said: str


class Samples:
    """Reads metrics from a lake's catalog.

    Args:
        catalog: `egoworld.duckdb`, up to date.
        run_ids: the runs that will be asked for.
    """

    def __init__(self, catalog: Path, run_ids: Collection[str]) -> None:
        self._connection = duckdb.connect(str(catalog), read_only=True)
        every = "SELECT run_id, video_id, clip_id, stage, metric, value, computed_at FROM runs.metrics"
        wanted = f"run_id IN (SELECT unnest(?::VARCHAR[])) AND metric NOT IN {_OF_MACHINES}"
        self._connection.execute(f"CREATE TEMP TABLE numbers AS {every} WHERE {wanted}", [list(run_ids)])

    def __enter__(self) -> Samples:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def sides(self, run_id: str, reference: Reference | None, last: int, source: Path | None) -> Sides:
        """Which videos are compared with which.

        Args:
            run_id: the run of the newer videos.
            reference: what they are compared with; None stands for the other videos of their run.
            last: only so many of the newer videos, those computed last; 0 stands for all.
            source: only those whose raw file lies below this folder.

        Raises:
            SetupError: a side has no videos with metrics.
        """
        current = self._videos(run_id)
        words = [f"run {run_id}"]
        if source is not None:
            below = self._below(run_id, source)
            current = [video_id for video_id in current if video_id in below]
            words.append(f"videos of {source}")
        if last:
            current = current[-last:]
            words.append(f"the last {len(current)} videos")
        old = reference or Reference(run_id)
        videos = self._videos(old.run_id)
        if old.released:
            released = {v for (v,) in self._ask("SELECT video_id FROM releases.videos WHERE run_id = ?", [old.run_id])}
            videos = [v for v in videos if v in released]
            current = [v for v in current if old.run_id != run_id or v not in released]
        if old.run_id == run_id:
            newer = set(current)
            videos = [v for v in videos if v not in newer]
        against = "the other videos of this run" if reference is None else f"{'the release of ' if old.released else ''}run {old.run_id}"
        said = f"{', '.join(words)} ({len(current)} videos) against {against} ({len(videos)} videos)"
        if not current or not videos:
            raise SetupError("drift", f"has nothing to compare: {said}", "Process more videos, or name other ones: `egoworld drift --help`")
        return Sides((old.run_id, videos), (run_id, current), said)

    def of(self, side: tuple[str, Sequence[str]]) -> Metrics:
        """The metrics of these videos of a run, each over the videos in the order in which it was computed."""
        run_id, videos = side
        order = "ORDER BY stage, metric, computed_at, video_id"
        wanted = "run_id = ? AND clip_id = '' AND video_id IN (SELECT unnest(?::VARCHAR[]))"
        asked = f"SELECT stage, metric, video_id, value FROM numbers WHERE {wanted} {order}"
        table = self._connection.execute(asked, [run_id, list(videos)]).fetchnumpy()
        values = np.ma.filled(np.ma.asarray(table["value"], np.float64), np.nan)
        keys = list(zip(table["stage"], table["metric"], strict=True))
        starts = [i for i, key in enumerate(keys) if i == 0 or key != keys[i - 1]]
        ends = [*starts[1:], len(keys)]
        return {keys[a]: Values(table["video_id"][a:b], values[a:b]) for a, b in zip(starts, ends, strict=True)}

    def worst(self, side: tuple[str, Sequence[str]], drift: Drift) -> list[tuple[str, str, float | None]]:
        """The clips in which a metric is farthest on the side that it moved to: video, clip and value; those without a value first if most have none.
        The whole videos (an empty clip) for a column's mean, which is not kept by clip."""
        run_id, videos = side
        whole = "=" if drift.metric.endswith(".mean") else "<>"
        order = (
            "value IS NOT NULL" if np.isnan(drift.current) else f"value {'DESC' if drift.current > drift.reference else 'ASC'} NULLS LAST"
        )
        asked = f"""SELECT video_id, clip_id, value FROM numbers
            WHERE run_id = ? AND stage = ? AND metric = ? AND clip_id {whole} '' AND video_id IN (SELECT unnest(?::VARCHAR[]))
            ORDER BY {order}, video_id, clip_id LIMIT {MOST_WORST}"""
        return self._ask(asked, [run_id, drift.stage, drift.metric, list(videos)])

    def _videos(self, run_id: str) -> list[str]:
        """Those of a run with metrics, in the order in which they were computed."""
        asked = "SELECT video_id FROM numbers WHERE run_id = ? GROUP BY 1 ORDER BY max(computed_at), video_id"
        return [video_id for (video_id,) in self._ask(asked, [run_id])]

    def _below(self, run_id: str, folder: Path) -> Collection[str]:
        prefix = f"{folder.resolve()}/"
        return {v for (v,) in self._ask("SELECT video_id FROM runs.videos WHERE run_id = ? AND starts_with(path, ?)", [run_id, prefix])}

    def _ask(self, question: str, given: list[Any]) -> list[tuple[Any, ...]]:
        return self._connection.execute(question, given).fetchall()
