"""A packet index that does not fit the raw file, or damage in one of them: never a wrong frame, only typed errors."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from egoworld_ops.errors import EgoworldError
from egoworld_ops.types import sampled_frames
from egoworld_ops.video import index_file
from egoworld_ops.video.decoding import DECODE_VERSION, decode
from egoworld_ops.video.packet_index import ROW, PacketIndex
from tests.egoworld_ops import media
from tests.egoworld_ops.video import indexes

N_FRAMES, SIZE_PX = 48, (128, 96)
NAMES = ("a.mp4", "a.mkv", "a.ts", "a.avi")
Told = tuple[int, float, str]
Damage = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Indexed:
    """A video, its index and its frames as they were when the index was made."""

    path: Path
    index: PacketIndex
    frames: list[Told]


def indexed(path: Path) -> Indexed:
    _, index = indexes.made(path, threads=1)
    assert index.about.stored.kind != "demuxed"
    return Indexed(path, index, told(path, range(N_FRAMES))[0])


def told(path: Path, frames: range, index: Path | None = None) -> tuple[list[Told], type[EgoworldError] | None]:
    """Number, time and picture of the frames that come, and the kind of error that ends them."""
    found: list[Told] = []
    try:
        for frame in decode(path, frames.start, frames.stop, frames.step, index=index):
            found += [(frame.index, frame.timestamp_s, hashlib.sha256(frame.rgb.tobytes()).hexdigest())]
    except EgoworldError as error:
        return found, type(error)
    return found, None


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Indexed]:
    folder = tmp_path_factory.mktemp("indexed")
    return {name: indexed(media.make(folder / name, N_FRAMES, SIZE_PX, audio_tracks=1)) for name in NAMES}


def stored(folder: Path, index: PacketIndex) -> Path:
    path = folder / "packets.index"
    path.write_bytes(index_file.to_bytes(index, DECODE_VERSION))
    return path


def clips(rng: random.Random) -> range:
    start = rng.randrange(N_FRAMES - 1)
    return range(start, rng.randrange(start + 1, N_FRAMES + 1), rng.choice([1, 1, 3]))


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([1, 3, 30])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(content: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(content)), rng.choice([1, 200, 5000])
    patch = rng.choice([bytes, rng.randbytes])(min(size, len(content) - at))
    return content[:at] + patch + content[at + len(patch) :]


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def moved(content: bytes, rng: random.Random) -> bytes:
    """As long as before, with bytes put in at one place and left out at another."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    n = rng.choice([1, 188, 1000])
    return (content[:a] + rng.randbytes(n) + content[a:b] + content[b + n :]).ljust(len(content), b"\0")[: len(content)]


@pytest.mark.parametrize("damage", [flipped, overwritten, cut, moved])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_damaged_since_gives_its_frames_as_they_were_or_as_they_come_without_index(
    tmp_path: Path, videos: dict[str, Indexed], name: str, damage: Damage
) -> None:
    video, rng = videos[name], random.Random(f"{name} {damage.__name__}")
    index, content = stored(tmp_path, video.index), video.path.read_bytes()
    for _ in range(12):
        path = tmp_path / name
        path.write_bytes(damage(content, rng))
        frames = clips(rng)
        without, with_index = told(path, frames), told(path, frames, index)
        assert_right(with_index, without, video, frames)


def assert_right(
    found: tuple[list[Told], type[EgoworldError] | None],
    without: tuple[list[Told], type[EgoworldError] | None],
    video: Indexed,
    frames: range,
) -> None:
    """Each frame is as it was, or as it comes without the index; they come in order, none left out; what ends them early is a typed error."""
    wanted = sampled_frames(frames.start, frames.stop, frames.step)
    assert [frame[0] for frame in found[0]] == list(wanted[: len(found[0])])
    as_they_come = {frame[0]: frame for frame in without[0]}
    for frame in found[0]:
        assert frame in (video.frames[frame[0]], as_they_come.get(frame[0]))
    assert len(found[0]) == len(wanted) or found[1] is not None
    assert len(found[0]) >= len(without[0])


@pytest.mark.parametrize("name", NAMES)
def test_another_file_of_the_same_size_is_decoded_as_what_it_is(tmp_path: Path, videos: dict[str, Indexed], name: str) -> None:
    def inverted(index: int, width: int, height: int) -> np.ndarray:
        return 255 - media.numbered(index, width, height)

    other = media.make(tmp_path / name, N_FRAMES, SIZE_PX, audio_tracks=1, picture=inverted).read_bytes()
    first = videos[name].path.read_bytes()
    paths = tmp_path / f"first_{name}", tmp_path / f"other_{name}"
    for path, content in zip(paths, (first, other), strict=True):
        path.write_bytes(content.ljust(max(len(first), len(other)), b"\0"))
    index = stored(tmp_path, indexes.made(paths[0])[1])
    for frames in (range(N_FRAMES), range(13, 30), range(20, 48, 5)):
        found = told(paths[1], frames, index)
        assert found == told(paths[1], frames)
        assert found[1] is None


@pytest.mark.parametrize("name", NAMES)
def test_the_index_of_another_video_is_of_no_use_and_does_no_harm(tmp_path: Path, videos: dict[str, Indexed], name: str) -> None:
    video = videos[name]
    for other in videos.values():
        about = replace(other.index.about, bytes=video.path.stat().st_size)
        index = stored(tmp_path, PacketIndex(about, other.index.rows))
        assert told(video.path, range(7, 31), index) == (video.frames[7:31], None)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_rubbish_do_no_harm(tmp_path: Path, videos: dict[str, Indexed], name: str) -> None:
    """Whatever the rows say about the places of packets and which are needed, each frame has its own number.

    Which frame a packet shows, and when, only the index says; against damage of that it has checksums of its own.
    """
    video, rng = videos[name], random.Random(name)
    for column in ("start", "end", "offset", "size", "crc", "key", "begin", "picture"):
        limits = np.iinfo(ROW[column])
        for _ in range(4):
            rows = video.index.rows.copy()
            for _ in range(rng.choice([1, 3, 100])):
                near, far = int(rng.choice(rows[column])), rng.randrange(limits.min, limits.max + 1)
                rows[column][rng.randrange(len(rows))] = rng.choice([near, far, 0, limits.max, limits.min, 1 << 30])
            frames = clips(rng)
            found = told(video.path, frames, stored(tmp_path, PacketIndex(video.index.about, rows)))
            assert found == ([video.frames[i] for i in sampled_frames(frames.start, frames.stop, frames.step)], None), column


@pytest.mark.parametrize("name", ["a.mp4", "a.ts"])
@pytest.mark.parametrize("damage", [flipped, overwritten, cut, moved])
def test_a_damaged_index_file_does_no_harm(tmp_path: Path, videos: dict[str, Indexed], name: str, damage: Damage) -> None:
    video, rng = videos[name], random.Random(damage.__name__)
    index = stored(tmp_path, video.index)
    content = index.read_bytes()
    for _ in range(25):
        index.write_bytes(damage(content, rng))
        assert told(video.path, range(20, 26), index) == (video.frames[20:26], None)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"egoworld packet index\n", b"egoworld packet index\n" + b"\xff" * 8, None], ids=repr
)
def test_what_is_no_index_does_no_harm(tmp_path: Path, videos: dict[str, Indexed], content: bytes | None) -> None:
    video, index = videos["a.mkv"], tmp_path / "packets.index"
    if content is None:
        index.mkdir()
    else:
        index.write_bytes(content)
    assert told(video.path, range(20, 26), index) == (video.frames[20:26], None)
