"""Hostile clients send what `hostile` draws; the broker lives, counts what it refuses, and serves the good ones."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from random import Random

from egoworld_ops.settings import PoolSettings
from gpu_workers import client
from gpu_workers.place import socket_path
from gpu_workers.wire import frames, messages
from tests import brokers
from tests.gpu_workers.chaos import hostile, tools

_SLOTS = 2
_GOOD_EVERY = 500
_ANSWER_S = 30.0
_SILENT = 20
_GREETING_S = 10.0
_MOST_GROWTH_MB = 60.0


def run(size: int, seed: int) -> str:
    """`size` attacks, one connection each. After each the broker has read all of it: the connection is read to its end.

    A few send half a greeting and then stay silent, while all the others go on: they are refused after a time.
    """
    random, began = Random(f"frames {seed}"), time.monotonic()
    with brokers.broker("--workers", str(_SLOTS)) as settings:
        pid = client.status(settings)["pid"]
        _good(settings, 0)
        before_mb, before_files, before = tools.rss_mb(pid), tools.descriptors(pid), tools.counts(settings)["bad frames"]
        silent = [_silent(settings, random) for _ in range(_SILENT)]
        silent_since = time.monotonic()
        tried: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for number in range(size):
            name, attack = hostile.draw(random)
            tried[name] += 1
            said = _attack(settings, attack)
            if name != "twice":
                refused[name] += said
            assert attack.refused in (None, said), f"attack {number}, {name}: {'refused' if said else 'taken'}: {attack.data[:300]!r}"
            if number % _GOOD_EVERY == _GOOD_EVERY - 1:
                _good(settings, number)
        time.sleep(max(0.0, silent_since + _GREETING_S + 1 - time.monotonic()))
        for connection in silent:
            assert _refusals(connection, _ANSWER_S), "half a greeting and silence: not refused"
        _good(settings, size)
        bad = tools.counts(settings)["bad frames"] - before
        expected = sum(refused.values()) + _SILENT
        assert bad >= expected > _SILENT, f"{expected} connections were refused, and {bad} counted"
        assert client.status(settings)["pid"] == pid, "the broker is another one"
        _check_log((settings.folder.parent / "log").read_text("utf-8", "replace"))
        _bad_payloads(settings)
        tools.wait_for(lambda: not client.status(settings)["in_flight"], tools.STUCK_S, "what hostile clients left is gone")
        tools.balanced(settings)
        after_mb, after_files = tools.rss_mb(pid), tools.descriptors(pid)
        assert after_mb < before_mb + _MOST_GROWTH_MB, f"the broker grew from {before_mb:.0f} to {after_mb:.0f} MB"
        assert after_files <= before_files + _SLOTS * 4, f"the broker holds {after_files} files, {before_files} before"
    missed = {a.__name__ for a in hostile.ATTACKS} - tried.keys() if size >= 50 * len(hostile.ATTACKS) else set()
    assert not missed, f"never tried: {missed}"
    return (
        f"{size} hostile connections of {len(tried)} kinds, {sum(refused.values())} refused and {bad} counted ({_SILENT} for silence); "
        f"good clients served throughout; broker {before_mb:.0f} -> {after_mb:.0f} MB, {before_files} -> {after_files} files open; "
        f"{time.monotonic() - began:.0f} s"
    )


def _connect(settings: PoolSettings) -> socket.socket:
    """A connection; a full backlog is waited for."""
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(str(socket_path(settings.folder)))
        except BlockingIOError:
            connection.close()
            time.sleep(0.01)
        else:
            return connection


def _attack(settings: PoolSettings, attack: hostile.Attack) -> bool:
    """Send it and close the sending side; returns whether the broker has refused."""
    connection = _connect(settings)
    if attack.greet:
        connection.sendall(hostile.frame(hostile.HELLO))
        said, _ = frames.receive(connection)
        assert said["type"] == "Hello", f"the greeting was answered by {said}"
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
        connection.sendall(attack.data)
        connection.shutdown(socket.SHUT_WR)
    return _refusals(connection, _ANSWER_S) > 0


def _silent(settings: PoolSettings, random: Random) -> socket.socket:
    """Half a greeting."""
    connection, whole = _connect(settings), hostile.frame(hostile.HELLO)
    connection.sendall(whole[: random.randrange(len(whole))])
    return connection


def _refusals(connection: socket.socket, timeout_s: float) -> int:
    """The number of refusals until the broker closes the connection, which it must do."""
    connection.settimeout(timeout_s)
    found = 0
    with connection:
        while True:
            try:
                said, _ = frames.receive(connection)
            except (EOFError, ConnectionResetError):
                return found
            found += messages.parse(said, messages.TO_CLIENT).__class__ is messages.Refusal


def _good(settings: PoolSettings, number: int) -> None:
    """A good client is served, though hostile ones have filled slots with workers that do not start."""
    tools.Stream(settings, "good", [tools.order(f"good-{number}-{i}") for i in range(5)]).settle().only("done")
    status = client.status(settings)
    assert len(status["slots"]) == _SLOTS, f"hostile clients have changed the pool's size to {len(status['slots'])}"


def _bad_payloads(settings: PoolSettings) -> None:
    """Tasks that no runner can read are answered: they neither wait for ever nor kill one worker after another."""
    payloads = (b"", b"[]", b"null", b"\xff", b"[" * 50_000, b'{"seconds": "long"}')
    started = tools.starts(client.status(settings))
    orders = [client.Order(tools.order(f"unreadable-{i}").submit, payload) for i, payload in enumerate(payloads)]
    tools.Stream(settings, "unreadable", orders).settle().only("failed")
    assert tools.starts(client.status(settings)) <= started + _SLOTS, "tasks that cannot be read end workers"


def _check_log(log: str) -> None:
    """The log has no unexpected error."""
    for trouble in ("never retrieved", "Logging error", "could not be done", "Exception in callback"):
        at = log.find(trouble)
        assert at < 0, f"the broker's log: {log[max(0, at - 300) : at + 1500]}"
