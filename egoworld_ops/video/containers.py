"""Opens untrusted files: recognises video containers by their bytes, and confines libav to the bytes of that one file.

The demuxer is chosen here from the file's first bytes, never by libav: a playlist, script or image sequence is no container, whatever
its name.
libav reads through one file descriptor that was checked to be a regular file; it never sees the name, and every further file,
protocol or reference that a container asks for is refused.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NoReturn

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from egoworld_ops.errors import (
    EXHAUSTED_ERRNOS,
    STORAGE_ERRNOS,
    CorruptVideo,
    EgoworldError,
    NotAVideo,
    NoVideoStream,
    OutOfMemory,
    StorageUnavailable,
    UnstableFile,
    UnsupportedPicture,
)
from egoworld_ops.files import regular
from egoworld_ops.video import boxes
from egoworld_ops.video.transport import packet_size

HEAD_BYTES = 1024
READ_BYTES = 1 << 18
MAX_SIDE_PX = 16384
MAX_PIXELS = 1 << 26
"""Maximum size of a decoded picture: twice 8K. A header may claim any size; memory is allocated only below this."""

CONTAINERS = "mov, mp4, matroska, webm, avi, mpegts, mpeg, flv, asf or ogg"
_MOV_ATOMS = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp", b"sidx")
_MAGIC = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"FLV\x01", "flv"),
    (bytes.fromhex("3026b2758e66cf11"), "asf"),
    (b"OggS", "ogg"),
)

# Errors that PyAV was seen to raise on broken files, besides its own.
_PYTHON_FAULTS = (ArithmeticError, AssertionError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
LIBAV_FAULTS = (av.FFmpegError, *_PYTHON_FAULTS)

_STILL = Disposition.timed_thumbnails | Disposition.still_image
_TRIED_PACKETS = 100
_HASH_CHUNK_BYTES = 1 << 20
_CURE_VIDEO = f"Put a video file there ({CONTAINERS}), or remove it"
_CURE_COPY = "Copy the file again from its source, or remove it"
_CURE_WAIT = "Wait until it is wholly written, then run again"


@dataclass(frozen=True, slots=True)
class Media:
    """An open container and the video stream that is used.

    Args:
        track: facts about the stream that libav does not pass on.
        sizes: index, width and height in pixels of all streams with moving pictures.
        time_base: seconds per tick of the stream's clock.
        descriptor: the open file; its own position is neither used nor moved.
        rates: frame rates that the header states, the most reliable first; may be empty.
    """

    path: Path
    demuxer: str
    container: InputContainer
    stream: VideoStream
    track: boxes.Track
    sizes: tuple[tuple[int, int, int], ...]
    time_base: Fraction
    rates: tuple[Fraction, ...]
    descriptor: int


def sniff(head: bytes) -> str | None:
    """Name of libav's demuxer for a file that starts with `head`; None where it is no supported video container."""
    if head[4:8] in _MOV_ATOMS:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    for start, name in _MAGIC:
        if head.startswith(start):
            return name
    return "mpegts" if packet_size(head) else None


def check_name(path: Path) -> None:
    """Raise NotAVideo where a name cannot be stored in a table, so that the file could not be found again."""
    if storable(path) != str(path):
        raise NotAVideo(path, "has a name that is not valid UTF-8", "Rename it")


def storable(path: Path) -> str:
    """The path as text that tables can hold; bytes that are not UTF-8 are escaped."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def file_state(path: Path) -> os.stat_result:
    """stat of a regular file, following links, without opening it.

    Raises:
        NotAVideo: missing, a dangling link, or not a regular file.
        StorageUnavailable: the disk did not answer.
    """
    try:
        state = path.stat()
    except FileNotFoundError as error:
        reason = "is a link to nothing" if path.is_symlink() else "does not exist"
        raise NotAVideo(path, reason, "Mend the link or put the file back") from error
    except (OSError, ValueError) as error:
        _raise_file_error(path, error)
    if not stat.S_ISREG(state.st_mode):
        raise NotAVideo(path, f"is {_kind(state.st_mode)}, not a regular file", _CURE_VIDEO)
    return state


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _raise_file_error(path: Path, error: OSError | ValueError) -> NoReturn:
    if isinstance(error, OSError) and error.errno in EXHAUSTED_ERRNOS:
        raise StorageUnavailable(path, f"cannot be opened now: {error.strerror}", "Lower the number of workers") from error
    if isinstance(error, OSError) and error.errno in STORAGE_ERRNOS:
        raise StorageUnavailable(path, f"cannot be read: {error.strerror}", "Check the disk or mount") from error
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    raise NotAVideo(path, f"cannot be opened: {reason}", "Check its name and permissions") from error


def fingerprint(state: os.stat_result) -> tuple[int, int, int, int]:
    """Device, inode, size and mtime in ns: at least one changes when a file is written to or replaced."""
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """A read-only descriptor of a regular file. Opening waits for no peer of a pipe; leaving raises an error if the file changed or disappeared.

    Raises:
        NotAVideo: not a regular file that can be read.
        UnstableFile: the file changed, disappeared or became unreadable, also if that made the body fail.
    """
    file_state(path)
    try:
        descriptor = regular.open_without_peer(path)
    except OSError as error:
        _raise_file_error(path, error)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise NotAVideo(path, "was replaced by something that is not a regular file", _CURE_VIDEO)
        try:
            yield descriptor
        except EgoworldError as error:
            _check_unchanged(path, descriptor, before, error)
            raise
        _check_unchanged(path, descriptor, before, None)
    finally:
        os.close(descriptor)


def hash_file(path: str | Path) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a regular file.

    Raises:
        NotAVideo: not a regular file that can be read.
        UnstableFile: it changed while it was read.
        StorageUnavailable: the disk did not answer.
    """
    path = Path(path)
    digest, size = hashlib.sha256(), 0
    with open_regular(path) as descriptor:
        try:
            while chunk := os.read(descriptor, _HASH_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        except OSError as error:
            raise StorageUnavailable(path, f"cannot be read: {error.strerror}", "Check the disk or mount") from error
    return digest.hexdigest(), size


def _check_unchanged(path: Path, descriptor: int, before: os.stat_result, cause: EgoworldError | None) -> None:
    try:
        now = (fingerprint(os.fstat(descriptor)), fingerprint(path.stat()))
    except OSError as error:
        raise UnstableFile(path, "went away while it was read", _CURE_WAIT) from error
    if now != (fingerprint(before), fingerprint(before)):
        raise UnstableFile(path, "changed while it was read", _CURE_WAIT) from cause
    if not os.access(path, os.R_OK):
        raise UnstableFile(path, "may no longer be read", "Check its permissions") from cause


class _Reader:
    """File object over a descriptor, for libav. It has its own position, so that nobody else can move it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, size, self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence)
        if base is None:
            base = os.fstat(self._descriptor).st_size
        if base + offset < 0:
            raise OSError(errno.EINVAL, "seek before the start of the file")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position


def _refuse(url: str, flags: int, options: object) -> NoReturn:
    raise PermissionError(errno.EACCES, "the container asks for another file")


@contextmanager
def open_media(path: Path, threads: int) -> Iterator[Media]:
    """Open the video file `path` for decoding.

    Args:
        path: any name; it is never parsed.
        threads: decoder threads; 0 means one per core.

    Raises:
        NotAVideo: not a regular file that starts like a supported container, or a codec without decoder.
        NoVideoStream: audio or attachments only.
        UnsupportedPicture: the video is encrypted.
        CorruptVideo: the container's header is broken, or its picture is absurdly large.
        UnstableFile: the file changed while it was open.
    """
    with open_regular(path) as descriptor:
        head = os.pread(descriptor, HEAD_BYTES, 0)
        if not head:
            raise NotAVideo(path, "has zero bytes", _CURE_COPY)
        demuxer = sniff(head)
        if demuxer is None:
            raise NotAVideo(path, f"does not start like a video container ({CONTAINERS}), but with {head[:12]!r}", _CURE_VIDEO)
        container = _open_container(path, descriptor, demuxer)
        with container:
            try:
                media = _media(path, container, demuxer, descriptor)
                prepare_decoder(media.stream.codec_context, threads)
            except LIBAV_FAULTS as error:
                raise as_typed(path, error, "the header makes no sense") from error
            yield media


def _open_container(path: Path, descriptor: int, demuxer: str) -> InputContainer:
    options = {"protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}
    if demuxer == "mov":
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    try:
        return av.open(
            _Reader(descriptor), "r", format=demuxer, options=options, metadata_errors="replace", buffer_size=READ_BYTES, io_open=_refuse
        )
    except LIBAV_FAULTS as error:
        raise as_typed(path, error, f"the {demuxer} container cannot be read") from error


def _media(path: Path, container: InputContainer, demuxer: str, descriptor: int) -> Media:
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    described = boxes.tracks(descriptor, demuxer)
    known = {s.index: described.get(rank if demuxer == "matroska" else s.id, boxes.Track()) for rank, s in enumerate(pictures)}
    moving = [s for s in pictures if not s.disposition & _STILL]
    stream = _pick_stream(path, container, moving or pictures, descriptor, demuxer)
    if known[stream.index].encrypted:
        raise UnsupportedPicture(path, f"is encrypted ({known[stream.index].encrypted})", "Put a decrypted copy in its place, or remove it")
    if stream.codec_context is None:
        raise NotAVideo(path, "has a video stream of a codec without a decoder here", "Convert it to H.264, HEVC, AV1 or VP9")
    check_size(path, stream.codec_context.width, stream.codec_context.height)
    stated = (_fraction(stream, name) for name in ("average_rate", "guessed_rate", "base_rate"))
    rates = tuple(rate for rate in stated if rate)
    sizes = tuple((s.index, *_size(s)) for s in moving or pictures)
    time_base = _fraction(stream, "time_base") or Fraction(1, av.time_base)
    return Media(path, demuxer, container, stream, known[stream.index], sizes, time_base, rates, descriptor)


def _fraction(stream: VideoStream, name: str) -> Fraction | None:
    """A rate or time base of a stream; None where the header gives none, or one that is not positive."""
    try:
        value: Fraction | None = getattr(stream, name)
    except ZeroDivisionError:
        return None
    return value if value is not None and value > 0 else None


def prepare_decoder(context: av.VideoCodecContext, threads: int) -> None:
    """Set threads and limits of a decoder before it is opened; 0 threads mean one per core."""
    if threads != 1:
        context.thread_type = "AUTO"
    context.thread_count = threads
    context.options = {"max_pixels": str(MAX_PIXELS)}


def _pick_stream(path: Path, container: InputContainer, streams: list[VideoStream], descriptor: int, demuxer: str) -> VideoStream:
    """The decodable video stream with the largest picture; previews of one frame, or of a part of the time, rank last."""
    if not streams:
        raise NoVideoStream(path, f"has no video stream, but {len(container.streams)} others", "Remove it, or put the video there")
    if len(streams) == 1:
        return streams[0]
    longest_s = max(map(_stated_length_s, streams))

    def rank(stream: VideoStream) -> tuple[bool, bool, int, bool, int]:
        length_s, (width, height) = _stated_length_s(stream), _size(stream)
        preview = stream.frames == 1 or 0 < length_s < longest_s / 2
        return stream.codec_context is None, preview, -width * height, not stream.disposition & Disposition.default, stream.index

    ordered = sorted(streams, key=rank)
    every = list(container.streams.video)
    return next((s for s in ordered if s.codec_context and _shows_a_frame(path, descriptor, demuxer, every.index(s))), ordered[0])


def _size(stream: VideoStream) -> tuple[int, int]:
    return (stream.codec_context.width, stream.codec_context.height) if stream.codec_context is not None else (0, 0)


def _stated_length_s(stream: VideoStream) -> float:
    """Duration in the stream's header, 0 where there is none."""
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0


def _shows_a_frame(path: Path, descriptor: int, demuxer: str, rank: int) -> bool:
    """Whether the video stream of this rank decodes at its start; a container is opened for this test alone."""
    with _open_container(path, descriptor, demuxer) as container:
        try:
            stream = container.streams.video[rank]
            prepare_decoder(stream.codec_context, 1)
            packets = islice(container.demux(stream), _TRIED_PACKETS)
            return any(packet.decode() for packet in packets)
        except LIBAV_FAULTS:
            return False


def check_size(path: Path, width: int, height: int) -> None:
    """Raise CorruptVideo if a picture is implausibly large."""
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        limit = f"{MAX_SIDE_PX} px a side and {MAX_PIXELS} px in all"
        raise CorruptVideo(path, f"claims pictures of {width} x {height} px, the limit is {limit}", "Remove it, or scale the video down")


def as_typed(path: Path, error: BaseException, what: str) -> EgoworldError:
    """The EgoworldError that corresponds to one of LIBAV_FAULTS.

    libav's own "out of memory" counts as a fault of the file: libav raises it for sizes that no memory could hold.
    """
    if isinstance(error, OSError) and not isinstance(error, av.FFmpegError) and error.errno in STORAGE_ERRNOS:
        return StorageUnavailable(path, f"{what}: {error.strerror}", "Check the disk or mount")
    if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
        return OutOfMemory(path, f"{what}: out of memory", "Free memory or lower the number of threads")
    reason = getattr(error, "strerror", None) or f"{type(error).__name__} {error}"
    return CorruptVideo(path, f"{what}: {reason}", _CURE_COPY)
