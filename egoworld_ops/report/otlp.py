"""A run's timeline as OpenTelemetry traces, sent to an OTLP receiver over HTTP as JSON: a video, its clips, their stages, and what each went through.

They are made after the fact, of what the files say (`lake/timeline.py`), so that nothing of it slows the work. A video of a run is a trace, whose id
logs in JSON say too. Format: opentelemetry.io/docs/specs/otlp 1.x, `ExportTraceServiceRequest`, with ids in hex.
"""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from http.client import HTTPException
from importlib.metadata import version
from itertools import islice
from typing import Any

from egoworld_ops import posting
from egoworld_ops.errors import BadSettings, SetupError
from egoworld_ops.lake.timeline import WAITS, Work
from egoworld_ops.logs import trace_of
from egoworld_ops.naming import is_http_address

_SPANS_AT_ONCE = 2000
_TIMEOUT_S = 10.0
_INTERNAL, _ERROR = 1, 2


def send(works: Sequence[Work], url: str) -> int:
    """Send the traces of works of one run; returns how many spans there were.

    Args:
        url: of the receiver, such as `http://127.0.0.1:4318`; spans go to `/v1/traces` below it.

    Raises:
        BadSettings: it is no address.
        SetupError: nobody takes them there.
    """
    if not is_http_address(url):
        raise BadSettings(f"--otlp {url}", "is no address", "Name one that begins with http:// or https://")
    spans, n = _spans(works), 0
    while part := list(islice(spans, _SPANS_AT_ONCE)):
        _post(f"{url.rstrip('/')}/v1/traces", _request(part))
        n += len(part)
    return n


def _post(address: str, body: Mapping[str, Any]) -> None:
    try:
        posting.post(address, body, _TIMEOUT_S)
    except urllib.error.HTTPError as error:
        raise SetupError(
            address, f"answers {error.code} {error.reason}", "Name the HTTP port of an OTLP receiver, as a rule 4318"
        ) from error
    except HTTPException as error:
        raise SetupError(address, "speaks no HTTP/1.1", "Name the HTTP port of an OTLP receiver, as a rule 4318; 4317 is gRPC's") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise SetupError(address, f"cannot be reached: {reason}", "Start an OTLP receiver there, or name another") from error


def _request(spans: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scope = {"scope": {"name": "egoworld", "version": version("egoworld")}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": _attributes({"service.name": "egoworld"})}, "scopeSpans": [scope]}]}


def _spans(works: Sequence[Work]) -> Iterator[dict[str, Any]]:
    """Parents first: a video, its clips, their stages, and what each of these went through."""
    videos: dict[str, list[Work]] = {}
    for work in works:
        videos.setdefault(work.video_id, []).append(work)
    for video_id, of_video in videos.items():
        trace = trace_of(of_video[0].run_id, video_id)
        yield _around(trace, (video_id,), "", video_id, of_video)
        clips: dict[str, list[Work]] = {}
        for work in of_video:
            clips.setdefault(work.clip_id, []).append(work)
        for clip_id, of_clip in clips.items():
            if clip_id:
                yield _around(trace, (video_id, clip_id), _id((video_id,)), clip_id, of_clip)
            for work in of_clip:
                yield from _of_stage(trace, work)


def _around(trace: str, name: tuple[str, ...], parent: str, shown: str, of: Sequence[Work]) -> dict[str, Any]:
    began_at, ended_at = min(work.asked_at for work in of), max(work.ended_at for work in of)
    return _span(trace, _id(name), parent, shown, began_at, ended_at, {"egoworld.run": of[0].run_id, "egoworld.video": of[0].video_id})


def _of_stage(trace: str, work: Work) -> Iterator[dict[str, Any]]:
    above = (work.video_id, work.clip_id) if work.clip_id else (work.video_id,)
    name = (*above, work.stage, *(("failed",) if work.failed else ()))  # a fallback's result may stand beside
    said: dict[str, Any] = {"egoworld.stage": work.stage, "egoworld.video": work.video_id, "egoworld.clip": work.clip_id}
    said |= {"egoworld.worker": work.worker, "host.name": work.host, "egoworld.frames": work.frames, "egoworld.file_bytes": work.n_bytes}
    yield _span(trace, _id(name), _id(above), work.stage, work.asked_at, work.ended_at, said, work.failed)
    at = work.asked_at
    for phase, seconds in (*((wait, work.waited_s[wait]) for wait in WAITS), ("computing", work.seconds)):
        if seconds:
            yield _span(trace, _id((*name, phase)), _id(name), phase, at, at + timedelta(seconds=seconds), {"egoworld.worker": work.worker})
        at += timedelta(seconds=seconds)


def _span(
    trace: str, own: str, parent: str, name: str, began_at: datetime, ended_at: datetime, said: Mapping[str, Any], failed: bool = False
) -> dict[str, Any]:
    times = {"startTimeUnixNano": _nanoseconds(began_at), "endTimeUnixNano": _nanoseconds(ended_at)}
    status = {"status": {"code": _ERROR}} if failed else {}
    return {"traceId": trace, "spanId": own, "parentSpanId": parent, "name": name, "kind": _INTERNAL, **times, **status} | {
        "attributes": _attributes(said)
    }


def _id(name: tuple[str, ...]) -> str:
    """Of a span, 16 hex digits: the same for the same thing, so that sending a run twice doubles nothing."""
    return hashlib.sha256("/".join(name).encode()).hexdigest()[:16]


def _nanoseconds(at: datetime) -> str:
    return str(round(at.timestamp() * 1e6) * 1000)


def _attributes(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": k, "value": {"intValue": str(v)} if isinstance(v, int) else {"stringValue": str(v)}} for k, v in said.items()]
