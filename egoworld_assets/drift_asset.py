"""The asset `drift`: whether the numbers of the run's newest videos are those of older ones. Materialized on demand."""

import math
from collections.abc import Mapping
from typing import Any

import dagster as dg

from egoworld_assets.partitions import GROUP, OWNERS
from egoworld_assets.preview import LEAVES
from egoworld_assets.resources import Egoworld
from egoworld_ops.errors import SetupError

CHECK = "drift_none"
UNKNOWN = "nothing is known: "
"""The check that could not compare begins its description so."""


@dg.asset(
    group_name=GROUP,
    deps=LEAVES,
    description="Metrics of the newest videos that have moved away from the reference (`egoworld drift --keep`), or from the videos before them.",
    kinds={"table"},
    owners=OWNERS,
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
        return _result({"compared": str(error)}, str(error))
    report = seen.report
    context.log.info(f"{seen.said}: {len(report.drifted)} of {report.compared} metrics have drifted")
    columns = {
        "stage": "string",
        "metric": "string",
        "reference": "float",
        "current": "float",
        "share": "float",
        "psi": "float",
        "since": "string",
    }
    records = [dg.TableRecord({name: _plain(getattr(d, name)) for name in columns}) for d in report.drifted]
    table = dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns.items()]))
    metadata = {"compared": seen.said, "metrics": report.compared, "with too few videos": len(report.too_few), "drifted": table}
    wrong = "; ".join(f"{d.stage} {d.metric} since {d.since}" for d in report.drifted[:3])
    if wrong:
        wrong += ". Look at the worst clips: `egoworld drift`"
    elif not report.compared:
        wrong = f"{UNKNOWN}{seen.said}, and want {egoworld.settings.drift.minimum_videos} videos on each side"
    return _result(metadata, wrong)


def _result(metadata: Mapping[str, Any], wrong: str) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """The check passes where nothing is wrong: where nothing could be compared, that is not known."""
    check = dg.AssetCheckResult(
        passed=not wrong, check_name=CHECK, severity=dg.AssetCheckSeverity.WARN, description=wrong or None, metadata={}
    )
    return dg.MaterializeResult(metadata=metadata, check_results=[check])


def _plain(value: str | float) -> str | float | None:
    """NaN stands in no JSON."""
    return None if isinstance(value, float) and math.isnan(value) else value
