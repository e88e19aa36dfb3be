"""Counts the empty clock ticks after the last picture of an AVI stream; libav does not report them (Microsoft AVI RIFF File Reference)."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from egoworld_ops.video.containers import open_regular

_HEAD = struct.Struct("<4sI")
_MOST_CHUNKS = 1 << 17


def empty_ticks_after(path: Path, start: int, size: int) -> int:
    """Number of empty chunks after a stream's last chunk with data; for each, the last picture is shown one tick longer.

    Args:
        path: the file.
        start, size: offset and length of the data of that last chunk, bytes.
    """
    with open_regular(path) as descriptor:
        stream = os.pread(descriptor, 2, start - _HEAD.size)
        at, n_empty = start + size + size % 2, 0
        for _ in range(_MOST_CHUNKS):
            head = os.pread(descriptor, _HEAD.size, at)
            if len(head) < _HEAD.size:
                return n_empty
            kind, size = _HEAD.unpack(head)
            if kind == b"idx1" or not kind.strip().isalnum():
                return n_empty
            n_empty += not size and kind[:2] == stream and kind[2:] in (b"dc", b"db")
            at += _HEAD.size + (4 if kind in (b"LIST", b"RIFF") else size + size % 2)
        return n_empty
