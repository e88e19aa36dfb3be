"""Checks that a result matches the task it was computed for."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from egoworld_ops.contract.validation import validate
from egoworld_ops.errors import ContractError
from egoworld_ops.execution.task import ClipTask


def check_result(task: ClipTask, rows: pa.Table) -> None:
    """Raise ContractError where `rows` break the contract of the task's stage, or are not all of the task's clip."""
    validate(task.stage, rows)
    if not rows.num_rows:
        return
    clip, frames = task.clip, pc.min_max(rows["frame_index"]).as_py()
    ids = (set(pc.unique(rows["video_id"]).to_pylist()), set(pc.unique(rows["clip_id"]).to_pylist()))
    if ids != ({clip.video_id}, {clip.clip_id}) or not clip.frame_start <= frames["min"] <= frames["max"] < clip.frame_end:
        raise ContractError(
            f"{task.stage}.{task.backend} on clip {clip.clip_id}",
            f"rows of {ids} and frames {frames} are not all of this clip",
            "Mend the operator",
        )
