"""Brokers for tests: real processes, each with a folder of its own, always ended after the test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from egoworld_ops.errors import EgoworldError
from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.wire import messages

TOY = Path(__file__).parent / "gpu_workers" / "toy.py"
_WITH_LIMITS = """
import json, sys
from pathlib import Path
from gpu_workers.broker.model import Limits
from gpu_workers.server import Config, serve
folder, workers, memory_mb, limits = json.loads(sys.argv[1])
serve(Config(Path(folder), workers, limits=Limits(**limits), worker_memory_mb=memory_mb), lambda: print("ready", flush=True))
"""


def order(key: str, seconds: float = 0.0, python: str = sys.executable, priority: int = 0, memory_mb: int = 0, **task: Any) -> client.Order:
    """A task for the toy runner; `task` says how it behaves."""
    submit = messages.Submit(key, "toy", "cpu", python, f"{TOY}:Toy", "toy", 1, seconds, priority, "v", memory_mb)
    return client.Order(submit, json.dumps(task | {"key": key, "seconds": seconds}).encode())


def changed(asked: client.Order, **submit: Any) -> client.Order:
    """The same order, with some of the broker's fields changed."""
    return client.Order(messages.Submit(**(vars(asked.submit) | submit)), asked.payload)


def run(settings: PoolSettings, orders: Iterable[client.Order], name: str = "test") -> dict[str, client.Answer]:
    """The answer to each order, in the order in which they came."""
    return {answer.result.key: answer for answer in client.run(settings, name, orders)}


def table(answer: client.Answer) -> pa.Table:
    """The result table of a finished task."""
    assert answer.result.outcome == "done", answer.result
    with pa.ipc.open_stream(answer.payload) as stream:
        return stream.read_all()


def about(answer: client.Answer) -> dict[str, Any]:
    """The toy runner's report of how it worked on a task."""
    [said] = table(answer)["about"].to_pylist()
    told: dict[str, Any] = json.loads(said)
    return told


def phases(settings: PoolSettings) -> dict[str, str]:
    """The phases of the tasks that workers hold, by key."""
    return {task["key"]: task["phase"] for worker in client.status(settings)["workers"] for task in worker["tasks"]}


def is_alive(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Fail if the condition does not hold in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for: {what}"
        time.sleep(0.02)


def stop(folder: Path, timeout_s: float = 30.0) -> None:
    """End the broker of a folder, if there is one, and wait until it is gone."""
    with contextlib.suppress(EgoworldError):
        pid = client.status(PoolSettings(folder=folder, start=False))["pid"]
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_alive(pid), f"broker {pid} to end", timeout_s)


@contextlib.contextmanager
def broker(
    *arguments: str,
    environment: dict[str, str] | None = None,
    limits: Mapping[str, float] | None = None,
    workers: int = 1,
    memory_mb: int | None = None,
    folder: Path | None = None,
) -> Iterator[PoolSettings]:
    """A broker in the foreground, with these arguments of `serve`, and the settings with which to reach it.

    With `limits` the broker uses these limits, and has `workers` workers with the given memory each. Its folder is a new one unless
    one is given.
    """
    root = Path(tempfile.mkdtemp(prefix="egoworld-pool-"))
    folder = folder or root / "p"
    command = [sys.executable, "-m", "gpu_workers", "serve", "--folder", str(folder), "--metrics-port", "0", *arguments]
    if limits is not None:
        command = [sys.executable, "-c", _WITH_LIMITS, json.dumps([str(folder), workers, memory_mb, dict(limits)])]
    log = (root / "log").open("wb")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=os.environ | (environment or {}))
    try:
        assert process.stdout
        assert process.stdout.readline().startswith(b"ready"), (root / "log").read_text()
        yield PoolSettings(folder=folder, start=False, lost_after_s=5.0)
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            log.close()
            shutil.rmtree(root)
