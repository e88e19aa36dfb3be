"""Computes one stage of one clip: a task goes in, its table comes out. Every kind of pool runs this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from egoworld_ops import models, operators
from egoworld_ops.errors import OutOfMemory
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import read_table
from egoworld_ops.operators.base import ClipInput, Operator
from egoworld_ops.read_ahead import ReadAhead
from egoworld_ops.types import Frame
from egoworld_ops.video import decoding
from egoworld_ops.video.frame_times import indexed_times

DECODED_AHEAD_BYTES = 128_000_000
"""Maximum size of decoded frames that wait while another clip computes: 20 at 1080p, 140 at 640x480."""


@dataclass(slots=True)
class Prepared:
    """A task whose inputs are read and whose decoding has begun. It must be computed or closed."""

    task: ClipTask
    tables: Mapping[str, pa.Table]
    operator: Operator
    ahead: list[ReadAhead[Frame]] = field(default_factory=list)
    """The running decode; the first reader of frames takes it."""

    def close(self) -> None:
        """Stop decoding."""
        while self.ahead:
            self.ahead.pop().close()


class Executor:
    """Builds each operator once and keeps it warm; runs tasks one after the other.

    Args:
        threads: how many threads an operator may use.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._operators: dict[str, Operator] = {}

    def run(self, task: ClipTask, on_frame: Callable[[int], None] = lambda index: None) -> pa.Table:
        """The table of a task, as the operator made it; it is checked where it is stored (`result.check_result`). See `compute`.

        Raises:
            EgoworldError: the clip cannot be processed.
        """
        operator = self._operator(task)
        return self.compute(Prepared(task, _inputs(task), operator), on_frame)

    def prepare(self, task: ClipTask) -> Prepared:
        """Read a task's inputs and decode the first frames, if its operator looks at frames; may be called while another task computes.

        Raises:
            EgoworldError: an input cannot be read, or the operator cannot be built.
        """
        operator = self._operator(task)
        prepared = Prepared(task, _inputs(task), operator)
        if operator.reads_frames(prepared.tables):
            ahead = ReadAhead(self._decode(prepared), DECODED_AHEAD_BYTES, lambda frame: frame.rgb.nbytes)
            prepared.ahead.append(ahead)
            ahead.wait_filled()
        return prepared

    def compute(self, prepared: Prepared, on_frame: Callable[[int], None] = lambda index: None) -> pa.Table:
        """The table of a prepared task. If memory runs out, micro-batches are halved, for this and later tasks, before an error is raised.

        Args:
            prepared: from `prepare`; used up.
            on_frame: called with the index of every frame the operator takes; an error it raises ends the task.

        Raises:
            EgoworldError: the clip cannot be processed.
        """
        task, operator = prepared.task, prepared.operator

        def frames() -> Iterator[Frame]:
            for frame in prepared.ahead.pop() if prepared.ahead else self._decode(prepared):
                on_frame(frame.index)
                yield frame

        times = partial(indexed_times, task.clip, task.sample_stride)
        item = ClipInput(task.clip, prepared.tables, task.sidecar, task.camera, task.sample_stride, frames, indexed_times=times)
        while True:
            try:
                return operator.run(item)
            except OutOfMemory:
                if operator.micro_batch == 1:
                    raise
                operator.micro_batch //= 2

    def _operator(self, task: ClipTask) -> Operator:
        name = f"{task.stage}.{task.backend} {sorted(task.options.items())}"
        if name not in self._operators:
            operator = operators.load(task.stage, task.backend)
            options = operators.check_options(operator, task.stage, task.backend, task.options)
            with models.lying_in(task.weights):
                self._operators[name] = operator(options, self._threads)
        return self._operators[name]

    def _decode(self, prepared: Prepared) -> Iterator[Frame]:
        task, operator = prepared.task, prepared.operator
        on = task.decode_on if operator.device(operator.settings) == "cuda" else "cpu"
        return decoding.decode_clip(task.clip, task.sample_stride, self._threads, on=on)


def _inputs(task: ClipTask) -> dict[str, pa.Table]:
    return {name: read_table(path, name) for name, path in task.inputs.items()}
