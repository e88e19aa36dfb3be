"""Fuzzed videos go through the manifest's code, and those that it takes through a real operator in a real broker's workers."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from egoworld_ops import errors, models
from egoworld_ops.execution.result import check_result
from egoworld_ops.execution.task import ClipTask
from egoworld_ops.settings import PoolSettings
from egoworld_ops.types import Clip
from egoworld_ops.video import intrinsics
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar
from gpu_workers import client
from gpu_workers.broker_pool import BrokerPool
from gpu_workers.pool import Done
from tests import brokers
from tests.gpu_workers.chaos import video_fuzz

KITCHEN = Path(__file__).resolve().parents[3] / "examples" / "synthetic" / "kitchen.mp4"
KEPT = Path(tempfile.gettempdir()) / "egoworld-fuzz-findings"
"""Folder in which files that revealed a bug are kept."""
_CHILDREN = 2
_STRIDE = 6
_BUGS = ("OperatorCrash", "ContractError")


def run(size: int, seed: int) -> str:
    """`size` damaged files. Each must end as a row (taken or rejected) or an error of `egoworld_ops.errors`, and each clip of those taken in a
    table that keeps the contract, or such an error; a bug that was caught as an error, or a worker that died, is a finding, and fails.
    """
    began = time.monotonic()
    models.fetch(["mediapipe-hands"])
    root = Path(tempfile.mkdtemp(prefix="egoworld-fuzz-"))
    try:
        files = _files(root, size, seed)
        manifests = _manifests(files)
        rows = Counter(f"{found.how} {found.what}".strip() for found in manifests.values())
        findings = [f"{path}: {found.how} {found.what}" for path, found in manifests.items() if found.how in ("untyped", "died", "hung")]
        clips = {clip.video_id: path for path, found in manifests.items() for clip in found.clips}
        ends, bad = _operate([clip for found in manifests.values() for clip in found.clips])
        findings += [f"{clips[video_id]}: {said}" for video_id, said in bad]
        for finding in findings:
            KEPT.mkdir(exist_ok=True)
            shutil.copy(finding.partition(": ")[0], KEPT)
        assert not findings, f"{len(findings)} files did what they must not do (kept in {KEPT}):\n" + "\n".join(findings[:20])
    finally:
        shutil.rmtree(root)
    return (
        f"{size} damaged videos: {_listed(rows)}; the clips of those taken, through a broker: {_listed(ends)}; "
        f"0 crashes, 0 hangs, 0 unclassified; {time.monotonic() - began:.0f} s"
    )


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counted.most_common())


def _files(root: Path, size: int, seed: int) -> list[Path]:
    """The damaged files; number and seed determine the content of each."""
    whole = video_fuzz.originals(root, KITCHEN)
    paths = []
    for number in range(size):
        suffix, content = video_fuzz.damaged(Random(f"video {seed} {number}"), whole)
        paths.append(root / f"{number}.{suffix}")
        paths[-1].write_bytes(content)
    return paths


def _manifests(files: list[Path]) -> dict[Path, video_fuzz.Found]:
    """The outcome of each, by two children at once; rejected files are removed."""
    todo: queue.SimpleQueue[tuple[int, Path]] = queue.SimpleQueue()
    for item in enumerate(files):
        todo.put(item)
    found: dict[Path, video_fuzz.Found] = {}
    failed: list[BaseException] = []

    def work() -> None:
        child = video_fuzz.Child()
        try:
            while True:
                number, path = todo.get_nowait()
                found[path] = child.manifest(path, number)
                if found[path].how in ("rejected", "error"):
                    path.unlink()
        except queue.Empty:
            pass
        except BaseException as error:
            failed.append(error)
        finally:
            child.close()

    threads = [threading.Thread(target=work, name=f"manifests {i}") for i in range(_CHILDREN)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    assert found.keys() == set(files), f"{len(files) - len(found)} files have no outcome"
    return found


def _operate(clips: list[Clip]) -> tuple[Counter[str], list[tuple[str, str]]]:
    """How the clips ended, and those that found a bug: their video and what was said."""
    ends: Counter[str] = Counter()
    bad = []
    with brokers.broker("--workers", str(_CHILDREN)) as settings:
        pid = client.status(settings)["pid"]
        for outcome in BrokerPool(_patient(settings), "fuzz").run(_tasks(clips)):
            error = None if isinstance(outcome, Done) else outcome.error
            if isinstance(outcome, Done):
                try:
                    check_result(outcome.task, outcome.table)
                except errors.ContractError as broken:
                    error = broken
            ends["done" if error is None else type(error).__name__] += 1
            assert error is None or type(error) is not errors.EgoworldError, f"an error of no class: {error}"
            if type(error).__name__ in (*_BUGS, "PoisonClip"):
                bad.append((outcome.task.clip.video_id, f"{type(error).__name__}: {error}"))
        said = client.status(settings)
        assert said["pid"] == pid, "the broker is another one"
    assert sum(ends.values()) == len(clips), f"{len(clips)} clips went in, {sum(ends.values())} came out"
    return ends, bad


def _patient(settings: PoolSettings) -> PoolSettings:
    return settings.model_copy(update={"lost_after_s": 60.0})


def _tasks(clips: list[Clip]) -> Iterator[ClipTask]:
    for clip in clips:
        known = intrinsics.resolve(clip.width, clip.height, Sidecar(), CameraSettings(), clip.video_path)
        key, options = f"{clip.video_id}-{clip.clip_id}", {"model": "lite", "objects": False}
        yield ClipTask(key, "detections", "mediapipe", options, clip, {}, known, Sidecar(), _STRIDE, models.folder())
