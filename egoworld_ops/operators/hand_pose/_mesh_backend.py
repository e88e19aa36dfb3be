"""What the backends `hamer`, `wilor` and `hawor` share: hands as MANO meshes, placed before the true camera. Reads the frames in which hands are
detected.

Each hand is cut out (`_crops.py`), several crops go through the network at once (`_mesh_model.py`), and each hand of the network's own size is moved
to where the video's camera sees it (`_weak_perspective.py`). Nothing is smoothed or carried over time here. A scale error of the network on a hand
gives a proportional error of its depth: one view cannot reveal it.

Torch is imported only where a model is built: reading settings or digests does not load it.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators import accelerator
from egoworld_ops.operators.base import NEVER, BackendSettings, ClipInput, Operator
from egoworld_ops.operators.hand_pose._crops import HandCrop, cut
from egoworld_ops.operators.hand_pose._weak_perspective import Placed, place
from egoworld_ops.operators.rows import by_frame, common, depth_error_share, intrinsics, pose_columns
from egoworld_ops.types import Camera, Frame, Hand
from egoworld_ops.vision.hand_frame import in_wrist_frame, wrist_rotation

if TYPE_CHECKING:
    from egoworld_ops.operators.hand_pose._mesh_model import Hands, Kind, Model

SIZE_ERROR_SHARE = 0.1
"""Standard error of the network's hand size, as a share of it: a guess, not measured. Lengths of adults' hands differ by 6 % (standard deviation;
Greiner, "Hand Anthropometry of U.S. Army Personnel", 1991: 194 +- 10 mm for men, 181 +- 9 mm for women), of which a network may see a part."""
_CROP_MB = 30
"""Activations of one crop, upwards of what the largest layer needs."""
_PROCESS_MB = {"cpu": 700, "cuda": 1000}
"""A process with torch; CUDA's context and workspaces."""
_VERTEX_STEP_M = 2.0**-14
"""Vertices are rounded to it, 0.06 mm, so that they take half the space in a file."""
_COLUMNS = ("frame_index", "role", "box_px", "points_px", "score")


class Settings(BackendSettings):
    """Options of `[stages.hand_pose.hamer]` and `[stages.hand_pose.wilor]`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` means CUDA if there is one; the pool decides which workers see one, see `Operator.device`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network (autocast). It changes poses, so it is never chosen by the machine."""
    micro_batch: Annotated[int, Field(ge=1, le=256)] = 8
    """Hands computed at once, of one frame or several; costs memory. Where memory runs out it is halved for the rest of the worker's life.

    It is an option, and so in the digest, since libraries choose their kernels by the size of the work, which may change last bits.
    """
    boxes: Literal["box", "points"] = "points"
    """What of a detection is cut out: the bounds of its 21 points, as the network was trained with, where it has them; or always its box."""
    mask_boxes: Literal["never", "missing", "always"] = NEVER
    """Which hands are cut out by the boxes of their masks: none; those that are not detected in a frame, and have a mask that was seen there; or all
    that have one. Then it waits for `masks`, and each change of theirs makes all hands anew."""
    padding: Annotated[float, Field(ge=1, le=4)] = 2.0
    """By which a box is grown before it is widened to 3:4. The demos of HaMeR and WiLoR have 2."""
    max_reprojection_share: Annotated[float, Field(gt=0, le=1)] = 0.15
    """Of the hand's extent in the image: above this error no place before the camera explains what the network sees, and the pose is null."""
    vertices: bool = False
    """Write the surface too: 778 points a hand, some 5 kB a row."""
    random_weights_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """A small random network from this seed, to test the pipeline without weights. Rows then say `-random` behind the backend and mean nothing."""


@dataclass(frozen=True, slots=True)
class Detected:
    """A hand in a frame: its row so far, its image points if the detection has any, and its crop or why there is none."""

    row: dict[str, Any]
    points_px: np.ndarray | None
    crop: HandCrop | Reason


class MeshBackend(Operator):
    """Base of the backends with such a network. `score` of a row is the detection's."""

    backend: ClassVar[str]
    """Its name, which is also that of its weights."""
    network_mb: ClassVar[int]
    """Its network's numbers, of 32 bits each."""
    packages: ClassVar[tuple[str, ...]] = ("torch", "opencv-python-headless")
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 1.0
    """A compromise between a GPU's 0.05 and a CPU's 20, as there is no figure by device; it plans the first clip only."""
    handles_lenses: ClassVar[bool] = True
    at_once: ClassVar[int] = 1
    """Crops that are one thing to its network."""
    aspect: ClassVar[float] = 4 / 3
    """Height over width to which a box is widened."""

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the model.

        Raises:
            WeightsMissing, WeightsMismatch, WeightsUnreadable: the checkpoint or MANO's file is not there, or not the right one.
            BadSettings: CUDA is asked for and not there.
            NoDevice: there is a GPU, and torch cannot use it.
            OutOfMemory: memory ran out.
        """
        from egoworld_ops.operators.hand_pose import _mesh_model

        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        self.micro_batch = options.micro_batch
        self._kind = self.kind()
        device = accelerator.pick_device(options.device, f"hand_pose.{self.backend}")
        seed = options.random_weights_seed
        self._label = self.backend if seed is None else f"{self.backend}-random"
        with self._out_of_memory("the model"):
            self._model: Model = (
                _mesh_model.load(self._kind, models.path(self.backend), models.path("mano_right"), device, options.precision)
                if seed is None
                else _mesh_model.random(self._kind, seed, device, options.precision)
            )

    @classmethod
    @abstractmethod
    def kind(cls) -> Kind:
        """Its network. Imports torch."""

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """An estimate; HaMeR took 3.4 GB on a CPU with eight crops. With bfloat16 autocast keeps copies of the weights, half their size."""
        options = cast("Settings", settings)
        if options.random_weights_seed is not None:
            return 0
        weights = cls.network_mb * (1.5 if options.precision == "bfloat16" else 1)
        return round(_PROCESS_MB[cls.device(options)] + weights + _CROP_MB * cls.at_once * options.micro_batch)

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """The checkpoint and MANO's right hand; none with random weights."""
        return (cls.backend, "mano_right") if cast("Settings", settings).random_weights_seed is None else ()

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Only if a hand of the wearer is detected, or has a mask."""
        return bool(self._hands(tables))

    def run(self, item: ClipInput) -> pa.Table:
        """One row per hand of the wearer that is detected, or that a mask is used of; a pose that cannot be found is null with a reason. A hand of
        which neither the network nor the detection tells image points has no row.

        Raises:
            OutOfMemory: host or device memory ran out.
        """
        import torch

        torch.set_num_threads(self.threads)
        with self._out_of_memory(f"clip {item.clip.clip_id} of {item.clip.video_id}"):
            return schema.from_rows("hand_pose", [row for batch in self._batches(item) for row in self._solved(batch, item.camera)])

    def _batches(self, item: ClipInput) -> Iterator[list[Any]]:
        """The clip's hands in order, as many at once as go through the network together."""
        found = self._hands(item.tables)
        if not found:
            return
        batch: list[Detected] = []
        for frame in item.frames():
            for row in found.get(frame.index, ()):
                batch.append(self._detected(item, frame, row))
                if len(batch) == self.micro_batch:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _hands(self, tables: Mapping[str, pa.Table]) -> dict[int, list[dict[str, Any]]]:
        """The wearer's hands by frame, as detections have them; see `Settings.mask_boxes`."""
        found = _of_wearer(tables["detections"], _COLUMNS)
        if self._options.mask_boxes == NEVER:
            return found
        masked = _of_wearer(tables["masks"], ("frame_index", "role", "bbox_px", "score", "observed"))
        for index, rows in masked.items():
            hands = {row["role"]: row for row in found.get(index, ())}
            for row in rows:
                if row["observed"] and (self._options.mask_boxes == "always" or row["role"] not in hands):
                    hands[row["role"]] = row | {"box_px": row["bbox_px"], "points_px": None}
            found[index] = [hands[role] for role in sorted(hands)]
        return {index: rows for index, rows in sorted(found.items()) if rows}

    def _detected(self, item: ClipInput, frame: Frame, detection: Mapping[str, Any]) -> Detected:
        hand: Hand = "right" if detection["role"] == "hand_right" else "left"
        points_px = None if detection["points_px"] is None else np.asarray(detection["points_px"], np.float64)
        box_px = np.asarray(detection["box_px"], np.float64)
        if points_px is not None and self._options.boxes == "points":
            box_px = np.concatenate([points_px.min(0), np.ptp(points_px, axis=0)])
        row = common(item, frame.index, frame.timestamp_s, self._label) | intrinsics(item.camera)
        row |= {"hand": hand, "score": detection["score"], "observed": True}
        return Detected(row, points_px, _crop(frame.rgb, box_px, hand, item.camera, self._options.padding, self.aspect))

    def _solved(self, batch: Sequence[Any], camera: Camera) -> Iterator[dict[str, Any]]:
        """The rows of a batch of `_batches`."""
        crops = [d.crop for d in batch if isinstance(d.crop, HandCrop)]
        hands = self._model(np.stack([crop.image for crop in crops])) if crops else None
        numbers = itertools.count()
        for detected in batch:
            yield from self._row(detected, hands, next(numbers) if isinstance(detected.crop, HandCrop) else 0, camera)

    def _row(self, detected: Detected, hands: Hands | None, i: int, camera: Camera) -> Iterator[dict[str, Any]]:
        """The row of a detected hand, which is hand `i` of the network's, if it has one."""
        found: dict[str, Any] | Reason
        if isinstance(detected.crop, HandCrop):
            assert hands is not None
            placed = self._placed(detected.crop, hands, i)
            found = placed if isinstance(placed, Reason) else _pose(detected.crop, placed, hands, i, camera, self._options)
        else:
            found = detected.crop
        if not isinstance(found, Reason):
            yield detected.row | found
        elif detected.points_px is not None:
            yield detected.row | {"joints_px": detected.points_px} | found.columns()

    def _placed(self, crop: HandCrop, hands: Hands, i: int) -> Placed | Reason:
        """Hand `i` before the true camera."""
        from egoworld_ops.operators.hand_pose._vit import FOCAL_PX

        return place(crop, hands.joints_m[i], hands.camera[i], FOCAL_PX)

    def _out_of_memory(self, culprit: str) -> AbstractContextManager[None]:
        cure = f"Free memory, or set a smaller micro_batch in stages.hand_pose.{self.backend}"
        return accelerator.out_of_memory(culprit, self._kind.name, cure)


def _of_wearer(rows: pa.Table, columns: Sequence[str]) -> dict[int, list[dict[str, Any]]]:
    """The wearer's hands by frame."""
    found = by_frame(rows, columns)
    own = {index: [row for row in rows if row["role"] in ("hand_left", "hand_right")] for index, rows in found.items()}
    return {index: rows for index, rows in own.items() if rows}


def _crop(rgb: np.ndarray, box_px: np.ndarray, hand: Hand, camera: Camera, padding: float, aspect: float) -> HandCrop | Reason:
    from egoworld_ops.operators.hand_pose._vit import CROP_PX

    if not (np.isfinite(box_px).all() and (box_px[2:] > 0).all()):
        return Reason("no_upstream", "the detection's box has no area")
    try:
        return cut(rgb, box_px, hand, camera, CROP_PX, padding, aspect)
    except ValueError:
        return Reason("off_lens", f"the middle of the hand's box lies where the {camera.model} lens shows nothing")


def _pose(crop: HandCrop, placed: Placed, hands: Hands, i: int, camera: Camera, options: Settings) -> dict[str, Any]:
    """The columns of hand `i`'s pose; those that say why it is null."""
    seen = {"joints_px": placed.joints_px, "reprojection_px": placed.reprojection_px}
    extent_px = float(np.ptp(placed.joints_px, axis=0).max())
    share = placed.reprojection_px / max(extent_px, 1e-9)
    if not share <= options.max_reprojection_share:
        limit_px = options.max_reprojection_share * extent_px
        why = f"reprojection error {placed.reprojection_px:.1f} px is above {limit_px:.1f} px for a hand of this size"
        return seen | Reason("poor_fit", why).columns()
    R_camera_wrist = wrist_rotation(placed.joints_m, crop.hand)
    if R_camera_wrist is None:
        return seen | Reason("degenerate", "wrist, index and middle knuckle lie on a line: the wrist frame is not defined").columns()
    return {
        **seen,
        "joints_m": placed.joints_m,
        "joints_wrist_m": in_wrist_frame(placed.joints_m, R_camera_wrist),
        "mano_pose": _mano_pose(crop, placed, hands.rotations[i]),
        "mano_betas": hands.betas[i],
        "vertices_wrist_m": _surface(crop, placed, hands.vertices_m[i], R_camera_wrist) if options.vertices else None,
        "depth_error_share": depth_error_share(camera, SIZE_ERROR_SHARE, share),
        **pose_columns(R_camera_wrist, placed.joints_m[0]),
    }


def _surface(crop: HandCrop, placed: Placed, vertices_m: np.ndarray, R_camera_wrist: np.ndarray) -> np.ndarray:
    """(778, 3) the actual hand's vertices in its wrist frame, rounded."""
    in_camera_m = crop.to_own_points(vertices_m) @ placed.R_camera_model.T + placed.t_camera_model_m
    return np.round((in_camera_m - placed.joints_m[0]) @ R_camera_wrist / _VERTEX_STEP_M) * _VERTEX_STEP_M


def _mano_pose(crop: HandCrop, placed: Placed, rotations: np.ndarray) -> np.ndarray:
    """(48,) axis-angles of the actual hand's model, the first in the camera frame."""
    from egoworld_ops.operators.hand_pose._mano import axis_angles, rotation_of

    own = crop.to_own_side(axis_angles(rotations))
    own[:1] = axis_angles(placed.R_camera_model[None] @ rotation_of(own[0]))
    return own.ravel()
