"""The asset graph, made from the registry of stages: `manifest` and one asset a stage. A new stage needs no line here."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from egoworld_assets.chain import pipeline
from egoworld_assets.chain.stage_result import StageResult
from egoworld_assets.outcome import Outcome
from egoworld_assets.partitions import BACKFILL, GROUP, OWNERS, VIDEO_IDS
from egoworld_assets.preview import preview
from egoworld_assets.progress import Progress, n_clips
from egoworld_assets.resources import Egoworld
from egoworld_ops import operators
from egoworld_ops.contract import schema
from egoworld_ops.errors import BadSettings, SetupError
from egoworld_ops.execution.identity import backend_of, code_version, inputs_of
from egoworld_ops.operators.base import Stage
from egoworld_ops.settings import Settings, load_settings

PRIORITY_TAG = "egoworld/priority"


def column_schema(table: str) -> dg.TableSchema:
    """The contract of a table for Dagster's Columns tab."""
    columns = [
        dg.TableColumn(
            name=c.name,
            type=str(c.type),
            description=" ".join(filter(None, [c.doc, f"[{c.unit}]" if c.unit else "", f"({c.frame} frame)" if c.frame else ""])),
            constraints=dg.TableColumnConstraints(nullable=c.nullable, other=list(c.allowed)),
        )
        for c in schema.table(table).columns
    ]
    return dg.TableSchema(columns=columns)


@dg.asset(
    name=pipeline.MANIFEST,
    group_name=GROUP,
    description="Probes each raw video, finds its scenes, and cuts it into clips: tables `videos` and `clips`.",
    partitions_def=VIDEO_IDS,
    backfill_policy=BACKFILL,
    io_manager_key="lake",
    metadata={"dagster/column_schema": column_schema("clips"), "videos": column_schema("videos")},
    kinds={"parquet", "pyav"},
    owners=OWNERS,
)
def manifest(context: dg.AssetExecutionContext, egoworld: Egoworld) -> Outcome:
    """Tables `videos` and `clips`."""
    run, video_ids = egoworld.run(), context.partition_keys
    results = pipeline.manifest_results(run, video_ids, egoworld.settings)
    return _stored(context, Outcome(run, pipeline.MANIFEST, video_ids), results)


def priority_of(tags: Mapping[str, str]) -> int:
    """The priority in the run tag `egoworld/priority`: higher goes first in the pool.

    Raises:
        BadSettings: it is not a whole number.
    """
    said = tags.get(PRIORITY_TAG, "0")
    try:
        return int(said)
    except ValueError as error:
        raise BadSettings(f"run tag {PRIORITY_TAG}", f"{said!r} is not a whole number", "Set it to one; higher goes first") from error


def _settings() -> Settings | None:
    """Those of this process; None if they cannot be read: the steps then say what is wrong with them."""
    try:
        return load_settings()
    except SetupError:
        return None


def _of_stage(stage: Stage, settings: Settings | None) -> dict[str, Any]:
    """What the settings say of a stage's asset: what it is made from, its code, its backend. Without settings, all that it may be made from."""
    if settings is None:
        return {"deps": stage.above or [pipeline.MANIFEST]}
    try:
        version = code_version(stage.name, settings)
    except SetupError:
        version = None
    deps = inputs_of(stage.name, settings) or [pipeline.MANIFEST]
    return {"deps": list(deps), "code_version": version, "tags": {"egoworld/backend": backend_of(stage.name, settings)}}


def stage_asset(stage: Stage, settings: Settings | None) -> dg.AssetsDefinition:
    """The asset of one stage: hands the clips of its partitions to the pool and streams the results to the lake."""

    @dg.asset(
        name=stage.name,
        group_name=GROUP,
        description=stage.doc,
        partitions_def=VIDEO_IDS,
        backfill_policy=BACKFILL,
        io_manager_key="lake",
        metadata={"dagster/column_schema": column_schema(stage.name)},
        kinds={"parquet"},
        owners=OWNERS,
        **_of_stage(stage, settings),
    )
    def compute(context: dg.AssetExecutionContext, egoworld: Egoworld) -> Outcome:
        run, video_ids = egoworld.run(), context.partition_keys
        pool = egoworld.pool(f"{stage.name}, run {context.run.run_id[:8]}", priority_of(context.run.tags))
        results = pipeline.stage_results(run, stage.name, video_ids, egoworld.settings, pool)
        return _stored(context, Outcome(run, stage.name, video_ids), results)

    return compute


def _stored(context: dg.AssetExecutionContext, outcome: Outcome, results: Iterator[StageResult]) -> Outcome:
    """Store each result when it arrives, so that it is durable at once, and report the outcome of each video."""
    stage = outcome.stage
    said: Counter[str] = Counter()
    progress = _progress(context, outcome)
    for result in results:
        pipeline.store(outcome.run, stage, result)
        outcome.add(result)
        if result.error is not None:
            old = result.dead_letter and not result.tables
            line = f"{stage}{': a dead letter from before, not tried again until it is redriven' if old else ' failed'}: {result.error}"
            said[line] += 1
            if said[line] == 1:  # a sidecar or a disk fails all clips of a video alike
                context.log.warning(line)
        progress.add(result)
    if again := said.total() - len(said):
        context.log.warning(f"{stage}: {again} more, for what is said above")
    for video_id in outcome.video_ids:
        context.add_asset_metadata(outcome.metadata(video_id), partition_key=video_id)
    context.set_data_version(context.asset_key, outcome.data_version())
    return outcome


def _progress(context: dg.AssetExecutionContext, outcome: Outcome) -> Progress:
    """How far the step is, in its log and as observations of its asset: of the partition where there is one, else of all."""
    of_all = len(outcome.video_ids) > 1
    partition = None if of_all else next(iter(outcome.video_ids), None)

    def observe(metadata: Mapping[str, str]) -> None:
        context.log_event(dg.AssetObservation(context.asset_key, partition=partition, metadata=metadata))

    if outcome.stage == pipeline.MANIFEST:
        return Progress(outcome.stage, "videos", len(outcome.video_ids), context.log.info, observe)
    return Progress(outcome.stage, "clips", n_clips(outcome.run, outcome.video_ids), context.log.info, observe)


def _assets() -> list[dg.AssetsDefinition]:
    settings = _settings()
    return [manifest, *(stage_asset(stage, settings) for stage in operators.stages().values()), preview]


ASSETS = _assets()
