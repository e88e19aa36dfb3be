"""The platform as Prometheus metrics: the latest run, the ledger, intake, sensors, disks, drift, and the broker's own. Reads, and
writes nothing but the empty ledger of a lake that has none.

Each part is gathered by itself: one that fails is left out of the scrape, and `egoworld_metrics_part_up` says so.
"""

from __future__ import annotations

import logging
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from egoworld_assets.monitoring import ticks
from egoworld_assets.review.index import Index, Indexes
from egoworld_ops import posting
from egoworld_ops.errors import PoolLost, SetupError
from egoworld_ops.lake import memo
from egoworld_ops.lake.lake import Lake
from egoworld_ops.raw import intake, walk
from egoworld_ops.settings import Settings
from gpu_workers import client

if TYPE_CHECKING:
    from dagster import DagsterInstance

_LOG = logging.getLogger(__name__)
_SCRAPE_S = 2.0
"""How long the broker may take to answer."""
QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95}
WITHOUT_OBJECT = (
    "SELECT count(*) FILTER (rows = 0 AND computed_at > coalesce(last, '-infinity')) AS n FROM objects, "
    "(SELECT max(computed_at) FILTER (rows > 0) AS last FROM objects)"
)
"""How many videos in a row have no object, from the one that was computed last back to the last one with any."""
_COMPLAIN_EVERY_S = 300.0
Part = Callable[[], Iterator[Metric]]


class Platform:
    """A collector of `prometheus_client`.

    Args:
        settings: of the deployment: lake, raw folder, ledger, pool.
        indexes: of runs, kept up to date in the background.
        instance: opens Dagster's, for its sensors; gives None where there is none.
        drift: the last comparison that was made in the background, as families.
    """

    def __init__(
        self, settings: Settings, indexes: Indexes, instance: Callable[[], DagsterInstance | None], drift: Part = lambda: iter(())
    ) -> None:
        self._settings, self._indexes, self._instance = settings, indexes, instance
        self._store = Lake(settings.lake)
        self._complained: dict[str, float] = {}
        self._intake: tuple[Any, list[dict[str, Any]]] = (None, [])
        self._parts: Mapping[str, Part] = {
            "run": self._run,
            "ledger": self._ledger,
            "intake": self._raw,
            "sensors": self._sensors,
            "disk": self._disk,
            "pool": self._pool,
            "drift": drift,
        }

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for each scrape."""
        yield InfoMetricFamily("egoworld_build", "version of egoworld", {"version": version("egoworld")})
        up = GaugeMetricFamily("egoworld_metrics_part_up", "1 where this part of the metrics could be gathered", labels=["part"])
        took = GaugeMetricFamily("egoworld_metrics_part_seconds", "time to gather this part of the metrics", labels=["part"])
        for name, part in self._parts.items():
            started = time.monotonic()
            try:
                yield from list(part())
                up.add_metric([name], 1)
            except Exception as error:  # noqa: BLE001 - one part must not take the others along, whatever is wrong with it
                up.add_metric([name], 0)
                self._complain(name, error)
            took.add_metric([name], time.monotonic() - started)
        yield from (up, took)

    def _complain(self, name: str, error: Exception) -> None:
        if time.monotonic() > self._complained.get(name, -_COMPLAIN_EVERY_S) + _COMPLAIN_EVERY_S:
            self._complained[name] = time.monotonic()
            _LOG.error("metrics of %s could not be gathered: %s", name, error)

    def _run(self) -> Iterator[Metric]:
        run = self._store.latest_run()
        if run is None:
            return
        index = self._indexes.of(run)
        if index.away is not None:
            raise index.away
        yield InfoMetricFamily("egoworld_run", "the latest run", {"run_id": run.run_id})
        read = index.seen / index.total if index.total else 1.0
        yield GaugeMetricFamily("egoworld_run_read_ratio", "share of the run's videos whose files were read since they last changed", read)
        gauge = partial(_queried, index)
        yield gauge(
            "run_clips",
            "clips (videos, of the manifest) by state",
            "SELECT stage, state, count(*) FROM states GROUP BY ALL",
            "stage",
            "state",
        )
        yield gauge("run_videos", "videos by status", "SELECT status, count(*) FROM videos GROUP BY ALL", "status")
        yield gauge(
            "run_video_seconds", "length of the videos that can be processed", "SELECT sum(duration_s) FROM videos WHERE status = 'ok'"
        )
        failures = (
            "SELECT stage, error_class, dead_letter::VARCHAR, count(*) FROM (SELECT stage, error_class, dead_letter FROM failures UNION ALL "
            "SELECT 'manifest', error_class, true FROM videos WHERE status = 'rejected') GROUP BY ALL"
        )
        yield gauge("run_failures", "failures on record; dead letters wait for a person", failures, "stage", "error_class", "dead_letter")
        of_videos = "SELECT stage, sum(value) FROM metrics WHERE clip_id = '' AND metric = '{}' GROUP BY ALL"
        yield gauge("run_compute_seconds", "time that the results took to compute", of_videos.format("compute_s"), "stage")
        yield gauge("run_processed_frames", "frames that results are of", of_videos.format("processed_frames"), "stage")
        yield _quality(index)
        warned = "SELECT stage, metric, count(DISTINCT video_id) FROM warnings GROUP BY ALL"
        yield gauge("run_warned_videos", "videos of which a metric is outside of its bounds", warned, "stage", "metric")

        yield gauge(
            "run_videos_without_object", "the newest videos in a row in which stage object_pose has no row of an object", WITHOUT_OBJECT
        )

    def _ledger(self) -> Iterator[Metric]:
        from egoworld_assets.chain import bookkeeping

        run = self._store.latest_run()
        counted = bookkeeping.ledger_of(self._settings.lake, self._settings.ledger).counts(run.run_id) if run else {}
        clips = GaugeMetricFamily("egoworld_ledger_clips", "clips of the latest run by state in the ledger", labels=["stage", "state"])
        for stage, states in counted.items():
            for state, n in states.items():
                clips.add_metric([stage, state.value], n)
        yield clips

    def _raw(self) -> Iterator[Metric]:
        rows = self._intake_rows()
        files = GaugeMetricFamily("egoworld_intake_files", "raw files that were seen, by what became of them", labels=["status"])
        for status, n in sorted(Counter(row["status"] for row in rows).items()):
            files.add_metric([status], n)
        yield files
        waiting = walk.waiting(self._settings.raw, rows)
        oldest_s = max(0.0, time.time() - min(waiting)) if waiting else 0.0
        yield GaugeMetricFamily("egoworld_raw_waiting_files", "raw files that nobody has registered as they are now", len(waiting))
        yield GaugeMetricFamily(
            "egoworld_raw_waiting_age_seconds", "how long ago the oldest of them was last changed: the sensor's lag", oldest_s
        )

    def _intake_rows(self) -> list[dict[str, Any]]:
        state = memo.file_state(intake.path(self._store))
        if state is None or self._intake[0] != state:
            self._intake = state, intake.read(self._store).select(["path", "status", "bytes", "mtime_ns"]).to_pylist()
        return self._intake[1]

    def _sensors(self) -> Iterator[Metric]:
        if (instance := self._instance()) is None:
            return
        running = GaugeMetricFamily("egoworld_sensor_running", "1 where the sensor is switched on", labels=["sensor"])
        at = GaugeMetricFamily("egoworld_sensor_last_tick_timestamp_seconds", "when the sensor last looked", labels=["sensor"])
        well = GaugeMetricFamily("egoworld_sensor_last_tick_success", "0 where its last look failed", labels=["sensor"])
        for sensor in ticks.of_sensors(instance):
            running.add_metric([sensor.name], float(sensor.running))
            if sensor.looked_at_s is not None:
                at.add_metric([sensor.name], sensor.looked_at_s)
                well.add_metric([sensor.name], float(not sensor.failed))
        yield from (running, at, well)

    def _disk(self) -> Iterator[Metric]:
        import shutil

        free = GaugeMetricFamily("egoworld_disk_free_bytes", "free on the file system of a folder, for this user", labels=["folder"])
        size = GaugeMetricFamily("egoworld_disk_size_bytes", "size of the file system of a folder", labels=["folder"])
        for name, folder in (("lake", self._settings.lake), ("raw", self._settings.raw), ("pool", self._settings.pool.folder)):
            if (there := _nearest(folder)) is not None:
                usage = shutil.disk_usage(there)
                free.add_metric([name], usage.free)
                size.add_metric([name], usage.total)
        yield from (free, size)

    def _pool(self) -> Iterator[Metric]:
        """What the broker serves itself, so that one address has all of it."""
        up = GaugeMetricFamily("egoworld_pool_up", "1 where a broker answers")
        try:
            port = client.status(self._settings.pool)["metrics_port"]
        except (PoolLost, SetupError):
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        if port is not None:
            with posting.opened(urllib.request.Request(f"http://127.0.0.1:{int(port)}/metrics"), _SCRAPE_S) as answer:
                yield from text_string_to_metric_families(answer.read().decode())


def _queried(index: Index, name: str, about: str, sql: str, *labels: str) -> Metric:
    """A gauge of a query's rows: its labels, and the value last."""
    family = GaugeMetricFamily(f"egoworld_{name}", about, labels=list(labels))
    for row in index.rows(sql):
        *said, value = row.values()
        if value is not None:
            family.add_metric([str(each) for each in said], float(value))
    return family


def _quality(index: Index) -> Metric:
    asked = ", ".join(f"quantile_cont(value, {q})" for q in QUANTILES.values())
    sql = f"SELECT stage, metric, [{asked}] AS found FROM metrics WHERE clip_id = '' AND isfinite(value) GROUP BY ALL ORDER BY ALL"
    family = GaugeMetricFamily("egoworld_run_quality", "a quality metric at a percentile of the videos", labels=["stage", "metric", "at"])
    for row in index.rows(sql):
        for quantile, value in zip(QUANTILES, row["found"], strict=True):
            family.add_metric([row["stage"], row["metric"], quantile], value)
    return family


def _nearest(folder: Path) -> Path | None:
    """The folder, or the nearest above it that is there."""
    return next((each for each in (folder.absolute(), *folder.absolute().parents) if each.exists()), None)
