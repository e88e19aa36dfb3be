"""One clip, one stage: a task goes in, a checked table comes out. What a pool runs, wherever it runs it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from egoworld_ops import lake, operators, schema, video
from egoworld_ops.errors import ContractError
from egoworld_ops.operators.base import ClipInput, Operator
from egoworld_ops.task import ClipTask
from egoworld_ops.types import Frame


class Executor:
    """Builds each operator once and keeps it warm; runs tasks one after the other.

    Args:
        threads: how many threads an operator may use.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._operators: dict[str, Operator] = {}

    def run(self, task: ClipTask) -> pa.Table:
        """The table of a task, checked against the data contract.

        Raises:
            EgoworldError: the clip cannot be processed, or the operator broke the contract.
        """
        operator = self._operator(task)
        tables = {name: lake.read_table(path, name) for name, path in task.inputs.items()}
        table = operator.run(ClipInput(task.clip, tables, task.sidecar, task.camera, task.sample_stride, lambda: self._frames(task)))
        schema.validate(task.stage, table)
        _check_belongs(task, table)
        return table

    def _operator(self, task: ClipTask) -> Operator:
        name = f"{task.stage}.{task.backend} {sorted(task.options.items())}"
        if name not in self._operators:
            operator = operators.load(task.stage, task.backend)
            options = operators.check_options(operator, task.stage, task.backend, task.options)
            self._operators[name] = operator(options, self._threads)
        return self._operators[name]

    def _frames(self, task: ClipTask) -> Iterator[Frame]:
        clip = task.clip
        return video.decode(
            clip.video_path,
            clip.frame_start,
            clip.frame_end,
            stride=task.sample_stride,
            threads=self._threads,
            start_s=clip.start_s,
            damaged=clip.damaged,
        )


def _check_belongs(task: ClipTask, table: pa.Table) -> None:
    if not table.num_rows:
        return
    clip, frames = task.clip, pc.min_max(table["frame_index"]).as_py()
    ids = (set(pc.unique(table["video_id"]).to_pylist()), set(pc.unique(table["clip_id"]).to_pylist()))
    if ids != ({clip.video_id}, {clip.clip_id}) or not clip.frame_start <= frames["min"] <= frames["max"] < clip.frame_end:
        raise ContractError(
            f"{task.stage}.{task.backend} on clip {clip.clip_id}",
            f"rows of {ids} and frames {frames} are not all of this clip",
            "Mend the operator",
        )
