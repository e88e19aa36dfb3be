"""Finding packets in transport streams: known payload in packets built by hand, libav's own packets, hostile bytes."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egoworld_ops.video.transport import Locator, Place, extract, packet_size
from tests.egoworld_ops import media

PID, OTHER, NULL = 0x101, 0x102, 0x1FFF
CODECS = {
    "h264": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=12:bframes=3:slices=2"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12"}},
    "mpeg2": {"codec": "mpeg2video"},
}


def transport_packet(pid: int, counter: int, payload: bytes, start: bool = False, field: bytes | None = None) -> bytes:
    """188 bytes; an adaptation field begins with `field` and is stuffed so that the payload ends with the packet."""
    room = 184 - len(payload)
    if field is None and room:
        field = b"\0" if room > 1 else b""
    head = bytes([0x47, start << 6 | pid >> 8, pid & 0xFF, (field is not None) << 5 | bool(payload) << 4 | counter & 15])
    if field is None:
        return head + payload
    return head + bytes([room - 1]) + field.ljust(room - 1, b"\xff") + payload


def pes(payload: bytes, bounded: bool, optional: int, stream_id: int = 0xE0) -> bytes:
    length = 3 + optional + len(payload) if bounded else 0
    return bytes([0, 0, 1, stream_id]) + length.to_bytes(2, "big") + bytes([0x80, 0, optional]) + b"\x5a" * optional + payload


def carried(pieces: Sequence[bytes], rng: random.Random, pid: int = PID) -> list[bytes]:
    """Transport packets of one stream: each piece is a PES packet, with adaptation fields in it and without payload before it, as they come."""
    packets: list[bytes] = []
    counter = rng.randrange(16)
    for piece in pieces:
        left, start = pes(piece, rng.random() < 0.5, rng.choice([0, 5, 10, 60])), True
        while left:
            field = rng.choice([None, None, b"", bytes(7), bytes(rng.randrange(1, 90))])
            room = 184 if field is None else 183 - len(field)
            packets.append(transport_packet(pid, counter, left[:room], start, field))
            left, start, counter = left[room:], False, counter + 1
            if rng.random() < 0.1:
                packets.append(transport_packet(pid, counter - 1, b"", field=b"\0"))
    return packets


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise(sorted({0, len(data), *(i % len(data) for i in at)}))]


def written(path: Path, packets: Sequence[bytes], size: int = 188) -> Path:
    path.write_bytes(b"".join(bytes(size - 188) + packet for packet in packets))
    return path


def located(path: Path, packets: Sequence[tuple[int | None, bytes]], pid: int = PID) -> tuple[list[Place | None], str | None]:
    with path.open("rb") as file:
        locator = Locator(file.fileno(), pid, packet_size(file.read(1024)) or 188)
        return [locator.locate(position, data) for position, data in packets], locator.reason


def read_back(path: Path, place: Place, size: int, pid: int = PID) -> bytes:
    content = path.read_bytes()[place.start : place.end]
    return extract(content, pid, size)[place.offset : place.offset + place.size]


def noise(n: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(n)


@pytest.mark.parametrize("size", [188, 192])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    n=st.integers(1, 30_000),
    pes_cuts=st.lists(st.integers(0, 30_000), max_size=12),
    picture_cuts=st.lists(st.integers(0, 30_000), max_size=12),
    seed=st.integers(0, 1 << 30),
)
def test_pictures_are_found_however_pes_packets_cut_the_stream(
    tmp_path: Path, size: int, n: int, pes_cuts: list[int], picture_cuts: list[int], seed: int
) -> None:
    stream, rng = noise(n, seed), random.Random(seed)
    ours, others = carried(cut(stream, pes_cuts), rng), carried([noise(5000, seed + 1)], rng, OTHER)
    mixed: list[bytes] = []
    for packet in ours:
        mixed += [packet, *(others.pop(0) for _ in range(rng.randrange(2)) if others)]
        mixed += [transport_packet(NULL, 0, noise(184))] * (rng.random() < 0.1)
    path = written(tmp_path / "a.ts", [transport_packet(NULL, 0, bytes(184))] * 3 + mixed, size)
    pictures = cut(stream, picture_cuts)
    places, reason = located(path, [(3 * size, data) for data in pictures])
    assert reason is None
    assert [place is not None and read_back(path, place, size) for place in places] == pictures
    for place in filter(None, places):
        first, last = place.start // size, place.end // size - 1
        in_range = [packet for packet in path.read_bytes()[place.start : place.end][size - 188 :: size] if packet == 0x47]
        assert len(in_range) == last - first + 1, "a range is whole packets"


def remuxed(source: Path, path: Path, options: dict[str, str], sound: bool) -> Path:
    with av.open(str(source)) as given_, av.open(str(path), "w", format="mpegts", container_options=options) as out:
        stream = out.add_stream_from_template(given_.streams.video[0])
        voice = out.add_stream("aac", rate=16000) if sound else None
        packets = [p for p in given_.demux(video=0) if p.size]
        for packet in packets:
            packet.stream = stream
        for packet in [*packets, *(media.silence(voice, 2.0) if voice else [])]:
            out.mux(packet)
    return path


def libav_packets(path: Path) -> Iterator[tuple[int, int | None, bytes]]:
    with av.open(str(path), format="mpegts") as container:
        stream = container.streams.video[0]
        yield from ((stream.id, packet.pos, bytes(packet)) for packet in container.demux(stream) if packet.size)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: media.make(folder / f"{name}.mkv", 60, (320, 240), **given_) for name, given_ in CODECS.items()}


@pytest.mark.parametrize(
    "options", [{}, {"mpegts_m2ts_mode": "1"}, {"pes_payload_size": "300"}, {"muxrate": "3000000"}, {"omit_video_pes_length": "0"}], ids=str
)
@pytest.mark.parametrize("name", CODECS)
def test_places_give_the_very_packets_of_libav(tmp_path: Path, sources: dict[str, Path], name: str, options: dict[str, str]) -> None:
    path = remuxed(sources[name], tmp_path / "a.ts", options, sound="muxrate" not in options)
    size = 192 if "mpegts_m2ts_mode" in options else 188
    pids, positions, packets = zip(*libav_packets(path), strict=True)
    places, reason = located(path, list(zip(positions, packets, strict=True)), pids[0])
    assert (reason, len(places)) == (None, 60)
    assert tuple(place and read_back(path, place, size, pids[0]) for place in places) == packets
    assert tuple(place and place.start for place in places) == positions


@pytest.mark.parametrize("n_bytes", [700, 5000, 60_000])
def test_pictures_that_share_pes_packets_or_span_them_are_found_as_libav_parses_them(
    tmp_path: Path, sources: dict[str, Path], n_bytes: int
) -> None:
    """PES packets cut without regard for pictures, so that libav's parser has to put these together."""
    path = remuxed(sources["h264"], tmp_path / "a.ts", {}, False)
    tables = [data for i in range(0, path.stat().st_size, 188) if (data := path.read_bytes()[i : i + 188])[1] & 0x1F in (0, 0x10)]
    pids, _, pictures = zip(*libav_packets(path), strict=True)
    stream = b"".join(pictures)
    pieces = [stream[i : i + n_bytes] for i in range(0, len(stream), n_bytes)]
    path = written(tmp_path / "cut.ts", tables[:3] + carried(pieces, random.Random(1), pids[0]))
    _, positions, packets = zip(*libav_packets(path), strict=True)
    assert packets == pictures
    places, reason = located(path, list(zip(positions, packets, strict=True)), pids[0])
    assert reason is None
    assert tuple(place and read_back(path, place, 188, pids[0]) for place in places) == packets


def test_a_stream_that_begins_within_a_picture_is_found_from_its_first_whole_one(tmp_path: Path, sources: dict[str, Path]) -> None:
    path = remuxed(sources["h264"], tmp_path / "a.ts", {}, True)
    path.write_bytes(path.read_bytes()[188 * 37 :])
    pids, positions, packets = zip(*libav_packets(path), strict=True)
    places, reason = located(path, list(zip(positions, packets, strict=True)), pids[0])
    assert reason is None
    assert len(places) > 25
    assert tuple(place and read_back(path, place, 188, pids[0]) for place in places) == packets


def plain(stream: bytes) -> list[bytes]:
    """One PES packet in as few transport packets as hold it."""
    data = pes(stream, False, 5)
    return [transport_packet(PID, i, data[184 * i : 184 * i + 184], not i) for i in range(-(-len(data) // 184))]


def broken(packets: list[bytes], how: str) -> list[bytes]:
    """The packets with the tenth damaged."""
    bad = bytearray(packets[10])
    if how == "lost":
        return packets[:10] + packets[11:]
    if how == "twice":
        return packets[:10] + packets[10:11] * 2 + packets[11:]
    at, bits = {"broken": (1, 0x80), "scrambled": (3, 0x80), "unsynced": (0, 0x01), "no PES": (1, 0x40), "other bytes": (100, 1)}[how]
    bad[at] ^= bits
    return [*packets[:10], bytes(bad), *packets[11:]]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("lost", "continuity counter jumps at byte 1880"),
        ("twice", "continuity counter jumps at byte 2068"),
        ("broken", "marked as broken at byte 1880"),
        ("scrambled", "scrambled at byte 1880"),
        ("unsynced", "sync bytes are missing at byte 1880"),
        ("no PES", "PES header is none of video, or is not whole at byte 1880"),
        ("other bytes", "packet 1 is not what the transport packets hold"),
    ],
)
def test_damage_is_named_and_what_lies_before_it_is_found(tmp_path: Path, how: str, reason: str) -> None:
    stream = noise(5000)
    path = written(tmp_path / "a.ts", broken(plain(stream), how))
    (before, within, after), said = located(path, [(0, stream[:1000]), (0, stream[1000:2500]), (0, stream[2500:3000])])
    assert before is not None
    assert read_back(path, before, 188) == stream[:1000]
    assert (within, after) == (None, None)
    assert reason in (said or "")


def test_a_jump_of_the_counter_that_the_stream_announces_is_none(tmp_path: Path) -> None:
    stream = noise(1000)
    parts = [transport_packet(PID, 3, pes(stream[:170], False, 5), True), transport_packet(PID, 9, stream[170:300], field=b"\x80")]
    path = written(tmp_path / "a.ts", [*parts, transport_packet(PID, 10, stream[300:484])])
    places, reason = located(path, [(0, stream[:200]), (0, stream[200:484])])
    assert reason is None
    assert [place and read_back(path, place, 188) for place in places] == [stream[:200], stream[200:484]]


@pytest.mark.parametrize("n_lost", [1, 100, 188, 4000])
def test_a_cut_tail_is_named(tmp_path: Path, n_lost: int) -> None:
    stream = noise(5000)
    path = written(tmp_path / "a.ts", plain(stream))
    path.write_bytes(path.read_bytes()[:-n_lost])
    assert located(path, [(0, stream)]) == ([None], "the file ends within a packet")


def test_a_stream_that_is_not_there_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(transport_packet(NULL, 0, bytes(184)) * 200_000)
    tracemalloc.start()
    try:
        assert located(path, [(0, b"picture")])[1] == "the file ends within a packet"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_long_stream_takes_the_memory_of_a_chunk(tmp_path: Path) -> None:
    piece = noise(184 * 16 - 14)
    path = written(tmp_path / "a.ts", plain(piece) * 5000)
    tracemalloc.start()
    try:
        places, reason = located(path, [(0, piece)] * 5000)
        assert (reason, all(places)) == (None, True)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    data=st.binary(max_size=2000) | st.binary(max_size=184 * 3).map(lambda tail: b"".join(carried([noise(900) + tail], random.Random(1)))),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
    position=st.none() | st.integers(-10, 5000),
    pid=st.sampled_from([PID, 0, NULL, 1 << 20]),
    size=st.sampled_from([188, 192]),
)
def test_hostile_bytes_give_a_verdict_and_nothing_that_was_not_there(
    tmp_path: Path, data: bytes, flips: list[tuple[int, int]], position: int | None, pid: int, size: int
) -> None:
    content = bytearray(data)
    for at, byte in flips:
        if content:
            content[at % len(content)] = byte
    path = tmp_path / "a.ts"
    path.write_bytes(content)
    packets = [bytes(content[10:40]), noise(900)[:500], b"", b"x"]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        locator = Locator(descriptor, pid, size)
        for packet in packets:
            place = locator.locate(position, packet)
            assert (place is None) == (locator.reason is not None)
            assert place is None or read_back(path, place, size, pid) == packet
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (b"\x47".ljust(188) * 3, 188),
        (b"\0\0\0\0\x47".ljust(192) * 3, 192),
        (b"\x47".ljust(188) * 2, None),
        (b"", None),
        (b"\x47" * 4, None),
    ],
)
def test_the_distance_of_packets_is_that_of_sync_bytes(head: bytes, size: int | None) -> None:
    assert packet_size(head) == size
