"""The platform as Prometheus sees it: of a lake with known rows, a real pool, and a real Prometheus with the shipped rules and dashboards."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from egoworld_assets.chain import bookkeeping
from egoworld_assets.monitoring import collecting
from egoworld_assets.monitoring.serving import served
from egoworld_assets.review.index import Index
from egoworld_ops import ledger
from egoworld_ops.contract import quality
from egoworld_ops.errors import BadSettings
from egoworld_ops.files.tables import provenance_at, read_table, write_table
from egoworld_ops.lake import counted, judging, latest
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.query import catalog
from egoworld_ops.settings import PoolSettings, Settings, load_settings
from tests import brokers
from tests.conftest import ROOT
from tests.lakes import fail, register_videos, write_video

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "egoworld.rules.yml"
NOT_HERE = {"egoworld_gpu_utilisation", "egoworld_gpu_memory_used_mb", "egoworld_drift_metrics", "egoworld_run_quality"}
"""What a panel may have no data of here: there is no GPU, drift is told from 40 videos on, and random rows have not all metrics."""
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
needs_prometheus = pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def pool() -> Iterator[PoolSettings]:
    with brokers.broker() as settings:
        brokers.run(settings, [brokers.order(str(i)) for i in range(3)])
        yield settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, pool: PoolSettings) -> Settings:
    folder = tmp_path_factory.mktemp("monitoring")
    (folder / "raw").mkdir()
    return load_settings("laptop").model_copy(update={"lake": folder / "lake", "raw": folder / "raw", "pool": pool})


@pytest.fixture(scope="module")
def run(settings: Settings) -> Run:
    """Two videos of two clips each, all measured, with one dead letter."""
    made = Lake(settings.lake).open_run({}, "20260101_0000", dict)
    videos = [write_video(made, name, n_frames=40) for name in ("one", "two")]
    latest.use(made)
    register_videos(made)
    with duckdb.connect() as connection:
        for stage in ("masks", "hand_pose"):
            judging.judge_videos(connection, made, stage, videos, {})
    [first, *_] = sorted(p.name.removeprefix("clip_id=") for p in made.video_folder(videos[0]).glob("clip_id=*"))
    fail(made, videos[0], first, "events")
    catalog.write_catalog(made.lake)
    ledger.rebuild(bookkeeping.ledger_of(settings.lake, None), made.lake)
    return made


@pytest.fixture(scope="module")
def address(settings: Settings, run: Run) -> Iterator[str]:
    with served(settings, 0, every_s=1.0, drift_every_s=600.0) as at:
        wait_for(lambda: samples(at).get(key("egoworld_run_read_ratio")) == 1.0, "the run to be read")
        yield at


def text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        said: str = answer.read().decode()
        return said


def samples(at: str) -> Samples:
    return {(s.name, frozenset(s.labels.items())): s.value for family in text_string_to_metric_families(text(at)) for s in family.samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def wait_for(true: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.2)
    return found


def test_the_endpoint_says_what_is_in_the_lake(settings: Settings, address: str) -> None:
    found = samples(address)
    assert found[key("egoworld_run_info", run_id="20260101_0000")] == 1
    assert found[key("egoworld_run_clips", stage="masks", state="done")] == 4
    assert found[key("egoworld_run_clips", stage="events", state="dead letter")] == 1
    assert found[key("egoworld_run_failures", stage="events", error_class="CorruptVideo", dead_letter="true")] == 1
    assert found[key("egoworld_run_compute_seconds", stage="masks")] == pytest.approx(4 * 0.5)
    assert found[key("egoworld_run_videos_without_object")] == 0
    assert found[key("egoworld_run_video_seconds")] == pytest.approx(2 * 40 / 30)
    assert found[key("egoworld_run_quality", stage="masks", metric="masked_share", at="p50")] == 1.0
    assert found[key("egoworld_ledger_clips", stage="masks", state="Done")] == 4
    assert found[key("egoworld_intake_files", status="registered")] == 2
    assert found[key("egoworld_disk_free_bytes", folder="lake")] > 1e6
    assert all(found[key("egoworld_metrics_part_up", part=part)] == 1 for part in ("run", "ledger", "intake", "disk", "pool", "drift"))


def test_it_passes_on_what_the_broker_serves_also_beside_a_proxy(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(urllib.request.ProxyHandler({})))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    found = samples(address)
    assert found[key("egoworld_pool_up")] == 1
    assert found[key("egoworld_done_total")] == 3
    assert found[key("egoworld_clip_seconds_count", operator="toy")] == 3


def test_a_raw_file_that_nobody_takes_is_the_lag_of_the_sensor(settings: Settings, address: str) -> None:
    assert samples(address)[key("egoworld_raw_waiting_files")] == 0
    waiting = settings.raw / "new.mp4"
    waiting.write_bytes(b"x")
    assert samples(address)[key("egoworld_raw_waiting_files")] == 1
    assert 0 <= samples(address)[key("egoworld_raw_waiting_age_seconds")] < 60
    waiting.unlink()


def test_videos_without_an_object_are_counted_from_the_newest_back_to_the_last_with_one(tmp_path: Path) -> None:
    made = Lake(tmp_path / "lake").open_run({}, "20260101_0000", dict)
    videos = [write_video(made, f"v{n}", n_frames=6) for n in range(4)]
    for n, video_id in enumerate(videos):
        [path] = made.video_folder(video_id).glob("clip_id=*/object_pose.parquet")
        rows = read_table(path, "object_pose").slice(0, 1 if n == 1 else 0)
        said = (provenance_at(path) or {}) | {"created_at": f"2026-01-01T00:00:0{n}+00:00", "rows": rows.num_rows}
        write_table(path, "object_pose", rows, said)
        counted.count(made, video_id)
    with duckdb.connect() as connection:
        judging.judge_videos(connection, made, "object_pose", videos, {})
    index = Index(made, tmp_path / "index.duckdb", {})
    index.refresh(threading.Event())
    assert index.rows(collecting.WITHOUT_OBJECT) == [{"n": 2}]
    shutil.rmtree(made.video_folder(videos[1]))
    index.refresh(threading.Event())
    assert index.rows(collecting.WITHOUT_OBJECT) == [{"n": 3}], "none has one"
    index.close()


def test_a_part_that_fails_takes_no_other_along(settings: Settings, address: str) -> None:
    intake = settings.lake / "intake" / "intake.parquet"
    content = intake.read_bytes()
    intake.write_bytes(b"PAR1 and no more")
    found = samples(address)
    intake.write_bytes(content)
    assert found[key("egoworld_metrics_part_up", part="intake")] == 0
    assert found[key("egoworld_metrics_part_up", part="run")] == 1
    assert key("egoworld_intake_files", status="registered") not in found
    assert samples(address)[key("egoworld_metrics_part_up", part="intake")] == 1


def test_databases_of_dagster_that_cannot_be_used_cost_its_sensors_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "runs.db").write_text("no database")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with served(settings, 0, every_s=60.0, drift_every_s=600.0) as at:
        found = samples(at)
    up = {part: found[key("egoworld_metrics_part_up", part=part)] for part in ("sensors", "disk", "intake")}
    assert up == {"sensors": 0, "disk": 1, "intake": 1}


def test_a_pool_that_is_not_there_and_a_port_that_is_taken_are_said(settings: Settings, address: str, tmp_path: Path) -> None:
    alone = settings.model_copy(update={"pool": PoolSettings(folder=tmp_path / "p", start=False), "lake": tmp_path / "none"})
    with served(alone, 0, 1.0, 600.0) as at:
        found = samples(at)
    assert found[key("egoworld_pool_up")] == 0
    assert found[key("egoworld_metrics_part_up", part="run")] == 1, "a lake without a run is no fault"
    port = int(address.split(":")[2].split("/")[0])
    with (
        pytest.raises(BadSettings, match=r"cannot be bound: Address already in use.*another `egoworld metrics`"),
        served(alone, port, 1, 600),
    ):
        pass


def test_a_service_that_is_stopped_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    environment |= {"EGOWORLD_LAKE": str(tmp_path / "lake"), "TMPDIR": str(tmp_path)}
    words = [sys.executable, "-c", "from egoworld_assets.cli.main import main; main()", "metrics", "--port", "0"]
    with subprocess.Popen(words, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "Metrics of lake" in process.stdout.readline()
        assert list(tmp_path.glob("egoworld-metrics-*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not list(tmp_path.iterdir())


@needs_promtool
def test_names_and_rules_are_as_prometheus_wants_them(address: str) -> None:
    subprocess.run(["promtool", "check", "metrics"], input=text(address).encode(), check=True, capture_output=True)
    subprocess.run(["promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml"], check=True, capture_output=True)
    tested = subprocess.run(["promtool", "test", "rules", RULES.with_name("egoworld.rules.test.yml")], check=False, capture_output=True)
    assert tested.returncode == 0, tested.stdout.decode() + tested.stderr.decode()


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    alerts = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"] if "alert" in rule}
    tests = yaml.safe_load(RULES.with_name("egoworld.rules.test.yml").read_text())["tests"]
    assert {each["alertname"] for test in tests for each in test["alert_rule_test"]} == set(alerts)
    assert all(rule["annotations"]["action"] and rule["labels"]["severity"] for rule in alerts.values())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(*words: str, log: Path) -> Iterator[None]:
    with log.open("wb") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[Any]]]:
    """A real HTTP server: its address, and the alerts that it was sent."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()


@pytest.fixture
def alertmanager(receiver: tuple[str, list[Any]], tmp_path: Path) -> Iterator[str]:
    """A real one that tells the receiver at once; an address of nobody where it is not installed."""
    at = f"127.0.0.1:{free_port()}"
    if not shutil.which("prometheus-alertmanager"):
        yield at
        return
    route = {"receiver": "here", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h"}
    told = {"route": route, "receivers": [{"name": "here", "webhook_configs": [{"url": receiver[0]}]}]}
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(told))
    words = [f"--config.file={tmp_path}/alertmanager.yml", f"--storage.path={tmp_path}/told", "--cluster.listen-address="]
    with running("prometheus-alertmanager", *words, f"--web.listen-address={at}", log=tmp_path / "alertmanager.log"):
        yield at


@pytest.fixture
def prometheus(address: str, alertmanager: str, tmp_path: Path) -> Iterator[str]:
    """A real one, with the shipped configuration at another pace."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [address.removeprefix("http://").removesuffix("/metrics")]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    at = f"127.0.0.1:{free_port()}"
    words = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={at}"]
    with running("prometheus", *words, log=tmp_path / "prometheus.log"):
        yield f"http://{at}"


def asked(prometheus: str, expression: str) -> list[Any]:
    try:
        said = json.loads(text(f"{prometheus}/api/v1/query?query={urllib.parse.quote(expression)}"))
    except (urllib.error.URLError, ConnectionError):
        return []
    assert said["status"] == "success", (expression, said)
    found: list[Any] = said["data"]["result"]
    return found


@needs_prometheus
def test_a_real_prometheus_scrapes_it_every_panel_has_data_and_a_dead_letter_is_told(
    prometheus: str, pool: PoolSettings, run: Run, receiver: tuple[str, list[Any]]
) -> None:
    wait_for(lambda: asked(prometheus, "egoworld:run_done:sum"), "a scrape and a rule")
    brokers.run(pool, [brokers.order(f"later {i}", 0.2) for i in range(4)])
    wait_for(lambda: asked(prometheus, "egoworld:clip_seconds:p95_rate15m > 0"), "rates of what was computed")
    [failed] = asked(prometheus, "egoworld:run_failed:ratio")
    assert 0 < float(failed["value"][1]) < 0.1
    expressions = [
        (path.stem, panel["title"], target["expr"].replace("$instance", ".*"))
        for path in sorted((DEPLOY / "grafana").glob("*.json"))
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]
    assert {board for board, _, _ in expressions} == {"overview", "pool", "quality"}
    without = [said for said in expressions if not asked(prometheus, said[2])]
    assert {expression.partition("{")[0] for _, _, expression in without} <= NOT_HERE, without
    for _, _, expression in without:  # a quality metric may have no value of these rows; but it is one
        for stage, metric in re.findall(r'stage="(\w+)", metric="(\w+)"', expression):
            assert metric in [m.name for m in quality.metrics(stage)]
    alerts = json.loads(text(f"{prometheus}/api/v1/rules"))["data"]["groups"]
    broken = [rule for group in alerts for rule in group["rules"] if rule["health"] == "err"]
    assert broken == []
    if shutil.which("prometheus-alertmanager"):
        last = sorted(run.path.glob("video_id=two*/clip_id=*"))[-1]
        fail(run, last.parent.name.removeprefix("video_id="), last.name.removeprefix("clip_id="), "events")
        told = wait_for(lambda: [a for a in receiver[1] if a["labels"]["alertname"] == "EgoworldDeadLetters"], "the alert to arrive")
        assert told[0]["annotations"]["action"].startswith("`egoworld dead-letters`")


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed (Debian: prometheus-alertmanager)")
def test_the_example_for_alertmanager_is_one() -> None:
    subprocess.run(["amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml"], check=True, capture_output=True)
