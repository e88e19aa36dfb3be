"""An episode of EgoDex: one HDF5 file beside its video (Hoque et al., 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from egoworld_ops.errors import InputError
from egoworld_ops.score.truth import HandTruth, Truth
from egoworld_ops.types import HANDS, Camera, Hand
from egoworld_ops.vision.geometry import project

_FINGERS = ("Thumb", "IndexFinger", "MiddleFinger", "RingFinger", "LittleFinger")
JOINTS = ("Hand", *(f"{finger}{joint}" for finger in _FINGERS for joint in ("Knuckle", "IntermediateBase", "IntermediateTip", "Tip")))
"""Names of the 21 joints after `left` or `right`, in OpenPose order; the metacarpals of the four fingers are left out."""
PICTURE = (1920, 1080)
"""Width and height of EgoDex's videos."""


def reads(path: Path) -> bool:
    """Whether it is such a file."""
    return path.suffix in (".hdf5", ".h5") and path.is_file()


def read(path: Path, stream: str | None) -> Truth:
    """Hands in view, and the path of the camera, whose axes are those of OpenCV. `stream` is not used.

    Raises:
        InputError: it is no episode of EgoDex, or one without intrinsics.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            poses = file["transforms"]
            T_world_camera = np.asarray(poses["camera"], np.float64)
            K = np.asarray(file["camera/intrinsic"], np.float64)
            joints_world_m = {
                hand: np.stack([np.asarray(poses[f"{hand}{joint}"], np.float64)[:, :3, 3] for joint in JOINTS], 1) for hand in HANDS
            }
    except (OSError, KeyError, ValueError) as error:
        raise InputError(path, f"is no episode of EgoDex: {error}", "Restore the file from the data set") from error
    if K.shape != (3, 3):
        cure = "Some files of EgoDex's part 1 have none: take those of another part"
        raise InputError(path, "has no camera intrinsics", cure)
    camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], *PICTURE, "file")
    hands = tuple(row for hand in HANDS for row in _hands(hand, joints_world_m[hand], T_world_camera, camera))
    path_of_camera = dict(enumerate(T_world_camera))
    return Truth(str(path), frozenset(path_of_camera), hands=hands, camera=path_of_camera)


def _hands(hand: Hand, joints_world_m: np.ndarray, T_world_camera: np.ndarray, camera: Camera) -> Iterator[HandTruth]:
    """The rows of a hand: frames in which a joint of it lies in the picture."""
    for frame_index, (joints, T) in enumerate(zip(joints_world_m, T_world_camera, strict=True)):
        joints_m = (joints - T[:3, 3]) @ T[:3, :3]
        joints_px = project(camera, joints_m)
        with np.errstate(invalid="ignore"):
            inside = (joints_px >= 0) & (joints_px < PICTURE)
        if inside.all(1).any():
            yield HandTruth(frame_index, hand, joints_m, joints_px)
