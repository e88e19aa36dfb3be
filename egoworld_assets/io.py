"""The IO manager: takes a lazy stream of results and writes each as it arrives, so that what is done is durable at once."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa

from egoworld_assets.chain import pipeline
from egoworld_assets.chain.planning import StageResult
from egoworld_assets.resources import Egoworld
from egoworld_ops.contract import schema
from egoworld_ops.hashing import sha256_of
from egoworld_ops.lake.lake import Run

PROGRESS_EVERY_S = 10.0
MAX_REASONS = 50


@dataclass(frozen=True, slots=True)
class ResultStream:
    """What an asset returns: where results go, and the results, computed only as the IO manager takes them."""

    context: dg.AssetExecutionContext
    run: Run
    stage: str
    results: Iterator[StageResult]


@dataclass(slots=True)
class _Tally:
    """What became of one video in one stage."""

    states: Counter[str]
    rows: int = 0
    seconds: float = 0.0
    fallbacks: int = 0
    first_failure: str = ""
    digests: list[str] = field(default_factory=list)

    def add(self, result: StageResult) -> None:
        self.states[result.state] += 1
        self.rows += result.rows
        self.digests.append(f"{result.clip_id} {result.digest}")
        self.seconds += result.seconds
        self.fallbacks += result.beside is not None
        if result.error is not None and not self.first_failure:
            self.first_failure = str(result.error)

    @property
    def nothing_done(self) -> bool:
        """Whether there was something to process and none of it could be."""
        return self.states.total() > 0 and self.states["failed"] + self.states["blocked"] == self.states.total()


class LakeIOManager(dg.ConfigurableIOManager):  # type: ignore[misc]
    """Writes result streams into the lake, clip by clip; reads a stage's table back as Arrow."""

    egoworld: dg.ResourceDependency[Egoworld]

    def handle_output(self, context: dg.OutputContext, obj: ResultStream) -> None:
        """Consume the stream. Metadata is put on each partition by itself, also where a run holds many.

        Raises:
            Failure: nothing of any video in this run could be processed.
        """
        from egoworld_ops.query import catalog

        tallies: dict[str, _Tally] = defaultdict(lambda: _Tally(Counter()))
        reported = started = time.monotonic()
        for n, result in enumerate(obj.results, 1):
            pipeline.store(obj.run, obj.stage, result)
            tallies[result.video_id].add(result)
            if result.error is not None and result.dead_letter and not result.tables:
                context.log.warning(f"{obj.stage}: a dead letter from before, not tried again until it is redriven: {result.error}")
            elif result.error is not None:
                context.log.warning(f"{obj.stage} failed: {result.error}")
            if time.monotonic() - reported > PROGRESS_EVERY_S:
                reported = time.monotonic()
                context.log.info(f"{obj.stage}: {n} results in {reported - started:.0f} s, now at video {result.video_id}")
        pipeline.advance(obj.run, tallies)
        catalog.write_catalog(obj.run.lake)
        for video_id in context.asset_partition_keys:
            obj.context.add_asset_metadata(_metadata(obj, video_id, tallies[video_id]), partition_key=video_id)
        obj.context.set_data_version(context.asset_key, _data_version(tallies))
        if tallies and all(t.nothing_done for t in tallies.values()):
            raise _failure(obj.stage, tallies)

    def load_input(self, context: dg.InputContext) -> pa.Table:
        """The rows of the upstream stage that count, for the partitions of this step: each owned frame once. Of the manifest, the rows of `clips`.

        Raises:
            ContractError, InputChanged, StorageUnavailable: a file is damaged, is replaced meanwhile, or cannot be read now.
        """
        from egoworld_ops.release.part import owned_rows
        from egoworld_ops.release.plan import Contents

        run, stage = self.egoworld.run(), context.asset_key.path[-1]
        table = "clips" if stage == pipeline.MANIFEST else stage
        contents = Contents(run)
        there = [v for v in context.asset_partition_keys if contents.has(v)]
        files = contents.sources(there, [table])[table]
        return pa.concat_tables([schema.empty(table), *(owned_rows(file) for file in files)])


def _failure(stage: str, tallies: Mapping[str, _Tally]) -> dg.Failure:
    """What the step of a run ends with in which nothing at all could be processed. A retry would not help."""
    reasons = {v: t.first_failure or "an input from further up is missing: look at the assets above" for v, t in tallies.items()}
    description = f"{stage}: nothing of {len(tallies)} video(s) could be processed. {next(iter(reasons.values()))}"
    shown = dict(list(reasons.items())[:MAX_REASONS])
    return dg.Failure(description, metadata={"reasons": dg.MetadataValue.json(shown)}, allow_retries=False)


def _data_version(tallies: Mapping[str, _Tally]) -> dg.DataVersion:
    """What the results are, as their digests say: the same results, the same version. Dagster has one for all partitions of a run."""
    return dg.DataVersion(sha256_of({video_id: sorted(tally.digests) for video_id, tally in tallies.items()}))


def _metadata(stream: ResultStream, video_id: str, tally: _Tally) -> dict[str, Any]:
    unit = "videos" if stream.stage == pipeline.MANIFEST else "clips"
    counts = {f"{unit} {state}": tally.states[state] for state in ("computed", "linked", "done", "failed", "blocked")}
    metadata: dict[str, Any] = {
        "dagster/row_count": tally.rows,
        "status": "failed" if tally.nothing_done else "incomplete" if tally.first_failure else "ok",
        "run": stream.run.run_id,
        "folder": dg.MetadataValue.path(str(stream.run.video_folder(video_id))),
        "seconds": round(tally.seconds, 3),
        **counts,
    }
    if tally.fallbacks:
        metadata["clips by the fallback backend"] = tally.fallbacks
    if tally.first_failure:
        metadata["first failure"] = tally.first_failure
    return metadata
