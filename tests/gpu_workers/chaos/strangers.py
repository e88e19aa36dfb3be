"""Foreign clients: that never read, that speak another version, that belong to another user."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.place import socket_path
from gpu_workers.wire import frames, messages
from tests import brokers
from tests.gpu_workers.chaos import hostile, tools

_SLOTS = 2
_RESULT_BYTES = 8 << 20
_UNREAD_BYTES = 64 << 20
"""As in `server`: maximum bytes a client may leave unread before the broker stops reading from it."""
_NOBODY = 65534
_MOST_SLOWER = 3.0
_SLACK_S = 5.0
"""They share the workers with the deaf one, and this machine with others."""
_PATIENCE_S = 30.0
_STILL_S = 1.5


def run(size: int, seed: int) -> str:
    """`size` rounds of a client that takes its window of results of 8 MB and reads none, then of one that acknowledges all the same, unread.

    Bound of the first: its window of results. Of the second: what it may leave unread, and a window. Both with half as much again, for buffers
    grow by steps, and with room for the results that are just passing through.
    """
    began = time.monotonic()
    with brokers.broker("--workers", str(_SLOTS)) as settings:
        alone_s = _good(settings, "alone")
        pid, window = client.status(settings)["pid"], client.status(settings)["window"]
        passing_mb = 3 * (_SLOTS + 1) * _RESULT_BYTES / 1e6
        window_mb = window * _RESULT_BYTES / 1e6
        bounds_mb = {
            "reads nothing": 1.5 * window_mb + passing_mb,
            "acknowledges unread": 1.5 * (window_mb + _UNREAD_BYTES / 1e6) + passing_mb,
        }
        said, before_mb = [], tools.rss_mb(pid)  # once: the allocator may keep memory that the broker has freed
        for acknowledge, what in ((False, "reads nothing"), (True, "acknowledges unread")):
            most_mb = beside_s = 0.0
            for number in range(size):
                with _deaf(settings, window, acknowledge) as unread:
                    beside_s = max(beside_s, _good(settings, f"{what} {number}"))
                    most_mb = max(most_mb, unread(pid))
                tools.wait_for(lambda: len(client.status(settings)["clients"]) == 1, _PATIENCE_S, "the deaf client is forgotten")
            grown_mb = most_mb - before_mb
            assert grown_mb <= bounds_mb[what], f"a client that {what}: the broker grew by {grown_mb:.0f} MB, bound {bounds_mb[what]:.0f}"
            least_mb = _UNREAD_BYTES / 1e6 if acknowledge else window_mb / 2
            assert grown_mb > least_mb, f"a client that {what}: the broker grew by {grown_mb:.0f} MB, that tests nothing"
            assert beside_s < _MOST_SLOWER * alone_s + _SLACK_S, f"others took {beside_s:.2f} s beside it, {alone_s:.2f} s without"
            said.append(f"{what}: broker +{grown_mb:.0f} MB, bound {bounds_mb[what]:.0f}, others {beside_s:.2f} s (alone {alone_s:.2f})")
        tools.wait_for(lambda: not client.status(settings)["in_flight"], _PATIENCE_S, "tasks of deaf clients are dropped")
        tools.balanced(settings)
        said.append(f"another version: {_other_version(settings)!r}")
        said.append(f"another user: {_other_user(settings)}")
    return f"{'; '.join(said)}; {time.monotonic() - began:.0f} s"


def _good(settings: PoolSettings, name: str) -> float:
    """Seconds that a good client takes for its clips."""
    started = time.monotonic()
    tools.Stream(settings, name, [tools.order(f"{name}-{i}", 0.02, bytes=100_000) for i in range(40)]).settle().only("done")
    return time.monotonic() - started


@contextlib.contextmanager
def _deaf(settings: PoolSettings, window: int, acknowledge: bool) -> Iterator[Any]:
    """A client that reads its greeting and nothing more. Yields a function that waits until nothing changes and returns the broker's peak memory."""
    connection = _greeted(settings)
    peak = [0.0]
    ended = threading.Event()

    def submit(key: str) -> None:
        order = tools.order(key, bytes=_RESULT_BYTES)
        connection.sendall(hostile.frame(messages.header(order.submit), order.payload))

    def go_on() -> None:
        """Acknowledge all that may have come and submit as many again as there is room for, as long as the broker listens."""
        submitted = window
        while not ended.wait(0.05):
            with contextlib.suppress(TimeoutError):
                for number in range(submitted):
                    connection.sendall(hostile.frame(messages.header(messages.Ack(f"deaf-{number}"))))
                for known in _deaf_ones(settings):
                    for _ in range(window - known["waiting"] - known["running"] - known["not_taken"]):
                        submit(f"deaf-{submitted}")
                        submitted += 1

    def unread(pid: int) -> float:
        still_since, last = time.monotonic(), 0
        while time.monotonic() < still_since + _STILL_S or any(k["waiting"] + k["running"] for k in _deaf_ones(settings)):
            assert time.monotonic() < still_since + _PATIENCE_S, f"the broker stands still: {_deaf_ones(settings)}"
            peak[0] = max(peak[0], tools.rss_mb(pid))
            if (done := tools.counts(settings)["done"]) != last:
                still_since, last = time.monotonic(), done
            time.sleep(0.01)
        return peak[0]

    with connection:
        connection.settimeout(1.0)
        for number in range(window):
            submit(f"deaf-{number}")
        thread = threading.Thread(target=go_on, daemon=True)
        if acknowledge:
            thread.start()
        try:
            yield unread
        finally:
            ended.set()
            if acknowledge:
                thread.join()


def _deaf_ones(settings: PoolSettings) -> list[dict[str, Any]]:
    return [known for known in client.status(settings)["clients"] if known["name"] == "hostile"]


def _greeted(settings: PoolSettings) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(_PATIENCE_S)
    connection.connect(str(socket_path(settings.folder)))
    frames.send(connection, hostile.HELLO)
    said, _ = frames.receive(connection)
    assert said["type"] == "Hello", said
    return connection


def _other_version(settings: PoolSettings) -> str:
    """What a client of another version is told; it must name both versions."""
    version, before = messages.PROTOCOL_VERSION + 1, tools.counts(settings)["bad frames"]
    reason = _refusal(settings, hostile.HELLO | {"protocol": version, "unknown": 1})
    assert f"version {version}" in reason, f"it was told: {reason}"
    assert str(messages.PROTOCOL_VERSION) in reason, f"it was told: {reason}"
    assert tools.counts(settings)["bad frames"] == before + 1, "the refusal was not counted"
    return reason


def _refusal(settings: PoolSettings, hello: dict[str, Any]) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.connect(str(socket_path(settings.folder)))
        with contextlib.suppress(BrokenPipeError):  # refused before it was heard
            frames.send(connection, hello)
        said, _ = frames.receive(connection)
        assert said["type"] == "Refusal", said
        return str(said["reason"])


def _other_user(settings: PoolSettings) -> str:
    """Another user cannot reach the socket; where permissions were loosened, the broker itself refuses him."""
    if os.getuid() != 0:
        return "not tried, that takes root"
    before = tools.counts(settings)["bad frames"]
    first = _as_nobody(settings)
    assert first.startswith("PermissionError"), f"the folder lets another user in: {first}"
    for path in (settings.folder.parent, settings.folder):
        path.chmod(0o711)
    socket_path(settings.folder).chmod(0o777)
    second = _as_nobody(settings)
    assert "another user" in second, f"the broker lets another user in: {second}"
    assert tools.counts(settings)["bad frames"] == before + 1, "the refusal was not counted"
    return f"kept out by the folder, and refused with {second!r} where that is open"


def _as_nobody(settings: PoolSettings) -> str:
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    process = context.Process(target=_try, args=(settings, theirs))
    process.start()
    assert ours.poll(_PATIENCE_S), "the other user's process says nothing"
    said: str = ours.recv()
    process.join()
    return said


def _try(settings: PoolSettings, answer: Connection) -> None:
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)
    try:
        answer.send(_refusal(settings, hostile.HELLO))
    except BaseException as error:
        answer.send(f"{type(error).__name__}: {error}")
