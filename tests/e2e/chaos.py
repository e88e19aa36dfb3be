"""Kills parts of a running deployment, and compares its results with those of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_assets.chain import configuration, pipeline
from egoworld_ops import operators
from egoworld_ops.errors import PoolLost
from egoworld_ops.files.tables import provenance_at
from egoworld_ops.raw import register
from egoworld_ops.settings import PoolSettings, Settings
from egoworld_ops.video.sidecar import sidecar_path
from gpu_workers import client
from gpu_workers.pool import Pool
from tests.brokers import is_alive, wait_until
from tests.egoworld_ops import media

CLIP_FRAMES = 20
Kind = Literal["broker", "worker", "run"]
STAGES = ("manifest", *operators.stages())
LASTING = 6
"""Stages at which processes are killed, from the first on. Those behind them only turn tables into tables, and are over before a kill comes."""
_OF_THE_MAKING = ("seconds", "host", "run_id", "created_at", "worker", "began_at", "waited_s", "device_s")
"""Keys of provenance that depend on host and time."""


@dataclass(frozen=True, slots=True)
class Kill:
    """The kill of one process of a kind, once there are `after` results."""

    kind: Kind
    after: int


def plan(seed: int, kills: Mapping[Kind, int], results: int) -> list[Kill]:
    """Kills at random points of a run with that many results, not close to its start or end."""
    rng = random.Random(seed)
    kinds = [kind for kind, n in kills.items() for _ in range(n)]
    rng.shuffle(kinds)
    places = sorted(rng.sample(range(2, results - results // 10), len(kinds)))
    return [Kill(kind, after) for kind, after in zip(kinds, places, strict=True)]


class Disturber(threading.Thread):
    """Carries out kills while a deployment works.

    Args:
        seed: of the choice among the processes of a kind, and of the moment between two results.
        pool: where the broker is.
        folders: of the videos that are worked on; the files of clips in them are the results that are counted.
    """

    def __init__(self, seed: int, kills: Sequence[Kill], pool: PoolSettings, folders: Sequence[Path]) -> None:
        super().__init__(daemon=True)
        self._rng, self._kills, self._pool, self._folders = random.Random(seed), kills, pool, folders
        self._over = threading.Event()
        self.killed: list[tuple[Kind, int]] = []
        """The processes that were killed, with kind; each was alive before and dead after."""
        self.error: BaseException | None = None

    def end(self) -> list[tuple[Kind, int]]:
        """The processes that were killed; all planned kills must have happened."""
        self._over.set()
        self.join(30)
        assert self.error is None, self.error
        assert [kind for kind, _ in self.killed] == [k.kind for k in self._kills], "the work ended before all kills were done"
        return self.killed

    def run(self) -> None:
        try:
            for kill in self._kills:
                while self._results() < kill.after:
                    if self._over.wait(0.05):
                        return
                time.sleep(self._rng.uniform(0, 0.3))
                self._kill_one(kill.kind)
        except BaseException as error:
            self.error = error

    def _results(self) -> int:
        return sum(1 for folder in self._folders for _ in folder.glob("clip_id=*/*.parquet"))

    def _kill_one(self, kind: Kind) -> None:
        while not self._over.wait(0.05):
            living = [pid for pid in self._targets(kind) if is_alive(pid)]
            if not living:
                continue
            pid = self._rng.choice(sorted(living))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            self.killed.append((kind, pid))
            wait_until(partial(_is_dead, pid), f"{kind} {pid} to be dead")
            return

    def _targets(self, kind: Kind) -> list[int]:
        """Processes of a kind that are at work now."""
        try:
            said = client.status(self._pool)
        except PoolLost:
            return []
        if kind == "broker":
            return [said["pid"]]
        if kind == "worker":
            return [worker["pid"] for worker in said["workers"] if worker["tasks"] and worker["pid"]]
        return [c["pid"] for c in said["clients"] if ", run " in c["name"]]


def _is_dead(pid: int) -> bool:
    return not is_alive(pid)


def make_videos(folder: Path, synthetic: Path, copies: int, scenes: int, objects: bool) -> int:
    """Videos to work on: the three shots of the rendered kitchen, small and short, and `copies` of still scenes; how many clips they have.

    Args:
        objects: whether the kitchen's sidecar comes along: then its objects are computed too, which takes a while.
    """
    folder.mkdir()
    small = media.excerpt(synthetic, folder / "kitchen.mp4", [(start, start + CLIP_FRAMES) for start in (0, 56, 112)], (320, 240))
    if objects:
        said = json.loads(sidecar_path(synthetic).read_text())
        said["camera"] = {name: value / 2 for name, value in said["camera"].items()} | {"width": 320, "height": 240}
        for i, prompt in enumerate(said["objects"][0]["prompts"]):
            prompt |= {"frame_index": CLIP_FRAMES * i, "box_px": [value / 2 for value in prompt["box_px"]]}
        sidecar_path(small).write_text(json.dumps(said))
    cuts = [CLIP_FRAMES * i for i in range(1, scenes)]
    for i in range(copies):
        media.make(folder / f"scenes {i}.mp4", CLIP_FRAMES * scenes, picture=media.scenes(cuts, 1000 * i))
    return 3 + copies * scenes


def undisturbed(settings: Settings, raw: Path, pool: Pool) -> dict[str, Path]:
    """Process all videos of a folder into a lake of its own, without Dagster and in peace; the folder of each video."""
    video_ids = register.register(settings.lake, [raw]).video_ids
    run = configuration.open_run(settings)
    for _ in pipeline.process(run, video_ids, settings, pool):
        pass
    return {video_id: run.video_folder(video_id) for video_id in video_ids}


@dataclass(frozen=True, slots=True)
class File:
    """A file of the lake: its rows, and its provenance that does not depend on host and time."""

    rows: pa.Table
    provenance: Mapping[str, Any]


def contents(folder: Path) -> dict[str, File]:
    """All tables below a folder, by path; without `metrics`, which checks make, and hold times."""
    found = {}
    for path in sorted(path for path in folder.rglob("*.parquet") if path.name != "metrics.parquet"):
        said = provenance_at(path)
        assert said is not None, f"{path} is not a whole file of the lake"
        rows = pq.ParquetFile(path).read()
        found[str(path.relative_to(folder))] = File(rows, {k: v for k, v in said.items() if k not in _OF_THE_MAKING})
    return found


def check_same(made: Path, wanted: Path) -> int:
    """Fail unless two folders hold the same tables, and no failure; returns how many."""
    ours, theirs = contents(made), contents(wanted)
    assert not [name for name in ours if "failure" in name]
    assert ours.keys() == theirs.keys()
    for name, file in ours.items():
        assert file.provenance == theirs[name].provenance, name
        assert file.rows.equals(theirs[name].rows), f"{name} holds other rows"
    for meta in made.glob("clip_id=*/meta.json"):
        assert json.loads(meta.read_text()).keys() == {p.stem for p in meta.parent.glob("*.parquet")}, meta
    return len(ours)


def leftovers(root: Path) -> list[Path]:
    """Temporary files that were left behind."""
    return sorted(root.rglob(".tmp-*"))
