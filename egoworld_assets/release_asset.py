"""The asset `release`: the run compacted into few large files, all videos together. Materialized on demand, and no part of `process_videos`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from egoworld_assets.partitions import GROUP, OWNERS
from egoworld_assets.preview import LEAVES
from egoworld_assets.resources import Egoworld
from egoworld_ops.release.place import PAGE_NAME

if TYPE_CHECKING:
    from egoworld_ops.release.make import ReleaseOutcome

MAX_SHOWN = 50


@dg.asset(
    group_name=GROUP,
    deps=LEAVES,
    description="The run in few large files, each owned frame once, sorted: what people query, as schema `release` of egoworld.duckdb.",
    kinds={"parquet"},
    owners=OWNERS,
)
def release(context: dg.AssetExecutionContext, egoworld: Egoworld) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Brings the release of the run of these settings up to date. New videos make new parts; parts whose videos did not change stay."""
    from egoworld_ops.query import catalog
    from egoworld_ops.release.make import make_release

    run = egoworld.run()
    outcome = make_release(run, egoworld.settings.release, say=context.log.info, rules=egoworld.settings.policy)
    catalog.write_catalog(run.lake)
    return dg.MaterializeResult(metadata=_metadata(run.run_id, outcome))


def _metadata(run_id: str, outcome: "ReleaseOutcome") -> Mapping[str, Any]:
    manifest = outcome.manifest
    metadata: dict[str, Any] = {
        "run": run_id,
        "folder": dg.MetadataValue.path(str(outcome.path.absolute())),
        "videos": sum(len(part.videos) for part in manifest.parts),
        "videos incomplete": len(manifest.incomplete),
        "licences": ", ".join(f"{name} (commercial use: {about['commercial']})" for name, about in manifest.licences.items()),
        **{f"rows of {table}": n for table, n in manifest.rows.items()},
        "dagster/row_count": sum(manifest.rows.values()),
        "parts": len(manifest.parts),
        "truth cards": len(manifest.truth_cards),
        "page": dg.MetadataValue.md((outcome.path / PAGE_NAME).read_text("utf-8")),
        "files written": outcome.written,
        "files kept": outcome.kept,
        "bytes": manifest.total_bytes,
        "bytes written": outcome.written_bytes,
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.left_out:
        metadata["truth cards left out, of other rows or damaged"] = dg.MetadataValue.json(list(outcome.left_out[:MAX_SHOWN]))
    if manifest.verdicts:
        metadata["chosen by verdicts"] = dg.MetadataValue.json(dict(manifest.verdicts))
    if manifest.incomplete:
        metadata["incomplete"] = dg.MetadataValue.json(dict(list(manifest.incomplete.items())[:MAX_SHOWN]))
    return metadata
