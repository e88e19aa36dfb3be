"""Logs as JSON, by setting: one object a line on stderr (of the broker, in its log), for what collects logs.

Each line has `at` (UTC), `level`, `logger`, `message`, `host` and `pid`, and as far as they are known `run`, `video`, `clip`, `stage` and `worker`.
Lines of results have the `trace` of their video too, those of Dagster `dagster_run` and `event`. A traceback is in `error`. By default logs are
`text`: then nothing is changed here, and no single result is logged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from egoworld_ops.errors import printable
from egoworld_ops.section import Section

OURS = ("egoworld_ops", "egoworld_assets", "gpu_workers")
_ABOUT = "egoworld"
_DAGSTER = "dagster_meta"
_PARTITION_TAG = "dagster/partition"
_HOST = socket.gethostname()


class LogSettings(Section):
    """How egoworld logs. Part of no digest."""

    format: Literal["text", "json"] = "text"


def about(**fields: str | float | None) -> dict[str, Any]:
    """`extra` of a logging call: what the line is about; `run`, `video`, `clip`, `stage` and `worker` by these names. What is None is left out."""
    return {_ABOUT: {name: value for name, value in fields.items() if value is not None}}


def trace_of(run_id: str, video_id: str) -> str:
    """The id of the trace of a video in a run, 32 hex digits: the same wherever it is asked for, so that nobody has to pass it on."""
    return hashlib.sha256(f"{run_id}/{video_id}".encode()).hexdigest()[:32]


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Never raises for what a record holds: a value that is no JSON is shown as text."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        meta: Mapping[str, Any] = getattr(record, _DAGSTER, None) or {}
        said = {"at": at, "level": record.levelname.lower(), "logger": record.name, "message": _message(record, meta)}
        said |= {"host": _HOST, "pid": record.process} | _of_dagster(meta) | getattr(record, _ABOUT, {})
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, default=lambda value: printable(value))


def _message(record: logging.LogRecord, meta: Mapping[str, Any]) -> str:
    event = meta.get("dagster_event")
    return str(meta.get("orig_message") or (event.message if event is not None else None) or record.getMessage())


def _of_dagster(meta: Mapping[str, Any]) -> dict[str, Any]:
    event, tags = meta.get("dagster_event"), meta.get("job_tags") or {}
    found = {
        "dagster_run": meta.get("run_id"),
        "stage": meta.get("step_key"),
        "video": tags.get(_PARTITION_TAG),
        "event": event.event_type_value if event is not None else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def configure(settings: LogSettings) -> None:
    """Log what egoworld's own code says as the settings want it, in this process; again and again if need be."""
    if settings.format != "json":
        return
    for name in OURS:
        logger = logging.getLogger(name)
        if not any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
            logger.addHandler(handler())
            logger.setLevel(logging.INFO)
            logger.propagate = False


def handler() -> logging.Handler:
    """Writes lines of JSON to stderr."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(JsonLines())
    return made
