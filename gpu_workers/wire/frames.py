"""Frames on a socket: u32 header length, u64 payload length, JSON header, payload (an Arrow IPC stream, or JSON).

Nothing is unpickled or evaluated, and lengths are checked before memory is reserved. Standard library only: workers of any interpreter read this.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

MAX_HEADER_BYTES = 1 << 16
MAX_PAYLOAD_BYTES = 1 << 28
_LENGTHS = struct.Struct("<IQ")
_CHUNK_BYTES = 1 << 20
_SMALL_BYTES = 1 << 16
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))

Frame = tuple[dict[str, Any], bytes]


class FrameError(Exception):
    """The bytes received are not a frame of this protocol."""


def pack(header: Mapping[str, Any], payload_bytes: int = 0) -> bytes:
    """The bytes that go before a payload of this length.

    Raises:
        FrameError: header or payload are longer than a receiver takes.
    """
    encoded = _ENCODER.encode(header).encode()
    _check(len(encoded), payload_bytes)
    return _LENGTHS.pack(len(encoded), payload_bytes) + encoded


def pieces(header: Mapping[str, Any], payload: bytes = b"") -> tuple[bytes, ...]:
    """One frame in few pieces, because each costs a system call and wakes the other side; a large payload is not copied to save one."""
    head = pack(header, len(payload))
    return (head + payload,) if len(payload) < _SMALL_BYTES else (head, payload)


def send(connection: socket.socket, header: Mapping[str, Any], payload: bytes = b"") -> None:
    """Send one frame, whole. Not safe for two threads at once."""
    for piece in pieces(header, payload):
        connection.sendall(piece)


def receive(connection: socket.socket) -> Frame:
    """The next frame.

    Raises:
        EOFError: the other side has closed.
        FrameError: what came is no frame; the connection is of no more use.
    """
    header_bytes, payload_bytes = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
    _check(header_bytes, payload_bytes)
    return _header(_exactly(connection, header_bytes)), _exactly(connection, payload_bytes)


async def receive_async(reader: asyncio.StreamReader) -> Frame:
    """As `receive`: what asyncio raises where the other side has closed is an EOFError."""
    header_bytes, payload_bytes = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    _check(header_bytes, payload_bytes)
    return _header(await reader.readexactly(header_bytes)), await reader.readexactly(payload_bytes)


def _exactly(connection: socket.socket, wanted: int) -> bytes:
    received = bytearray()  # grows with the bytes received: a length alone reserves no memory
    while len(received) < wanted:
        chunk = connection.recv(min(wanted - len(received), _CHUNK_BYTES))
        if not chunk:
            raise EOFError("the other side has closed")
        received += chunk
    return bytes(received)


def _check(header_bytes: int, payload_bytes: int) -> None:
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise FrameError(f"a frame of {header_bytes} + {payload_bytes} bytes; at most {MAX_HEADER_BYTES} + {MAX_PAYLOAD_BYTES} are taken")


def _header(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise FrameError(f"the header is not an object but {type(header).__name__}")
    return header
