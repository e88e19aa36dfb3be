"""What runs egoworld's own operators in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.errors import OperatorCrash, StaleCode, classify
from egoworld_ops.execution.executor import Executor, Prepared
from egoworld_ops.execution.task import ClipTask
from gpu_workers.code import operator_code, remember_tables, runner_code
from gpu_workers.worker import Job

NAME = f"{__name__}:OperatorRunner"


class OperatorRunner:
    """Runs `ClipTask`s."""

    def __init__(self, threads: int) -> None:
        self.code = runner_code(__name__)
        remember_tables()
        self._executor = Executor(threads)

    def prepare(self, task: Mapping[str, Any]) -> Prepared:
        """As `Executor.prepare`.

        Raises:
            StaleCode: this process has other code of the operator than the client; the broker then starts a worker anew.
        """
        if operator_code(task["stage"], task["backend"]) != task["code"]:
            culprit = f"operator {task['stage']}.{task['backend']}"
            raise StaleCode(culprit, "the code on disk is not the code that the run was started with", "Start the run again")
        return self._executor.prepare(ClipTask.from_json(task))

    def compute(self, prepared: Prepared, job: Job) -> pa.Table:
        """As `Executor.compute`."""
        return self._executor.compute(prepared, job.frame)

    def self_test(self) -> None:
        """A product of matrices of whole numbers, whose sum is exact, on the GPU where one is visible and torch is loaded.

        Raises:
            ArithmeticError: the sum is wrong.
        """
        a = np.arange(64 * 64, dtype=np.float64).reshape(64, 64) % 7
        right = float((a @ a).sum())
        if found := _sum_on_gpu(a):
            if found != right:
                raise ArithmeticError(f"the GPU says {found}, right is {right}")
        elif right != float(a.sum(0) @ a.sum(1)):
            raise ArithmeticError(f"the processor says {right}")

    def describe(self, error: BaseException, task: Mapping[str, Any]) -> tuple[str, str, str, str]:
        """The error of the project's tree that stands for `error`."""
        clip = task["clip"]
        culprit = f"clip {clip['clip_id']} of {clip['video_path']}"
        if not isinstance(error, Exception):
            error = OperatorCrash(culprit, f"{type(error).__name__}: {error}", "An operator must raise errors, not end the process")
        known = classify(error, culprit)
        return type(known).__name__, known.culprit, known.reason, known.cure


def _sum_on_gpu(a: np.ndarray) -> float | None:
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    on_gpu = torch.from_numpy(a).cuda()
    return float((on_gpu @ on_gpu).sum().item())
