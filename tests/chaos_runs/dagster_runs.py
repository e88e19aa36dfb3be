"""Deployments whose Dagster runs are started by `starter`: one raw folder, and a lake and a DAGSTER_HOME for each round."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.settings import Settings, load_settings
from tests.conftest import ROOT

_STUCK_S = 600.0


@dataclass(frozen=True, slots=True)
class Place:
    """One lake and its DAGSTER_HOME; the raw folder is shared."""

    root: Path
    raw: Path

    @property
    def settings(self) -> Settings:
        return load_settings("laptop").model_copy(update={"lake": self.root / "lake", "raw": self.raw})

    @property
    def run(self) -> Run:
        [run] = Lake(self.root / "lake").runs()
        return run

    def log(self, name: str = "log") -> str:
        return (self.root / name).read_text("utf-8", "replace")


def place(root: Path, raw: Path) -> Place:
    """An empty one."""
    (root / "home").mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", root / "home")
    return Place(root, raw)


class Starter:
    """Talks to the process that forks runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._statuses: dict[int, int] = {}
        self._buffer = b""
        assert self._said(_STUCK_S) == {"ready": True}

    def start(self, where: Place, log: str = "log", backwards: bool = False) -> int:
        """Start a run, over the videos in order or backwards; the process group it is in."""
        folders = {"home": where.root / "home", "lake": where.root / "lake", "raw": where.raw, "log": where.root / log}
        asked = {name: str(path) for name, path in folders.items()} | {"backwards": backwards}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        while True:
            said = self._said(_STUCK_S)
            assert said is not None, "the starter does not answer"
            if "status" not in said:
                pid: int = said["pid"]
                return pid
            self._statuses[said["pid"]] = said["status"]

    def wait(self, pid: int, timeout_s: float = _STUCK_S) -> int | None:
        """The exit status of a run; None where it has not ended in this time."""
        deadline = time.monotonic() + timeout_s
        while pid not in self._statuses:
            said = self._said(max(0.0, deadline - time.monotonic()))
            if said is None:
                return None
            self._statuses[said["pid"]] = said["status"]
        return self._statuses.pop(pid)

    def kill(self, pid: int) -> int | None:
        """Kill a run's whole process group; the exit status, -SIGKILL where that is what ended it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        return self.wait(pid)

    def _said(self, timeout_s: float) -> dict[str, Any] | None:
        assert self._process.stdout
        while b"\n" not in self._buffer:
            if not select.select([self._process.stdout], [], [], timeout_s)[0]:
                return None
            chunk = os.read(self._process.stdout.fileno(), 4096)
            assert chunk, "the starter has ended"
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told


@contextlib.contextmanager
def starter() -> Iterator[Starter]:
    """One that ends with the block."""
    kept = {k: v for k, v in os.environ.items() if k == "EGOWORLD_WEIGHTS" or not k.startswith(("DAGSTER_", "EGOWORLD_"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos_runs.starter"],
        cwd=ROOT,
        env=kept | {"OMP_NUM_THREADS": "1", "DAGSTER_DISABLE_TELEMETRY": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Starter(process)
    finally:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        process.wait(60)
        process.stdout.close()
