"""What ran where and when in a run, by what its files say of their origin: each result that is there, and each failure on record.

A result says its `worker`, when computing `began_at`, its `seconds`, what the clip had `waited_s` for (`queued`, `decoding` ahead, `decoded`
and ready for its turn), and what its device had done since it last computed (`device_s`: `starting`, `starved_decode`, `starved_clips`, `blocked` or
`idle`).
Results of older versions say less: they began their seconds before they were stored, on a worker nobody knows. Results that were replaced are gone,
and so is what they took.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from egoworld_ops import operators
from egoworld_ops.errors import printable
from egoworld_ops.files.tables import provenance_at
from egoworld_ops.files.whole import matching
from egoworld_ops.lake import states
from egoworld_ops.lake.lake import VIDEO_TABLES, Run
from egoworld_ops.lake.memo import file_state

IDLE = ("starting", "starved_decode", "starved_clips", "blocked", "idle")
"""What a device does that computes nothing."""
WAITS = ("queued", "decoding", "decoded")
_FAILED = ".failure"
_NAME_CHARS = 200
_BACKWARD = ("starved_decode", "starting", "blocked", "starved_clips", "idle")
"""The order in which a gap's causes are laid before the computing that ends it: what a device waits for last is its own clip."""
_MOST_S = 1e9
LULL_S = 60.0
OTHER = "other"
"""What a device does between two clips of a run that neither of them tells: clips of other runs, or whatever preceded an older version's."""


@dataclass(frozen=True, slots=True)
class Work:
    """One clip in one stage (or the manifest of a video), as it was computed.

    Args:
        clip_id: empty for a manifest.
        run_id: the run that computed it; another one where the result was taken over.
        worker: empty where nobody knows.
        seconds: of computing.
        frames: in the clip that were processed; 0 where not said.
        n_bytes: size of its file.
    """

    video_id: str
    clip_id: str
    stage: str
    run_id: str
    host: str
    worker: str
    began_at: datetime
    seconds: float
    failed: bool
    frames: int
    n_bytes: int
    waited_s: Mapping[str, float]
    device_s: Mapping[str, float]

    @property
    def device(self) -> str:
        """The slot of its worker (`gpu0`, `cpu1`), `step` or `inline`; `unknown` where nobody knows."""
        return self.worker.rpartition("-")[0] or self.worker or "unknown"

    @property
    def on_gpu(self) -> bool:
        """Whether its device is a GPU."""
        return self.device.startswith("gpu")

    @property
    def ended_at(self) -> datetime:
        """When computing ended."""
        return self.began_at + timedelta(seconds=self.seconds)

    @property
    def asked_at(self) -> datetime:
        """When it was submitted."""
        return self.began_at - timedelta(seconds=sum(self.waited_s.values()))


def of_run(run: Run) -> Iterator[Work]:
    """All that is known of the work of a run, in no order. Files that do not say it, or of a stage that is not installed, are left out.

    Raises:
        StorageUnavailable: a file is there and cannot be read now.
    """
    for video_id in states.video_ids(run):
        of_video = [run.video_table(table, video_id) for table in VIDEO_TABLES]
        if (said := provenance_at(of_video[0])) is not None:
            yield from _work(video_id, "", states.MANIFEST, said, sum(_size(path) or 0 for path in of_video))
        for folder in matching(run.video_folder(video_id), "clip_id=*"):
            clip_id = folder.name.removeprefix("clip_id=")
            known = run.meta(video_id, clip_id)
            for path in matching(folder, "*.parquet"):
                if path.stem.removesuffix(_FAILED) not in operators.stages():
                    continue
                said = known.get(path.stem) or provenance_at(path)  # `meta.json` saves opening each file
                if (size := _size(path)) is not None:
                    yield from _work(video_id, clip_id, path.stem, said, size)


def _size(path: Path) -> int | None:
    """Bytes of a file; None where there is none."""
    state = file_state(path)
    return state[1] if state else None


def _work(video_id: str, clip_id: str, name: str, said: Any, n_bytes: int) -> Iterator[Work]:
    """What one file says; nothing where it does not say when it was made, or makes no sense."""
    try:
        seconds = _seconds(said["seconds"])
        began = said.get("began_at")
        stored_at = datetime.fromisoformat(said["created_at"]).astimezone(UTC)
        began_at = datetime.fromisoformat(began).astimezone(UTC) if began else stored_at - timedelta(seconds=seconds)
        start, end = said["identity"].get("frames", (0, 0))
        frames = len(range(-start % (stride := int(said["identity"].get("sample_stride", 1))), end - start, stride))
        yield Work(
            video_id,
            clip_id,
            name.removesuffix(_FAILED),
            printable(said["run_id"], _NAME_CHARS),
            printable(said["host"], _NAME_CHARS),
            printable(said.get("worker", ""), _NAME_CHARS),
            began_at,
            seconds,
            name.endswith(_FAILED),
            frames,
            n_bytes,
            {wait: _seconds(said.get("waited_s", {}).get(wait, 0)) for wait in WAITS},
            {cause: _seconds(said.get("device_s", {}).get(cause, 0)) for cause in IDLE},
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return


def _seconds(value: Any) -> float:
    """A duration that can be one."""
    if not 0 <= (seconds := float(value)) <= _MOST_S:
        raise ValueError(value)
    return seconds


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a device did for a while.

    Args:
        what: a stage, one of `IDLE`, or `OTHER`.
        work: what was computed, where something was.
    """

    began_at: datetime
    ended_at: datetime
    what: str
    work: Work | None = None

    @property
    def seconds(self) -> float:
        """How long."""
        return (self.ended_at - self.began_at).total_seconds()


Lanes = Mapping[tuple[str, str], Sequence[Stretch]]
"""By host and device, in order of time and without overlap."""


def lanes(works: Iterable[Work]) -> Lanes:
    """What each device did, from the time the first clip was asked for until it computed its last one."""
    by_device: dict[tuple[str, str], list[Work]] = {}
    for work in sorted(works, key=lambda w: w.began_at):
        by_device.setdefault((work.host, work.device), []).append(work)
    start = min((work.asked_at for of in by_device.values() for work in of), default=None)
    return {device: list(_lane(of, start)) for device, of in sorted(by_device.items()) if start}


def _lane(works: Sequence[Work], start: datetime) -> Iterator[Stretch]:
    at = start
    for work in works:
        if work.began_at > at:
            yield from _gap(work, at)
        if work.ended_at >= at:
            yield Stretch(max(at, work.began_at), work.ended_at, work.stage, work)
            at = work.ended_at


def _gap(work: Work, since: datetime) -> Iterator[Stretch]:
    """What the device did from then on until it began this work, by cause; `OTHER` where nothing says."""
    laid, at = [], work.began_at
    for cause in _BACKWARD:
        earlier = max(since, at - timedelta(seconds=work.device_s[cause]))
        if earlier < at:
            laid.append(Stretch(earlier, at, cause))
            at = earlier
    if at > since:
        yield Stretch(since, at, OTHER)
    yield from reversed(laid)


def active_s(works: Iterable[Work]) -> float:
    """Seconds in which anything was asked for or computed, with lulls of up to `LULL_S`: steps begin, plan, store and check in between.

    That nobody asked for anything for longer is no pace.
    """
    total, until = 0.0, None
    for began_at, ended_at in sorted((work.asked_at, work.ended_at) for work in works):
        if until is None or began_at > until + timedelta(seconds=LULL_S):
            until = began_at
        if ended_at > until:
            total += (ended_at - until).total_seconds()
            until = ended_at
    return total
