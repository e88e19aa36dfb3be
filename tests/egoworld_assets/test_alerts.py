"""Alerts arrive at real receivers, once each; those that are down or hang get them later, and keep nobody waiting."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.definitions.selector import InstigatorSelector
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData, TickData, TickStatus
from dagster_shared.error import SerializableErrorInfo
from pydantic import ValidationError

from egoworld_assets import alerting
from egoworld_assets.chain import bookkeeping
from egoworld_assets.cli.main import egoworld
from egoworld_assets.monitoring import ticks
from egoworld_assets.resources import Egoworld
from egoworld_assets.sensors import alerts as alerts_sensor
from egoworld_ops import ledger
from egoworld_ops.alerts import due, sending
from egoworld_ops.alerts.due import Alert
from egoworld_ops.alerts.settings import AlertSettings
from egoworld_ops.lake import latest
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.settings import Settings, load_settings
from tests.lakes import fail, write_video
from tests.opens import unreadable

ALERT = Alert("k", 1, "Dead letters: <!channel> & *x*\n", "clip <b>a</b>\r\nBcc: all@example.org", "do this", "critical")


class Webhook:
    """A real HTTP server that keeps what it gets, and answers with `status`."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.status = 200
        kept = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                kept.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(kept.status)
                if kept.status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/secret"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def mails() -> Iterator[tuple[int, list[Message]]]:
    """A real SMTP server: its port, and what it took."""
    controllers = pytest.importorskip("aiosmtpd.controller", reason="aiosmtpd is not installed")
    handlers = pytest.importorskip("aiosmtpd.handlers")
    took: list[Message] = []

    class Kept(handlers.Message):  # type: ignore[misc, name-defined]
        def handle_message(self, message: Message) -> None:
            took.append(message)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = controllers.Controller(Kept(), "127.0.0.1", port)
    controller.start()
    yield port, took
    controller.stop()


@pytest.fixture
def hanging() -> Iterator[int]:
    """The port of a server that takes connections and sends a byte a moment that never becomes an answer."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended, taken = threading.Event(), list[socket.socket]()

    def drip() -> None:
        while not ended.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            taken.append(connection)
            threading.Thread(target=slowly, args=(connection,), daemon=True).start()

    def slowly(connection: socket.socket) -> None:
        try:
            while not ended.wait(0.1):
                connection.sendall(b"2")
        except OSError:
            connection.close()

    threading.Thread(target=drip, daemon=True).start()
    yield listening.getsockname()[1]
    ended.set()
    listening.close()
    for connection in taken:
        connection.close()


@pytest.fixture
def endless() -> Iterator[tuple[int, list[int]]]:
    """A server that takes what it gets (200), and whose answer has no end: its port, and the bytes of answers that ended."""
    listening, sent_bytes = socket.create_server(("127.0.0.1", 0)), list[int]()

    def stream() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    sent_bytes.append(0)
                    while sent_bytes[-1] < 200_000_000:
                        sent_bytes[-1] += connection.send(bytes(65_536))

    streaming = threading.Thread(target=stream, daemon=True)
    streaming.start()
    yield listening.getsockname()[1], sent_bytes
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    streaming.join(5)
    assert not streaming.is_alive(), "a sender still reads"


def given(**named: Any) -> AlertSettings:
    return AlertSettings.model_validate({"timeout_s": 0.6, "quiet_s": 0.0, "failed_share": 1.0} | named)


def sent(settings: AlertSettings, alert: Alert = ALERT) -> dict[str, str]:
    return {name: sending.deliver(send, alert, settings.timeout_s) for name, send in sending.receivers(settings, "lake /x on host").items()}


def test_each_receiver_gets_what_is_wrong_and_what_to_do(webhook: Webhook, mails: tuple[int, list[Message]]) -> None:
    port, took = mails
    settings = given(
        slack=webhook.url, webhook=webhook.url, mail_to=("a@example.org", "b@example.org"), smtp_host="127.0.0.1", smtp_port=port
    )
    assert sent(settings) == {"slack": "", "webhook": "", "mail": ""}
    chat, generic = webhook.got
    assert set(chat) == {"text"}
    assert "&lt;!channel&gt; &amp;" in chat["text"], "no mention, and no link, out of a file's name"
    assert "do this" in chat["text"]
    assert {name: generic[name] for name in ("key", "severity", "action", "level", "origin")} == {
        "key": "k", "severity": "critical", "action": "do this", "level": 1, "origin": "lake /x on host"
    }  # fmt: skip
    [mail] = took
    assert str(mail["Subject"]).startswith("[egoworld] Dead letters")
    assert mail["To"] == "a@example.org, b@example.org"
    assert mail["Bcc"] is None, "a line of a reason is no header"
    assert "do this" in str(mail.get_payload())


def test_a_receiver_that_is_down_refuses_redirects_or_hangs_costs_its_timeout_and_is_named_without_its_secret(
    webhook: Webhook, hanging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()[1]
    webhook.status = 500
    assert sent(given(webhook=webhook.url)) == {"webhook": "it answered 500 Internal Server Error"}
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nobody}")
    assert sent(given(webhook=webhook.url)) == {"webhook": "it answered 500 Internal Server Error"}, (
        "a proxy does not lead back to this host"
    )
    webhook.status = 302
    assert sent(given(webhook=webhook.url)) == {"webhook": "it answered 302 Found"}, "nothing goes where nobody said"
    [refused] = sent(given(slack=f"http://127.0.0.1:{nobody}/secret")).values()
    assert "refused" in refused
    started = time.monotonic()
    settings = given(slack=f"http://127.0.0.1:{hanging}/secret", mail_to=("a@example.org",), smtp_host="127.0.0.1", smtp_port=hanging)
    assert set(sent(settings).values()) == {"it has not answered for 0.6 s"}
    assert time.monotonic() - started < 20, "it hangs for ever"
    assert "secret" not in repr(settings) + refused + str(sending.shown(settings))


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/x",
        "https://",
        "javascript:alert(1)",
        "https://host:x9/hook",
        "https://host/my secret",
        "https://[host/x",
        "https://host/x\n",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="want an address"):
        AlertSettings(slack=url)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="printable"):
        AlertSettings(mail_to=("a@example.org\nBcc: b@example.org",))


def test_an_alert_is_due_once_and_again_where_it_grew_or_is_still_on() -> None:
    of, two = due.Sent(), Alert("k", 2, "", "", "")
    assert of.due([ALERT], 0, 600, 43_200) == [ALERT]
    of.took(ALERT, 0)
    assert of.due([ALERT], 599, 600, 43_200) == of.due([two], 599, 600, 43_200) == []
    assert of.due([two], 600, 600, 43_200) == [two], "it has grown"
    assert of.due([ALERT], 43_200, 600, 43_200) == [ALERT], "it is still on"
    over = Alert("k", 1, "", "", "", repeats=False)
    assert of.due([over], 1e6, 600, 43_200) == [], "it happened once"
    assert due.remembered(due.to_text({"a": of}))["a"].known == of.known
    assert of.due([], 1e6, 600, 43_200) == []
    assert of.due([ALERT], 1e6, 600, 43_200) == [ALERT], "it was over, and is back"
    assert due.remembered("[1]") == due.remembered("{") == due.remembered(None) == {}


def with_dead_letter(settings: Settings) -> tuple[Run, str]:
    """A lake of one video whose clip has failed in `events` for good: its run, and the video."""
    run = Lake(settings.lake).open_run({}, "20260101_0000", dict)
    video_id = write_video(run, "one", n_frames=30)
    latest.use(run)
    [clip] = [p.name.removeprefix("clip_id=") for p in run.video_folder(video_id).glob("clip_id=*")]
    fail(run, video_id, clip, "events")
    ledger.rebuild(bookkeeping.ledger_of(settings.lake, None), run.lake)
    return run, video_id


def test_what_nobody_can_tell_for_a_while_is_not_over(settings: Settings, webhook: Webhook) -> None:
    """The lake is away for one look, unmounted or unreadable: the dead letters that were told are not news when it is back."""
    with_dead_letter(settings)
    told = settings.model_copy(update={"alerts": given(webhook=webhook.url)})
    memory = alerting.look(told, None, None).memory
    elsewhere = settings.lake.with_name("elsewhere")
    settings.lake.rename(elsewhere)
    away = alerting.look(told, None, memory)
    elsewhere.rename(settings.lake)
    with unreadable(settings.lake / "latest.json", errno.ESTALE):
        stale = alerting.look(told, None, away.memory)
    assert ([a.title for a in away.on], [a.title for a in stale.on]) == (["The lake is not there"], ["The lake cannot be read"])
    back = alerting.look(told, None, stale.memory)
    assert [said["title"] for said in webhook.got] == ["Dead letters: CorruptVideo in events", "The lake is not there"]
    assert ([a.key for a in back.on], back.sent) == (["dead_letters/20260101_0000/events/CorruptVideo"], 0)


def test_an_answer_without_an_end_is_an_answer(endless: tuple[int, list[int]]) -> None:
    port, sent_bytes = endless
    assert sent(given(slack=f"http://127.0.0.1:{port}/", webhook=f"http://127.0.0.1:{port}/")) == {"slack": "", "webhook": ""}
    assert max(sent_bytes) < 50_000_000, "what a socket holds, and no more"


def test_however_many_are_on_none_is_sent_twice() -> None:
    many, of = [Alert(f"k{n}", 1, "", "", "") for n in range(2000)], due.Sent()
    for alert in of.due(many, 0, 600, 43_200):
        of.took(alert, 0)
    assert of.due(many, 30, 600, 43_200) == []
    assert of.due([], 60, 600, 43_200) == []
    assert of.known == {}, "what is over is not kept"


def test_a_receiver_that_is_slow_gets_the_rest_at_the_next_look_and_nothing_twice(settings: Settings, webhook: Webhook) -> None:
    """So many messages take longer than Dagster lets a sensor run; one that it ends remembers nothing."""
    run = Lake(settings.lake).open_run({}, "20260101_0000", dict)
    video_id = write_video(run, "one", n_frames=30)
    latest.use(run)
    [clip] = [p.name.removeprefix("clip_id=") for p in run.video_folder(video_id).glob("clip_id=*")]
    for stage in ("masks", "camera", "events", "points"):
        fail(run, video_id, clip, stage)
    ledger.rebuild(bookkeeping.ledger_of(settings.lake, None), run.lake)
    told = settings.model_copy(update={"alerts": given(webhook=webhook.url, timeout_s=5.0)})
    first = alerting.look(told, None, None, most_s=5.0)
    assert (len(first.on), first.sent, first.untold) == (4, 1, {"webhook": "it is slow, and this look has no time for more"})
    second = alerting.look(told, None, first.memory, most_s=5.0)
    assert second.sent == 1, "however slow it is, it gets one at each look"
    later = alerting.look(told, None, second.memory)
    assert (later.sent, later.untold, len(webhook.got)) == (2, {}, 4)
    assert {said["key"] for said in webhook.got} == {alert.key for alert in first.on}


def test_a_lake_that_is_not_there_or_cannot_be_read_is_wrong(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    [gone] = alerting.found(settings, None)
    assert (gone.key, gone.title, gone.severity) == ("lake", "The lake is not there", "critical")

    def stale(path: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    monkeypatch.setattr(shutil, "disk_usage", stale)
    [away] = alerting.found(settings, None)
    assert (away.title, away.severity) == ("The lake cannot be read", "critical")
    assert "Stale file handle" in away.said


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """Dagster's databases take seconds to make."""
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings("laptop").model_copy(update={"lake": tmp_path / "lake"})


def test_the_sensor_starts_no_run_and_says_what_came_of_it(
    settings: Settings, instance: dg.DagsterInstance, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(settings.lake))
    settings.lake.mkdir()
    nobody = alerts_sensor(dg.build_sensor_context(instance=instance, resources={"egoworld": Egoworld()}))
    assert "nobody: set alerts.slack" in str(nobody.skip_message)
    monkeypatch.setenv("EGOWORLD_ALERTS__WEBHOOK", webhook.url)
    monkeypatch.setenv("EGOWORLD_ALERTS__DISK_FREE_SHARE", "0.999999")
    context = dg.build_sensor_context(instance=instance, resources={"egoworld": Egoworld()})
    said = alerts_sensor(context)
    assert said.skip_message == "1 things are wrong, 1 messages sent, 0 receivers not reached"
    assert webhook.got[0]["title"] == "The disk of the lake is almost full"
    again = alerts_sensor(dg.build_sensor_context(instance=instance, cursor=context.cursor, resources={"egoworld": Egoworld()}))
    assert again.skip_message == "1 things are wrong, 0 messages sent, 0 receivers not reached"


def test_those_that_were_down_are_told_later_and_nobody_twice(
    settings: Settings, instance: dg.DagsterInstance, webhook: Webhook, mails: tuple[int, list[Message]]
) -> None:
    """Dead letters and a failed run; mail is down at first, and the run's second failure is told."""
    run, video_id = with_dead_letter(settings)
    port, took = mails
    down = settings.model_copy(
        update={"alerts": given(webhook=webhook.url, mail_to=("a@example.org",), smtp_host="127.0.0.1", smtp_port=1)}
    )
    up = settings.model_copy(update={"alerts": down.alerts.model_copy(update={"smtp_port": port})})

    @dg.job
    def breaks() -> None:
        @dg.op
        def broken() -> None:
            raise ValueError("no")

        broken()

    breaks.execute_in_process(instance=instance, raise_on_error=False)
    [letter] = alerting.found(settings, None)
    assert letter.key.startswith("dead_letters/"), "one failure is no share, however few results there are"
    [many, *_] = alerting.found(settings.model_copy(update={"alerts": AlertSettings(failed_least=1)}), None)
    assert many.key == "failures/20260101_0000"
    assert f"results of run {run.run_id}, more than 1.0%" in many.said
    first = alerting.look(down, instance, None)
    assert [a.key for a in first.on] == ["dead_letters/20260101_0000/events/CorruptVideo", "runs/breaks"]
    assert (first.sent, list(first.untold)) == (2, ["mail"])
    assert "1 in run 20260101_0000, the first: " + video_id in webhook.got[0]["said"]
    second = alerting.look(up, instance, first.memory)
    assert (second.sent, second.untold, len(took)) == (2, {}, 2), "mail is up again, and gets both; the webhook had them"
    assert (alerting.look(up, instance, second.memory).sent, len(webhook.got)) == (0, 2)
    breaks.execute_in_process(instance=instance, raise_on_error=False)
    third = alerting.look(up, instance, second.memory)
    assert third.sent == 2, "the run failed again; the dead letter is known"
    assert webhook.got[-1]["title"] == "Runs of breaks fail"
    assert webhook.got[-1]["said"].startswith("2 in the last day")


def test_a_sensor_that_failed_is_still_wrong_while_it_looks_again(settings: Settings, instance: dg.DagsterInstance) -> None:
    settings.lake.mkdir()
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("l"), "r").get_instigator_origin("takes_videos")
    selector = InstigatorSelector(location_name="l", repository_name="r", name="takes_videos").get_id()
    instance.add_instigator_state(
        InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData(min_interval=30))
    )

    def looks(status: TickStatus, at_s: float) -> None:
        error = SerializableErrorInfo("no such folder", [], None) if status == TickStatus.FAILURE else None
        instance.create_tick(
            TickData(origin.get_id(), "takes_videos", InstigatorType.SENSOR, status, at_s, selector_id=selector, error=error)
        )

    looks(TickStatus.FAILURE, 1000.0)
    [fails] = [a for a in alerting.found(settings, instance) if a.key == "sensor/takes_videos"]
    assert fails.said == "no such folder"
    looks(TickStatus.STARTED, 1030.0)
    assert fails in list(alerting.found(settings, instance))
    [known] = ticks.of_sensors(instance)
    assert (known.looked_at_s, known.failed) == (1000.0, True)
    looks(TickStatus.SKIPPED, 1060.0)
    assert not [a for a in alerting.found(settings, instance) if a.key.startswith("sensor/")]
    instance.delete_instigator_state(origin.get_id(), selector)


def test_the_command_shows_what_is_on_and_tries_the_receivers(
    settings: Settings, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EGOWORLD_LAKE", str(settings.lake))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings.lake.mkdir()
    asked = CliRunner()
    quiet = asked.invoke(egoworld, ["alerts"], catch_exceptions=False)
    assert (quiet.exit_code, "nobody: set alerts.slack" in quiet.output, "0 things are wrong" in quiet.output) == (0, True, True)
    monkeypatch.setenv("EGOWORLD_ALERTS__WEBHOOK", webhook.url)
    tested = asked.invoke(egoworld, ["alerts", "--test"], catch_exceptions=False)
    assert (tested.exit_code, "webhook   took the test alert" in tested.output, len(webhook.got)) == (0, True, 1)
    assert "secret" not in tested.output
