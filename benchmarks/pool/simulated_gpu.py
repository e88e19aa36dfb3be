"""A simulated GPU: a runner whose decoding burns a processor and whose computing only waits, as one waits for a device.

As a program (`python simulated_gpu.py`) it is the naive alternative to a pool: it decodes a clip, computes it, and takes the next. The first
line of its input is the list of tasks, the second starts it; it prints when each clip was computed. Standard library and pyarrow only.
"""

import json
import sys
import time
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa

_BLOCK = bytes(range(256)) * (1 << 10)
_WATCH_S = 0.02


class Job(Protocol):
    """Receives each frame's progress, as `gpu_workers.worker.Job` does."""

    def frame(self) -> None: ...


class SimulatedGpu:
    """Runs tasks like {"key": "c1", "gpu_s": 0.2, "decode_s": 0.05, "result_bytes": 20000}; a table says when it computed.

    "decode_holds_gil" decodes in pure Python; "launch_s" computes in kernels of that length, each launched when the one before has ended.
    """

    code = "simulated"

    def __init__(self, threads: int) -> None:
        pass

    def prepare(self, task: Mapping[str, Any]) -> Mapping[str, Any]:
        end = time.thread_time() + task["decode_s"]
        while time.thread_time() < end:
            if task["decode_holds_gil"]:
                sum(range(2000))
            else:
                zlib.crc32(_BLOCK)
        return task

    def compute(self, task: Mapping[str, Any], job: Job) -> pa.Table:
        started = time.monotonic()
        if launch_s := task["launch_s"]:
            for _ in range(round(task["gpu_s"] / launch_s)):
                time.sleep(launch_s)
                job.frame()
        else:
            while (left_s := started + task["gpu_s"] - time.monotonic()) > 0:
                time.sleep(min(left_s, _WATCH_S))
                job.frame()
        row = {"key": task["key"], "from_s": started, "to_s": time.monotonic(), "filler": b"x" * task["result_bytes"]}
        return pa.table({name: [value] for name, value in row.items()})

    def self_test(self) -> None:
        pass

    def describe(self, error: BaseException, task: Mapping[str, Any]) -> tuple[str, str, str, str]:
        return "OperatorCrash", task["key"], f"{type(error).__name__}: {error}", "Mend the simulation"


class _Nobody:
    def frame(self) -> None:
        """Ignores progress."""


def main() -> None:
    tasks, runner, job = json.loads(sys.stdin.readline()), SimulatedGpu(1), _Nobody()
    print("ready", flush=True)
    sys.stdin.readline()
    computed = [runner.compute(runner.prepare(task), job) for task in tasks]
    print(json.dumps([[table["from_s"][0].as_py(), table["to_s"][0].as_py()] for table in computed]))


if __name__ == "__main__":
    main()
