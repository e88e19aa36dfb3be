"""The asset graph, made from the registry of stages: `manifest` and one asset a stage. A new stage needs no line here."""

import dagster as dg

from egoworld_assets import pipeline
from egoworld_assets.io import ResultStream
from egoworld_assets.partitions import BACKFILL, GROUP, VIDEO_IDS
from egoworld_assets.preview import preview
from egoworld_assets.resources import Egoworld
from egoworld_ops import operators, schema
from egoworld_ops.operators.base import Stage


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
)
def manifest(context: dg.AssetExecutionContext, egoworld: Egoworld) -> ResultStream:
    """Tables `videos` and `clips`."""
    run = egoworld.run()
    return ResultStream(context, run, pipeline.MANIFEST, pipeline.manifest_results(run, context.partition_keys, egoworld.settings))


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of one stage: hands the clips of its partitions to the pool and streams the results to the lake."""

    @dg.asset(
        name=stage.name,
        group_name=GROUP,
        description=stage.doc,
        deps=list(stage.inputs) or [pipeline.MANIFEST],
        partitions_def=VIDEO_IDS,
        backfill_policy=BACKFILL,
        io_manager_key="lake",
        metadata={"dagster/column_schema": column_schema(stage.name)},
        kinds={"parquet"},
    )
    def compute(context: dg.AssetExecutionContext, egoworld: Egoworld) -> ResultStream:
        run = egoworld.run()
        results = pipeline.stage_results(run, stage.name, context.partition_keys, egoworld.settings, egoworld.pool())
        return ResultStream(context, run, stage.name, results)

    return compute


ASSETS: list[dg.AssetsDefinition] = [manifest, *(stage_asset(s) for s in operators.stages().values()), preview]
