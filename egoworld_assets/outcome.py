"""The outcome of a step for each video: counted as results come, and shown as the metadata of each partition.

Dagster plots every number over all partitions, so only values that can be compared between videos are numbers; counts are text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import dagster as dg

from egoworld_assets.chain import pipeline
from egoworld_assets.chain.clips import check_key
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops.contract import values
from egoworld_ops.contract.values import Values
from egoworld_ops.errors import EgoworldError, InputError, UnknownVideo
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake.lake import Run

MAX_REASONS = 50
REVIEW = "http://127.0.0.1:3080"
"""Where `egoworld review` serves on this machine unless told otherwise."""
_WORDS = {"computed": "computed", "linked": "linked from another run", "done": "done before", "failed": "failed", "blocked": "blocked"}


@dataclass(slots=True)
class Tally:
    """The outcome of one video in one stage."""

    states: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    seconds: float = 0.0
    fallbacks: int = 0
    first_error: EgoworldError | None = None
    digests: list[str] = field(default_factory=list)
    values: Values = field(default_factory=Values)

    def add(self, stage: str, result: StageResult) -> None:
        """One more result of this video."""
        self.states[result.state] += 1
        self.rows += result.rows
        self.digests.append(f"{result.clip_id} {result.digest}")
        self.seconds += result.seconds
        self.fallbacks += result.beside is not None
        self.first_error = self.first_error or result.error
        if stage in result.tables:
            self.values += values.of_rows(result.tables[stage])

    @property
    def lacking(self) -> int:
        """How many clips have no result."""
        return self.states["failed"] + self.states["blocked"]

    @property
    def nothing_done(self) -> bool:
        """Whether there was something to process and none of it could be."""
        return self.states.total() > 0 and self.lacking == self.states.total()

    def status(self) -> str:
        """One word, or two."""
        if not self.states:
            return "no clips"
        return "failed" if self.nothing_done else "incomplete" if self.lacking else "ok"


@dataclass(slots=True)
class Outcome:
    """What one step did to its videos.

    Args:
        run: where the results are.
        stage: `manifest`, or the stage.
        video_ids: partitions of the step.
    """

    run: Run
    stage: str
    video_ids: Sequence[str]
    tallies: dict[str, Tally] = field(init=False)

    def __post_init__(self) -> None:
        self.tallies = {video_id: Tally() for video_id in self.video_ids}

    def add(self, result: StageResult) -> None:
        """One more result, stored by now."""
        self.tallies[result.video_id].add(self.stage, result)

    def data_version(self) -> dg.DataVersion:
        """Dagster's data version, made from the digests of the results: equal results, equal version. It is one for all partitions of a run."""
        return dg.DataVersion(sha256_of({video_id: sorted(t.digests) for video_id, t in self.tallies.items() if t.states}))

    def metadata(self, video_id: str) -> dict[str, Any]:
        """What the partition of a video shows in Dagster's UI."""
        tally = self.tallies[video_id]
        unit = "videos" if self.stage == pipeline.MANIFEST else "clips"
        counts = ", ".join(f"{tally.states[state]} {words}" for state, words in _WORDS.items() if tally.states[state])
        metadata: dict[str, Any] = {
            "dagster/row_count": tally.rows,
            "status": tally.status(),
            unit: counts or "none: see the check manifest_complete",
            "run": self.run.run_id,
            "seconds": f"{tally.seconds:.2f}",
        }
        with suppress(UnknownVideo):
            check_key(video_id)
            metadata["folder"] = dg.MetadataValue.path(str(self.run.video_folder(video_id)))
            metadata["review"] = dg.MetadataValue.url(f"{REVIEW}/run/{self.run.run_id}/clips?{urlencode({'q': video_id})}")
        if tally.values.rows:
            metadata["share of rows with a value that stands"] = tally.values.share
            metadata["rows with a value that stands"] = tally.values.said(self.stage)
        if tally.fallbacks:
            metadata["by the fallback backend"] = f"{tally.fallbacks} {unit}"
        if tally.first_error is not None:
            metadata["first failure"] = str(tally.first_error)
        return metadata

    def failure(self) -> dg.Failure | None:
        """The error the step ends with if it got nothing done for a reason that is not in the videos: a retry by Dagster would not help.

        A bad video, alone or among others, never fails a step: its check `<asset>_complete` is red instead.
        """
        errors = [t.first_error for t in self.tallies.values() if t.first_error is not None]
        ours = [e for e in errors if not isinstance(e, InputError)]
        if not ours or not all(t.nothing_done or not t.states for t in self.tallies.values()):
            return None
        description = f"{self.stage}: nothing of {len(self.tallies)} video(s) could be processed. {ours[0]}"
        return dg.Failure(description, metadata={"reasons": dg.MetadataValue.json(self._reasons())}, allow_retries=False)

    def _reasons(self) -> Mapping[str, str]:
        said = {v: str(t.first_error or "an input from upstream is missing") for v, t in self.tallies.items() if t.nothing_done}
        return dict(list(said.items())[:MAX_REASONS])
