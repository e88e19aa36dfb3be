"""The broker's state as Prometheus metrics on a loopback port. The help text of each metric says what it means."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

log = logging.getLogger(__name__)
_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_COUNTS = {
    "done": "clips done",
    "failed": "clips that ended in an error",
    "dead_letter": "clips that will not run again",
    "cancelled": "clips nobody wanted any more",
    "worker deaths": "workers that died",
    "hangs": "workers ended for being silent past a deadline",
    "sick slots": "devices taken out",
    "bad frames": "connections ended because of an invalid message",
    "frames": "video frames of clips done",
}


class Metrics:
    """Serves what `snapshot` says, and the latency of each operator.

    Args:
        snapshot: the broker's present state; called from the server's thread.
    """

    def __init__(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._snapshot = snapshot
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._latency = Histogram(
            "egoworld_clip_seconds", "seconds a worker computed on a clip", ["operator"], buckets=_BUCKETS_S, registry=self._registry
        )
        self._close: Callable[[], None] = lambda: None

    def serve(self, port: int | None) -> int | None:
        """Listen on a loopback port, on a free one where that is 0 or taken; returns it, None where none was wanted."""
        if port is None:
            return None
        try:
            server, thread = start_http_server(port, "127.0.0.1", self._registry)
        except OSError as error:
            log.warning("metrics are on a free port: %d: %s", port, error)
            server, thread = start_http_server(0, "127.0.0.1", self._registry)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._close = close
        bound: int = server.server_port
        return bound

    def close(self) -> None:
        """Stop listening."""
        self._close()

    def observe(self, operator: str, seconds: float) -> None:
        """Count a clip that took so long."""
        self._latency.labels(operator).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape."""
        said = self._snapshot()
        for name, help_text in _COUNTS.items():
            counter = CounterMetricFamily(f"egoworld_{name.replace(' ', '_')}", help_text)
            counter.add_metric([], said["counts"].get(name, 0))
            yield counter
        queue = GaugeMetricFamily("egoworld_queue_length", "clips that wait for a worker", labels=["operator"])
        for operator, n in said["queue"].items():
            queue.add_metric([operator], n)
        yield queue
        yield GaugeMetricFamily("egoworld_in_flight", "clips that workers hold", said["in_flight"])
        yield GaugeMetricFamily("egoworld_clients", "clients connected", len(said["clients"]))
        yield GaugeMetricFamily("egoworld_workers", "worker processes", len(said["workers"]))
        yield from self._slots(said)
        yield from self._gpus(said)

    def _slots(self, said: dict[str, Any]) -> Iterator[Metric]:
        spent = CounterMetricFamily("egoworld_slot_seconds", "time of each device by what it was spent on", labels=["slot", "cause"])
        duty = GaugeMetricFamily("egoworld_duty_cycle", "share of the time with clients in which a device computed", labels=["slot"])
        healthy = GaugeMetricFamily("egoworld_slot_healthy", "1 where a device takes work", labels=["slot"])
        for slot in said["slots"]:
            for cause, seconds in slot["spent_s"].items():
                spent.add_metric([slot["name"], cause], seconds)
            duty.add_metric([slot["name"]], slot["duty_cycle"])
            healthy.add_metric([slot["name"]], float(slot["state"] == "ok"))
        yield from (spent, duty, healthy)

    def _gpus(self, said: dict[str, Any]) -> Iterator[Metric]:
        for key, help_text in (("utilisation", "0 to 1"), ("memory_used_mb", "device memory in use"), ("temperature_c", "temperature")):
            gauge = GaugeMetricFamily(f"egoworld_gpu_{key}", f"NVML: {help_text}", labels=["slot"])
            for slot, reading in said["gpus"].items():
                if reading.get(key) is not None:
                    gauge.add_metric([slot], reading[key])
            yield gauge
