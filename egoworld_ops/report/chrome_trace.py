"""A run's timeline as a Chrome trace (`chrome://tracing`, ui.perfetto.dev): JSON of complete events, microseconds since the first clip was asked for.

A process a host, a thread a device; what was decoded ahead is a thread of its own beside it. Format: Trace Event Format, Google, 2016.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from egoworld_ops.lake.timeline import Work, lanes
from egoworld_ops.report.gantt import SAID


def chrome_trace(works: Sequence[Work]) -> bytes:
    """The file's content."""
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": list(_events(works))}).encode()


def _events(works: Sequence[Work]) -> Iterator[dict[str, Any]]:
    drawn = lanes(works)
    begin = min((work.asked_at for work in works), default=datetime.min)
    hosts = sorted({host for host, _ in drawn})
    for number, host in enumerate(hosts):
        yield {"ph": "M", "name": "process_name", "pid": number, "args": {"name": host}}
    for lane, ((host, device), of) in enumerate(drawn.items()):
        at = {"pid": hosts.index(host), "tid": 2 * lane}
        ahead = {**at, "tid": 2 * lane + 1}
        yield {"ph": "M", "name": "thread_name", **at, "args": {"name": device}}
        yield {"ph": "M", "name": "thread_name", **ahead, "args": {"name": f"{device}, decoding ahead"}}
        for stretch in of:
            if stretch.work is None:
                yield {"name": SAID[stretch.what], "cat": "idle", **at, **_span(begin, stretch.began_at, stretch.seconds), "args": {}}
        for work in (w for w in works if (w.host, w.device) == (host, device)):
            yield {"name": work.stage, "cat": "stage", **at, **_span(begin, work.began_at, work.seconds), "args": _said(work)}
            if decoding_s := work.waited_s["decoding"]:
                since = work.began_at - timedelta(seconds=work.waited_s["decoded"] + decoding_s)
                yield {
                    "name": f"decode for {work.stage}",
                    "cat": "decoding",
                    **ahead,
                    **_span(begin, since, decoding_s),
                    "args": _said(work),
                }


def _span(begin: datetime, at: datetime, seconds: float) -> dict[str, Any]:
    return {"ph": "X", "ts": round((at - begin).total_seconds() * 1e6), "dur": round(seconds * 1e6)}


def _said(work: Work) -> dict[str, Any]:
    return {
        "video": work.video_id,
        "clip": work.clip_id,
        "worker": work.worker,
        "frames": work.frames,
        "failed": work.failed,
        "waited_s": dict(work.waited_s),
        "began_at": work.began_at.isoformat(timespec="milliseconds"),
    }
