"""MANO (Romero, Tzionas and Black, "Embodied Hands", 2017): from rotations and shape to the joints and the surface of a right hand.

Written from the paper: shape and pose correctives, then linear blend skinning. The model's file is licensed by its authors and is brought by the
user; nothing of it is in here. A left hand is computed as a right one and mirrored, see `_crops`.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
import torch
from torch import Tensor

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Of the 16 joints: wrist, then index, middle, little, ring finger and thumb with three each."""
N_VERTICES, N_JOINTS, N_BETAS = 778, 16, 10
SHAPES: Mapping[str, tuple[int, ...]] = {
    "v_template": (N_VERTICES, 3),
    "shapedirs": (N_VERTICES, 3, N_BETAS),
    "posedirs": (N_VERTICES, 3, 9 * (N_JOINTS - 1)),
    "J_regressor": (N_JOINTS, N_VERTICES),
    "weights": (N_VERTICES, N_JOINTS),
}
"""The arrays that are used of MANO's file, and their shapes."""
_TIPS = (744, 320, 443, 554, 671)
"""Vertices at the ends of thumb, index, middle, ring and little finger; they stand behind the 16 joints."""
_OPENPOSE = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
"""The contract's order of joints, in those 21."""


class Mano:
    """The model of a right hand.

    Args:
        arrays: as `SHAPES`, numbers of any type.
        device: where it computes, in float32.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], device: torch.device) -> None:
        given = {name: torch.as_tensor(np.asarray(arrays[name], np.float32), device=device) for name in SHAPES}
        self._template, self._shape, self._pose = given["v_template"], given["shapedirs"], given["posedirs"]
        self._regressor, self._weights = given["J_regressor"], given["weights"]

    def __call__(self, rotations: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """Joints (N, 21, 3) in the contract's order and vertices (N, 778, 3), metres, about the model's own origin.

        Args:
            rotations: (N, 16, 3, 3) against the flat hand, the first of the whole hand, the others against their parents.
            betas: (N, 10).
        """
        shaped = self._template + torch.einsum("vck,nk->nvc", self._shape, betas)
        joints = torch.einsum("jv,nvc->njc", self._regressor, shaped)
        bent = (rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)).flatten(1)
        posed = shaped + torch.einsum("vcp,np->nvc", self._pose, bent)
        R, places = _chained(rotations, joints)
        shifts = places - (R @ joints[..., None])[..., 0]
        blended = torch.einsum("vj,njkl->nvkl", self._weights, R)
        vertices = (blended @ posed[..., None])[..., 0] + torch.einsum("vj,njc->nvc", self._weights, shifts)
        return torch.cat([places, vertices[:, _TIPS]], 1)[:, _OPENPOSE], vertices


def axis_angles(rotations: np.ndarray) -> np.ndarray:
    """(N, 3) axis-angles, radians, of rotations (N, 3, 3)."""
    return np.stack([cv2.Rodrigues(np.asarray(R, np.float64))[0][:, 0] for R in rotations])


def rotation_of(axis_angle_rad: np.ndarray) -> np.ndarray:
    """(3, 3) rotation by an axis-angle (3,)."""
    return np.asarray(cv2.Rodrigues(np.asarray(axis_angle_rad, np.float64))[0])


def _chained(rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 16, 3, 3) each joint's rotation in the model's frame and (N, 16, 3) its place, from the wrist outwards."""
    R, places = [rotations[:, 0]], [joints[:, 0]]
    for joint, parent in enumerate(PARENTS[1:], 1):
        bone = (joints[:, joint] - joints[:, parent])[..., None]
        places.append(places[parent] + (R[parent] @ bone)[..., 0])
        R.append(R[parent] @ rotations[:, joint])
    return torch.stack(R, 1), torch.stack(places, 1)
