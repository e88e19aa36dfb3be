"""Answers with the bytes of a file, or the range of them that a browser asks for; never more than `MOST_BYTES` of a range at a time.

RFC 9110, section 14. Of a range that is longer its beginning is sent: players ask for the rest when they need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from starlette.responses import Response, StreamingResponse

from egoworld_ops.errors import NotAVideo, StorageUnavailable, unreadable
from egoworld_ops.video.containers import open_regular

MOST_BYTES = 2 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def answer(path: Path, asked: str | None, media_type: str) -> Response:
    """The file, or part of it.

    Args:
        path: of a regular file.
        asked: the header `Range`; one of several ranges, or that makes no sense, is ignored, as the RFC allows.

    Raises:
        NotAVideo, UnstableFile: it is no regular file, or changed meanwhile.
        StorageUnavailable: it cannot be read now.
    """
    headers = {"accept-ranges": "bytes"}
    found = _RANGE.fullmatch(asked or "")
    with open_regular(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if found is None or not any(found.groups()):
            return StreamingResponse(_pieces(path), media_type=media_type, headers=headers | {"content-length": str(size)})
        first, end = _bounds(found[1], found[2], size)
        if first >= end:
            return Response(status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
        content = _read(descriptor, path, first, min(end, first + MOST_BYTES))
    headers |= {"content-range": f"bytes {first}-{first + len(content) - 1}/{size}"}
    return Response(content, 206, headers=headers, media_type=media_type)


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """The range `[first, end)` that is meant, within the file; empty where there is none."""
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


def _read(descriptor: int, path: Path, first: int, end: int) -> bytes:
    try:
        content = os.pread(descriptor, end - first, first)
    except OSError as error:
        raise unreadable(error, path) or error from error
    if not content:
        raise StorageUnavailable(path, "gave no bytes where it has some", "Load the page again")
    return content


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with open_regular(path) as descriptor:
            at, size = 0, os.fstat(descriptor).st_size
            while at < size:
                yield (piece := _read(descriptor, path, at, min(at + MOST_BYTES, size)))
                at += len(piece)
    except NotAVideo:  # it went away after the answer had begun, which then ends short
        return
