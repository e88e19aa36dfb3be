"""Messages on a socket of the pool: each one arrives unchanged, however its bytes are split, and hostile ones are refused without a hang."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_workers.wire import frames, messages
from gpu_workers.wire.frames import FrameError
from gpu_workers.wire.messages import Message

ALL = (*messages.TO_BROKER, *messages.TO_CLIENT, *messages.TO_WORKER, *messages.FROM_WORKER)
TEXT, MOST = st.text(st.characters(), max_size=40), (1 << 53) - 1
VALUES = {
    str: TEXT,
    messages.Name: TEXT,
    messages.Path: TEXT,
    int: st.integers(-MOST, MOST),
    messages.Count: st.integers(0, MOST),
    messages.Workers: st.integers(1, 1024),
    float: st.floats(-1e11, 1e11) | st.integers(-1000, 1000),
    messages.Seconds: st.floats(0, 1e11) | st.integers(0, 1000),
    bool: st.booleans(),
}


def of_kind(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Any message of a kind."""
    fields = {name: VALUES[hint] if hint in VALUES else st.sampled_from(get_args(hint)) for name, hint in kind.__annotations__.items()}
    return st.builds(kind, **fields)


def framed(header: bytes, payload: bytes = b"", header_bytes: int | None = None, payload_bytes: int | None = None) -> bytes:
    """A frame, perhaps with lengths that are not true."""
    lengths = (len(header) if header_bytes is None else header_bytes, len(payload) if payload_bytes is None else payload_bytes)
    return struct.pack("<IQ", *lengths) + header + payload


def received(stream: bytes, chunks: list[int]) -> frames.Frame:
    """The frame that both ways of receiving read from bytes in pieces, after which the other side closes."""
    outcomes = [_or_error(lambda: _by_socket(stream, chunks)), _or_error(lambda: asyncio.run(_by_reader(stream, chunks)))]
    if isinstance(outcomes[0], Exception):
        assert isinstance(outcomes[1], type(outcomes[0]))
        raise outcomes[0]
    assert outcomes[0] == outcomes[1]
    found: frames.Frame = outcomes[0]
    return found


def _or_error(receive: Any) -> Any:
    try:
        return receive()
    except (EOFError, FrameError) as error:
        return error


def _pieces(stream: bytes, chunks: list[int]) -> Iterator[bytes]:
    for size in chunks:
        yield stream[:size]
        stream = stream[size:]
    yield stream


def _by_socket(stream: bytes, chunks: list[int]) -> frames.Frame:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)

        def speak() -> None:
            with theirs, contextlib.suppress(BrokenPipeError):  # the other side may have seen enough
                for piece in _pieces(stream, chunks):
                    theirs.sendall(piece)

        speaker = threading.Thread(target=speak)
        speaker.start()
        try:
            return frames.receive(ours)
        finally:
            ours.close()
            speaker.join()


async def _by_reader(stream: bytes, chunks: list[int]) -> frames.Frame:
    reader = asyncio.StreamReader()
    waiting = asyncio.create_task(frames.receive_async(reader))
    for piece in _pieces(stream, chunks):
        reader.feed_data(piece)
        await asyncio.sleep(0)
    reader.feed_eof()
    return await asyncio.wait_for(waiting, 10)


@pytest.mark.parametrize("kind", sorted(set(ALL), key=lambda k: k.__name__), ids=lambda k: k.__name__)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), payload=st.binary(max_size=200), chunks=st.lists(st.integers(1, 30), max_size=12))
def test_every_message_comes_out_as_it_went_in(kind: type[Message], data: st.DataObject, payload: bytes, chunks: list[int]) -> None:
    said = data.draw(of_kind(kind))
    header, came = received(b"".join(frames.pieces(messages.header(said), payload)), chunks)
    assert messages.parse(header, ALL) == said
    assert came == payload


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60))
def test_an_end_in_the_middle_is_an_error_and_not_a_loop(cut: int) -> None:
    whole = framed(b'{"type": "Bye"}', b"payload" * 5)
    with pytest.raises(EOFError, match=r"closed|bytes read"):
        received(whole[: min(cut, len(whole) - 1)], [])


def test_a_large_payload_is_sent_whole() -> None:
    payload = bytes(range(256)) * (1 << 14)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=frames.send, args=(theirs, {"type": "Finished", "id": 1, "seconds": 0.5}, payload))
        sender.start()
        header, came = frames.receive(ours)
        sender.join()
    assert messages.parse(header, messages.FROM_WORKER) == messages.Finished(1, 0.5)
    assert came == payload


TOO_LONG = [(frames.MAX_HEADER_BYTES + 1, 0), (0xFFFFFFFF, 0), (2, frames.MAX_PAYLOAD_BYTES + 1), (2, (1 << 64) - 1)]


@pytest.mark.parametrize(("header_bytes", "payload_bytes"), TOO_LONG)
def test_lengths_beyond_the_limits_are_refused_before_anything_is_read(header_bytes: int, payload_bytes: int) -> None:
    with pytest.raises(FrameError, match=f"a frame of {header_bytes} \\+ {payload_bytes} bytes"):
        received(framed(b"", b"", header_bytes, payload_bytes), [])


def test_nobody_sends_what_nobody_would_take() -> None:
    with pytest.raises(FrameError, match="at most"):
        frames.pack({"type": "Bye", "filler": "x" * frames.MAX_HEADER_BYTES})
    with pytest.raises(FrameError, match="at most"):
        frames.pack({"type": "Bye"}, frames.MAX_PAYLOAD_BYTES + 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        frames.pack({"type": "Finished", "seconds": float("nan")})
    edge = {"filler": "x" * (frames.MAX_HEADER_BYTES - len('{"filler":""}'))}
    assert received(frames.pack(edge), [100])[0] == edge


NO_HEADERS = [b"", b"{", b"[1]", b'"Bye"', b"null", b"7", b"\xff\xfe", b"{}{}", b"[" * 60_000, b'{"a":' * 10_000, b"NaN" * 3]


@pytest.mark.parametrize("header", NO_HEADERS, ids=lambda h: repr(h[:8]))
def test_what_is_no_header_is_refused(header: bytes) -> None:
    with pytest.raises(FrameError, match="the header is not"):
        received(framed(header), [])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_end_in_a_frame_or_an_error(stream: bytes) -> None:
    try:
        header, _ = received(stream, [])
    except (EOFError, FrameError):
        return
    assert isinstance(header, dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(ALL), st.data())
def test_a_header_that_is_not_quite_a_message_is_refused_or_is_one(kind: type[Message], data: st.DataObject) -> None:
    """One field is replaced, missing or unknown: a message that is accepted has the declared types."""
    header = messages.header(data.draw(of_kind(kind)))
    name = data.draw(st.sampled_from([*header, "extra", "self", "values", "checks", "__class__"]))
    if data.draw(st.booleans()):
        header[name] = data.draw(JSON)
    else:
        header.pop(name, None)
    try:
        message = messages.parse(json.loads(json.dumps(header)), ALL)
    except FrameError:
        return
    assert vars(message).keys() == type(message).__annotations__.keys()
    for field, hint in type(message).__annotations__.items():
        value = getattr(message, field)
        if get_origin(hint) is Literal:
            assert value in get_args(hint)
            continue
        plain = get_args(hint)[0] if get_args(hint) else hint
        assert isinstance(value, (float, int) if plain is float else plain)
        assert plain is bool or not isinstance(value, bool)
    frames.pack(messages.header(message))  # refuses values that are no numbers


SUBMIT = messages.Submit("k", "toy", "cpu", "python", "toy.py:Toy", "1", 1, 1.0, 0, "v", 0)
WRONG = [
    ({"type": "Assign", "id": True}, r"Assign\.id: want"),
    ({"type": "Assign", "id": 1.5}, r"Assign\.id: want"),
    ({"type": "Assign", "id": 1 << 53}, r"Assign\.id: want"),
    ({"type": "Assign"}, "want id"),
    ({"type": "Assign", "id": 1, "more": 2}, "more"),
    ({"type": "Entered", "id": 1, "phase": "dancing"}, r"Entered\.phase: want"),
    ({"type": "Entered", "id": 1, "phase": ["computing"]}, r"Entered\.phase: want"),
    ({"type": "Finished", "id": 1, "seconds": 1e300}, r"Finished\.seconds: want"),
    ({"type": "Tested", "ok": 1}, r"Tested\.ok: want"),
    ({"type": "Scale", "workers": 0}, r"Scale\.workers: want .*1 to 1024"),
    ({"type": "Ack", "key": 7}, r"Ack\.key: want"),
    (messages.header(SUBMIT) | {"key": "k" * 501}, r"Submit\.key: want .*at most 500"),
    (messages.header(SUBMIT) | {"runner": "r" * 4097}, r"Submit\.runner: want .*at most 4096"),
    (messages.header(SUBMIT) | {"frames": -1}, r"Submit\.frames: want .*not negative"),
    (messages.header(SUBMIT) | {"est_s": -0.1}, r"Submit\.est_s: want .*not negative"),
    ({"type": "Message"}, "is not expected here"),
    ({"type": ["Bye"]}, "is not expected here"),
    ({}, "is not expected here"),
]


@pytest.mark.parametrize(("header", "why"), WRONG, ids=lambda v: json.dumps(v)[:60] if isinstance(v, dict) else "")
def test_a_refusal_says_what_is_wrong(header: dict[str, Any], why: str) -> None:
    with pytest.raises(FrameError, match=why):
        messages.parse(header, ALL)


def test_nobody_may_say_what_is_anothers_to_say() -> None:
    for said, allowed in (
        (messages.Bye(), messages.TO_BROKER),
        (messages.Scale(3), messages.FROM_WORKER),
        (messages.Ack("k"), messages.TO_WORKER),
    ):
        with pytest.raises(FrameError, match=f"message '{type(said).__name__}' is not expected here"):
            messages.parse(messages.header(said), allowed)


def test_messages_are_told_apart_and_stay_as_they_are() -> None:
    assert messages.Cancel("k") != messages.Ack("k")
    assert messages.Ack("k") == messages.Ack(key="k")
    assert len({messages.Cancel("k"), messages.Ack("k"), messages.Ack("k")}) == 2
    with pytest.raises(AttributeError, match=r"Ack\.key"):
        messages.Ack("k").key = "other"  # type: ignore[misc]
    with pytest.raises(TypeError, match="want key"):
        messages.Ack("k", "too many")
    assert repr(messages.Ack("k")) == "Ack(key='k')"
