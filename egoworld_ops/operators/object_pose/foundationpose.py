"""Backend `foundationpose`: 6D poses of objects whose mesh is given, from pictures and metric depth, by NVIDIA's networks.

An object is registered in the first frame in which mask and depth show it, and followed from frame to frame after that (`_foundationpose.py`). The
networks do not say when they have lost it: each pose is rendered and compared with the mask and with the depth. What does not agree is registered
anew, and where that does not agree either the pose is null and says so. A pose whose outline is of another size than the mask rests on depth of
another scale, and is not verified. Nothing is smoothed or carried over time.

onnxruntime and Warp are imported only where a model is built: reading settings or digests does not load them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import cv2
import numpy as np
import pyarrow as pa
from pydantic import Field

from egoworld_ops import models
from egoworld_ops.contract import schema
from egoworld_ops.contract.reasons import Reason
from egoworld_ops.operators import extras
from egoworld_ops.operators.base import BackendSettings, ClipInput, Operator
from egoworld_ops.operators.depth_maps import DepthMap, DepthMaps
from egoworld_ops.operators.object_pose._tracking import MIN_MASK_SHARE
from egoworld_ops.operators.object_pose.classical import described
from egoworld_ops.operators.onnx_network import out_of_memory, pick_device
from egoworld_ops.operators.rectifying import run_rectified
from egoworld_ops.operators.rows import by_frame, common, depth_error_share, intrinsics, pose_columns
from egoworld_ops.types import Camera, Frame
from egoworld_ops.video.sidecar import mesh_path
from egoworld_ops.vision import rle

if TYPE_CHECKING:
    from egoworld_ops.operators.object_pose._foundationpose import Estimator, Fit, Target
    from egoworld_ops.operators.object_pose._painted_mesh import PaintedMesh

_MASK_COLUMNS = ("frame_index", "track_id", "role", "label", "rle", "observed")
_NETWORKS_MB, _PAIR_MB, _SCORED = 140, 17, 252
"""Of both networks; of a pair of pictures, from the peak of a process with all hypotheses scored at once (`benchmarks/bench_foundationpose.py`)."""
_PROCESS_MB = {"cpu": 500, "cuda": 1200}
"""A process with onnxruntime and Warp; CUDA's context and workspaces."""
_OPERATOR = "object_pose.foundationpose"
_REFINER, _SCORER = "foundationpose_refiner", "foundationpose_score"
UNVERIFIED = 0.5


class Settings(BackendSettings):
    """Options of `[stages.object_pose.foundationpose]`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` means CUDA if there is one; the pool decides which workers see one, see `Operator.device`."""
    tensorrt: bool = False
    """Whether onnxruntime has TensorRT make engines of the networks: minutes at the first start, faster after that. Last bits differ."""
    micro_batch: Annotated[int, Field(ge=1, le=252)] = 42
    """Hypotheses refined at once. All are scored at once, as the scorer compares them with each other: that is what costs memory.

    It is an option, and so in the digest, since libraries choose their kernels by the size of the work, which may change last bits.
    """
    register_rounds: Annotated[int, Field(ge=1, le=50)] = 5
    """How often each first hypothesis is refined. 5 are published, NVIDIA's Isaac ROS has 1."""
    track_rounds: Annotated[int, Field(ge=1, le=50)] = 2
    """How often the pose of the frame before is refined."""
    min_mask_iou: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Intersection over union of rendered pose and mask, where nothing is in front, below which a pose is lost. A guess, not fitted to anything."""
    max_depth_off_share: Annotated[float, Field(gt=0)] = 0.1
    """Median distance of the rendered surface from the depth seen, over the mesh's diameter, above which a pose is lost. A guess as well."""
    max_outline_off_share: Annotated[float, Field(gt=0)] = 0.05
    """By which the rendered outline may be larger or smaller than the mask, beside a pixel: above it the pose stays and is not verified, as the depth
    that it follows must be of another scale. A depth camera is within 2 %."""
    max_gap_s: Annotated[float, Field(ge=0)] = 0.5
    """An object that was not seen for longer is registered anew."""
    retry_s: Annotated[float, Field(ge=0)] = 0.5
    """A lost object is registered anew at most so often: a registration costs as much as some 300 frames of following."""
    random_weights_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Random numbers from this seed in the networks' place, to test the pipeline without weights. Rows then say `foundationpose-random`, and no pose
    of theirs counts as verified."""


@dataclass
class _Followed:
    """What is known of one object track up to a frame: its pose unless it is lost, the last one it had, and when it was found and tried to be."""

    estimator: Estimator
    mesh: PaintedMesh
    T_camera_object: np.ndarray | None = None
    before: np.ndarray | None = None
    found_s: float = -np.inf
    tried_s: float = -np.inf


@dataclass(frozen=True, slots=True)
class _Found:
    T_camera_object: np.ndarray
    method: str
    fit: Fit


class Backend(Operator):
    """FoundationPose (Wen et al., CVPR 2024) with NVIDIA's networks for commercial use. `score` is `mask_iou`, at most half where not verified."""

    version: ClassVar[str] = "3"
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime", "warp-lang", "opencv-python-headless", "scipy", "trimesh", "pycocotools")
    Settings: ClassVar[type[BackendSettings]] = Settings
    seconds_per_frame: ClassVar[float] = 0.5
    """A compromise between a GPU's 0.05 and a CPU's 5, as there is no figure by device; it plans the first clip only."""
    handles_lenses: ClassVar[bool] = True

    def __init__(self, settings: BackendSettings, threads: int) -> None:
        """Load the networks.

        Raises:
            WeightsMissing, WeightsMismatch, WeightsUnreadable: a file is not there, or not the right one.
            SetupError: onnxruntime or Warp is not installed.
            BadSettings: CUDA or TensorRT is asked for and not there.
            NoDevice: there is a GPU that cannot be used.
        """
        super().__init__(settings, threads)
        self._options = options = cast("Settings", settings)
        self.micro_batch = options.micro_batch
        self._device = pick_device(options.device, _OPERATOR, options.tensorrt)
        extras.require("warp", "foundationpose", _OPERATOR)
        from egoworld_ops.operators.object_pose import _foundationpose_networks as networks
        from egoworld_ops.operators.object_pose._renderer import check_device

        check_device(self._device)
        seed = options.random_weights_seed
        self._label = "foundationpose" if seed is None else "foundationpose-random"
        self._networks: networks.Networks = (
            networks.Published(models.path(_REFINER), models.path(_SCORER), self._device, options.tensorrt, threads)
            if seed is None
            else networks.Random(seed)
        )

    @classmethod
    def memory_mb(cls, settings: BackendSettings) -> int:
        """An estimate: on a CPU 4.2 GB more than before were seen while all 252 hypotheses were scored; on a GPU nothing was measured."""
        options = cast("Settings", settings)
        if options.random_weights_seed is not None:
            return 0
        return _PROCESS_MB[cls.device(options)] + _NETWORKS_MB + _PAIR_MB * max(_SCORED, options.micro_batch)

    @classmethod
    def weights(cls, settings: BackendSettings) -> tuple[str, ...]:
        """Refiner and scorer; none with random weights."""
        return (_REFINER, _SCORER) if cast("Settings", settings).random_weights_seed is None else ()

    def reads_frames(self, tables: Mapping[str, pa.Table]) -> bool:
        """Only if an object is masked and there is depth."""
        return "object" in tables["masks"]["role"].unique().to_pylist() and len(DepthMaps(tables["depth"])) > 0

    def run(self, item: ClipInput) -> pa.Table:
        """Table `object_pose`: one row for every frame in which an object is masked.

        Raises:
            BadSidecar: a mesh named in the sidecar cannot be used.
            OutOfMemory: host or device memory ran out.
        """
        cv2.setNumThreads(self.threads)
        with out_of_memory(f"clip {item.clip.clip_id} of {item.clip.video_id}", _OPERATOR):
            rows = run_rectified("object_pose", item, self._solved).to_pylist()
        known = {(row["frame_index"], row["track_id"]) for row in rows}
        for row in item.tables["masks"].select([*_MASK_COLUMNS, "timestamp_s"]).to_pylist():
            if row["role"] == "object" and (row["frame_index"], row["track_id"]) not in known:
                rows.append(self._row(item, row, None) | self._unread(item).columns())
        return schema.from_rows("object_pose", sorted(rows, key=lambda row: (row["track_id"], row["frame_index"])))

    def _unread(self, item: ClipInput) -> Reason:
        """Why a mask has no row though nothing of it was looked at."""
        if not len(DepthMaps(item.tables["depth"])):
            return _NO_DEPTH
        return Reason("off_lens", "the object lies more than 70 degrees from the middle of its view, or where the lens shows nothing")

    def _solved(self, item: ClipInput) -> pa.Table:
        """The rows of a clip that a pinhole camera sees."""
        masks, depths = by_frame(item.tables["masks"], (*_MASK_COLUMNS, "timestamp_s")), DepthMaps(item.tables["depth"])
        rows: list[dict[str, Any]] = []
        if len(depths) and any(_objects_of(of) for of in masks.values()):
            followed = self._objects(item)
            for frame in item.frames():
                rows += self._in_frame(item, frame, masks.get(frame.index, []), depths.of(frame.index), followed)
        return schema.from_rows("object_pose", rows) if rows else schema.empty("object_pose")

    def _objects(self, item: ClipInput) -> dict[int, _Followed]:
        """The tracks whose mesh the sidecar gives, each mesh read once."""
        from egoworld_ops.operators.object_pose._foundationpose import Estimator
        from egoworld_ops.operators.object_pose._painted_mesh import read_painted_mesh
        from egoworld_ops.operators.object_pose._renderer import Renderer

        labels = {row["track_id"]: row["label"] for row in _objects_of(item.tables["masks"].select(list(_MASK_COLUMNS)).to_pylist())}
        found: dict[int, _Followed] = {}
        made: dict[str, tuple[Estimator, PaintedMesh]] = {}
        for track_id, given in sorted(described(item.sidecar.objects, labels).items()):
            if given.mesh is not None:
                if given.mesh not in made:
                    mesh = read_painted_mesh(mesh_path(item.clip.video_path.parent, given.mesh))
                    made[given.mesh] = Estimator(self._networks, Renderer(mesh, self._device), mesh, self.micro_batch), mesh
                found[track_id] = _Followed(*made[given.mesh])
        return found

    def _in_frame(
        self, item: ClipInput, frame: Frame, masks: list[dict[str, Any]], depth: DepthMap | None, followed: Mapping[int, _Followed]
    ) -> Iterator[dict[str, Any]]:
        size = frame.rgb.shape[0], frame.rgb.shape[1]
        objects = _objects_of(masks)
        decoded = {row["track_id"]: rle.decode_at(row["rle"], size) for row in (masks if objects else ())}
        unseen = np.zeros(size, bool) if item.unseen is None else item.unseen
        for row in objects:
            of, mask = followed.get(row["track_id"]), decoded[row["track_id"]]
            others = np.logical_or.reduce([unseen, *(other for track_id, other in decoded.items() if track_id != row["track_id"])])
            made = self._row(item, row, of)
            shown = mask & ~others
            if of is None:
                yield made | Reason("no_mesh", "the sidecar gives no mesh of this object").columns()
            elif depth is None:
                yield made | _NO_DEPTH.columns()
            elif mask.mean() < MIN_MASK_SHARE:
                yield (
                    made
                    | Reason("too_small", f"the mask covers {mask.mean():.1g} of the picture, {MIN_MASK_SHARE:.0e} are needed").columns()
                )
            elif not shown.any():
                yield made | Reason("too_hidden", "other masks cover all of the object").columns()
            else:
                found = self._pose(of, _target(item, frame, depth, shown, others, of.mesh), frame.timestamp_s)
                yield made | (found.columns() if isinstance(found, Reason) else self._columns(item, of, found))

    def _pose(self, of: _Followed, target: Target, now_s: float) -> _Found | Reason:
        """The pose in a frame: followed, or registered where that does not do."""
        if of.T_camera_object is not None and now_s - of.found_s <= self._options.max_gap_s:
            T = of.estimator.follow(target.view, of.T_camera_object, self._options.track_rounds)
            fit = of.estimator.fit(target, T)
            if self._wrong(of, fit) is None:
                of.T_camera_object, of.before, of.found_s = T, T, now_s
                return _Found(T, "tracked", fit)
        of.T_camera_object = None
        if now_s - of.tried_s < self._options.retry_s:
            kind = "no_fit" if of.before is None else "lost"
            return Reason(
                kind, f"no pose was found {now_s - of.tried_s:.2f} s ago, and it is looked for every {self._options.retry_s:g} s only"
            )
        registered = of.estimator.register(target, self._options.register_rounds)
        if isinstance(registered, Reason):
            return registered
        of.tried_s = now_s
        fit = of.estimator.fit(target, registered)
        if (wrong := self._wrong(of, fit)) is not None:
            return wrong if of.before is None else Reason("lost", f"the object was followed, and is lost: {wrong}")
        method = "registered" if of.before is None else "reregistered"
        if of.before is not None:
            registered = of.mesh.equal_nearest_to(registered, of.before)
        of.T_camera_object, of.before, of.found_s, of.tried_s = registered, registered, now_s, -np.inf
        return _Found(registered, method, fit)

    def _wrong(self, of: _Followed, fit: Fit) -> Reason | None:
        """What speaks against a pose; None where it agrees with mask and depth."""
        least, most = self._options.min_mask_iou, self._options.max_depth_off_share
        if fit.mask_iou < least:
            return Reason("no_fit", f"rendered pose and mask overlap by {100 * fit.mask_iou:.0f} %, {100 * least:.0f} % are needed")
        share = fit.depth_off_m / of.mesh.diameter_m
        if np.isnan(share):
            return Reason("no_depth", "too few depths are known where the object is seen to tell whether the pose is right")
        if share > most:
            return Reason(
                "no_fit", f"the rendered pose is {100 * share:.0f} % of the object's size from the depth, {100 * most:.0f} % are allowed"
            )
        return None

    def _row(self, item: ClipInput, mask: Mapping[str, Any], of: _Followed | None) -> dict[str, Any]:
        """A row without a pose."""
        row = common(item, mask["frame_index"], mask["timestamp_s"], self._label) | intrinsics(item.camera)
        row |= {name: mask[name] for name in ("track_id", "label", "observed")} | {"converged": False}
        return row | ({"scale_source": "none"} if of is None else {"scale_source": "mesh", "dimensions_m": of.mesh.dimensions_m})

    def _columns(self, item: ClipInput, of: _Followed, found: _Found) -> dict[str, Any]:
        T, fit = found.T_camera_object, found.fit
        columns = pose_columns(T[:3, :3], T[:3, 3]) | {
            "method": found.method,
            "mask_iou": fit.mask_iou,
            "symmetry": of.mesh.symmetry.kind,
            "depth_error_share": _depth_error_share(item, fit.depth_off_m / T[2, 3]),
        }
        if self._options.random_weights_seed is not None:
            random = Reason("random_weights", "the networks are random numbers: no pose of theirs means anything")
            return columns | {"score": UNVERIFIED * fit.mask_iou, "converged": False} | random.columns()
        if (off := abs(np.log(fit.outline_scale))) > self._options.max_outline_off_share + fit.pixel_share:
            scaled = Reason(
                "wrong_scale",
                f"the mesh fills the mask at {1 / fit.outline_scale:.2f} times this distance, {100 * off:.0f} % off: the depth is of another scale",
            )
            return columns | {"score": UNVERIFIED * fit.mask_iou, "converged": False} | scaled.columns()
        return columns | {"score": fit.mask_iou, "converged": True}


_NO_DEPTH = Reason("no_depth", "no depth is known of this frame, and the networks need it in metres")


def _depth_error_share(item: ClipInput, off_share: float) -> float | None:
    """Of a pose that agrees with the depth but for a share of it: it is as far off as the depth is; null where nobody states that."""
    of_depth = item.tables["depth"]["depth_error_share"][0].as_py()
    return None if of_depth is None else depth_error_share(item.camera, of_depth, off_share)


def _objects_of(masks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in masks if row["role"] == "object"]


def _target(item: ClipInput, frame: Frame, depth: DepthMap, mask: np.ndarray, hidden: np.ndarray, mesh: PaintedMesh) -> Target:
    from egoworld_ops.operators.object_pose._foundationpose import Target, part_around
    from egoworld_ops.operators.object_pose._foundationpose_pairs import view_of

    on_mask = depth.along(_rays(item.camera, *np.nonzero(mask)))
    known = on_mask[on_mask > 0]
    part = part_around(item.camera, mask, float(np.median(known)) if len(known) else None, mesh.diameter_m)
    return Target(view_of(item.camera, frame.rgb, depth.along(_rays(item.camera, *np.ogrid[part])), part), mask, hidden)


def _rays(camera: Camera, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(..., 3) directions of pixels of a pinhole camera, z = 1."""
    x, y = np.broadcast_arrays((columns - camera.cx_px) / camera.fx_px, (rows - camera.cy_px) / camera.fy_px)
    return np.stack([x, y, np.ones_like(x)], -1)
