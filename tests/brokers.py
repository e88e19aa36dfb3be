"""Brokers of tests: real processes, each with a folder of its own, ended for sure."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egoworld_ops.errors import EgoworldError
from egoworld_ops.settings import PoolSettings
from gpu_workers import client, messages

TOY = Path(__file__).parent / "gpu_workers" / "toy.py"


def order(key: str, seconds: float = 0.0, python: str = sys.executable, priority: int = 0, memory_mb: int = 0, **task: Any) -> client.Order:
    """A task for the toy runner; `task` says how it behaves."""
    submit = messages.Submit(key, "toy", "cpu", python, f"{TOY}:Toy", "toy", 1, seconds, priority, "v", memory_mb)
    return client.Order(submit, json.dumps(task | {"key": key, "seconds": seconds}).encode())


def stop(folder: Path, timeout_s: float = 30.0) -> None:
    """End the broker of a folder, if there is one, and wait until it is gone."""
    with contextlib.suppress(EgoworldError):
        pid = client.status(PoolSettings(folder=folder, start=False))["pid"]
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]:
            assert time.monotonic() < deadline, f"broker {pid} does not end"
            time.sleep(0.05)


@contextlib.contextmanager
def broker(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[PoolSettings]:
    """A broker in the foreground, with these arguments of `serve`, and the settings with which to reach it."""
    root = Path(tempfile.mkdtemp(prefix="egoworld-pool-"))
    folder = root / "p"
    command = [sys.executable, "-m", "gpu_workers", "serve", "--folder", str(folder), "--metrics-port", "0", *arguments]
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
