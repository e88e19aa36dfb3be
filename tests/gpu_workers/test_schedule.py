"""Scheduling: the next clip is decoded while this one computes, models stay loaded, higher priority goes first."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.request
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.planning import Planner
from egoworld_ops.errors import WeightsMissing
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.raw import register
from egoworld_ops.settings import PoolSettings, Settings, StageSettings, load_settings
from egoworld_ops.video.settings import SceneSettings
from gpu_workers import client
from gpu_workers.broker_pool import BrokerPool, _payload
from gpu_workers.code import file_fingerprint
from tests import brokers
from tests.brokers import about, changed, order, wait_until
from tests.egoworld_ops import media

COUNTING = Path(__file__).with_name("counting.py")


def test_the_next_clip_is_decoded_while_the_present_one_computes() -> None:
    with brokers.broker("--workers", "1") as settings:
        answers = brokers.run(settings, [order(f"k{i}", 0.6, decode_s=0.4) for i in range(6)])
    told = sorted((about(a) for a in answers.values()), key=lambda t: t["computing"])
    assert len({t["pid"] for t in told}) == 1
    pairs = list(itertools.pairwise(told))
    for present, after in pairs:
        assert present["computing"][1] <= after["computing"][0], "one computes at a time"
    assert all(n["decoding"][0] < p["computing"][1] for p, n in pairs), "decoding waits for no computing to end"
    busy_s = sum(t["computing"][1] - t["computing"][0] for t in told)
    whole_s = told[-1]["computing"][1] - told[0]["computing"][0]
    assert busy_s / whole_s > 0.8, "decoding in between would make it 0.64"


def test_a_worker_builds_each_operator_once(tmp_path: Path) -> None:
    media.make(tmp_path / "scenes.mp4", 60, picture=media.scenes([]))
    short = SceneSettings(max_clip_s=0.4, overlap_s=0)
    settings = load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path, "scenes": short})
    video_ids = register.register(settings.lake, [tmp_path / "scenes.mp4"]).video_ids
    run = configuration.open_run(settings)
    for result in pipeline.results(run, pipeline.MANIFEST, video_ids, settings, BrokerPool(settings.pool)):
        pipeline.store(run, pipeline.MANIFEST, result)
    tasks = [t for v in video_ids for t in Planner(run, "detections", settings).plan(v) if isinstance(t, ClipTask)]
    assert len(tasks) == 5
    with brokers.broker("--workers", "1") as pool:
        tables = [brokers.table(a) for _ in range(2) for a in brokers.run(pool, map(_counted, tasks)).values()]
    said = [table.schema.metadata for table in tables]
    assert len(said) == 10
    assert len({s[b"pid"] for s in said}) == 1
    assert json.loads(said[-1][b"built"]) == {"detections.mediapipe": 1}
    assert {s[b"frames"] for s in said} == {b"12"}, "every frame is told of"


def test_a_run_finds_its_own_weights_whoever_started_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool outlives the shell that started it, and serves others: they must not get that shell's environment."""
    media.make(tmp_path / "scenes.mp4", 6, picture=media.scenes([]))
    full = load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path})
    [video_id] = register.register(full.lake, [tmp_path / "scenes.mp4"]).video_ids
    chosen = StageSettings(backend="mediapipe", mediapipe={"model": "lite"})
    lite = full.model_copy(update={"stages": full.stages | {"detections": chosen}})
    with brokers.broker("--workers", "1", environment={"EGOWORLD_WEIGHTS": str(tmp_path / "of someone else")}) as pool:

        def states(settings: Settings) -> list[str]:
            run, found = configuration.open_run(settings), []
            for stage in (pipeline.MANIFEST, "detections"):
                for result in pipeline.results(run, stage, [video_id], settings, BrokerPool(pool)):
                    pipeline.store(run, stage, result)
                    found.append(result.state)
            return found

        assert states(full) == ["computed", "computed"]
        monkeypatch.setenv("EGOWORLD_WEIGHTS", str(tmp_path / "of this run"))
        with pytest.raises(WeightsMissing, match="of this run"):
            states(lite)


def _counted(task: ClipTask) -> client.Order:
    plain = client.Order(BrokerPool(PoolSettings())._submit(task), _payload(task))
    return changed(plain, runner=f"{COUNTING}:Counting", code=file_fingerprint(COUNTING))


def test_who_has_priority_goes_before_who_was_there(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    with brokers.broker("--workers", "1") as settings:
        asked = {
            "low": [order(f"low{i}", 0.02, log=str(log), until=str(go)) for i in range(4)],
            "high": [order(f"high{i}", 0.02, priority=5, log=str(log)) for i in range(4)],
            "urgent": [order("urgent", 0.02, priority=9, log=str(log))],
        }
        askers = []
        for name, orders in asked.items():
            askers.append(threading.Thread(target=brokers.run, args=(settings, orders, name)))
            askers[-1].start()
            wait_until(partial(_has_submitted, settings, name, len(orders)), "they to be submitted")
            wait_until(lambda: sorted(brokers.phases(settings).values()) == ["computing", "decoded"], "two to be held")
        begun = set(brokers.phases(settings))
        go.touch()
        for asker in askers:
            asker.join(20)
    ran = log.read_text().split()
    assert len(ran) == 9
    waited = [key for key in ran if key not in begun]
    assert waited == ["urgent", *sorted(k for k in waited if k.startswith("high")), *sorted(k for k in waited if k.startswith("low"))]
    assert sum(key.startswith("low") for key in waited) == 2, "one ran and one was prefetched before the others came"


def _has_submitted(settings: PoolSettings, name: str, orders: int) -> bool:
    return _outstanding(settings).get(name) == orders


def _outstanding(settings: PoolSettings) -> dict[str, int]:
    return {c["name"]: c["waiting"] + c["running"] for c in client.status(settings)["clients"]}


def test_the_metrics_page_says_what_happened(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with brokers.broker(limits={"hang_base_s": 1.5}) as settings:
        bad = [order("raise", fault="raise"), order("exit", fault="exit"), order("hang", fault="hang")]
        answers = brokers.run(settings, [*(changed(order(f"k{i}", 0.2), frames=30) for i in range(5)), *bad])
        assert Counter(a.result.outcome for a in answers.values()) == {"done": 5, "failed": 1, "dead_letter": 2}
        wait_until(lambda: "test" not in _outstanding(settings), "the client to be gone")
        asker = threading.Thread(target=brokers.run, args=(settings, [order(f"w{i}", until=str(go)) for i in range(4)]))
        asker.start()
        wait_until(lambda: sorted(brokers.phases(settings).values()) == ["computing", "decoded"], "two to be held")
        port = client.status(settings)["metrics_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            found = _samples(page.read().decode())
        go.touch()
        asker.join(20)
    assert {name: found[f"egoworld_{name}_total"] for name in ("done", "failed", "dead_letter", "frames")} == {
        "done": 5,
        "failed": 1,
        "dead_letter": 2,
        "frames": 150,
    }
    assert found["egoworld_worker_deaths_total"] >= 4
    assert found["egoworld_hangs_total"] >= 2
    assert found["egoworld_cancelled_total"] == found["egoworld_bad_frames_total"] == found["egoworld_sick_slots_total"] == 0
    assert found["egoworld_queue_length", "toy"] == 2
    assert found["egoworld_in_flight"] == 2
    assert found["egoworld_clients"] == 1
    assert found["egoworld_workers"] == 1
    assert found["egoworld_slot_healthy", "cpu0"] == 1
    assert found["egoworld_clip_seconds_count", "toy"] == 5
    assert 1.0 <= found["egoworld_clip_seconds_sum", "toy"] < 4.0
    assert found["egoworld_clip_seconds_bucket", "0.1", "toy"] == 0
    assert found["egoworld_clip_seconds_bucket", "+Inf", "toy"] == 5
    spent = {key[1]: value for key, value in found.items() if key[0] == "egoworld_slot_seconds_total"}
    assert spent.keys() == {"computing", "starting", "starved_decode", "starved_clips", "blocked", "idle"}
    assert spent["computing"] > 1.0
    assert spent["starting"] > 0.1, "one start, and one after each death"
    wanted_s = sum(s for cause, s in spent.items() if cause != "idle")
    assert abs(found["egoworld_duty_cycle", "cpu0"] - spent["computing"] / wanted_s) < 0.001


def _samples(page: str) -> dict[object, float]:
    """Values by name, or by name and the values of the labels."""
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
    assert all(family.documentation for family in text_string_to_metric_families(page)), "every metric says what it means"
    return {(s.name, *s.labels.values()) if s.labels else s.name: s.value for s in samples}
