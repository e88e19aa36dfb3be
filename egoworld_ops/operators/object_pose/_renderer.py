"""Pictures of a mesh at many poses at once: rays from the pixels of windows of the camera's picture, on a CPU as on CUDA, by NVIDIA Warp.

The mesh is lit from the camera, as in the pictures that FoundationPose's networks know: a surface seen head on is brighter.
"""

# No `from __future__ import annotations`: Warp reads the types of a kernel's arguments.
from dataclasses import dataclass
from typing import Literal, no_type_check

import numpy as np
import warp as wp

from egoworld_ops.errors import NoDevice
from egoworld_ops.operators.object_pose._painted_mesh import PaintedMesh
from egoworld_ops.types import Camera

AMBIENT, DIFFUSE = 0.8, 0.5
"""Colours are multiplied with the first, plus the second times the cosine between the surface's normal and the camera's axis; and cut off at 1."""
FAR_M = 100.0

wp.config.log_level = wp.LOG_ERROR


def check_device(device: Literal["cpu", "cuda"]) -> None:
    """Raise NoDevice where Warp cannot use the device."""
    if device == "cuda" and not wp.is_cuda_available():
        cure = "Install an NVIDIA driver that Warp knows, or set device to `cpu`"
        raise NoDevice("stages.object_pose.foundationpose", f"Warp {wp.__version__} finds no CUDA device it can use", cure)


@dataclass(frozen=True, slots=True)
class Rendered:
    """Pictures (N, S, S, 3) float32 of N poses; all zeros where a ray meets nothing.

    Args:
        rgb: 0 to 1.
        xyz_m: the place that is seen, camera frame.
    """

    rgb: np.ndarray
    xyz_m: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """(N, S, S) bool, whether the mesh is there."""
        return self.xyz_m[..., 2] > 0


class Renderer:
    """Renders one mesh.

    Args:
        mesh: what is rendered.
        device: where.
    """

    def __init__(self, mesh: PaintedMesh, device: Literal["cpu", "cuda"]) -> None:
        self._device = device
        points, indices = self._array(mesh.vertices_m, wp.vec3), self._array(mesh.triangles.ravel(), wp.int32)
        self._mesh = wp.Mesh(points=points, indices=indices)
        self._paint = (
            self._array(mesh.normals, wp.vec3),
            self._array(mesh.corner_colours.reshape(-1, 3), wp.vec3),
            self._array(mesh.corner_uv.reshape(-1, 2), wp.vec2),
            self._array(mesh.texture, wp.vec3),
        )

    def __call__(self, camera: Camera, R: np.ndarray, t_m: np.ndarray, windows: np.ndarray, side: int) -> Rendered:
        """The mesh at poses R (N, 3, 3), t_m (N, 3) in the frame of a pinhole camera.

        Pixel (i, j) of picture n shows what the camera's picture has at (left + i step, top + j step), with windows[n] = (left, top, step).
        """
        n = len(R)
        rgb, xyz = (wp.empty((n, side, side), dtype=wp.vec3, device=self._device) for _ in range(2))
        poses = (self._array(R, wp.mat33), self._array(t_m, wp.vec3), self._array(windows, wp.vec3))
        lens = wp.vec4(camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px)
        inputs = [self._mesh.id, *self._paint, *poses, lens, AMBIENT, DIFFUSE]
        wp.launch(_cast, dim=(n, side, side), inputs=inputs, outputs=[rgb, xyz], device=self._device)
        return Rendered(rgb.numpy(), xyz.numpy())

    def _array(self, values: np.ndarray, dtype: type) -> wp.array:
        scalar = np.int32 if dtype is wp.int32 else np.float32
        return wp.array(np.ascontiguousarray(values, scalar), dtype=dtype, device=self._device)


@no_type_check
@wp.func
def _texel(texture: wp.array2d[wp.vec3], row: int, column: int) -> wp.vec3:
    height, width = texture.shape[0], texture.shape[1]
    return texture[(row % height + height) % height, (column % width + width) % width]


@no_type_check
@wp.func
def _painted(texture: wp.array2d[wp.vec3], uv: wp.vec2) -> wp.vec3:
    """The texture between its pixels; (0, 0) is its lower left corner."""
    x = uv[0] * float(texture.shape[1]) - 0.5
    y = (1.0 - uv[1]) * float(texture.shape[0]) - 0.5
    column, row = int(wp.floor(x)), int(wp.floor(y))
    along, down = x - wp.floor(x), y - wp.floor(y)
    above = (1.0 - along) * _texel(texture, row, column) + along * _texel(texture, row, column + 1)
    below = (1.0 - along) * _texel(texture, row + 1, column) + along * _texel(texture, row + 1, column + 1)
    return (1.0 - down) * above + down * below


@no_type_check
@wp.kernel
def _cast(
    mesh: wp.uint64,
    normals: wp.array[wp.vec3],
    corner_colours: wp.array[wp.vec3],
    corner_uv: wp.array[wp.vec2],
    texture: wp.array2d[wp.vec3],
    R: wp.array[wp.mat33],
    t: wp.array[wp.vec3],
    windows: wp.array[wp.vec3],
    lens: wp.vec4,
    ambient: float,
    diffuse: float,
    rgb: wp.array3d[wp.vec3],
    xyz: wp.array3d[wp.vec3],
) -> None:
    n, row, column = wp.tid()
    x = windows[n][0] + float(column) * windows[n][2]
    y = windows[n][1] + float(row) * windows[n][2]
    ray = wp.vec3((x - lens[2]) / lens[0], (y - lens[3]) / lens[1], 1.0)
    back = wp.transpose(R[n])
    hit = wp.mesh_query_ray(mesh, back * (-t[n]), back * ray, FAR_M)
    rgb[n, row, column] = wp.vec3(0.0, 0.0, 0.0)
    xyz[n, row, column] = wp.vec3(0.0, 0.0, 0.0)
    if hit.result:
        a, b, c = 3 * hit.face, 3 * hit.face + 1, 3 * hit.face + 2
        u, v, w = hit.u, hit.v, 1.0 - hit.u - hit.v
        i, j, k = wp.mesh_get_index(mesh, a), wp.mesh_get_index(mesh, b), wp.mesh_get_index(mesh, c)
        normal = R[n] * wp.normalize(u * normals[i] + v * normals[j] + w * normals[k])
        colour = u * corner_colours[a] + v * corner_colours[b] + w * corner_colours[c]
        colour = wp.cw_mul(colour, _painted(texture, u * corner_uv[a] + v * corner_uv[b] + w * corner_uv[c]))
        lit = (ambient + diffuse * wp.abs(normal[2])) * colour
        rgb[n, row, column] = wp.min(lit, wp.vec3(1.0, 1.0, 1.0))
        xyz[n, row, column] = hit.t * ray
