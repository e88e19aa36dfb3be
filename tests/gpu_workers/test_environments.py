"""An operator with an interpreter of its own runs beside the others, imports nothing from our environment, and obeys the same contract."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_assets.chain import configuration, pipeline
from egoworld_assets.chain.planning import Planner
from egoworld_assets.chain.stage_result import StageResult
from egoworld_ops import operators
from egoworld_ops.errors import WorkersBroken
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import read_table
from egoworld_ops.lake import timeline
from egoworld_ops.lake.lake import Run
from egoworld_ops.raw import register
from egoworld_ops.settings import PoolSettings, Settings, StageSettings, load_settings
from egoworld_ops.video.settings import SceneSettings
from gpu_workers import client
from gpu_workers.broker_pool import BrokerPool
from gpu_workers.code import file_fingerprint
from tests import brokers
from tests.brokers import changed, order
from tests.egoworld_ops import media

FOREIGN = Path(__file__).with_name("foreign.py")
NUMPY, PYARROW = "2.2.6", "26.0.1"
CLIPS = 4
HEARD = timedelta(seconds=0.5)
"""Computing begins in a file when the broker hears of it, which on a busy machine is later than the worker's own seconds begin."""


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a virtual environment that holds another numpy than ours, and no egoworld."""
    assert np.__version__ != NUMPY
    folder = tmp_path_factory.mktemp("other") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = str(folder / "bin" / "python")
    wanted = ["--only-binary=:all:", f"numpy=={NUMPY}", f"pyarrow=={PYARROW}"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", python, "install", *wanted]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"the package index gives no other environment here: {done.stderr.strip()[-300:]}")
    return python


@dataclass
class Place:
    """A registered video of some clips, and a pool of this test."""

    settings: Settings
    run: Run
    video_ids: list[str]
    pool: BrokerPool

    def results(self, stage: str) -> list[StageResult]:
        found = list(pipeline.results(self.run, stage, self.video_ids, self.settings, self.pool))
        for result in found:
            pipeline.store(self.run, stage, result)
        return sorted(found, key=lambda r: str(r.clip_id))

    def tasks(self, stage: str) -> list[ClipTask]:
        return [t for v in self.video_ids for t in Planner(self.run, stage, self.settings).plan(v) if isinstance(t, ClipTask)]


@pytest.fixture(scope="module")
def broker() -> Iterator[PoolSettings]:
    ours = sysconfig.get_paths()["purelib"]
    with brokers.broker("--workers", "2", environment={"PYTHONPATH": ours}) as settings:
        yield settings


@pytest.fixture
def place(tmp_path: Path, broker: PoolSettings) -> Place:
    media.make(tmp_path / "raw.mp4", 40, picture=media.scenes([]))
    short = SceneSettings(max_clip_s=10 / 30, overlap_s=0)
    settings = load_settings("laptop").model_copy(update={"lake": tmp_path / "lake", "raw": tmp_path, "scenes": short, "pool": broker})
    made = Place(
        settings, configuration.open_run(settings), register.register(settings.lake, [tmp_path / "raw.mp4"]).video_ids, BrokerPool(broker)
    )
    [manifest] = made.results(pipeline.MANIFEST)
    assert manifest.rows == CLIPS
    return made


def foreign(place: Place, monkeypatch: pytest.MonkeyPatch, runner: str, python: str) -> None:
    """From now on `detections` is made by another runner, in another interpreter."""
    backend = operators.load("detections", "mediapipe")
    monkeypatch.setattr(backend, "runner", f"{FOREIGN}:{runner}")
    stages = place.settings.stages | {"detections": StageSettings(backend="mediapipe", python=python)}
    place.settings = place.settings.model_copy(update={"stages": stages})


def test_settings_and_operator_say_which_worker_a_clip_needs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    before = place.tasks("detections")
    assert {t.python for t in before} == {""}
    assert {place.pool._submit(t).python for t in before} == {sys.executable}
    foreign(place, monkeypatch, "Foreign", "/models/venv/bin/python")
    tasks = place.tasks("detections")
    assert {t.python for t in tasks} == {"/models/venv/bin/python"}
    submits = [place.pool._submit(t) for t in tasks]
    assert {(s.python, s.runner) for s in submits} == {("/models/venv/bin/python", f"{FOREIGN}:Foreign")}
    assert {s.code for s in submits} == {file_fingerprint(FOREIGN)}
    assert [t.key for t in tasks] == [t.key for t in before], "where it runs is no part of what it makes"


def test_a_stage_runs_in_an_interpreter_of_its_own_and_the_next_in_ours(
    place: Place, interpreter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(place, monkeypatch, "Foreign", interpreter)
    began_at = datetime.now(UTC)
    results = place.results("detections")
    assert [(r.state, r.rows) for r in results] == [("computed", 1)] * CLIPS
    for result in results:
        [row] = read_table(place.run.clip_table("detections", result.video_id, str(result.clip_id)), "detections").to_pylist()
        assert row["backend"] == "foreign"
        _check_that_it_was_alone(json.loads(row["label"]), interpreter)
    masks = place.results("masks")
    assert [r.state for r in masks] == ["computed"] * CLIPS, [str(r.error) for r in masks]
    _check_that_files_say_when(place.run, began_at)


def _check_that_files_say_when(run: Run, began_at: datetime) -> None:
    works = [work for work in timeline.of_run(run) if work.clip_id]
    assert len(works) == 2 * CLIPS
    assert {work.device for work in works} <= {"cpu0", "cpu1"}
    began, ended = began_at - HEARD, datetime.now(UTC) + HEARD
    assert all(began <= work.asked_at <= work.began_at <= work.ended_at <= ended for work in works), (began, ended, works)
    did = {stretch.what for of in timeline.lanes(works).values() for stretch in of}
    assert {"detections", "masks", "starting"} <= did, "the worker of the other environment was started"


def _check_that_it_was_alone(said: dict[str, Any], interpreter: str) -> None:
    assert said["executable"] == interpreter
    assert said["numpy"] == NUMPY
    assert not said["egoworld_ops"]
    assert "gpu_workers" in said["modules"], "the worker itself"
    assert "egoworld_ops" not in said["modules"]
    root = Path(__file__).resolve().parents[2]
    assert not [
        entry for entry in said["sys_path"] if Path(entry).is_relative_to(root) or Path(entry) == Path(sysconfig.get_paths()["purelib"])
    ]


def test_both_environments_work_side_by_side_in_one_broker(place: Place, interpreter: str) -> None:
    """Two workers of one broker at the same time have different versions of numpy."""
    ours = [order(f"ours {i}", 0.1) for i in range(6)]
    payloads = [json.dumps(t.to_json()).encode() for t in place.tasks("detections")]
    code = file_fingerprint(FOREIGN)
    theirs = [
        client.Order(changed(order(f"theirs {i}"), python=interpreter, runner=f"{FOREIGN}:Foreign", code=code).submit, payload)
        for i, payload in enumerate(payloads)
    ]
    answers = brokers.run(place.settings.pool, [o for pair in zip(ours[:CLIPS], theirs, strict=True) for o in pair] + ours[CLIPS:])
    assert {a.result.outcome for a in answers.values()} == {"done"}
    assert len(answers) == 6 + CLIPS
    for i in range(CLIPS):
        [label] = brokers.table(answers[f"theirs {i}"])["label"].to_pylist()
        assert json.loads(label)["numpy"] == NUMPY
    assert brokers.about(answers["ours 0"])["pid"]


def test_a_table_that_breaks_the_contract_is_a_failure_of_its_clip_and_the_others_are_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(place, monkeypatch, "Careless", sys.executable)
    results = place.results("detections")
    assert [r.state for r in results] == ["failed", "failed", "computed", "computed"]
    rows = []
    for result in results[:2]:
        assert not place.run.clip_table("detections", result.video_id, str(result.clip_id)).exists()
        rows += read_table(place.run.failure("detections", result.video_id, str(result.clip_id)), "failures").to_pylist()
    assert [r["error_class"] for r in rows] == ["ContractError"] * 2
    assert "columns" in rows[0]["reason"]
    assert "score" in rows[0]["reason"]
    assert "are not all of this clip" in rows[1]["reason"]
    assert "10000" in rows[1]["reason"]
    assert all("Mend the operator" in r["cure"] for r in rows)


def test_an_interpreter_that_cannot_be_used_ends_the_stage_at_once_and_loses_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        usable = place.settings
        foreign(place, broken, "Foreign", "/nowhere/bin/python")
        with pytest.raises(WorkersBroken, match="/nowhere/bin/python"):
            place.results("detections")
    place.settings = usable
    assert [r.state for r in place.results("detections")] == ["computed"] * CLIPS
