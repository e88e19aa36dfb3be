"""How far the tables of a video are from the truth of the synthetic scene. One figure a line, with the limit it must keep.

Missing results count: a mask that was not found has IoU 0, every error has the share found beside it, and a limit is met only on
`MIN_FOUND` of the truth.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from egoworld_ops.score.measuring import stride_of
from egoworld_ops.synthetic import SceneTruth
from egoworld_ops.vision import geometry, rle

MIN_FOUND = 0.95
"""A figure with a limit must be about at least this share of the truth: results that are missing must not make it better."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity.

    Args:
        median: over all rows of the truth that the quantity is about.
        tail: the 95th percentile of errors; the 5th of scores where more is better.
        limit: the median must be at most (errors) or at least (scores) this; None where it is only reported.
        found: share of the rows of the truth that have a result.
    """

    name: str
    unit: str
    median: float
    tail: float
    found: float
    better: Literal["less", "more"]
    limit: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the limit is kept, on nearly all of the truth; true where there is no limit."""
        if self.limit is None:
            return True
        if self.found < MIN_FOUND:
            return False
        return self.median <= self.limit if self.better == "less" else self.median >= self.limit

    def __str__(self) -> str:
        limit = "" if self.limit is None else f"{'<=' if self.better == 'less' else '>='} {self.limit:g}"
        tail = "p95" if self.better == "less" else "p5"
        return f"{self.name:<44} {self.median:>8.3f} {self.tail:>9.3f} {tail:<3} {self.unit:<9} {limit:<9} {self.found:>6.1%}"


HEADER = f"{'against the ground truth':<44} {'median':>8} {'tail':>13} {'unit':<9} {'limit':<9} {'found':>6}"


def compare(tables: Mapping[str, pa.Table], truth: SceneTruth) -> list[Figure]:
    """Every figure that the tables at hand allow.

    Args:
        tables: of one video, each stage's clips one after the other, by table name.
        truth: what was rendered. Of frames that the tables' stride passes over nothing is compared.
    """
    truth = _sampled(truth, stride_of(tables))
    figures = []
    if "clips" in tables:
        figures.append(_cuts(tables["clips"], truth))
    if "masks" in tables:
        figures += _masks(tables["masks"], truth)
    if "hand_pose" in tables:
        figures += _hands(tables["hand_pose"], truth)
    if "object_pose" in tables:
        figures += _object_pose(tables["object_pose"], truth)
    if "movement" in tables:
        figures += _movement(tables["movement"], truth)
    return figures


def _sampled(truth: SceneTruth, stride: int) -> SceneTruth:
    """The truth of the frames that are processed."""
    names = ("hands", "objects", "masks", "camera")
    kept = {name: (table := getattr(truth, name)).filter(table["frame_index"].to_numpy() % stride == 0) for name in names}
    return replace(truth, **kept)


def _cuts(clips: pa.Table, truth: SceneTruth) -> Figure:
    """Share of cuts, found or true, that are both."""
    rows = clips.to_pylist()
    scenes = {r["scene_index"]: min(q["own_start"] for q in rows if q["scene_index"] == r["scene_index"]) for r in rows}
    found, true = {start for start in scenes.values() if start > 0}, set(truth.cuts)
    exact = len(found & true) / len(found | true) if found | true else 1.0
    return Figure("cuts, found exactly", "share", exact, exact, len(found & true) / len(true) if true else 1.0, "more", 1.0)


def _masks(masks: pa.Table, truth: SceneTruth) -> Iterable[Figure]:
    found: dict[tuple[int, str], Any] = {}
    for row in masks.to_pylist():
        key = (row["frame_index"], row["role"])
        if key not in found or row["area_px"] > found[key]["area"]:
            found[key] = {"rle": row["rle"], "area": row["area_px"]}
    overlaps: dict[str, list[float]] = defaultdict(list)
    for row in truth.masks.to_pylist():
        true = {"size": [row["height"], row["width"]], "counts": row["rle_counts"]}
        match = found.get((row["frame_index"], row["role"]))
        overlaps[row["role"]].append(rle.iou(match["rle"], true) if match else 0.0)
    hands = overlaps["hand_left"] + overlaps["hand_right"]
    yield _scores("hand mask IoU", hands, 0.85)
    yield _scores("object mask IoU", overlaps["object"], 0.75)


def _hands(hand_pose: pa.Table, truth: SceneTruth) -> Iterable[Figure]:
    solved = {(r["frame_index"], r["hand"]): r for r in hand_pose.to_pylist()}
    pixels, aligned, unaligned, n_found = [], [], [], 0
    for row in truth.hands.to_pylist():
        match = solved.get((row["frame_index"], row["hand"]))
        if match is None:
            continue
        n_found += 1
        pixels.append(_distances(match["joints_px"], row["joints_px"]))
        if match["joints_m"] is not None:
            source, target = np.array(match["joints_m"]), np.array(row["joints_m"])
            s, R, t_m = geometry.align_similarity(source, target)
            aligned.append(np.linalg.norm(s * source @ R.T + t_m - target, axis=1) * 1000)
            unaligned.append(_distances(source, target) * 1000)
    total = truth.hands.num_rows
    yield _errors("hand joints, image", "px", pixels, n_found, total, 8.0)
    yield _errors("hand joints, similarity-aligned", "mm", aligned, len(aligned), total, 18.0)
    yield _errors("hand joints, unaligned (camera frame)", "mm", unaligned, len(unaligned), total, None)


def _object_pose(object_pose: pa.Table, truth: SceneTruth) -> Iterable[Figure]:
    poses = {r["frame_index"]: r for r in object_pose.to_pylist() if r["qw"] is not None}
    true = {r["frame_index"]: r for r in truth.objects.to_pylist()}
    masked = {r["frame_index"] for r in truth.masks.to_pylist() if r["role"] == "object"}
    by_clip: dict[str, list[int]] = defaultdict(list)
    for frame in sorted(masked & poses.keys()):
        by_clip[poses[frame]["clip_id"] + str(poses[frame]["track_id"])].append(frame)
    angles: list[float] = []
    for frames in by_clip.values():
        angles += min(
            (_angles(frames, poses, true, S) for S in geometry.box_symmetries(np.array(truth.scene["dimensions_m"]))), key=statistics.median
        )
    offsets = [_offset_percent(poses[f], true[f]) for frames in by_clip.values() for f in frames]
    yield _errors("object rotation, up to the box's symmetry", "deg", [np.array(angles)], len(angles), len(masked), 5.0)
    yield _errors("object translation", "% depth", [np.array(offsets)], len(offsets), len(masked), 5.0)


def _angles(frames: list[int], poses: Mapping[int, Any], true: Mapping[int, Any], S: np.ndarray) -> list[float]:
    return [geometry.rotation_angle_deg(_rotation(poses[f]) @ S, _rotation(true[f])) for f in frames]


def _offset_percent(pose: Mapping[str, Any], true: Mapping[str, Any]) -> float:
    found, want = (np.array([r["x_m"], r["y_m"], r["z_m"]]) for r in (pose, true))
    return float(np.linalg.norm(found - want) / want[2] * 100)


def _rotation(row: Mapping[str, Any]) -> np.ndarray:
    return geometry.matrix_from_quaternion(np.array([row["qw"], row["qx"], row["qy"], row["qz"]]))


def _movement(movement: pa.Table, truth: SceneTruth) -> Iterable[Figure]:
    said = {r["frame_index"]: r for r in movement.to_pylist()}
    rows = [r for r in truth.objects.to_pylist() if r["frame_index"] in said]
    stated = [(said[r["frame_index"]]["state"] == "moving") == r["moving"] for r in rows if said[r["frame_index"]]["state"] is not None]
    known = [r for r in rows if said[r["frame_index"]]["held_by"] != "unknown"]
    held = [said[r["frame_index"]]["held_by"] == r["held_by"] for r in known]
    for name, right in (("moving or still, right", stated), ("held by which hand, right", held)):
        share = float(np.mean(right)) if right else 0.0
        yield Figure(name, "share", share, share, len(right) / truth.objects.num_rows, "more")


def _distances(found: Any, true: Any) -> np.ndarray:
    return np.linalg.norm(np.asarray(found, np.float64) - np.asarray(true, np.float64), axis=-1)


def _errors(name: str, unit: str, values: list[np.ndarray], n_found: int, n_true: int, limit: float | None) -> Figure:
    pooled = np.concatenate(values) if values and sum(map(len, values)) else np.array([np.inf])
    tail = float(np.percentile(pooled, 95)) if np.isfinite(pooled).all() else np.inf
    share = n_found / n_true if n_true else 1.0
    return Figure(name, unit, float(np.median(pooled)), tail, share, "less", limit)


def _scores(name: str, values: list[float], limit: float) -> Figure:
    found = sum(v > 0 for v in values) / len(values) if values else 1.0
    pooled = values or [0.0]
    return Figure(name, "IoU", float(np.median(pooled)), float(np.percentile(pooled, 5)), found, "more", limit)
