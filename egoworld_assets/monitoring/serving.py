"""Serves the platform's metrics on a loopback port until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server

from egoworld_assets.monitoring.collecting import Platform
from egoworld_assets.monitoring.drifted import Drifted
from egoworld_assets.review.index import Indexes
from egoworld_ops.errors import BadSettings
from egoworld_ops.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

LOOPBACK = "127.0.0.1"


@contextmanager
def served(settings: Settings, port: int, every_s: float, drift_every_s: float) -> Iterator[str]:
    """Serve; gives the address.

    Args:
        port: on loopback; 0 for any that is free.
        every_s: pause between two looks at the files of the latest run.
        drift_every_s: pause between two comparisons of its newest videos.

    Raises:
        BadSettings: the port is in use.
    """
    registry = CollectorRegistry()
    with tempfile.TemporaryDirectory(prefix="egoworld-metrics-") as scratch:
        indexes, drifted = Indexes(Path(scratch), settings.quality, every_s), Drifted(settings, drift_every_s)
        try:
            registry.register(_Registered(Platform(settings, indexes, cache(_instance), drifted.families)))
            try:
                server, thread = start_http_server(port, LOOPBACK, registry)
            except OSError as error:
                cure = "It may be another `egoworld metrics`; name another with --port, or 0 for any"
                raise BadSettings(f"port {port}", f"cannot be bound: {error.strerror}", cure) from error
            try:
                yield f"http://{LOOPBACK}:{server.server_port}/metrics"
            finally:
                server.shutdown()
                server.server_close()
                thread.join()
        finally:
            drifted.close()
            indexes.close()


def serve(settings: Settings, port: int, every_s: float, drift_every_s: float, say: Callable[[str], object]) -> None:
    """As `served`, until Ctrl-C or SIGTERM, in the main thread of a process."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as by systemd; else what was kept of the lake would stay on the disk
    with served(settings, port, every_s, drift_every_s) as address:
        say(address)
        threading.Event().wait()


class _Registered:
    """A collector that the registry asks for nothing when it is registered: the first answer takes a while."""

    def __init__(self, platform: Platform) -> None:
        self.collect, self._nothing = platform.collect, ()

    def describe(self) -> Iterator[object]:
        return iter(self._nothing)


def _instance() -> DagsterInstance | None:
    """Dagster's instance, where there is a home of one; sensors are not known without."""
    if not os.environ.get("DAGSTER_HOME"):
        return None
    import dagster as dg

    return dg.DagsterInstance.get()
