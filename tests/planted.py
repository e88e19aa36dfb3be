"""Faults planted in the finished tables of clips, and the warnings that each is meant to raise: `stage.metric`, no more and no fewer.

What is planted is what a wrong model or a wrong setting would have written; stages downstream keep their rows, `agreement` is computed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egoworld_ops import operators
from egoworld_ops.contract import quality, schema, validation
from egoworld_ops.contract.quality import Span
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.rows import camera_of, intrinsics, pose_columns, pose_of
from egoworld_ops.types import Camera, Clip
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision import rle
from egoworld_ops.vision.geometry import rotations
from egoworld_ops.vision.lenses import project, unproject
from tests.rows import PER_FRAME, sample_row

Rows = list[dict[str, Any]]
Tables = Mapping[str, pa.Table]
JITTER_M = 0.008
ASIDE_M = 0.15
SHIFT = 3
FROZEN = 20
SECOND = 20
"""Added to the number of a track that is doubled."""


@dataclass(frozen=True, slots=True)
class Known:
    """The tables of one clip, and its frames [start, end)."""

    tables: Tables
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Args:
        plant: changes the tables of a clip in place, given as rows by stage.
        warns: the warnings meant for it; none where tables cannot tell.
        may: warnings that are as true of it where the video makes them so.
        needs: the stages that must have rows.
    """

    name: str
    plant: Callable[[dict[str, Rows], np.random.Generator], None]
    warns: frozenset[str]
    may: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ("hand_pose",)


def with_fault(clip: Known, fault: Fault, seed: int = 0) -> Known:
    """The clip with the fault in its tables, which keep the contract."""
    rows = _Rows(clip.tables)
    fault.plant(rows, np.random.default_rng(seed))
    changed = {stage: schema.from_rows(stage, of_stage) if of_stage else schema.empty(stage) for stage, of_stage in rows.items()}
    for stage, table in changed.items():
        validation.validate(stage, table)
    return replace(clip, tables={**clip.tables, **changed})


class _Rows(dict[str, Rows]):
    """Rows by stage, made of tables when they are asked for."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self._tables = tables

    def __missing__(self, stage: str) -> Rows:
        self[stage] = self._tables[stage].to_pylist()
        return self[stage]


def agreement(tables: Tables) -> pa.Table:
    """Table `agreement` of a clip's tables."""
    matched = operators.load("agreement", "matched")
    return matched(matched.Settings(), 1).run(clip_input(tables))


def clip_input(tables: Tables, camera: Camera | None = None) -> ClipInput:
    """A clip without frames."""
    clip = Clip(str(PER_FRAME["video_id"]), str(PER_FRAME["clip_id"]), Path("v.mp4"), "0" * 64, 0, 1, 0, 1, 0.0, 1.0, Fraction(30), 64, 64)
    return ClipInput(clip, tables, Sidecar(), camera or Camera(1, 1, 0, 0, 1, 1, "file"), 1, lambda: iter(()))


def warned(clips: Sequence[Known], folder: Path) -> set[str]:
    """The warnings of a video of these clips, as `stage.metric`; tables are written to the folder."""
    found = measured(clips, folder)
    return {f"{stage}.{said.partition(' ')[0]}" for stage, values in found.items() for said in quality.verdicts(stage, values, {})}


def measured(clips: Sequence[Known], folder: Path) -> dict[str, dict[str, float | None]]:
    """The quality metrics of a video of these clips, by stage; tables are written to the folder."""
    spans: list[Span] = []
    files: dict[str, list[Path]] = {stage: [] for stage in operators.stages()}
    for n, clip in enumerate(clips):
        spans.append(Span(f"c{n}", clip.start, clip.end, 1))
        place = folder / f"clip_id=c{n}"
        place.mkdir(parents=True, exist_ok=True)
        for stage, table in {**clip.tables, "agreement": agreement(clip.tables)}.items():
            named = table.set_column(table.schema.get_field_index("clip_id"), "clip_id", pa.repeat(pa.scalar(f"c{n}"), table.num_rows))
            pq.write_table(named, place / f"{stage}.parquet")
            files[stage].append(place / f"{stage}.parquet")
    with duckdb.connect() as connection:
        return {stage: quality.measure(connection, stage, of_stage, spans=spans) for stage, of_stage in files.items()}


def _swap_in_hand_pose(rows: dict[str, Rows], _: np.random.Generator) -> None:
    for row in rows["hand_pose"]:
        row["hand"] = {"left": "right", "right": "left"}[row["hand"]]


def _swap_everywhere(rows: dict[str, Rows], _: np.random.Generator) -> None:
    roles = {"hand_left": "hand_right", "hand_right": "hand_left"}
    for stage in ("detections", "masks"):
        for row in rows[stage]:
            if row["role"] in roles:
                row["role"], row["track_id"] = roles[row["role"]], 3 - row["track_id"]
    for stage in ("hand_pose", "fusion", "contacts", "mapping"):
        for row in rows[stage]:
            row["hand"] = {"left": "right", "right": "left"}[row["hand"]]


def _shift(stage: str) -> Callable[[dict[str, Rows], np.random.Generator], None]:
    def plant(rows: dict[str, Rows], _: np.random.Generator) -> None:
        last = max(row["frame_index"] for row in rows[stage])
        times = {row["frame_index"]: row["timestamp_s"] for row in rows["detections"] + rows["masks"]}
        rows[stage] = [
            row | {"frame_index": at, "timestamp_s": times[at]}
            for row in rows[stage]
            if (at := row["frame_index"] + SHIFT) <= last and at in times
        ]

    return plant


def _shift_all(rows: dict[str, Rows], _: np.random.Generator) -> None:
    for stage in ("detections", "masks", "hand_pose", "fusion", "object_pose", "movement", "contacts", "mapping"):
        for row in rows[stage]:
            row["frame_index"] += SHIFT


def _drop_masks(rows: dict[str, Rows], rng: np.random.Generator) -> None:
    rows["masks"] = [row for row in rows["masks"] if rng.random() > 0.25]


def _empty_masks(rows: dict[str, Rows], rng: np.random.Generator) -> None:
    for row in rows["masks"]:
        if rng.random() < 0.25:
            seen = np.zeros(row["rle"]["size"], bool)
            x, y, width, height = (np.array(row["bbox_px"]) * row["mask_scale"]).astype(int)
            seen[y + height // 2, x + width // 2] = True
            row |= {"rle": rle.encode(seen), "area_px": 1, "bbox_px": (rle.mask_bbox(seen) / row["mask_scale"]).tolist()}


def _jitter(rows: dict[str, Rows], rng: np.random.Generator) -> None:
    for row in rows["hand_pose"]:
        if row["joints_m"] is not None:
            off = rng.normal(0, JITTER_M, (21, 3))
            joints_m = np.array(row["joints_m"]) + off
            row["joints_m"] = joints_m.tolist()
            row["joints_px"] = project(camera_of(row), joints_m).tolist()


def _turn(rows: dict[str, Rows], _: np.random.Generator) -> None:
    """About the axis that makes most of a difference: that of the middle side, which brings the longest where the shortest was."""
    for row in rows["object_pose"]:
        T = pose_of(row)
        if T is not None and row["dimensions_m"] is not None:
            turn = np.zeros(3)
            turn[int(np.argsort(row["dimensions_m"])[1])] = np.pi / 2
            row |= pose_columns(T[:3, :3] @ rotations(turn[None])[0], T[:3, 3])


def _ends_elsewhere(rows: dict[str, Rows], _: np.random.Generator) -> None:
    """From the middle of the clip on objects are followed in another corner, as after a cut that was not found; their poses do not stand there."""
    frames = sorted({row["frame_index"] for row in rows["masks"]})
    middle = frames[len(frames) // 2]
    boxes: dict[tuple[int, int], Sequence[float]] = {}
    far: dict[int, np.ndarray] = {}
    for row in rows["masks"]:
        if row["role"] == "object" and row["frame_index"] >= middle:
            height, width = row["rle"]["size"]
            x, y, w, h = (np.array(row["bbox_px"]) * row["mask_scale"]).astype(int)
            corner = far.setdefault(row["track_id"], np.array([x + w / 2 < width / 2, y + h / 2 < height / 2]))
            x, y = corner * (width - w, height - h)
            seen = np.zeros((height, width), bool)
            seen[y : y + h, x : x + w] = True
            row |= {"rle": rle.encode(seen), "area_px": int(seen.sum()), "bbox_px": (rle.mask_bbox(seen) / row["mask_scale"]).tolist()}
            boxes[row["frame_index"], row["track_id"]] = row["bbox_px"]
    for row in rows["detections"]:
        row["box_px"] = boxes.get((row["frame_index"], row["track_id"]), row["box_px"])
    for row in rows["object_pose"]:
        row["converged"] &= (row["frame_index"], row["track_id"]) not in boxes


def _millimetres(stage: str, *columns: str) -> Callable[[dict[str, Rows], np.random.Generator], None]:
    def plant(rows: dict[str, Rows], _: np.random.Generator) -> None:
        for row in rows[stage]:
            for name in columns:
                if row[name] is not None:
                    row[name] = (np.array(row[name]) * 1000).tolist()

    return plant


def _freeze(stage: str) -> Callable[[dict[str, Rows], np.random.Generator], None]:
    def plant(rows: dict[str, Rows], _: np.random.Generator) -> None:
        own = ("video_id", "clip_id", "frame_index", "timestamp_s")
        kept: dict[Any, dict[str, Any]] = {}
        for row in sorted(rows[stage], key=lambda r: r["frame_index"]):
            of = row.get("hand", row.get("track_id"))
            pose = kept.setdefault(of, row)
            if row["frame_index"] - pose["frame_index"] > FROZEN or pose["qw"] is None:
                kept[of] = row
            else:
                row.update({name: value for name, value in pose.items() if name not in own})

    return plant


def _second_person(rows: dict[str, Rows], _: np.random.Generator) -> None:
    """A hand that mirrors the wearer's from the other side of the table, in every fourth frame, as `detections` writes it."""
    added: dict[int, dict[str, Any]] = {}
    for row in rows["detections"]:
        if row["role"] != "object" and row["frame_index"] % 4 == 0:
            other = {"role": "hand_other", "track_id": 3, "owner": "other", "jumped": None}
            added.setdefault(row["frame_index"], row | other | {"box_px": [0.0, 0.0, *row["box_px"][2:]]})
    rows["detections"] += added.values()


def _zeros(rows: dict[str, Rows], _: np.random.Generator) -> None:
    none = np.zeros((21, 3)).tolist()
    for row in rows["hand_pose"]:
        row |= {"joints_px": np.zeros((21, 2)).tolist(), "joints_m": none, "joints_wrist_m": none, "x_m": 0.0, "y_m": 0.0, "z_m": 0.0}
        row["reprojection_px"] = 0.0


def _nothing(*stages: str) -> Callable[[dict[str, Rows], np.random.Generator], None]:
    def plant(rows: dict[str, Rows], _: np.random.Generator) -> None:
        for stage in stages:
            rows[stage] = []

    return plant


def _lens_in_rows(rows: dict[str, Rows], _: np.random.Generator) -> None:
    for row in rows["hand_pose"]:
        row |= intrinsics(_wide(camera_of(row)))


def _longer(factor: float) -> Callable[[Camera], Camera]:
    return lambda camera: replace(camera, fx_px=factor * camera.fx_px, fy_px=factor * camera.fy_px)


def _wide(camera: Camera) -> Camera:
    """The lens of a headset, of half the focal length."""
    return replace(camera, fx_px=camera.fx_px / 2, fy_px=camera.fy_px / 2, model="kannala_brandt", distortion=(0.02, 0.0, 0.0, 0.0))


def _solved_with(change: Callable[[Camera], Camera]) -> Callable[[dict[str, Rows], np.random.Generator], None]:
    """Hands solved anew by the stage itself with another camera, and said so; fused hands and objects moved to where they look the same."""

    def plant(rows: dict[str, Rows], _: np.random.Generator) -> None:
        camera = camera_of(rows["hand_pose"][0])
        wrong = change(camera)
        mediapipe = operators.load("hand_pose", "mediapipe")
        item = clip_input({"detections": schema.from_rows("detections", rows["detections"])}, wrong)
        rows["hand_pose"] = mediapipe(mediapipe.Settings(), 1).run(item).to_pylist()
        for row in rows["hand_pose"]:
            row["clip_id"] = rows["detections"][0]["clip_id"]
        longer = wrong.fx_px / camera.fx_px
        for row in rows["fusion"]:
            if row["joints_m"] is not None:
                joints_m = np.array(row["joints_m"])
                rays = unproject(wrong, project(camera, joints_m))
                row["joints_m"] = (rays / rays[:, 2:] * joints_m[:, 2:] * longer).tolist()
        for row in rows["object_pose"]:
            if row["z_m"] is not None:
                row |= intrinsics(wrong) | {"z_m": row["z_m"] * longer}

    return plant


def _fused_aside(rows: dict[str, Rows], _: np.random.Generator) -> None:
    for row in rows["fusion"]:
        if row["joints_m"] is not None:
            row["joints_m"] = (np.array(row["joints_m"]) + np.array([ASIDE_M, 0, 0])).tolist()


def _doubled(rows: dict[str, Rows], _: np.random.Generator) -> None:
    """Every object has a second track of the same pixels; where there is none, the hands are objects too."""
    objects = [row for row in rows["masks"] if row["role"] == "object"]
    if objects:
        for stage in ("detections", "masks", "object_pose", "movement"):
            rows[stage] += [row | {"track_id": row["track_id"] + SECOND} for row in rows[stage] if row.get("role", "object") == "object"]
        return
    second = [row | {"track_id": row["track_id"] + SECOND, "role": "object"} for row in rows["masks"]]
    rows["masks"] += second
    for stage in ("object_pose", "movement"):
        rows[stage] = [sample_row(stage, row["frame_index"], track_id=row["track_id"]) for row in second]


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


HAND_FAULTS = (
    Fault(
        "hands swapped in hand_pose",
        _swap_in_hand_pose,
        _of("agreement.other_thing_share"),
        _of("agreement.wrong_side_share"),  # where the hands overlap, so that each pose fits both masks
    ),
    Fault("hands swapped in all tables", _swap_everywhere, _of("agreement.wrong_side_share")),
    Fault("focal length doubled", _solved_with(_longer(2.0)), _of("hand_pose.field_of_view_deg"), _of("hand_pose.depth_m_median")),
    Fault("hand_pose shifted by 3 frames", _shift("hand_pose"), _of("agreement.shifted_share")),
    Fault("masks shifted by 3 frames", _shift("masks"), _of("agreement.shifted_share")),
    Fault("a quarter of the masks not there", _drop_masks, _of("masks.masked_share")),
    Fault("a quarter of the masks with one pixel", _empty_masks, _of("agreement.empty_mask_share")),
    Fault("jitter of 8 mm added to joints", _jitter, _of("agreement.jitter_share_median")),
    Fault(
        "hands in millimetres",
        _millimetres("hand_pose", "joints_m", "joints_wrist_m", "x_m", "y_m", "z_m"),
        _of("hand_pose.depth_m_median", "hand_pose.hand_length_m_median"),
    ),
    Fault("hand pose frozen for 20 frames at a time", _freeze("hand_pose"), _of("agreement.frozen_share")),
    Fault("a second person", _second_person, _of("detections.hand_other_share")),
    Fault("hand_pose gives zeros", _zeros, _of("agreement.collapsed_share", "hand_pose.depth_m_median")),
    Fault("hand_pose gives nothing", _nothing("hand_pose"), _of("hand_pose.answered_share")),
    Fault("masks gives nothing", _nothing("masks", "contacts", "object_pose", "movement"), _of("masks.masked_share")),
    Fault(
        "detections gives nothing",
        _nothing("detections", "masks", "hand_pose", "fusion", "contacts", "mapping", "object_pose", "movement"),
        _of("detections.hand_any_share"),
    ),
    Fault("hands 15 cm aside after fusion", _fused_aside, _of("agreement.fused_off_mask_share"), needs=("hand_pose", "fusion")),
    Fault("another lens in the rows than they were solved with", _lens_in_rows, _of("agreement.projection_share")),
    Fault("tracks doubled", _doubled, _of("agreement.doubled_share")),
)
OBJECT_FAULTS = (
    Fault("object turned by 90 degrees", _turn, _of("agreement.outline_off_mask_share"), needs=("object_pose",)),
    Fault("object pose shifted by 3 frames", _shift("object_pose"), _of("agreement.shifted_share"), needs=("object_pose",)),
    Fault(
        "object in millimetres",
        _millimetres("object_pose", "dimensions_m", "x_m", "y_m", "z_m"),
        _of("object_pose.depth_m_median", "object_pose.size_m_median"),
        needs=("object_pose",),
    ),
    Fault(
        "object followed elsewhere from the middle on",
        _ends_elsewhere,
        _of("agreement.elsewhere_share"),
        _of("object_pose.converged_share"),
        needs=("object_pose",),
    ),
    Fault("object pose frozen for 20 frames at a time", _freeze("object_pose"), _of("agreement.frozen_share"), needs=("object_pose",)),
)
FAULTS = (*HAND_FAULTS, *OBJECT_FAULTS)
_WRONG_CAMERA = _of("hand_pose.field_of_view_deg", "hand_pose.depth_m_median")
UNTOLD = (
    Fault(
        "solved with a focal length 30 % too long",
        _solved_with(_longer(1.3)),
        _of(),
        _WRONG_CAMERA,
    ),
    Fault("solved with a headset's wide lens", _solved_with(_wide), _of(), _WRONG_CAMERA),
    Fault("all tables shifted by 3 frames", _shift_all, _of()),
)
"""What tables alone cannot tell: everything in them fits. A truth card tells it, see `egoworld_ops.score`."""
