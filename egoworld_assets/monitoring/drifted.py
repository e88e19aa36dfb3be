"""Compares the newest videos of the latest run with its reference now and then, in the background, and keeps what came of it as metrics.

Reads what was measured already (table `metrics`, by the catalog as it is), and measures nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from egoworld_ops.errors import SetupError
from egoworld_ops.lake import reference
from egoworld_ops.lake.lake import Lake
from egoworld_ops.query import looking
from egoworld_ops.query.drift import Report
from egoworld_ops.query.views import FILE_NAME
from egoworld_ops.settings import Settings

_LOG = logging.getLogger(__name__)


class Drifted:
    """The last comparison.

    Args:
        every_s: pause between two, of which one takes seconds in a large lake.
    """

    def __init__(self, settings: Settings, every_s: float) -> None:
        self._settings, self._every_s = settings, every_s
        self._found: Sequence[Metric] = ()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="metrics-drift", daemon=True)
        self._thread.start()

    def families(self) -> Iterator[Metric]:
        """What came of it; nothing before the first."""
        return iter(self._found)

    def close(self) -> None:
        """End the thread; a comparison that runs is not waited for."""
        self._ended.set()

    def _keep_up(self) -> None:
        while not self._ended.is_set():
            try:
                self._found = self._look()
            except Exception as error:  # noqa: BLE001 - the next look may do better; until then the last one stands, with its time
                level = logging.INFO if isinstance(error, SetupError) else logging.ERROR
                _LOG.log(level, "drift could not be looked at: %s", error)
            self._ended.wait(self._every_s)

    def _look(self) -> Sequence[Metric]:
        store = Lake(self._settings.lake)
        run, catalog = store.latest_run(), store.root / FILE_NAME
        if run is None or not catalog.exists():
            return ()
        chosen = reference.read(store.root)
        return list(_said(looking.look(catalog, run, chosen, self._settings.drift).report))


def _said(report: Report) -> Iterator[Metric]:
    verdicts = {"drifted": len(report.drifted), "compared": report.compared, "too_few": len(report.too_few)}
    counted = GaugeMetricFamily(
        "egoworld_drift_metrics", "quality metrics of the newest videos, by what the comparison says", labels=["verdict"]
    )
    for verdict, n in verdicts.items():
        counted.add_metric([verdict], n)
    share = GaugeMetricFamily(
        "egoworld_drift_share_ratio", "share of the newest videos that moved, of metrics that drifted", labels=["stage", "metric"]
    )
    for found in report.drifted:
        share.add_metric([found.stage, found.metric], found.share)
    yield from (counted, share)
    yield GaugeMetricFamily("egoworld_drift_looked_timestamp_seconds", "when the comparison was made", time.time())
