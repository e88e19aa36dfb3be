"""The asset `dead_letters`: the clips of the run that wait for a person, as a table in Dagster's UI. Materialized on demand."""

from collections import Counter
from typing import Any

import dagster as dg

from egoworld_assets.partitions import GROUP, OWNERS
from egoworld_assets.preview import LEAVES
from egoworld_assets.resources import Egoworld
from egoworld_ops.lake.failures import DeadLetter, Which, find

MAX_SHOWN = 200
_SHOWN = ("video_id", "clip_id", "stage", "error_class", "reason", "cure", "attempts", "frame_index", "command")


@dg.asset(
    group_name=GROUP,
    deps=LEAVES,
    description="Clips that are not tried again until somebody redrives them (`egoworld redrive`), each with the command that reproduces it.",
    kinds={"table"},
    owners=OWNERS,
)
def dead_letters(context: dg.AssetExecutionContext, egoworld: Egoworld) -> dg.MaterializeResult:
    """The list, by video, clip and stage."""
    run = egoworld.run()
    letters = list(find(run, Which()))
    classes, stages = Counter(x.error_class for x in letters), Counter(x.stage for x in letters)
    context.log.info(f"{len(letters)} dead letter(s) in run {run.run_id}")
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": len(letters),
            "run": run.run_id,
            "by class": dg.MetadataValue.json(dict(classes)),
            "by stage": dg.MetadataValue.json(dict(stages)),
            "first": _table(letters[:MAX_SHOWN]),
        }
    )


def _table(letters: list[DeadLetter]) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name, "int" if name in ("attempts", "frame_index") else "string") for name in _SHOWN]
    return dg.MetadataValue.table([dg.TableRecord(_record(letter)) for letter in letters], dg.TableSchema(columns))


def _record(letter: DeadLetter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in _SHOWN}
