"""Messages of a hostile client: each function draws one attack. Lengths that lie, values that do not fit, frames out of turn, and plain noise."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from gpu_workers.wire import frames, messages
from tests.gpu_workers.chaos import tools

_LENGTHS = struct.Struct("<IQ")
HELLO = messages.header(messages.Hello(messages.PROTOCOL_VERSION, 1, "hostile"))


@dataclass(frozen=True, slots=True)
class Attack:
    """Bytes to send.

    Args:
        refused: whether the broker must refuse it as invalid; None where that depends on the draw.
        greet: say a proper hello first.
    """

    data: bytes
    refused: bool | None
    greet: bool = True


def frame(header: Any, payload: bytes = b"", *, header_bytes: int | None = None, payload_bytes: int | None = None) -> bytes:
    """A frame whose lengths may lie; a header of bytes is sent as it is."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    n_header, n_payload = len(raw) if header_bytes is None else header_bytes, len(payload) if payload_bytes is None else payload_bytes
    return _LENGTHS.pack(n_header, n_payload) + raw + payload


def submit(random: Random, **change: Any) -> dict[str, Any]:
    """A header that would be taken, with some values changed."""
    return messages.header(tools.order(f"hostile-{random.random()}").submit) | change


def draw(random: Random) -> tuple[str, Attack]:
    """The name of an attack, and the attack."""
    attack = random.choice(ATTACKS)
    return attack.__name__, attack(random)


def noise(random: Random) -> Attack:
    return Attack(random.randbytes(random.randrange(1, 4000)), None, greet=random.random() < 0.5)


def huge_header(random: Random) -> Attack:
    n_bytes = random.randrange(frames.MAX_HEADER_BYTES + 1, 1 << 32)
    return Attack(frame(submit(random), header_bytes=n_bytes), True, greet=random.random() < 0.8)


def huge_payload(random: Random) -> Attack:
    return Attack(frame(submit(random), b"{}", payload_bytes=random.randrange(frames.MAX_PAYLOAD_BYTES + 1, 1 << 64)), True)


def wrong_type(random: Random) -> Attack:
    header = submit(random)
    name = random.choice([n for n in header if n != "type"])
    others = [None, [], {}, [[]], True] + (["1", "\ud800"] if not isinstance(header[name], str) else [7, 1.5])
    return Attack(frame(header | {name: random.choice(others)}), True)


def missing_field(random: Random) -> Attack:
    header = submit(random)
    header.pop(random.choice(list(header)))
    return Attack(frame(header), True)


def unknown_field(random: Random) -> Attack:
    name = random.choice(("x", "\x00" * random.randrange(10_000), "\udfff", "__class__", "protocol"))
    return Attack(frame(submit(random, **{name: 1})), True)


def unknown_message(random: Random) -> Attack:
    ours = [messages.Result("k", "done"), messages.Assign(1), messages.Finished(1, 1.0), messages.Status(), messages.Bye()]
    kind = random.choice(
        [*(messages.header(m)["type"] for m in ours), "", "submit", "M" * 50_000, "Hello ", None, 3, ["Submit"], {"Submit": 1}]
    )
    return Attack(frame({"type": kind}), True)


def deep(random: Random) -> Attack:
    n = random.randrange(1000, 10_000)
    return Attack(frame(random.choice((b"[" * n, b"[" * n + b"]" * n, b'{"a":' * n, b'{"type":' * n + b"1" + b"}" * n))), True)


def not_an_object(random: Random) -> Attack:
    raw = (b"", b"[]", b"7", b'"Submit"', b"null", b"{", b"{}}", b"\xff\xfe", b"nan", b"{'type': 1}", b'{"type"}', b"\x00" * 40)
    return Attack(frame(random.choice(raw)), True)


def negative(random: Random) -> Attack:
    name = random.choice(("frames", "est_s", "memory_mb"))
    return Attack(frame(submit(random, **{name: -random.choice((1, 1000, 1 << 50, 0.5 if name == "est_s" else 3))})), True)


def enormous(random: Random) -> Attack:
    name = random.choice(("frames", "est_s", "memory_mb", "priority"))
    number = random.choice(("1e999", "1" + "0" * 400, "9" * 5000, "NaN"))
    raw = json.dumps(submit(random, **{name: 0})).replace(f'"{name}": 0', f'"{name}": {number}')
    return Attack(frame(raw.encode()), True)


def long_words(random: Random) -> Attack:
    name, word = random.choice(("key", "operator", "python", "runner", "code", "video")), random.choice(("a", "\0", "\ud800"))
    return Attack(frame(submit(random, **{name: word * 5000})), True)


def enormous_scale(random: Random) -> Attack:
    workers = random.choice((0, -1, -(1 << 52), 1 << 40, (1 << 53) - 1, 10**9))
    return Attack(frame(messages.header(messages.Scale(1)) | {"workers": workers}), True)


def second_hello(random: Random) -> Attack:
    return Attack(frame(HELLO), True)


def no_hello(random: Random) -> Attack:
    return Attack(frame(submit(random), b"{}"), True, greet=False)


def half_hello(random: Random) -> Attack:
    change = random.choice(
        ({"pid": "1"}, {"pid": None}, {"name": 3}, {"protocol": None}, {"protocol": "1"}, {"x": 1}, {"window": -(1 << 60)})
    )
    return Attack(frame(HELLO | change), True, greet=False)


def other_version(random: Random) -> Attack:
    version = random.choice((0, -1, messages.PROTOCOL_VERSION + 1, 1 << 50))
    return Attack(frame(HELLO | {"protocol": version, "new in this version": [1]}), True, greet=False)


def half_frame(random: Random) -> Attack:
    whole = frame(submit(random), random.randbytes(5000))
    return Attack(whole[: random.randrange(1, len(whole))], False, greet=random.random() < 0.8)


def hostile_words(random: Random) -> Attack:
    """Fits its types, so that it is taken, and must harm nobody."""
    word = random.choice(("\0", "", "\ud800", "/dev/null", "/bin/false", "..", "%s%n", "\x1b[2J", "\n", "💥" * 500, "-c", ":", "x.py:Y"))
    names = random.sample(("key", "operator", "python", "runner", "code", "video"), random.randrange(1, 4))
    return Attack(frame(submit(random, **dict.fromkeys(names, word)), random.choice((b"", b"{}", b"[]", b"\xff", b"{" * 1000))), None)


def hostile_payload(random: Random) -> Attack:
    return Attack(
        frame(submit(random), random.choice((b"", b"[]", b"null", b"\xff\x00", b"[" * 50_000, b'{"key": 3}', b'{"seconds": "x"}'))), None
    )


def mutated(random: Random) -> Attack:
    data = bytearray(frame(submit(random), b'{"key": "k", "seconds": 0}'))
    for _ in range(random.randrange(1, 8)):
        data[random.randrange(len(data))] = random.randrange(256)
    return Attack(bytes(data), None)


def good_then_noise(random: Random) -> Attack:
    good = [frame(messages.header(m)) for m in (messages.AskStatus(), messages.Ack("nobody's"), messages.Cancel("nobody's"))]
    return Attack(
        b"".join(random.choices(good, k=3)) + _LENGTHS.pack((1 << 31) + random.randrange(1 << 30), 0) + random.randbytes(500), True
    )


def twice(random: Random) -> Attack:
    """The broker reports a key that was submitted twice, and counts such a client as one that asks too much, not as one that is invalid."""
    one = frame(submit(random, key=f"twice-{random.random()}"), b'{"key": "k", "seconds": 1}')
    return Attack(one + one, None)


ATTACKS: tuple[Callable[[Random], Attack], ...] = (
    noise, huge_header, huge_payload, wrong_type, missing_field, unknown_field, unknown_message, deep, not_an_object, negative, enormous,
    long_words, enormous_scale, second_hello, no_hello, half_hello, other_version, half_frame, hostile_words, hostile_payload, mutated,
    good_then_noise, twice,
)  # fmt: skip
