"""What a run took, by stage, for each hour of video; and what N videos of H hours would take on this host at that rate.

Seconds are those of computing, of all results that are there, whichever run computed them: what it would take to make them all. What devices waited
while clips were asked for is the row `waiting`: it is paid for too. Each stage is set against the video that its own results are of: a run that is
half done, or a video of which a few clips are, costs no less for an hour.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from egoworld_ops import operators
from egoworld_ops.errors import InputError
from egoworld_ops.lake.timeline import Work, active_s, lanes

HOUR_S = 3600.0
WAITING = "waiting"
Lengths = Mapping[tuple[str, str], float]
"""Seconds of video by video and clip, each frame in one clip alone; with an empty clip those of the whole video."""
_AMOUNTS: tuple[Callable[[Cost], float], ...] = (lambda c: c.device_s, lambda c: c.gpu_s, lambda c: c.n_bytes / 1e6)
_PAID = ("starting", "starved_decode", "starved_clips", "blocked")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage took.

    Args:
        results: files, failures included.
        device_s, gpu_s: seconds of all devices, and of GPUs among them.
        elsewhere_s: of `device_s`, what other runs had spent.
        video_s: of the clips that the results are of, each once; 0 where nobody knows.
    """

    stage: str
    results: int
    device_s: float
    gpu_s: float
    elsewhere_s: float
    n_bytes: int
    video_s: float

    def per_hour(self, amount: float) -> float:
        """Of an amount, the part of an hour of video."""
        return amount * HOUR_S / self.video_s if self.video_s else 0.0


def video_s(works: Iterable[Work], lengths_s: Lengths) -> float:
    """Seconds of video that some work was on."""
    return sum(lengths_s.get(of, 0.0) for of in {(work.video_id, work.clip_id) for work in works})


def by_stage(works: Sequence[Work], run_id: str, lengths_s: Lengths) -> list[Cost]:
    """The costs of a run's stages, the largest first, and the row `waiting` last."""
    of_stage = _by_stage(works)
    found = [
        Cost(
            stage,
            len(of),
            sum(w.seconds for w in of),
            sum(w.seconds for w in of if w.on_gpu),
            sum(w.seconds for w in of if w.run_id != run_id),
            sum(w.n_bytes for w in of),
            video_s(of, lengths_s),
        )
        for stage, of in of_stage.items()
    ]
    own = [work for work in works if work.run_id == run_id]
    waited = waiting_s(own)
    gpu_s = sum(seconds for device, seconds in waited.items() if device.startswith("gpu"))
    of_own_s = video_s((work for work in own if work.clip_id), lengths_s)
    return [*sorted(found, key=lambda cost: -cost.device_s), Cost(WAITING, 0, sum(waited.values()), gpu_s, 0.0, 0, of_own_s)]


def _by_stage(works: Iterable[Work]) -> dict[str, list[Work]]:
    found: dict[str, list[Work]] = {}
    for work in works:
        found.setdefault(work.stage, []).append(work)
    return found


def waiting_s(works: Iterable[Work]) -> Mapping[str, float]:
    """Seconds that devices waited while clips were asked for, by device; devices of hosts together."""
    waited: dict[str, float] = {}
    for (_, device), of in lanes(works).items():
        waited[device] = waited.get(device, 0.0) + sum(stretch.seconds for stretch in of if stretch.what in _PAID)
    return waited


@dataclass(frozen=True, slots=True)
class Plan:
    """What is expected of some videos on this host.

    Args:
        hours: of this host, at the pace at which it last worked, waits included; its devices begin each stage once, however much video there is.
        least_hours: if its devices computed all the time.
        n_bytes: of results.
        clips: how many.
        from_hours: of video that the rates come from.
        devices: names of those that were seen.
        unknown: stages of which nothing was computed here: nobody knows what they take, and they are not in the hours.
    """

    hours: float
    least_hours: float
    n_bytes: int
    clips: int
    from_hours: float
    devices: Sequence[str]
    unknown: Sequence[str] = ()


def plan(works: Sequence[Work], lengths_s: Lengths, videos: int, hours: float, host: str = "") -> Plan:
    """What videos of so many hours in all would take on this host. Where a stage is done for fewer clips than were begun, the rest is counted too.

    Args:
        works: of the last run or runs.
        lengths_s: of their videos and clips.
        host: whose pace is meant; this one where it is empty.

    Raises:
        InputError: nothing that was computed on this host says how fast it is.
    """
    host = host or socket.gethostname()
    here = [work for work in works if work.host == host]
    of_clips = [work for work in here if work.clip_id]
    seen_s = video_s(of_clips, lengths_s)
    if not seen_s:
        raise InputError(
            "the rates", f"no result that is there was computed on this host ({host})", "Process a video of a minute here first"
        )
    factor = hours * HOUR_S / seen_s
    share = {stage: video_s(of, lengths_s) / seen_s for stage, of in _by_stage(here).items()}

    def whole(amounts: Iterable[tuple[Work, float]]) -> float:
        return sum(amount / share[work.stage] for work, amount in amounts if share[work.stage])

    by_kind: dict[bool, list[Work]] = {}
    for work in of_clips:
        by_kind.setdefault(work.on_gpu, []).append(work)
    least_s = max(whole((w, w.seconds) for w in of) / len({w.device for w in of}) for of in by_kind.values())
    done_s = sum(work.seconds for work in here)
    unfinished = whole((w, w.seconds) for w in here) / done_s if done_s else 1.0
    at_work_s = active_s(here)
    once_s = min(_first_starts_s(of_clips), at_work_s)
    return Plan(
        (once_s + factor * unfinished * (at_work_s - once_s)) / HOUR_S,
        factor * least_s / HOUR_S,
        round(factor * whole((w, float(w.n_bytes)) for w in here)),
        max(videos, round(factor * len({(work.video_id, work.clip_id) for work in of_clips}))),
        seen_s / HOUR_S,
        sorted({work.device for work in of_clips}),
        [stage for stage in operators.stages() if stage not in share],
    )


def _first_starts_s(works: Sequence[Work]) -> float:
    """Seconds for which the device that did so longest started each stage's worker for the first time."""
    first: dict[tuple[str, str], Work] = {}
    for work in sorted(works, key=lambda w: w.began_at):
        first.setdefault((work.device, work.stage), work)
    of_device: dict[str, float] = {}
    for (device, _), work in first.items():
        of_device[device] = of_device.get(device, 0.0) + work.device_s.get("starting", 0.0)
    return max(of_device.values(), default=0.0)


def lines(costs: Sequence[Cost], price: float | None) -> Iterator[str]:
    """The costs as a table, each for an hour of video.

    Args:
        price: of an hour of one device; None where none was said.
    """
    head = ("stage", "results", "device s", "GPU s", "of other runs", "MB")
    money = ("price",) if price is not None else ()
    rows = [(*head, *(f"{name} / video h" for name in ("device s", "GPU s", "MB", *money)))]
    rows += [_row(cost.stage, [cost], price) for cost in costs]
    rows.append(_row("all", costs, price))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join([row[0].ljust(widths[0]), *(cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True))])


def _row(name: str, costs: Sequence[Cost], price: float | None) -> tuple[str, ...]:
    device_s, gpu_s, n_mb = (sum(c.per_hour(amount(c)) for c in costs) for amount in _AMOUNTS)
    paid = () if price is None else (f"{price * device_s / HOUR_S:.4g}",)
    absolute = (
        sum(c.device_s for c in costs),
        sum(c.gpu_s for c in costs),
        sum(c.elsewhere_s for c in costs),
        sum(c.n_bytes for c in costs) / 1e6,
    )
    return (name, str(sum(c.results for c in costs)), *(f"{value:.1f}" for value in (*absolute, device_s, gpu_s, n_mb)), *paid)
