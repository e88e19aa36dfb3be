"""The IO manager: publishes what a step has stored, and reads a stage's table back as Arrow. It computes nothing."""

import dagster as dg
import pyarrow as pa

from egoworld_assets.chain import pipeline
from egoworld_assets.outcome import Outcome
from egoworld_assets.resources import Egoworld
from egoworld_ops.contract import schema


class LakeIOManager(dg.ConfigurableIOManager):  # type: ignore[misc]
    """Updates the lake's latest run and catalog after a step; the tables themselves were stored clip by clip."""

    egoworld: dg.ResourceDependency[Egoworld]

    def handle_output(self, context: dg.OutputContext, obj: Outcome) -> None:
        """Publish the results of a step.

        Raises:
            Failure: there are none, for a reason that is not in the videos.
        """
        from egoworld_ops.query import catalog

        pipeline.advance(obj.run, obj.video_ids)
        catalog.write_catalog(obj.run.lake)
        if (failure := obj.failure()) is not None:
            raise failure

    def load_input(self, context: dg.InputContext) -> pa.Table:
        """The rows of the upstream stage that count, for the partitions of this step: each owned frame once. Of the manifest, the rows of `clips`.

        Raises:
            ContractError, InputChanged, StorageUnavailable: a file is damaged, is replaced meanwhile, or cannot be read now.
        """
        from egoworld_ops.release.plan import RunFiles
        from egoworld_ops.release.rows import owned_rows

        run, stage = self.egoworld.run(), context.asset_key.path[-1]
        table = "clips" if stage == pipeline.MANIFEST else stage
        contents = RunFiles(run)
        there = [v for v in context.asset_partition_keys if contents.has(v)]
        files = contents.sources(there, [table])[table]
        return pa.concat_tables([schema.empty(table), *(owned_rows(file) for file in files)])
