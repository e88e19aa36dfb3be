"""The asset `drift`: whether the numbers of the run's newest videos are those of older ones. Materialized on demand."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from egoworld_assets.partitions import GROUP
from egoworld_assets.preview import LEAVES
from egoworld_assets.resources import Egoworld
from egoworld_ops.errors import SetupError

CHECK = "drift_none"


@dg.asset(
    group_name=GROUP,
    deps=LEAVES,
    description="Metrics of the newest videos that have moved away from the reference (`egoworld drift --keep`), or from the videos before them.",
    kinds={"table"},
    check_specs=[dg.AssetCheckSpec(CHECK, asset="drift", description="No metric has drifted. Only warns.")],
)
def drift(context: dg.AssetExecutionContext, egoworld: Egoworld) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Compares, and names for each metric that moved the first video after the change."""
    from egoworld_assets.drifting import look
    from egoworld_ops.lake import reference

    run = egoworld.run()
    try:
        seen = look(run, reference.read(run.lake.root), egoworld.settings)
    except SetupError as error:
        return _result(True, {"compared": str(error)}, "")
    context.log.info(f"{seen.said}: {len(seen.report.drifted)} of {seen.report.compared} metrics have drifted")
    columns = {
        "stage": "string",
        "metric": "string",
        "reference": "float",
        "current": "float",
        "share": "float",
        "psi": "float",
        "since": "string",
    }
    records = [dg.TableRecord({name: _plain(getattr(d, name)) for name in columns}) for d in seen.report.drifted]
    table = dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()]))
    metadata = {"compared": seen.said, "metrics": seen.report.compared, "with too few videos": len(seen.report.too_few), "drifted": table}
    first = "; ".join(f"{d.stage} {d.metric} since {d.since}" for d in seen.report.drifted[:3])
    return _result(not seen.report.drifted, metadata, f"{first}. Look at the worst clips: `egoworld drift`")


def _result(passed: bool, metadata: Mapping[str, Any], said: str) -> dg.MaterializeResult:  # type: ignore[type-arg]
    check = dg.AssetCheckResult(
        passed=passed, check_name=CHECK, severity=dg.AssetCheckSeverity.WARN, description=None if passed else said, metadata={}
    )
    return dg.MaterializeResult(metadata=metadata, check_results=[check])


def _plain(value: str | float) -> str | float | None:
    """NaN stands in no JSON."""
    return None if isinstance(value, float) and value != value else value
