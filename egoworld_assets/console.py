"""A logger for people at a terminal: one line when a step starts and ends, and what the assets themselves say."""

from __future__ import annotations

import logging
import sys
import time

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster_shared.error import SerializableErrorInfo

from egoworld_ops import errors, logs

_META = "dagster_meta"
INTERRUPTED = DagsterExecutionInterruptedError.__name__


class _Brief(logging.Formatter):
    """`masks ...`, `masks done (12.3 s)`, and plain messages of the code."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, float] = {}

    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, _META, {})
        event, step = meta.get("dagster_event"), meta.get("step_key") or ""
        if event is None:
            return f"    {meta.get('orig_message', record.getMessage())}"
        if event.event_type_value == "STEP_START":
            self._started[step] = time.monotonic()
            return f"  {step} ..."
        if not step:
            return f"  the run failed: {_reason(event)}"
        took_s = time.monotonic() - self._started.get(step, 0)
        return f"  {step} failed after {took_s:.1f} s: {_reason(event)}"


def _reason(event: dg.DagsterEvent) -> str:
    """The cause of a failed step or run, one line: the first error of ours, which names culprit, reason and cure; else the innermost one."""
    error: SerializableErrorInfo | None = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None and not _is_ours(error.cls_name):
        error = error.cause
    if error is None:
        return "see the run in the UI"
    if error.cls_name == INTERRUPTED:
        return "interrupted"
    said = error.message.strip()
    return said.partition(": ")[2] or said  # messages of Python's own errors begin with the class


def stopped_the_run(event: dg.DagsterEvent) -> bool:
    """Whether an event says that a run failed outside its steps, as where a resource could not be made."""
    return event.event_type_value == "RESOURCE_INIT_FAILURE"


def was_interrupted(event: dg.DagsterEvent) -> bool:
    """Whether an event says that somebody interrupted the run."""
    error: SerializableErrorInfo | None = getattr(event.event_specific_data, "error", None)
    return error is not None and error.cls_name == INTERRUPTED


def _is_ours(class_name: str | None) -> bool:
    kind = getattr(errors, class_name or "", None)
    return isinstance(kind, type) and issubclass(kind, errors.EgoworldError)


def _is_for_people(record: logging.LogRecord) -> bool:
    event = getattr(record, _META, {}).get("dagster_event")
    if event is None:
        said = getattr(record, _META, {}).get("orig_message") or ""
        return record.levelno >= logging.INFO and not said.startswith("Dependencies for step")
    starts_asset = event.event_type_value == "STEP_START" and not (event.step_key or "").endswith("_checks")
    return starts_asset or event.event_type_value == "STEP_FAILURE" or stopped_the_run(event)


@dg.logger({}, description="One line a step, for a terminal")
def brief_console(_: dg.InitLoggerContext) -> logging.Logger:
    """Writes to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Brief())
    handler.addFilter(_is_for_people)
    return _only("egoworld.console", handler, logging.DEBUG)


@dg.logger({}, description="Lines of JSON: run, stage, video and event of each; see the setting logs.format")
def json_console(_: dg.InitLoggerContext) -> logging.Logger:
    """Writes to stderr."""
    return _only("egoworld.dagster", logs.handler(), logging.INFO)


def _only(name: str, handler: logging.Handler, level: int) -> logging.Logger:
    """The logger of that name, with this handler and no other."""
    log = logging.getLogger(name)
    log.handlers.clear()
    log.propagate = False
    log.setLevel(level)
    log.addHandler(handler)
    return log
