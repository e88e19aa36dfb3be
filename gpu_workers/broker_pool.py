"""The pool behind a broker, which many processes of a host share."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from egoworld_ops import operators
from egoworld_ops.errors import ContractError, PoolLost, SetupError, printable, recorded
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.hashing import sha256_of
from egoworld_ops.operators.base import BackendSettings
from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.broker.model import CAUSES
from gpu_workers.code import file_fingerprint, operator_code, runner_code
from gpu_workers.pool import Done, Failed, Timing
from gpu_workers.wire import messages

_RUNNER = "gpu_workers.runner:OperatorRunner"
MAX_OPTIONS = 60
"""Characters of an operator's options that are shown in its name."""


class BrokerPool:
    """Runs clips in the workers of this host's broker, which is started where there is none.

    Args:
        settings: where the broker is, and how it is to be started.
        name: who asks, for people who look at the pool's status.
        priority: higher goes before lower, whoever asks.
    """

    def __init__(self, settings: PoolSettings, name: str = "", priority: int = 0) -> None:
        self._settings, self._name, self._priority = settings, name or f"pid {os.getpid()}", priority

    def run(self, tasks: Iterable[ClipTask]) -> Iterator[Done | Failed]:
        """As `Pool.run`. Results are named by their digest, so a task whose broker was lost is safely given to the next one."""
        out: dict[str, ClipTask] = {}

        def orders() -> Iterator[client.Order]:
            for task in tasks:
                out[task.key] = task
                yield client.Order(self._submit(task), _payload(task))

        for answer in client.run(self._settings, self._name, orders()):
            yield _outcome(out.pop(answer.result.key), answer)

    def _submit(self, task: ClipTask) -> messages.Submit:
        operator = operators.load(task.stage, task.backend)
        options = operators.check_options(operator, task.stage, task.backend, task.options)
        n_frames = -(-task.clip.n_frames // task.sample_stride)
        runner = operator.runner or _RUNNER
        return messages.Submit(
            key=task.key,
            operator=_named(task, options),
            kind=operator.device(options),
            python=task.python or sys.executable,
            runner=runner,
            code=_code_of(runner),
            frames=n_frames,
            est_s=n_frames * operator.seconds_per_frame,
            priority=self._priority,
            video=task.clip.video_id,
            memory_mb=operator.memory_mb(options),
        )


def _named(task: ClipTask, options: BackendSettings) -> str:
    """What takes its own time and memory, as people read it: stage, backend and the options that are not the backend's defaults."""
    chosen = options.model_dump(mode="json", exclude_defaults=True)
    said = " ".join(f"{name}={value}" for name, value in sorted(chosen.items()))
    if len(said) > MAX_OPTIONS or not said.isprintable():
        said = f"{printable(said)[:MAX_OPTIONS]}… {sha256_of(chosen)[:8]}"
    return f"{task.stage}.{task.backend}" + (f" {said}" if chosen else "")


def _code_of(runner: str) -> str:
    where = runner.rpartition(":")[0]
    return file_fingerprint(Path(where)) if where.endswith(".py") else runner_code(where)


def _payload(task: ClipTask) -> bytes:
    """The task as the worker's runner gets it, with the fingerprint of the operator that it is meant for."""
    return json.dumps(task.to_json() | {"code": operator_code(task.stage, task.backend)}, allow_nan=False).encode()


def _outcome(task: ClipTask, answer: client.Answer) -> Done | Failed:
    result = answer.result
    if result.outcome == "done":
        try:
            return Done(task, _decoded(answer.payload), result.seconds, result.worker, _timing(result))
        except pa.ArrowException as damage:
            broken = ContractError(f"{task.stage}.{task.backend}", f"its result is not an Arrow table: {damage}", "Mend the operator")
            return Failed(task, broken, "", result.seconds)
    error = recorded(result.error_class, result.culprit, result.reason, result.cure)
    if result.outcome == "cancelled":
        error = PoolLost("the pool", "the clip was cancelled", "Materialize the stage again")
    if isinstance(error, SetupError):
        raise error
    return Failed(
        task, error, result.traceback, result.seconds, result.frame if result.frame >= 0 else None, result.worker, _timing(result)
    )


def _timing(result: messages.Result) -> Timing | None:
    """When it was computed, by this host's clock; None where it never was."""
    ago_s = time.monotonic() - result.began_s
    if not result.began_s > 0 or ago_s < 0:
        return None
    waited_s = {"queued": result.queued_s, "decoding": result.decoding_s, "decoded": result.decoded_s}
    device_s: dict[str, float] = {cause: getattr(result, f"{cause}_s") for cause in CAUSES if cause != "computing"}
    return Timing(datetime.now(UTC) - timedelta(seconds=ago_s), waited_s, device_s)


def _decoded(payload: bytes) -> pa.Table:
    with pa.ipc.open_stream(pa.py_buffer(payload)) as stream:
        table = stream.read_all()
    table.validate(full=True)
    return table
