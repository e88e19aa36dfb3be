"""Pictures of depth that are made to do harm, or announce what they do not hold: each is named, and takes no memory that it does not fill."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egoworld_ops.errors import BadSidecar
from egoworld_ops.video.depth_files import depth_folder
from egoworld_ops.video.sidecar_depth import SidecarDepth

WIDTH, HEIGHT = 64, 48


def read(folder: Path, **about: Any) -> np.ndarray:
    """(HEIGHT, WIDTH) metres of the only picture of `depth`."""
    found = depth_folder(folder, SidecarDepth(folder="depth", **about))
    [path] = found.files.values()
    return found.read(path, WIDTH, HEIGHT)


def announced(shape: str, numbers: bytes = bytes(800)) -> bytes:
    """A .npy whose header says that shape."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + numbers


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, each with its right checksum, and the last one."""
    ends = [*parts, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in ends)


def header(columns: int, rows: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("0.png", chunks(), "without a header"),
        ("0.png", chunks((b"IHDR", b"abc")), "without a header"),
        ("0.png", chunks((b"tEXt", bytes(13)), header(WIDTH, HEIGHT)), "without a header"),
        ("0.png", chunks(header(WIDTH, HEIGHT), (b"IDAT", zlib.compress(bytes((2 * WIDTH + 1) * HEIGHT // 2)))), "damaged"),
        ("0.png", chunks(header(4_000_000_000, 3_000_000_000), (b"IDAT", zlib.compress(b""))), "4000000000x3000000000 pixels, more than"),
        ("0.png", chunks(header(40_000, 30_000), (b"IDAT", zlib.compress(b""))), "40000x30000 pixels, more than"),
        ("0.npy", announced("(3000000, 4000000)"), "4000000x3000000 pixels, more than"),
        ("0.npy", announced("(480, 640)"), "cut off or damaged"),
        ("0.npy", announced("(True, True)"), "want (H, W)"),
        ("0.npy", announced("(-48, -64)"), "want (H, W)"),
        ("0.npy", announced("("), "is no .npy"),
        ("0.npy", b"PK\x03\x04 and no archive", "is no .npy"),
    ],
)
def test_a_picture_made_to_do_harm_is_named_and_takes_no_memory(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / name).write_bytes(content)
    with pytest.raises(BadSidecar) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "depth" / name))
    assert said in str(caught.value)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    np.save(tmp_path / "elsewhere.npy", np.full((HEIGHT, WIDTH), 0.6))
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "0.npy").symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(BadSidecar, match=r"0\.npy: is a link"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["linear", "inverse"])
def test_numbers_beyond_all_lengths_are_no_depth_and_warn_of_nothing(tmp_path: Path, encoding: str) -> None:
    depth = np.full((HEIGHT, WIDTH), 0.6)
    depth[0, :4] = [1e300, np.finfo(float).max, 1e39, 5e-324]
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "0.npy", depth if encoding == "linear" else np.where(depth == 0.6, 40_000, depth))
    metres = read(tmp_path, metres_per_unit=1.0, encoding=encoding)
    assert np.isnan(metres[0, [0, 1, 2 if encoding == "linear" else 3]]).all()
    assert np.isfinite(metres[1:]).all()
