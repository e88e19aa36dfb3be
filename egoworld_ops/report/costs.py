"""What a run took, by stage, for each hour of video; and what N videos of H hours would take on this host at that rate.

Seconds are those of computing, of all results that are there, whichever run computed them: what it would take to make them all. What devices waited
while clips were asked for is the row `waiting`: it is paid for too.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from egoworld_ops.errors import InputError
from egoworld_ops.lake.timeline import Work, active_s, lanes

HOUR_S = 3600.0
WAITING = "waiting"
_PAID = ("starting", "starved_decode", "starved_clips", "blocked")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage took.

    Args:
        results: files, failures included.
        device_s, gpu_s: seconds of all devices, and of GPUs among them.
        elsewhere_s: of `device_s`, what other runs had spent.
    """

    stage: str
    results: int
    device_s: float
    gpu_s: float
    elsewhere_s: float
    n_bytes: int


def by_stage(works: Sequence[Work], run_id: str) -> list[Cost]:
    """The costs of a run's stages, the largest first, and the row `waiting` last."""
    of_stage: dict[str, list[Work]] = {}
    for work in works:
        of_stage.setdefault(work.stage, []).append(work)
    found = [
        Cost(
            stage,
            len(of),
            sum(w.seconds for w in of),
            sum(w.seconds for w in of if w.on_gpu),
            sum(w.seconds for w in of if w.run_id != run_id),
            sum(w.n_bytes for w in of),
        )
        for stage, of in of_stage.items()
    ]
    waited = waiting_s(work for work in works if work.run_id == run_id)
    gpu_s = sum(seconds for device, seconds in waited.items() if device.startswith("gpu"))
    return [*sorted(found, key=lambda cost: -cost.device_s), Cost(WAITING, 0, sum(waited.values()), gpu_s, 0.0, 0)]


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
        hours: of this host, at the pace at which it last worked, waits included.
        least_hours: if its devices computed all the time.
        n_bytes: of results.
        clips: how many.
        from_hours: of video that the rates come from.
        devices: names of those that were seen.
    """

    hours: float
    least_hours: float
    n_bytes: int
    clips: int
    from_hours: float
    devices: Sequence[str]


def plan(works: Sequence[Work], video_s: Mapping[str, float], videos: int, hours: float, host: str = "") -> Plan:
    """What videos of so many hours in all would take on this host.

    Args:
        works: of the last run or runs.
        video_s: seconds of each video that has results of them.
        host: whose pace is meant; this one where it is empty.

    Raises:
        InputError: nothing that was computed on this host says how fast it is.
    """
    host = host or socket.gethostname()
    here = [work for work in works if work.host == host and work.clip_id]
    seen_hours = sum(video_s.get(video_id, 0.0) for video_id in {work.video_id for work in here}) / HOUR_S
    if not seen_hours:
        raise InputError(
            "the rates", f"no result that is there was computed on this host ({host})", "Process a video of a minute here first"
        )
    factor = hours / seen_hours
    by_kind: dict[bool, list[Work]] = {}
    for work in here:
        by_kind.setdefault(work.on_gpu, []).append(work)
    least_s = max(sum(w.seconds for w in of) / len({w.device for w in of}) for of in by_kind.values())
    clips = len({(work.video_id, work.clip_id) for work in here})
    return Plan(
        factor * active_s(here) / HOUR_S,
        factor * least_s / HOUR_S,
        round(factor * sum(work.n_bytes for work in here)),
        max(videos, round(factor * clips)),
        seen_hours,
        sorted({work.device for work in here}),
    )


def lines(costs: Sequence[Cost], video_hours: float, price: float | None) -> Iterator[str]:
    """The costs as a table, each for an hour of video.

    Args:
        price: of an hour of one device; None where none was said.
    """
    head = ("stage", "results", "device s", "GPU s", "of other runs", "MB")
    money = ("price",) if price is not None else ()
    rows = [(*head, *(f"{name} / video h" for name in ("device s", "GPU s", "MB", *money)))]
    whole = Cost(
        "all",
        *(sum(getattr(c, of) for c in costs) for of in ("results", "device_s", "gpu_s", "elsewhere_s", "n_bytes")),
    )
    for cost in (*costs, whole):
        per_hour = [cost.device_s / video_hours, cost.gpu_s / video_hours, cost.n_bytes / 1e6 / video_hours]
        paid = [f"{price * per_hour[0] / HOUR_S:.4g}"] if price is not None else []
        absolute = [f"{value:.1f}" for value in (cost.device_s, cost.gpu_s, cost.elsewhere_s, cost.n_bytes / 1e6)]
        rows.append((cost.stage, str(cost.results), *absolute, *(f"{value:.1f}" for value in per_hour), *paid))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join([row[0].ljust(widths[0]), *(cell.rjust(size) for cell, size in zip(row[1:], widths[1:], strict=True))])
