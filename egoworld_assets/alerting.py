"""What is wrong now: runs of Dagster that failed, failures, dead letters, drift, a sensor that fails, a disk that is full; and who is told of it."""

from __future__ import annotations

import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from egoworld_assets.monitoring import ticks
from egoworld_ops.alerts import due, sending
from egoworld_ops.alerts.due import Alert
from egoworld_ops.alerts.settings import AlertSettings
from egoworld_ops.errors import EgoworldError, printable, unreadable
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.ledger import Row, State
from egoworld_ops.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

SENSOR = "alerts"
NOBODY = "nobody: set alerts.slack, alerts.webhook or alerts.mail_to (docs/operations.md)"
LOOK_S = 40.0
"""How long one look may send; Dagster ends a sensor after a minute, and then nothing of the look is remembered."""
_DISK, _DEAD_LETTERS, _FAILURES = "disk", "dead_letters/", "failures/"
_OF_THE_LAKE = (_DISK, _DEAD_LETTERS, _FAILURES)
_RUNS_SINCE = timedelta(hours=24)
_MOST_RUNS = 200


@dataclass(frozen=True, slots=True)
class Told:
    """What one look came to.

    Args:
        on: what is wrong.
        sent: how many messages receivers took.
        untold: why others did not, by receiver.
        memory: for the next look.
    """

    on: Sequence[Alert]
    sent: int
    untold: dict[str, str]
    memory: str


def look(settings: Settings, instance: DagsterInstance | None, memory: str | None, most_s: float = LOOK_S) -> Told:
    """Find what is wrong, and tell each receiver what it does not know yet.

    Args:
        memory: what the look before returned.
        most_s: how long it may send, an equal share for each receiver; what there is no time for is for the next look.
    """
    alerts = list(found(settings, instance))
    to, known = sending.receivers(settings.alerts, f"{settings.lake} on {socket.gethostname()}"), due.remembered(memory)
    sent, untold, now_s = 0, {}, time.time()
    for name, send in to.items():
        of = known.setdefault(name, due.Sent())
        wanted = of.due(alerts, now_s, settings.alerts.quiet_s, settings.alerts.again_after_h * 3600)
        told, why = _tell(send, wanted, settings.alerts.timeout_s, most_s / len(to))
        for alert in told:
            of.took(alert, now_s)
        sent += len(told)
        if why:
            untold[name] = why
    return Told(alerts, sent, untold, due.to_text({name: known[name] for name in to}))


def _tell(send: sending.Send, wanted: Sequence[Alert], timeout_s: float, share_s: float) -> tuple[Sequence[Alert], str]:
    """Those of some alerts that a receiver took, and why not the others; none is begun that could not end within the receiver's share of a look."""
    timeout_s = min(timeout_s, share_s)
    last_s = time.monotonic() + share_s - timeout_s
    for n, alert in enumerate(wanted):
        if n and time.monotonic() > last_s:
            return wanted[:n], "it is slow, and this look has no time for more"
        if why := sending.deliver(send, alert, timeout_s):
            return wanted[:n], why
    return wanted, ""


def test(settings: AlertSettings, lake: str) -> dict[str, str]:
    """Send everybody a test alert; who did not take it, and why."""
    alert = Alert("test", 1, "A test", "Somebody tries whether alerts arrive", "Nothing is to be done")
    to = sending.receivers(settings, f"{lake} on {socket.gethostname()}")
    return {name: why for name, send in to.items() if (why := sending.deliver(send, alert, settings.timeout_s))}


def found(settings: Settings, instance: DagsterInstance | None) -> Iterator[Alert]:
    """All that is wrong now. What cannot be read is itself said."""
    store = Lake(settings.lake)
    try:
        yield from _disk(settings)
        if (run := store.latest_run()) is not None:
            yield from _failures(settings, run)
            yield from _dead_letters(settings, run)
    except EgoworldError as error:
        yield Alert("lake", 1, "The lake cannot be read", str(error), error.cure, "critical", hides=_OF_THE_LAKE)
    if instance is not None:
        yield from _failed_runs(instance)
        yield from _failing_sensors(instance)
        yield from _drift(instance)


def _disk(settings: Settings) -> Iterator[Alert]:
    try:
        usage = shutil.disk_usage(settings.lake)
    except OSError as error:
        if (away := unreadable(error, settings.lake)) is not None:
            raise away from error
        action = "Mount its disk, or mend the setting `lake`; `egoworld register` makes a new one"
        said = f"There is no folder {settings.lake}"
        yield Alert("lake", 1, "The lake is not there", said, action, "critical", hides=_OF_THE_LAKE)
        return
    if usage.free < settings.alerts.disk_free_share * usage.total:
        said = f"{usage.free / 1e9:.3g} GB of {usage.total / 1e9:.3g} GB are free at {settings.lake}"
        yield Alert(_DISK, 1, "The disk of the lake is almost full", said, "`egoworld gc` lists runs that are not needed", "critical")


def _failures(settings: Settings, run: Run) -> Iterator[Alert]:
    """As the ledger has them, like dead letters."""
    from egoworld_assets.chain.bookkeeping import ledger_of

    states: Counter[State] = Counter()
    for of_stage in ledger_of(settings.lake, settings.ledger).counts(run.run_id).values():
        states.update(of_stage)
    failed = states[State.FAILED] + states[State.DEAD_LETTER]
    share = failed / max(failed + states[State.DONE], 1)
    if failed >= settings.alerts.failed_least and share > settings.alerts.failed_share:
        said = f"{share:.1%} of {failed + states[State.DONE]} results of run {run.run_id}, more than {settings.alerts.failed_share:.1%}"
        action = "`egoworld sql 'SELECT kind, stage, error_class, count(*) FROM problems GROUP BY ALL'`, then `egoworld dead-letters`"
        yield Alert(f"{_FAILURES}{run.run_id}", round(share, 2), "Many results fail", said, action)


def _dead_letters(settings: Settings, run: Run) -> Iterator[Alert]:
    """As the ledger has them: the files of a large lake take longer to read than a sensor may."""
    from egoworld_assets.chain.bookkeeping import ledger_of

    letters: dict[tuple[str, str], list[Row]] = {}
    for page in ledger_of(settings.lake, settings.ledger).all_rows(run.run_id, State.DEAD_LETTER):
        for row in page:
            letters.setdefault((row.key.stage, row.error_class or "Unknown"), []).append(row)
    for (stage, error_class), of in letters.items():
        said = f"{len(of)} in run {run.run_id}, the first: {of[0].key.video_id} {of[0].key.clip_id}: {of[0].message}"
        action = f"`egoworld dead-letters --stage {stage}` lists them with cures; `egoworld redrive` lets them be tried again"
        yield Alert(f"{_DEAD_LETTERS}{run.run_id}/{stage}/{error_class}", len(of), f"Dead letters: {error_class} in {stage}", said, action)


def _failed_runs(instance: DagsterInstance) -> Iterator[Alert]:
    import dagster as dg

    since = datetime.now(UTC) - _RUNS_SINCE
    wanted = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    records = instance.get_run_records(wanted, limit=_MOST_RUNS)
    jobs = Counter(record.dagster_run.job_name for record in records)
    for job, n in jobs.items():
        last = max((r for r in records if r.dagster_run.job_name == job), key=lambda r: r.end_time or 0.0)
        videos = last.dagster_run.tags.get("dagster/partition", "")
        said = f"{n} in the last day, the last one {last.dagster_run.run_id[:8]} {videos}".strip()
        action = "Its page in the UI names the step and the error; `egoworld process --missing` computes what is missing"
        yield Alert(f"runs/{job}", last.end_time or 1.0, f"Runs of {_said(job)} fail", said, action, "critical", repeats=False)


def _said(job: str) -> str:
    return "assets" if job.startswith("__ASSET_JOB") else printable(job)


def _failing_sensors(instance: DagsterInstance) -> Iterator[Alert]:
    for sensor in ticks.of_sensors(instance):
        if sensor.running and sensor.failed and sensor.name != SENSOR:
            said, action = printable(sensor.error or "it does not say why", 500), "Its page in the UI has the traceback"
            yield Alert(f"sensor/{sensor.name}", 1, f"Sensor {sensor.name} fails", said, action, "critical")


def _drift(instance: DagsterInstance) -> Iterator[Alert]:
    import dagster as dg

    from egoworld_assets.drift_asset import CHECK, UNKNOWN

    key = dg.AssetCheckKey(dg.AssetKey("drift"), CHECK)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    evaluation = record.evaluation if record else None
    if evaluation is not None and not evaluation.passed and evaluation.description and not evaluation.description.startswith(UNKNOWN):
        yield Alert(
            "drift", 1, "Quality metrics of the newest videos have moved", evaluation.description, "`egoworld drift` names the worst clips"
        )
