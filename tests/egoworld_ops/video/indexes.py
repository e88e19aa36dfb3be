"""Packet indexes of videos, as the manifest makes them."""

from __future__ import annotations

from pathlib import Path

from egoworld_ops.video import index_file
from egoworld_ops.video.decoding import DECODE_VERSION
from egoworld_ops.video.indexing import IndexMaker
from egoworld_ops.video.packet_index import PacketIndex
from egoworld_ops.video.probing import probe
from egoworld_ops.video.survey import VideoProbe


def made(path: Path, threads: int = 0) -> tuple[VideoProbe, PacketIndex]:
    """The probed video, and its index."""
    maker = IndexMaker()
    seen = probe(path, threads=threads, index=maker)
    assert maker.index is not None, maker.reason
    return seen, maker.index


def indexed(path: Path) -> tuple[VideoProbe, Path]:
    """The probed video, and the file of its index beside it."""
    seen, index = made(path)
    file = path.with_suffix(".index")
    file.write_bytes(index_file.to_bytes(index, DECODE_VERSION))
    return seen, file
