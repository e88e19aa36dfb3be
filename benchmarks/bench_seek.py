"""Bytes that a clip reads of a long video, against those of the packets it needs, in five containers.

    python -m benchmarks.bench_seek [--megabytes 2000] [--containers mp4 mkv] [--keep]

Makes one file of 2 GB after the other in `.bench/seek`: two seconds of noisy H.264 with B-frames and sound are encoded once, and written again
and again with later times. The whole file is decoded once, as the manifest does; then clips are decoded as the stages do.

Bytes read are what the process asks of the kernel (`rchar` of /proc/self/io): every read of the video and of what was noted about it, by whatever
library, also where the page cache has it; memory maps would escape it, and none are used. They are compared with the bytes of the packets that
must be decoded, without headers of the container: from the keyframe before the clip to its last sampled frame in the order of decoding. Times
are of the processor, as ratios to the decode of the file from its start to the clip's last frame. Exits with 1 above the limit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import count
from pathlib import Path

import av
import numpy as np

from egoworld_ops.types import Frame
from egoworld_ops.video import index_file
from egoworld_ops.video.decoding import DECODE_VERSION, decode
from egoworld_ops.video.indexing import IndexMaker
from egoworld_ops.video.probing import probe
from egoworld_ops.video.survey import VideoProbe
from tests.egoworld_ops import media

FOLDER = Path(__file__).parents[1] / ".bench" / "seek"
LIMIT = 1.15
"""Bytes read over those of the packets that must be decoded."""
CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    "mp4": ("mp4", {}),
    "fragmented-mp4": ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "mkv": ("matroska", {}),
    "mpeg-ts": ("mpegts", {}),
    "avi": ("avi", {}),
}
FPS, GOP, N_ENCODED, SIZE_PX = 24, 24, 48, (640, 360)
X264 = {"preset": "ultrafast", "crf": "10", "x264-params": "scenecut=0:open-gop=0"}
SOUND_RATE, SOUND_FRAMES = 48000, 1024
CLIP_FRAMES, STRIDES = 120, (1, 5)
SPARE = 1.05


@dataclass(frozen=True)
class Video:
    """A file, its size in bytes by packet in the order of decoding, which of them are keyframes, and the frame of each."""

    path: Path
    sizes: np.ndarray
    keys: np.ndarray
    frames: np.ndarray

    def needed(self, wanted: range) -> int:
        """Bytes of the packets from the keyframe before the first wanted frame to the last packet of one, in a video of closed GOPs."""
        packets = np.flatnonzero(np.isin(self.frames, wanted))
        first_key = np.flatnonzero(self.keys & (self.frames <= wanted[0]))[-1]
        return int(self.sizes[first_key : packets.max() + 1].sum())

    def own(self, frames: range) -> int:
        """Bytes of the packets of some frames."""
        return int(self.sizes[np.isin(self.frames, frames)].sum())


@dataclass(frozen=True)
class Taken:
    """What the manifest found out about a video.

    Args:
        index: file of its packet index; None if there is none.
        reason: why packets cannot be read by their positions; empty if they can.
        reached_s: seconds of the processor after which a decode without index had reached each frame.
        seconds: of the decode with the making of the index, and without.
    """

    video: Video
    seen: VideoProbe
    index: Path | None
    reason: str
    reached_s: Sequence[float]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Cost:
    """The cost of a clip: bytes read, bytes of the packets that must be decoded and of its own frames, seconds."""

    read: int
    needed: int
    own: int
    seconds: float

    @property
    def ratio(self) -> float:
        """Bytes read over those that must be decoded."""
        return self.read / self.needed


def picture(index: int, width: int, height: int) -> np.ndarray:
    """The frame's number above noise, so that it takes as many bytes as a camera's picture."""
    rgb = media.numbered(index, width, height)
    rgb[height // 2 :] = np.random.default_rng(index).integers(0, 255, rgb[height // 2 :].shape)
    return rgb


def pictures(stream: av.VideoStream) -> Iterator[av.Packet]:
    for index in range(N_ENCODED):
        frame = av.VideoFrame.from_ndarray(picture(index, *SIZE_PX), "rgb24")
        frame.pts = index
        yield from stream.encode(frame)
    yield from stream.encode(None)


def noise(stream: av.AudioStream) -> Iterator[av.Packet]:
    for start in range(0, SOUND_RATE, SOUND_FRAMES):
        samples = np.random.default_rng(start).uniform(-0.5, 0.5, (1, SOUND_FRAMES)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
        frame.sample_rate, frame.pts = SOUND_RATE, start
        yield from stream.encode(frame)


def repeated(packets: Sequence[av.Packet], ticks: int) -> Iterator[av.Packet]:
    """The packets in an endless loop, each round `ticks` later."""
    for given, later in ((packet, n * ticks) for n in count() for packet in packets):
        again = av.Packet(bytes(given))
        again.stream, again.time_base, again.duration, again.is_keyframe = given.stream, given.time_base, given.duration, given.is_keyframe
        again.pts, again.dts = given.pts + later, given.dts + later
        yield again


def make_video(path: Path, container: str, n_bytes: int) -> Video:
    """A video of about that size: frame i shows the number i % N_ENCODED, at i / FPS seconds."""
    name, options = CONTAINERS[container]
    with av.open(str(path), "w", format=name, container_options=options) as out:
        shown = out.add_stream("libx264", rate=FPS, options=X264)
        shown.width, shown.height, shown.pix_fmt, shown.gop_size = *SIZE_PX, "yuv420p", GOP
        shown.codec_context.max_b_frames = 2
        heard = out.add_stream("aac", rate=SOUND_RATE, layout="mono")
        seen, sounds = list(pictures(shown)), list(noise(heard))
        order = [round(packet.pts * packet.time_base * FPS) for packet in seen]
        streams = repeated(seen, round(N_ENCODED / FPS / seen[0].time_base)), repeated(sounds, len(sounds) * sounds[0].duration)
        n = size = 0
        for packet in merge(*streams, key=lambda packet: packet.dts * packet.time_base):
            if packet.stream is shown:
                if not n % N_ENCODED and size >= n_bytes:
                    break
                n += 1
            size += packet.size
            out.mux(packet)
    return listed(path, name, order)


def listed(path: Path, container: str, order: Sequence[int]) -> Video:
    """The packets of a made file, as libav's demuxer gives them; `order` says which frame is in each of those that repeat."""
    with av.open(str(path), format="mov" if container == "mp4" else container) as container_:
        found = [(packet.size, packet.is_keyframe) for packet in container_.demux(video=0) if packet.size]
    sizes, keys = (np.array(column) for column in zip(*found, strict=True))
    n = np.arange(len(sizes))
    return Video(path, sizes, keys, n - n % N_ENCODED + np.resize(order, len(n)))


def take(video: Video) -> Taken:
    """The manifest's pass over the file, with and without an index for comparison."""
    reached_s: list[float] = []
    started = time.process_time()

    def visit(index: int, timestamp_s: float, frame: av.VideoFrame) -> None:
        del reached_s[index:]
        reached_s.append(time.process_time() - started)

    probe(video.path, visit)
    without_s, maker = time.process_time() - started, IndexMaker()
    seen = probe(video.path, index=maker)
    with_s = time.process_time() - started - without_s
    if maker.index is None:
        return Taken(video, seen, None, maker.reason or "", reached_s, (with_s, without_s))
    path = video.path.with_suffix(".index")
    path.write_bytes(index_file.to_bytes(maker.index, DECODE_VERSION))
    return Taken(video, seen, path, maker.index.about.stored.reason, reached_s, (with_s, without_s))


def decoded(taken: Taken, frames: range, stride: int) -> Iterator[Frame]:
    """A clip, as the stages decode it."""
    return decode(taken.video.path, frames.start, frames.stop, stride, index=taken.index)


def bytes_read() -> int:
    """Bytes that this process has asked the kernel for."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def cost(taken: Taken, frames: range, stride: int) -> Cost:
    """Decode a clip; its frames are compared with what was written."""
    started, before = time.process_time(), bytes_read()
    wanted = [i for i in frames if not i % stride]
    for index, frame in zip(wanted, decoded(taken, frames, stride), strict=True):
        right = (frame.index, frame.timestamp_s, media.number_of(frame.rgb)) == (index, taken.seen.timestamps_s[index], index % N_ENCODED)
        if not right:
            raise RuntimeError(f"{taken.video.path}: frame {index} is not the one that was written")
    seconds, read = time.process_time() - started, bytes_read() - before
    return Cost(read, taken.video.needed(range(wanted[0], wanted[-1] + 1, stride)), taken.video.own(frames), seconds)


def positions(n_frames: int) -> dict[str, int]:
    """First frames of clips: at the start, and where no keyframe is."""
    return {"first": 0, "early": n_frames // 20 + 7, "middle": n_frames // 2 + 7, "last": n_frames - CLIP_FRAMES}


def measure(container: str, path: Path, n_bytes: int) -> bool:
    """Print the cost of clips of a file; whether all are within the limit."""
    video = make_video(path, container, n_bytes)
    taken = take(video)
    n_frames, size = taken.seen.n_frames, path.stat().st_size
    print(
        f"{container}: {size / 1e6:.0f} MB, {n_frames} frames, {video.sizes.sum() / size:.3f} of it picture, decoded in {taken.reached_s[-1]:.0f} s"
    )
    print_index(container, taken)
    if n_frames != len(video.sizes):
        raise RuntimeError(f"{path}: {n_frames} frames of {len(video.sizes)} packets")
    list(decoded(taken, range(1), 1))  # so that modules loaded at the first call count for no clip
    worst = 0.0
    for where, start in positions(n_frames).items():
        for stride in STRIDES:
            found = cost(taken, range(start, start + CLIP_FRAMES), stride)
            worst = max(worst, found.ratio)
            print(
                f"  {where:6} clip, stride {stride}: {found.read / 1e6:8.2f} MB read, {found.ratio:7.3f} x the packets needed, "
                f"{found.read / found.own:7.3f} x its own, {found.read / size:.4f} x the file; "
                f"{found.seconds / taken.reached_s[start + CLIP_FRAMES - 1]:.3f} x the time of decoding from the start"
            )
    print(f"FIGURE {container}: a clip reads at most {worst:.3f} x the packets it needs (limit {LIMIT:.2f})", flush=True)
    return worst <= LIMIT and taken.index is not None


def print_index(container: str, taken: Taken) -> None:
    """The cost of the index, or why there is none."""
    if taken.index is None or taken.reason:
        print(f"  {'no index' if taken.index is None else 'an index that the demuxer is needed for'}: {taken.reason}")
    if taken.index is not None:
        n_bytes, (with_s, without_s) = taken.index.stat().st_size, taken.seconds
        print(
            f"FIGURE {container}: the index takes {n_bytes / len(taken.video.sizes):.1f} bytes a packet, "
            f"{n_bytes / taken.video.path.stat().st_size:.6f} "
            f"of the file; making it takes {with_s / without_s:.2f} x the time of the processor"
        )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--containers", nargs="+", choices=CONTAINERS, default=list(CONTAINERS))
    parser.add_argument("--keep", action="store_true", help="leave the files in .bench/seek")
    given = parser.parse_args()
    n_bytes = given.megabytes * 10**6
    FOLDER.mkdir(parents=True, exist_ok=True)
    n_kept = len(given.containers) if given.keep else 1
    if (free := shutil.disk_usage(FOLDER).free) < SPARE * n_kept * n_bytes:
        print(f"{FOLDER} has {free / 1e6:.0f} MB free, {SPARE * n_kept * n_bytes / 1e6:.0f} MB are needed: free some, or lower --megabytes")
        return 1
    within = []
    for container in given.containers:
        path = FOLDER / f"{container}.{CONTAINERS[container][0]}"
        try:
            within.append(measure(container, path, n_bytes))
        finally:
            if not given.keep:
                path.unlink(missing_ok=True)
                path.with_suffix(".index").unlink(missing_ok=True)
    return int(not all(within))


if __name__ == "__main__":
    sys.exit(main())
