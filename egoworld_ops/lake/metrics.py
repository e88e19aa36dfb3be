"""Table `metrics`: one file beside the tables of a video, `video_id=V/metrics.parquet`, with what each stage measured, by clip and for all of it.

For those who ask in SQL, and for drift. It is written by `judging.py` when it measures, before `quality.json` says that it has; each stage's rows are
replaced together. It is derived: it may be deleted, and is never the only place of anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from egoworld_ops.contract import quality, schema
from egoworld_ops.errors import ContractError
from egoworld_ops.files import locks
from egoworld_ops.files.tables import provenance_at, read_table, write_table
from egoworld_ops.files.whole import named_errors
from egoworld_ops.lake import measured
from egoworld_ops.lake.lake import Run
from egoworld_ops.lake.states import MANIFEST

TABLE = "metrics"
WHOLE_VIDEO = ""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was measured of a stage of a video: its metrics by name, of all of it and by clip; and the mean and the sketch of each column."""

    whole: Mapping[str, float | None]
    clips: Mapping[str, Mapping[str, float | None]]
    columns: Mapping[str, tuple[float, Mapping[int, int]]]


def write(run: Run, video_id: str, stage: str, files: Sequence[Path], spans: Sequence[quality.Span], numbers: Numbers) -> None:
    """Replace the rows of a stage in the table of a video.

    Args:
        files: of the stage; for `manifest` both of its tables.
        spans: the processed frames of each clip.

    Raises:
        StorageUnavailable: a file cannot be read now, or the storage refuses; the table is as it was.
    """
    said = {path: provenance_at(path) or {} for path in files}
    rows = [*_of_video(stage, said, spans, numbers), *_of_clips(said, spans, numbers)]
    fresh = schema.from_rows(TABLE, [{"video_id": video_id, "stage": stage, **row} for row in rows])
    folder = run.video_folder(video_id)
    with named_errors(folder), locks.alone(folder):
        path = run.video_table(TABLE, video_id)
        if (others := _others(path, stage)) is None:
            (folder / measured.FILE_NAME).unlink(missing_ok=True)  # so that the other stages are measured again when they are asked for
            others = schema.empty(TABLE)
        write_table(path, TABLE, schema.sort(TABLE, pa.concat_tables([others, fresh])), {})


def _of_video(
    stage: str, said: Mapping[Path, Mapping[str, Any]], spans: Sequence[quality.Span], numbers: Numbers
) -> Iterator[dict[str, Any]]:
    about = {
        "clip_id": WHOLE_VIDEO,
        "digest": next((s.get("digest") for s in said.values()), None) if stage == MANIFEST else None,
        "computed_at": max((at for s in said.values() if (at := _computed_at(s))), default=None),
    }
    rows = sum(int(s.get("rows", 0)) for s in said.values())
    for name, value in {**numbers.whole, **_work(list(said.values()), spans)}.items():
        yield {**about, "metric": name, "value": value, "rows": rows}
    for name, (mean, buckets) in numbers.columns.items():
        sketch = [{"bucket": bucket, "count": n} for bucket, n in buckets.items()]
        yield {**about, "metric": f"{name}.mean", "value": mean, "rows": sum(buckets.values()), "sketch": sketch}


def _of_clips(said: Mapping[Path, Mapping[str, Any]], spans: Sequence[quality.Span], numbers: Numbers) -> Iterator[dict[str, Any]]:
    by_clip = {path.parent.name.removeprefix("clip_id="): known for path, known in said.items()}
    for span in spans:
        known = by_clip[span.clip_id]
        about = {
            "clip_id": span.clip_id,
            "digest": known.get("digest"),
            "computed_at": _computed_at(known),
            "rows": int(known.get("rows", 0)),
        }
        for name, value in {**numbers.clips[span.clip_id], **_work([known], [span])}.items():
            yield {**about, "metric": name, "value": value}


def _work(said: Collection[Mapping[str, Any]], spans: Sequence[quality.Span]) -> dict[str, float]:
    """Seconds that results took to compute, and the frames that were processed for them; each only where all say so."""
    seconds = [float(known["seconds"]) for known in said if "seconds" in known]
    known_s = {"compute_s": sum(seconds)} if said and len(seconds) == len(said) else {}
    return known_s | ({"processed_frames": float(sum(span.frames for span in spans))} if spans else {})


def _computed_at(said: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(said["created_at"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return None


def _others(path: Path, stage: str) -> pa.Table | None:
    """The rows of the other stages; None where the table is missing, damaged or of another contract."""
    import pyarrow.compute as pc

    try:
        there = read_table(path, TABLE)
    except ContractError:
        return None
    return there.filter(pc.not_equal(there["stage"], stage)).cast(schema.table(TABLE).arrow_schema())
