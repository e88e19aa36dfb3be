"""Real Dagster processes on loopback, and a person's actions through GraphQL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from tests.conftest import ROOT

T = TypeVar("T")
BACKFILL = """mutation ($assets: [AssetKeyInput!], $partitions: [String!]) {
  launchPartitionBackfill(backfillParams: {assetSelection: $assets, partitionNames: $partitions}) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
LAUNCH = """mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
LOCATION = {"repositoryLocationName": "egoworld", "repositoryName": "__repository__"}
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"
ENDED = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")
POLL_S = 0.2
TAIL_LINES = 60
_PROMPT_DAEMON = """
import sys
from dagster._daemon import controller
controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
from dagster._daemon.cli import main
main()
"""
"""Dagster's daemon, which checks backfills every second instead of every 30; Dagster has no setting for it."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Folders and environment of one deployment."""

    home: Path
    lake: Path
    raw: Path
    environment: Mapping[str, str]


class Stack:
    """A webserver and a daemon of one deployment, each in a process group of its own."""

    def __init__(self, where: Deployment) -> None:
        self.where = where
        self._port = _free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs = contextlib.ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        dg.DagsterInstance.from_config(str(self.where.home)).dispose()  # two processes that create its databases at once disturb each other
        workspace = str(ROOT / "workspace.yaml")
        self._launch("webserver", "dagster-webserver", "-h", "127.0.0.1", "-p", str(self._port), "-w", workspace)
        self._launch("daemon", sys.executable, "-c", _PROMPT_DAEMON, "run", "-w", workspace)
        self.wait_for("the webserver to load the code location", self._loaded, 180)

    def stop(self) -> None:
        """End everything that was started, also what those processes started."""
        for process in self._processes:
            _signal_group(process, signal.SIGTERM)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            _signal_group(process, signal.SIGKILL)
            process.wait(20)
        self._logs.close()

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of an answer; errors fail the test."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        data: dict[str, Any] = content["data"]
        return data

    def backfill(self, stages: Sequence[str], partitions: Sequence[str]) -> str:
        """Launch a backfill; its id."""
        launched = self.graphql(BACKFILL, assets=[{"path": [s]} for s in stages], partitions=list(partitions))["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        backfill_id: str = launched["backfillId"]
        return backfill_id

    def wait_for_backfill(self, backfill_id: str, timeout_s: float) -> str:
        """The status in which a backfill ends."""

        def status() -> str | None:
            now: str = self.graphql(BACKFILL_STATUS, id=backfill_id)["partitionBackfillOrError"]["status"]
            return now if now in ENDED else None

        return self.wait_for("the backfill to end", status, timeout_s)

    def launch(self, stages: Sequence[str], partition: str) -> str:
        """Launch a run over one partition; its id."""
        selector = LOCATION | {"jobName": "__ASSET_JOB", "assetSelection": [{"path": [s]} for s in stages]}
        tags = [{"key": "dagster/partition", "value": partition}]
        launched = self.graphql(LAUNCH, params={"selector": selector, "executionMetadata": {"tags": tags}})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id: str = launched["run"]["runId"]
        return run_id

    def terminate(self, run_id: str) -> None:
        """Ask a run to end, as its button in the UI does."""
        said = self.graphql(TERMINATE, id=run_id)["terminateRun"]
        assert said["__typename"] == "TerminateRunSuccess", said

    def wait_for(self, what: str, ready: Callable[[], T | None], timeout_s: float) -> T:
        """Ask again and again; after `timeout_s` fail with the ends of the logs."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (found := ready()) is not None:
                return found
            for process in self._processes:
                assert process.poll() is None, f"{process.args} ended with {process.returncode} while waiting for {what}\n{self.tails()}"
            time.sleep(POLL_S)
        raise AssertionError(f"waited {timeout_s:.0f} s for {what}\n{self.tails()}")

    def tails(self) -> str:
        """The last lines of each log."""
        parts = []
        for log in sorted(self.where.home.glob("*.log")):
            lines = log.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
            parts.append("\n".join([f"--- {log.name}", *lines]))
        return "\n".join(parts)

    def _launch(self, name: str, *arguments: str) -> None:
        log = self._logs.enter_context((self.where.home / f"{name}.log").open("wb"))
        self._processes.append(
            subprocess.Popen(
                arguments, cwd=ROOT, env=dict(self.where.environment), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        )

    def _loaded(self) -> bool | None:
        query = "{ workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } } }"
        try:
            entries = self.graphql(query)["workspaceOrError"]["locationEntries"]
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None
        kinds = [entry["locationOrLoadError"]["__typename"] for entry in entries if entry["locationOrLoadError"]]
        assert "PythonError" not in kinds, self.tails()
        return True if kinds == ["RepositoryLocation"] else None


def _signal_group(process: subprocess.Popen[bytes], what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, what)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
