"""Depth maps as the rows of table `depth` hold them, and what other stages read from them.

A map is seen through a pinhole camera at the place and in the frame of the video's own camera, whatever lens that has; its values are z in that
frame, along the optical axis, not distances along rays. They are counts of a step, so that nothing but rounding to it is lost. Of each count, row
by row, the difference to its left neighbour (modulo 65536, as a signed number, the sign in the lowest bit: 0, -1, 1, -2 are 0, 1, 2, 3) is kept: all
low bytes, then all high bytes, compressed with zstd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from egoworld_ops.contract import schema
from egoworld_ops.errors import ContractError
from egoworld_ops.types import Camera
from egoworld_ops.vision.lenses import pixels_per_radian, project, unproject

MOST_COUNTS = 65535
MAX_PIXELS = 2**26
_LEVEL = 3
_WIDEST = 2.2
"""Of the map of a lens: how far it reaches to each side, as tangent (66 degrees): further out a pinhole stretches too much."""
_EDGE = 65


@dataclass(frozen=True, slots=True)
class DepthMap:
    """The depth of one frame.

    Args:
        frame_index: decoded frame of the raw video.
        z_m: (h, w) float32, metres along the optical axis of the video's camera; NaN where it is not known.
        camera: a pinhole of (h, w), at the place and in the frame of the video's camera. `camera.K` projects onto the map.
        step_m: to which z_m is rounded.
    """

    frame_index: int
    z_m: np.ndarray
    camera: Camera
    step_m: float

    def __post_init__(self) -> None:
        if self.z_m.shape != (self.camera.height, self.camera.width) or self.z_m.dtype != np.float32 or not self.camera.is_pinhole:
            raise ValueError(
                f"z_m: want float32 of a pinhole {self.camera.height, self.camera.width}, got {self.z_m.shape} {self.z_m.dtype}"
            )

    def points_m(self) -> np.ndarray:
        """(h, w, 3) float64 points in the frame of the video's camera; NaN where the depth is not known."""
        v, u = np.mgrid[0 : self.camera.height, 0 : self.camera.width].astype(np.float64)
        flat = np.stack([(u - self.camera.cx_px) / self.camera.fx_px, (v - self.camera.cy_px) / self.camera.fy_px, np.ones_like(u)], -1)
        return np.asarray(flat * self.z_m[..., None])

    def along(self, rays: np.ndarray) -> np.ndarray:
        """(...,) float64 depth z where rays (..., 3) of any length, in the frame of the video's camera, meet the map; NaN where none is known.

        It is that of the nearest pixel: between two surfaces there is no depth.
        """
        px = project(self.camera, rays)
        at = np.rint(np.nan_to_num(px, nan=-1.0)).clip(-1, [self.camera.width, self.camera.height]).astype(int)
        inside = (at >= 0).all(-1) & (at[..., 0] < self.camera.width) & (at[..., 1] < self.camera.height)
        columns, rows = np.where(inside, at[..., 0], 0), np.where(inside, at[..., 1], 0)
        return np.where(inside, self.z_m[rows, columns], np.nan).astype(np.float64)

    def seen_by(self, view: Camera, R_camera_view: np.ndarray | None = None) -> np.ndarray:
        """(H, W) float32 depth along the axis of a camera at the same place, for each of its pixels; NaN where none is known.

        Args:
            view: the camera, of any lens: the video's own, or a rectified view.
            R_camera_view: (3, 3) turns directions of the view into those of the video's camera; None: it is not turned.
        """
        v, u = np.mgrid[0 : view.height, 0 : view.width].astype(np.float64)
        of_view = unproject(view, np.stack([u, v], -1))
        of_camera = of_view if R_camera_view is None else of_view @ R_camera_view.T
        with np.errstate(divide="ignore", invalid="ignore"):
            z_m = self.along(of_camera) * of_view[..., 2] / of_camera[..., 2]
        return np.where(z_m > 0, z_m, np.nan).astype(np.float32)


class DepthMaps:
    """The depth maps of a clip, decoded one at a time when they are asked for.

    Args:
        table: table `depth` of the clip.
    """

    def __init__(self, table: pa.Table) -> None:
        known = table["counts"].is_valid().to_pylist()
        self._table = table
        self._rows = {frame: i for i, frame in enumerate(table["frame_index"].to_pylist()) if known[i]}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        """Indices of the frames with depth."""
        return iter(self._rows)

    def of(self, frame_index: int) -> DepthMap | None:
        """The depth of a frame; None where there is none.

        Raises:
            ContractError: what the row holds is no depth map.
        """
        i = self._rows.get(frame_index)
        return None if i is None else map_of(self._table.slice(i, 1).to_pylist()[0])


def map_camera(camera: Camera, side_px: int) -> Camera:
    """The pinhole camera of the maps of a video, whose longer side has at most `side_px` pixels: that of `straight`, shrunk."""
    whole = straight(camera)
    scale = min(1.0, side_px / max(whole.width, whole.height))
    return resized(whole, max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))


def resized(camera: Camera, width: int, height: int) -> Camera:
    """The camera of its picture made `width` by `height` pixels."""
    x, y = width / camera.width, height / camera.height
    return replace(
        camera,
        fx_px=camera.fx_px * x,
        fy_px=camera.fy_px * y,
        cx_px=(camera.cx_px + 0.5) * x - 0.5,
        cy_px=(camera.cy_px + 0.5) * y - 0.5,
        width=width,
        height=height,
    )


def straight(camera: Camera) -> Camera:
    """A pinhole camera itself; of another a pinhole along its axis, as fine in its middle and as wide as the lens shows, at most 66 degrees to each
    side."""
    if camera.is_pinhole:
        return camera
    v, u = np.meshgrid(np.linspace(0, camera.height - 1, _EDGE), np.linspace(0, camera.width - 1, _EDGE), indexing="ij")
    rays = unproject(camera, np.stack([u, v], -1)).reshape(-1, 3)
    ahead = rays[rays[:, 2] > 1e-3]
    plane = ahead[:, :2] / ahead[:, 2:]
    low, high = plane.min(0).clip(-_WIDEST, 0), plane.max(0).clip(0, _WIDEST)
    focal_px = float(pixels_per_radian(camera, np.array([0.0, 0.0, 1.0])))
    width, height = (int(side) + 1 for side in np.ceil((high - low) * focal_px))
    cx_px, cy_px = (-low * focal_px).tolist()
    return Camera(focal_px, focal_px, cx_px, cy_px, width, height, camera.source, focal_error_share=camera.focal_error_share)


def columns(z_m: np.ndarray, camera: Camera, step_m: float) -> dict[str, Any]:
    """The columns of a row that hold a map: depths (h, w) in metres, NaN where unknown, of a pinhole camera. What is beyond the range is unknown."""
    counts = _counts(z_m, step_m)
    known = counts > 0
    return {
        "counts": _packed(counts),
        "map_width": camera.width,
        "map_height": camera.height,
        "map_fx_px": camera.fx_px,
        "map_fy_px": camera.fy_px,
        "map_cx_px": camera.cx_px,
        "map_cy_px": camera.cy_px,
        "step_m": step_m,
        "valid_share": float(known.mean()),
        "median_m": float(np.median(counts[known]) * step_m) if known.any() else None,
    }


def map_of(row: dict[str, Any]) -> DepthMap:
    """The map that a row of table `depth` holds.

    Raises:
        ContractError: it holds none.
    """
    width, height, step_m = row["map_width"], row["map_height"], row["step_m"]
    if step_m is None:
        raise schema.broken("depth", "step_m is null: the release leaves out lengths that rest on an assumed focal length")
    intrinsics = (row["map_fx_px"], row["map_fy_px"], row["map_cx_px"], row["map_cy_px"])
    camera = Camera(*intrinsics, width, height, row["intrinsics_source"], focal_error_share=row["focal_error_share"])
    counts = _unpacked(row["counts"], height, width)
    z_m = np.where(counts > 0, counts * np.float64(step_m), np.nan).astype(np.float32)
    return DepthMap(row["frame_index"], z_m, camera, step_m)


def turned(table: pa.Table, view: Camera, R_camera_view: np.ndarray) -> pa.Table:
    """Table `depth` as if it had been made in a rectified view: z along its axis, at no more pixels than the maps have."""
    rows = []
    for row in table.to_pylist():
        if row["counts"] is not None:
            held = map_of(row)
            camera = map_camera(view, round(max(view.width, view.height) * min(1.0, held.camera.fx_px / view.fx_px)))
            row |= columns(held.seen_by(camera, R_camera_view), camera, held.step_m)
        rows.append(row)
    return pa.Table.from_pylist(rows, table.schema)


def _counts(z_m: np.ndarray, step_m: float) -> np.ndarray:
    counts = np.rint(np.nan_to_num(np.asarray(z_m, np.float64), nan=0.0, posinf=0.0, neginf=0.0) / step_m)
    return np.where((counts > 0) & (counts <= MOST_COUNTS), counts, 0).astype(np.uint16)


def _packed(counts: np.ndarray) -> bytes:
    change = np.diff(counts, axis=1, prepend=np.uint16(0)).view(np.int16).astype(np.int32)
    folded = ((change << 1) ^ (change >> 15)).astype("<u2")
    split = folded.reshape(-1).view(np.uint8).reshape(-1, 2).T
    return bytes(_codec().compress(split.tobytes(), asbytes=True))


def _unpacked(packed: bytes, height: int, width: int) -> np.ndarray:
    """(height, width) uint16."""
    if not 0 < height * width <= MAX_PIXELS:
        raise _broken(f"a map of {width}x{height}")
    try:
        split = np.frombuffer(_codec().decompress(packed, 2 * height * width, asbytes=True), np.uint8).reshape(2, -1)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _broken(f"counts that are no zstd of {width}x{height}: {error}") from error
    folded = np.ascontiguousarray(split.T).view("<u2").reshape(height, width).astype(np.int32)
    change = (folded >> 1) ^ -(folded & 1)
    return np.cumsum(change, axis=1, dtype=np.int64).astype(np.uint16)


def _codec() -> pa.Codec:
    return pa.Codec("zstd", compression_level=_LEVEL)


def _broken(what: str) -> ContractError:
    return schema.broken("depth", f"holds {what}")
