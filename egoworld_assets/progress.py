"""How far a step is: a line in its log now and then, and more seldom an observation of the asset, whose page shows it while the step runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from egoworld_assets.chain.clips import check_key
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops.errors import EgoworldError
from egoworld_ops.files.tables import provenance_at
from egoworld_ops.lake.lake import Run

LOG_EVERY_S = 10.0
OBSERVE_EVERY_S = 60.0
"""An observation is a row of Dagster's event log, which keeps it for good."""


def n_clips(run: Run, video_ids: Iterable[str]) -> int:
    """How many clips these videos have, by their manifests; of a video that has none, or none that can be read now, none."""
    total = 0
    for video_id in video_ids:
        with suppress(EgoworldError):
            check_key(video_id)
            total += int((provenance_at(run.video_table("clips", video_id)) or {}).get("rows", 0))
    return total


class Progress:
    """Counts the results of a step.

    Args:
        stage: its name.
        unit: what there is one result of each: `clips` or `videos`.
        total: how many there will be, as far as that is known.
        say: takes a line.
        observe: takes the same as metadata.
        now_s: a clock that never goes back.
    """

    def __init__(
        self,
        stage: str,
        unit: str,
        total: int,
        say: Callable[[str], object],
        observe: Callable[[Mapping[str, Any]], object],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stage, self._unit, self._total = stage, unit, total
        self._say, self._observe, self._now_s = say, observe, now_s
        self._done, self._began_s = 0, now_s()
        self._said_s = self._observed_s = self._began_s

    def add(self, result: StageResult) -> None:
        """One more result is stored. That of a video which has no clips is none of a clip."""
        if self._unit == "clips" and result.clip_id is None:
            return
        self._done += 1
        now_s = self._now_s()
        if now_s - self._said_s >= LOG_EVERY_S:
            self._said_s = now_s
            self._say(f"{self._stage} {self._line(now_s)}; now at video {result.video_id}")
        if now_s - self._observed_s >= OBSERVE_EVERY_S:
            self._observed_s = now_s
            self._observe({"progress": self._line(now_s), "now at": result.video_id})

    def _line(self, now_s: float) -> str:
        """`6 of 23 clips, 2.1 a minute, about 8 min left`."""
        a_second = self._done / (now_s - self._began_s)
        rate = f"{a_second:.3g} a second" if a_second >= 1 else f"{60 * a_second:.3g} a minute"
        if self._done >= self._total:
            return f"{self._done} {self._unit}, {rate}"
        return f"{self._done} of {self._total} {self._unit}, {rate}, about {_duration((self._total - self._done) / a_second)} left"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
