"""Where a video stream's bytes lie in an MPEG transport stream (ITU-T H.222.0), cut into packets of 188 bytes that all streams share.

libav's packets are whole pictures. `Locator` finds the byte range of the file that holds each, and verifies it by comparing all bytes;
`extract` returns the picture's bytes from that range. Nothing here decodes, and no range is used that was not compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

_PACKET_BYTES = 188
_LAYOUTS = ((_PACKET_BYTES, 0), (192, 4))
"""Bytes from packet to packet, and those before its sync byte: plain, and with a time code before each (M2TS, AVCHD)."""
_SYNC_BYTE = 0x47
_HEADER_BYTES = 4
_BROKEN, _STARTS = 0x80, 0x40
"""Bits of a packet's second byte."""
_SCRAMBLED, _HAS_FIELD, _HAS_PAYLOAD = 0xC0, 0x20, 0x10
"""Bits of its fourth byte; field is the adaptation field."""
_DISCONTINUITY = 0x80
"""Bit of the adaptation field's second byte."""
_PES_START, _PES_BYTES = (0, 0, 1), 9
"""First bytes of a PES header, and its length up to its optional fields; the last of these bytes is the length of the optional fields."""
_EXTENDED_ID = 0xFD
_CHUNK_BYTES = 29 * 188 * 192
_FIRST_WINDOW_BYTES = 1 << 20
"""Maximum distance of libav's first picture from the start of its PES packet."""


def packet_size(head: bytes) -> int | None:
    """Bytes per transport packet, 188 or 192, in a file that starts with `head` (three packets or more); None if it is no transport stream."""
    return next((size for size, before in _LAYOUTS if head[before::size][:3] == bytes([_SYNC_BYTE] * 3)), None)


def extract(data: bytes, pid: int, packet_bytes: int) -> bytes:
    """The payload of one stream in whole transport packets, without the headers of transport and PES packets.

    Args:
        data: from the start of a transport packet; what is left after the last whole one is ignored. The result has no meaning for bytes that
            no `Locator` has checked.
        pid: identifier of the stream, 0 to 8191.
        packet_bytes: as returned by `packet_size`.
    """
    rows = _Rows.of(data, pid, packet_bytes)
    return rows.payload(len(rows.where))


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a packet: `size` bytes from `offset` on, in what `extract` returns for the file's bytes [start, end)."""

    start: int
    end: int
    offset: int
    size: int


class Locator:
    """Finds libav's packets of one stream in a file, in order, in one pass. It holds a chunk of the file and a packet in memory.

    Args:
        descriptor: the file, open for reading; its own position is neither used nor moved.
        pid: identifier of the stream: `id` of libav's stream.
        packet_bytes: as returned by `packet_size`.
    """

    def __init__(self, descriptor: int, pid: int, packet_bytes: int) -> None:
        self._descriptor, self._pid, self._packet_bytes = descriptor, pid, packet_bytes
        self.reason: str | None = None
        """Why packets cannot be located; None as long as they can."""
        self._read_from: int | None = None
        self._stopped: str | None = None
        self._counter: int | None = None
        self._n_located = 0
        # The stream's payload from `_payload_start` on, how far it is compared, and where the transport packets that hold it lie in the file
        # and begin in the payload.
        self._payload = b""
        self._payload_start = self._cursor = 0
        self._where = self._begins = np.zeros(0, np.int64)

    def locate(self, position: int | None, data: bytes) -> Place | None:
        """The place of libav's next packet; None, for it and all after it, if no place gives the same bytes.

        Args:
            position: the packet's position in the file according to libav (`pos`).
            data: its bytes.

        Raises:
            OSError: the file cannot be read.
        """
        if self.reason is None:
            if self._read_from is None:
                self._start(position or 0, data)
            self._read_until(self._cursor + len(data))
            self.reason = self._difference(data)
        return None if self.reason else self._taken(len(data))

    def _start(self, position: int, data: bytes) -> None:
        """Move to where the first packet begins, in the PES packet at `position`."""
        self._read_from = max(position - position % self._packet_bytes, 0)
        self._read_until(len(data) + _FIRST_WINDOW_BYTES)
        self._cursor = max(self._payload.find(data), 0)

    @property
    def _payload_end(self) -> int:
        return self._payload_start + len(self._payload)

    def _read_until(self, payload_end: int) -> None:
        """Read on until the payload reaches `payload_end`, or can be followed no further."""
        while self._payload_end < payload_end and self._stopped is None:
            self._read_on()

    def _read_on(self) -> None:
        assert self._read_from is not None
        data = os.pread(self._descriptor, _CHUNK_BYTES, self._read_from)
        rows = _Rows.of(data, self._pid, self._packet_bytes)
        n_good, fault = rows.good(self._counter)
        if fault:
            at = rows.where[n_good] if n_good < len(rows.where) else rows.n_bytes
            self._stopped = f"{fault} at byte {self._read_from + int(at)}"
        elif len(data) < _CHUNK_BYTES:
            self._stopped = "the file ends within a packet"
        self._counter = int(rows.counters[-1]) if len(rows.where) else self._counter
        kept = slice(max(int(np.searchsorted(self._begins, self._cursor, "right")) - 1, 0), None)
        sizes = _PACKET_BYTES - rows.begins[:n_good].astype(np.int64)
        self._begins = np.concatenate([self._begins[kept], self._payload_end + np.cumsum(sizes) - sizes])
        self._where = np.concatenate([self._where[kept], self._read_from + rows.where[:n_good]])
        self._payload = self._payload[self._cursor - self._payload_start :] + rows.payload(n_good)
        self._payload_start = self._cursor
        self._read_from += len(data)

    def _difference(self, data: bytes) -> str | None:
        """Why `data` cannot be the next bytes of the stream; None if it can."""
        if not data:
            return f"packet {self._n_located} is empty"
        if self._payload.startswith(data, self._cursor - self._payload_start):
            return None
        if self._stopped and self._payload_end < self._cursor + len(data):
            return self._stopped
        return f"packet {self._n_located} is not what the transport packets hold"

    def _taken(self, size: int) -> Place:
        first, last = np.searchsorted(self._begins, [self._cursor, self._cursor + size - 1], "right") - 1
        offset = self._cursor - int(self._begins[first])
        self._cursor += size
        self._n_located += 1
        return Place(int(self._where[first]), int(self._where[last]) + self._packet_bytes, offset, size)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The n transport packets of one stream in a piece of the file.

    Args:
        packets: (n, 188) uint8, without time codes.
        where: (n,) int64, where each lies in the piece.
        heads: (n,) where the payload begins, PES header and all; 188 where there is none.
        begins: (n,) where it begins without the PES header.
        n_bytes: length of the piece up to the first misplaced sync byte.
        lost: whether there is a misplaced sync byte.
    """

    packets: np.ndarray
    where: np.ndarray
    heads: np.ndarray
    begins: np.ndarray
    n_bytes: int
    lost: bool

    @classmethod
    def of(cls, data: bytes, pid: int, packet_bytes: int) -> _Rows:
        n = len(data) // packet_bytes
        every = np.frombuffer(data, np.uint8, n * packet_bytes).reshape(n, packet_bytes)[:, packet_bytes - _PACKET_BYTES :]
        unsynced = np.flatnonzero(every[:, 0] != _SYNC_BYTE)
        n_synced = int(unsynced[0]) if len(unsynced) else n
        high, low = every[:n_synced, 1] & 0x1F, every[:n_synced, 2]
        which = np.flatnonzero((high == pid >> 8) & (low == pid & 0xFF))
        rows = every[which]
        heads = _HEADER_BYTES + np.where(rows[:, 3] & _HAS_FIELD, 1 + rows[:, 4].astype(np.int64), 0)
        heads = np.where(rows[:, 3] & _HAS_PAYLOAD, np.minimum(heads, _PACKET_BYTES), _PACKET_BYTES)
        pes = np.where(rows[:, 1] & _STARTS, _PES_BYTES + _byte(rows, heads + _PES_BYTES - 1), 0)
        return cls(rows, which * packet_bytes, heads, np.minimum(heads + pes, _PACKET_BYTES), n_synced * packet_bytes, n_synced < n)

    @property
    def counters(self) -> np.ndarray:
        """Continuity counters, 0 to 15."""
        return self.packets[:, 3] & 0x0F

    def payload(self, n: int) -> bytes:
        """The payload of the first n packets."""
        partial = np.flatnonzero(self.begins[:n] != _HEADER_BYTES)
        edges = np.unique(np.concatenate([[0, n], partial, partial + 1])).tolist()
        begins = self.begins[edges[:-1]].tolist()
        return b"".join(self.packets[a:b, begin:].tobytes() for a, b, begin in zip(edges, edges[1:], begins, strict=False))

    def good(self, counter: int | None) -> tuple[int, str | None]:
        """How many packets, from the first on, can be followed, and what is wrong with the next; `counter` is that of the packet before them."""
        faults = {
            "a packet is marked as broken": self.packets[:, 1] & _BROKEN != 0,
            "a packet is scrambled": self.packets[:, 3] & _SCRAMBLED != 0,
            "the continuity counter jumps": ~self._continues(counter),
            "a PES header is none of video, or is not whole": ~self._has_whole_header(),
        }
        firsts = [(int(wrong.argmax()), what) for what, wrong in faults.items() if wrong.any()]
        return min(firsts, default=(len(self.where), "sync bytes are missing" if self.lost else None))

    def _continues(self, counter: int | None) -> np.ndarray:
        """Whether each packet has the counter that libav expects after the one before; libav takes a repeated packet twice."""
        before = np.roll(self.counters, 1)
        has_payload = (self.packets[:, 3] & _HAS_PAYLOAD != 0).astype(np.uint8)
        before[:1] = (self.counters[:1] - has_payload[:1]) & 0x0F if counter is None else counter
        announced = (self.packets[:, 3] & _HAS_FIELD != 0) & (self.packets[:, 4] > 0) & (self.packets[:, 5] & _DISCONTINUITY != 0)
        return announced | (self.counters == (before + has_payload) & 0x0F)

    def _has_whole_header(self) -> np.ndarray:
        """Whether each packet that begins a PES packet holds the whole PES header, and that of video."""
        prefix = [_byte(self.packets, self.heads + i) == byte for i, byte in enumerate(_PES_START)]
        stream_id = _byte(self.packets, self.heads + len(_PES_START))
        is_video = (stream_id & 0xF0 == 0xE0) | (stream_id == _EXTENDED_ID)
        ends = self.heads + _PES_BYTES + _byte(self.packets, self.heads + _PES_BYTES - 1)
        whole = (ends <= _PACKET_BYTES) & is_video & np.logical_and.reduce(prefix)
        return whole | (self.packets[:, 1] & _STARTS == 0) | (self.heads == _PACKET_BYTES)


def _byte(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """One byte of each row, by its column; the row's last byte if the column lies beyond."""
    return rows[np.arange(len(rows)), np.minimum(columns, _PACKET_BYTES - 1)].astype(np.int64)
