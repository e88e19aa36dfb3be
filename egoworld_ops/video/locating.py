"""Finds where libav's packets lie in the file, and verifies it by comparing all bytes. Nothing here parses a container."""

from __future__ import annotations

import os
from typing import Protocol

from egoworld_ops.video import transport
from egoworld_ops.video.containers import HEAD_BYTES, Media
from egoworld_ops.video.packet_index import Stored
from egoworld_ops.video.transport import Place

_FARTHEST = 64
"""Maximum distance from the position that libav gives for a packet to its data: the header of a chunk, block or tag, bytes."""


class Locator(Protocol):
    """Finds the packets of one stream, in their order, in one pass.

    `reason` says why they cannot be found, and is None as long as they can.
    """

    reason: str | None

    def locate(self, position: int | None, data: bytes) -> Place | None:
        """The place of the next packet, which libav reports at `position`; None, for it and all after it, if it cannot be found."""


class PlainLocator:
    """Finds packets that lie in the file in one piece, as they are."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ahead = 0
        self.reason: str | None = None

    def locate(self, position: int | None, data: bytes) -> Place | None:
        """See `Locator`."""
        if self.reason is None:
            self.reason = self._difference(position, data)
        if self.reason is not None or position is None:
            return None
        start = position + self._ahead
        return Place(start, start + len(data), 0, len(data))

    def _difference(self, position: int | None, data: bytes) -> str | None:
        if position is None:
            return "the container does not say where its packets lie"
        read = os.pread(self._descriptor, len(data) + _FARTHEST, position)
        if not read.startswith(data, self._ahead):
            self._ahead = read.find(data)
        return None if self._ahead >= 0 else f"a packet does not lie in one piece near byte {position}"


def locator_of(media: Media) -> tuple[Locator, Stored]:
    """The locator for a file that was just opened, and how the packets lie in the file if the locator succeeds."""
    if media.demuxer == "mpegts":
        packet_bytes = transport.packet_size(os.pread(media.descriptor, HEAD_BYTES, 0)) or 188
        return transport.Locator(media.descriptor, media.stream.id, packet_bytes), Stored("transport", media.stream.id, packet_bytes)
    return PlainLocator(media.descriptor), Stored("plain")
