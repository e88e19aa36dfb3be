"""Each backend with a network, of random numbers, on a clip of its own; and a worker that is killed while it loads the model and while it runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from egoworld_ops import models, operators
from egoworld_ops.contract import schema, validation
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.files.tables import write_table
from egoworld_ops.hashing import sha256_of
from egoworld_ops.operators import depth_maps
from egoworld_ops.settings import PoolSettings
from egoworld_ops.types import HANDS, Clip, Hand
from egoworld_ops.video.sidecar import Sidecar, SidecarObject
from gpu_workers import client
from gpu_workers.broker_pool import BrokerPool
from gpu_workers.pool import Done
from tests import brokers
from tests.boxes import mask_row
from tests.egoworld_ops import media
from tests.egoworld_ops.operators.painted import CAMERA, Scene, draw, thing
from tests.rows import detection_row, sample_row

FRAMES = 40
SEEN = 4
AWAY_M = 0.4
RANDOM: Mapping[str, Any] = {"random_weights_seed": 3, "device": "cpu"}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "hand_pose.hamer": {},
    "masks.sam2": {"model": "tiny", "image_size": 128},
    "hand_pose.wilor": {},
    "hand_pose.hawor": {},
    "depth.da3metric": {},
    "detections.sam3": {"min_new_score": 0.3, "min_score": 0.25, "nms_iou": 0.3, "max_objects": 5},
    "detections.grounding": {},
    "object_pose.foundationpose": {"register_rounds": 1},
}
"""By stage and backend, all that have random weights."""


def task(name: str, folder: Path, frames: int = FRAMES, seen: int = SEEN) -> ClipTask:
    """The work of a backend on a clip of two hands and, in the first `seen` frames, a thing, which its input tables name."""
    stage, _, backend = name.partition(".")
    T = np.eye(4)
    T[2, 3] = AWAY_M
    scene = draw(T)
    rgb = np.where(scene.mask[..., None], scene.rgb, np.random.default_rng(5).integers(0, 256, scene.rgb.shape, np.uint8))
    video = media.make(folder / "clip.mp4", frames, (CAMERA.width, CAMERA.height), picture=lambda *_: rgb)
    thing().export(folder / "thing.ply")
    clip = Clip(
        "clip-0123456789ab", "c", video, "0" * 64, 0, frames, 0, frames, 0.0, frames / 30, Fraction(30), CAMERA.width, CAMERA.height
    )
    inputs = {table: folder / f"{table}.parquet" for table in operators.stages()[stage].inputs}
    for table, path in inputs.items():
        write_table(path, table, schema.from_rows(table, _rows(table, scene, range(frames), range(seen))), {"digest": "0" * 64})
    known = Sidecar(objects=(SidecarObject(label="thing", mesh="thing.ply"),))
    options = RANDOM | OPTIONS[name]
    return ClipTask(sha256_of(name), stage, backend, options, clip, inputs, CAMERA, known, 1, models.folder())


def _rows(table: str, scene: Scene, frames: range, seen: range) -> list[dict[str, Any]]:
    if table == "detections":
        return [_hand(i, hand) for i in frames for hand in HANDS]
    if table == "masks":
        return [mask_row(i, 10, "object", scene.mask, "thing") for i in seen]
    if table == "depth":
        camera = depth_maps.map_camera(CAMERA, CAMERA.width)
        held = depth_maps.columns(scene.depth_m, camera, 1e-4)
        return [sample_row("depth", i, **held) for i in seen]
    return []


def _hand(frame_index: int, hand: Hand) -> dict[str, Any]:
    at = {"left": 20.0, "right": 200.0}[hand] + frame_index % FRAMES
    return detection_row(frame_index, role=f"hand_{hand}", track_id=1 + HANDS.index(hand), box_px=[at, 60.0, 60.0, 80.0], points_px=None)


class Killer(threading.Thread):
    """Kills the worker that holds a task once while it loads the operator and once while it computes. `killed` has the phases."""

    def __init__(self, settings: PoolSettings, key: str) -> None:
        super().__init__(daemon=True)
        self._settings, self._key, self.killed = settings, key, list[str]()

    def run(self) -> None:
        """Until both are done, or the broker is gone."""
        for phase in ("decoding", "computing"):
            brokers.wait_until(lambda phase=phase: self._kill(phase), f"{self._key} to be {phase}", 120)
            self.killed.append(phase)

    def _kill(self, phase: str) -> bool:
        for worker in client.status(self._settings)["workers"]:
            if any(held["key"] == self._key and held["phase"] == phase for held in worker["tasks"]):
                os.kill(worker["pid"], signal.SIGKILL)
                return True
        return False


def check(name: str, folder: Path) -> str:
    """A worker is killed twice at the work of a backend, which is done all the same; what happened, in words."""
    asked = task(name, folder)
    with brokers.broker("--workers", "1") as settings:
        killer = Killer(settings, asked.key)
        killer.start()
        [outcome] = BrokerPool(settings).run([asked])
        counts = client.status(settings)["counts"]
    assert isinstance(outcome, Done), outcome
    validation.validate(asked.stage, outcome.table)
    assert killer.killed == ["decoding", "computing"]
    assert counts["worker deaths"] == 2
    assert outcome.table.num_rows or asked.stage == "detections", "random networks need not find anything"
    assert set(outcome.table["backend"].to_pylist()) == {f"{asked.backend}-random"}
    return f"{name}: killed while loading and while computing, {outcome.table.num_rows} rows"
