"""Asset checks, one result a video, also where a run holds many.

`<asset>_contract` blocks what is downstream when a file breaks the data contract; `<asset>_complete` shows videos and clips that could not be
processed and blocks nothing; `<asset>_quality` warns of numbers that are not plausible.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from egoworld_assets.chain import pipeline
from egoworld_assets.chain.clips import check_key, no_manifest
from egoworld_assets.partitions import VIDEO_IDS
from egoworld_assets.resources import Egoworld
from egoworld_ops import operators
from egoworld_ops.errors import EgoworldError, UnknownVideo
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import judging, states
from egoworld_ops.lake.lake import Run

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from egoworld_ops.contract.quality import Bounds

MAX_FINDINGS = 50
_READ_TOGETHER = 64
"""Files of clips whose rows are in memory at once."""
_UPSTREAM = "an input from upstream is missing. Look at the checks of the assets upstream"
_REASONS = {
    "stale": "its table was made from inputs that have changed since. Materialize the stage again",
    "damaged": "its file is damaged. Materialize the stage again",
    "missing": "it was not processed. Materialize the stage",
}
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
KINDS: Mapping[str, str] = {
    "contract": "Every file keeps the data contract. Blocks what is downstream.",
    "complete": "Every clip was processed; a video that cannot be read, or a clip that failed, is named with the reason and the cure.",
    "quality": "The numbers in the files are plausible: each is within its bounds, which settings can move (`quality.STAGE.NUMBER`). Only warns.",
}
_LOOK = "Look at the picture in the asset `preview`; settings `quality.{stage}` move the bounds"

warnings.filterwarnings("ignore", message=".*partitions_def on an AssetCheckSpec", category=dg.PreviewWarning)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one check says about one video.

    Args:
        findings: what is wrong; empty if the check passes.
        severity: of the findings. A check that passes has its worst severity, because Dagster shows that of the latest
            evaluation for all videos of a check.
        numbers: shown beside it. Dagster plots every number over all videos, so only values that can be compared are numbers.
        cure: of all findings together.
    """

    findings: Sequence[str]
    severity: dg.AssetCheckSeverity
    numbers: Mapping[str, Any]
    cure: str = ""


def _files(run: Run, stage: str, video_id: str) -> dict[Path, str]:
    """The files of a stage for a video, and the table each holds; none if the key cannot be that of a video."""
    return judging.files(run, stage, video_id) if _can_be(video_id) else {}


def _broken(files: Mapping[Path, str]) -> Iterator[str]:
    for table in dict.fromkeys(files.values()):
        paths = [path for path, held in files.items() if held == table]
        for start in range(0, len(paths), _READ_TOGETHER):
            yield from _broken_of(table, paths[start : start + _READ_TOGETHER])


def _broken_of(table: str, paths: Sequence[Path]) -> Iterator[str]:
    """The files of one table that break the contract. If the rows of all keep it together, so do those of each: one look at many small files."""
    import pyarrow as pa

    from egoworld_ops.contract import validation

    read: dict[Path, pa.Table] = {}
    for path in paths:
        try:
            read[path] = read_table(path, table)
        except EgoworldError as error:
            yield f"{path}: {error}"
    with suppress(pa.ArrowInvalid):  # of types that differ: those that are wrong are named below
        if not read or not list(validation.violations(table, pa.concat_tables(read.values()))):
            return
    for path, rows in read.items():
        try:
            validation.validate(table, rows)
        except EgoworldError as error:
            yield f"{path}: {error}"


def _contract(run: Run, stage: str, video_id: str) -> _Verdict:
    files = _files(run, stage, video_id)
    return _Verdict(list(_broken(files)), ERROR, {"files": str(len(files))})


def _complete(run: Run, stage: str, video_id: str) -> _Verdict:
    try:
        check_key(video_id)
        video = states.video_state(run, video_id, set() if stage == pipeline.MANIFEST else {stage, *states.upstream(stage)})
        if video is None:
            raise no_manifest(run, video_id)
        readable = _readable(video)
        return readable if stage == pipeline.MANIFEST or readable.findings else _clips(stage, video)
    except EgoworldError as error:
        status = "unknown video" if isinstance(error, UnknownVideo) else "no manifest"
        return _Verdict([str(error)], ERROR, {"status": status})


def _clips(stage: str, video: states.VideoState) -> _Verdict:
    undone = [clip for clip in video.clips if clip.stages[stage].state != "done"]
    failed, n = sum(clip.stages[stage].failure is not None for clip in undone), len(video.clips)
    findings = [f"clip {clip.clip_id}: {_why(clip, stage)}" for clip in undone]
    said = {"clips": f"{n - len(undone)} of {n} done, {failed} failed"}
    return _Verdict(findings, WARN if 0 < len(undone) < n else ERROR, said)


def _why(clip: states.ClipState, stage: str) -> str:
    """Why a clip has no result that counts."""
    state = clip.stages[stage]
    if state.state == "stale" and any(clip.stages[name].state != "done" for name in operators.stages()[stage].above if name in clip.stages):
        return _UPSTREAM
    said = state.failure.error if state.state == "failed" and state.failure else state.error
    return str(said) if said else _REASONS.get(state.state, _UPSTREAM)


def _readable(video: states.VideoState) -> _Verdict:
    numbers = {"status": video.video["status"], "warning": video.video["warning"] or "none"}
    failed = video.manifest.failure
    return _Verdict([str(failed.error)] if failed else [], ERROR, numbers)


def _quality(
    run: Run, stage: str, videos: Sequence[str], connection: "DuckDBPyConnection", bounds: "Mapping[str, Bounds]"
) -> Iterator[_Verdict]:
    """Of each video, measured together."""
    judged = judging.judge_videos(connection, run, stage, [v for v in videos if _can_be(v)], bounds)
    for video_id in videos:
        if (said := judged.get(video_id)) is None:
            yield _Verdict([], WARN, {})
        elif stage == pipeline.MANIFEST:
            yield _Verdict(said.warnings, WARN, _numbers(said.measured))
        else:
            numbers = _numbers(said.measured) | {"rows with a value that stands": said.values}
            yield _Verdict(said.warnings, WARN, numbers, _LOOK.format(stage=stage))


def _can_be(video_id: str) -> bool:
    """Whether a key can be that of a video."""
    try:
        check_key(video_id)
    except UnknownVideo:
        return False
    return True


def _numbers(measured: Mapping[str, float | None]) -> dict[str, float | str]:
    """Each number with four significant digits."""
    return {name: "no rows" if value is None else float(f"{value:.4g}") for name, value in measured.items()}


def _checks(stage: str) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=f"{stage}_checks",
        specs=[
            dg.AssetCheckSpec(f"{stage}_{kind}", asset=stage, blocking=kind == "contract", description=doc, partitions_def=VIDEO_IDS)
            for kind, doc in KINDS.items()
        ],
        can_subset=True,
    )
    def check(
        context: dg.AssetCheckExecutionContext, egoworld: Egoworld, duckdb: dg.ResourceParam[Any]
    ) -> Iterator[dg.AssetCheckEvaluation | dg.Output]:
        run, videos, wanted = egoworld.run(), list(context.partition_keys), context.selected_asset_check_keys
        targets = {v: _target(context.instance, stage, v) for v in videos}
        bounds = egoworld.settings.quality.get(stage, {})
        with duckdb.get_connection() as connection:
            for kind in (k for k in KINDS if any(key.name == f"{stage}_{k}" for key in wanted)):
                for video_id, verdict in zip(videos, _judge(kind, run, stage, videos, connection, bounds), strict=True):
                    yield _evaluation(stage, kind, video_id, verdict, targets[video_id])
                yield dg.Output(None, f"{stage}_{stage}_{kind}")

    return check


def _judge(
    kind: str, run: Run, stage: str, videos: Sequence[str], connection: "DuckDBPyConnection", bounds: "Mapping[str, Bounds]"
) -> Iterator[_Verdict]:
    if kind == "quality":
        return _quality(run, stage, videos, connection, bounds)
    of_video = _contract if kind == "contract" else _complete
    return (of_video(run, stage, video_id) for video_id in videos)


def _evaluation(
    stage: str, kind: str, video_id: str, verdict: _Verdict, target: AssetCheckEvaluationTargetMaterializationData | None
) -> dg.AssetCheckEvaluation:
    """The event itself, because `AssetCheckResult` has no field for the partition in a run over many."""
    findings = list(verdict.findings)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(stage),
        check_name=f"{stage}_{kind}",
        passed=not findings,
        severity=verdict.severity,
        blocking=kind == "contract",
        description=". ".join(filter(None, ["; ".join(findings[:3]), verdict.cure])) if findings else None,
        metadata={"video": video_id, **verdict.numbers, **({"findings": findings[:MAX_FINDINGS]} if findings else {})},
        target_materialization_data=target,
        partition=video_id,
    )


def _target(instance: dg.DagsterInstance, stage: str, video_id: str) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The materialization that is checked: without it the UI shows the check as out of date."""
    of_video = dg.AssetRecordsFilter(asset_key=dg.AssetKey(stage), asset_partitions=[video_id])
    records = instance.fetch_materializations(of_video, limit=1).records
    if not records:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        run_id=records[0].event_log_entry.run_id, storage_id=records[0].storage_id, timestamp=records[0].timestamp
    )


CHECKS = [_checks(name) for name in (pipeline.MANIFEST, *operators.stages())]
