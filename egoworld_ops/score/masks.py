"""Scores of `masks`: region similarity J, contour accuracy F and their mean, as in DAVIS (Perazzi et al., 2016)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from egoworld_ops.score.card import Measured, Score, calibrations, mean, share
from egoworld_ops.score.tracks import assigned, iou_at, track_of
from egoworld_ops.score.truth import MaskTruth, Truth
from egoworld_ops.vision import rle

STAGE = "masks"

CONTOUR_SHARE = 0.008
"""Contours may be apart by this share of the picture's diagonal, as in DAVIS."""
RIGHT_IOU = 0.5
"""A row is right if it overlaps its truth by at least this."""


def measure(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> Measured | None:
    """Scores and calibrations of the masks; a mask that is missing counts as 0."""
    if truth.masks is None or "masks" not in rows:
        return None
    labels = assigned(rows, truth)
    said = {key: row for row in rows["masks"] if (key := _key(row, labels)) is not None}
    true = {(mask.frame_index, mask.role, mask.label if mask.role == "object" else None): mask for mask in truth.masks}
    scores: list[Score] = []
    overlap = {key: iou_at(row["rle"], true[key].rle) if key in true else 0.0 for key, row in said.items()}
    for name, roles in (("hand masks", ("hand_left", "hand_right")), ("object masks", ("object",))):
        wanted = {key: mask for key, mask in true.items() if key[1] in roles}
        if not wanted:
            continue
        J = [overlap.get(key, 0.0) for key in wanted]
        F = [_contour(said[key]["rle"], mask) if key in said else 0.0 for key, mask in wanted.items()]
        rows_of_role = [row for row in rows["masks"] if row["role"] in roles]
        scores += [
            Score(f"{name}: J (IoU), mean", mean(J), "IoU", len(J)),
            Score(f"{name}: F (contours), mean", mean(F), "F", len(F)),
            Score(f"{name}: J&F", mean([mean(J) or 0.0, mean(F) or 0.0]), "share", len(J)),
            Score(f"{name}: found (IoU of {RIGHT_IOU:g})", share(sum(j >= RIGHT_IOU for j in J), len(J)), "share", len(J)),
        ]
        if truth.complete:
            wrong = sum(not _is_right(row, labels, overlap) for row in rows_of_role)
            scores.append(Score(f"{name}: rows on something else", share(wrong, len(rows_of_role)), "share", len(rows_of_role)))
    judged: dict[bool, list[tuple[float | None, bool]]] = defaultdict(list)
    for row in rows["masks"] if truth.complete else ():
        judged[row["role"] == "object"].append((row["score"], _is_right(row, labels, overlap)))
    kinds = ((False, "hands"), (True, "objects"))
    found = [c for is_object, what in kinds for c in calibrations(f"masks.score of {what}: IoU of {RIGHT_IOU:g}", judged[is_object])]
    return Measured(tuple(scores), tuple(found))


def _key(row: Mapping[str, Any], labels: Mapping[Any, str]) -> tuple[int, str, str | None] | None:
    if row["role"] != "object":
        return row["frame_index"], row["role"], None
    label = labels.get(track_of(row))
    return None if label is None else (row["frame_index"], "object", label or None)


def _is_right(row: Mapping[str, Any], labels: Mapping[Any, str], overlap: Mapping[Any, float]) -> bool:
    key = _key(row, labels)
    return key is not None and overlap.get(key, 0.0) >= RIGHT_IOU


def _contour(said: Mapping[str, Any], truth: MaskTruth) -> float:
    """F of precision and recall of contour pixels, matched within a share of the diagonal."""
    import cv2

    height, width = truth.rle["size"]
    edges = [_edge(mask) for mask in (rle.decode_at(said, (height, width)), rle.decode(truth.rle))]
    radius = int(np.ceil(CONTOUR_SHARE * np.hypot(height, width)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    near = [cv2.dilate(edge, disc) for edge in edges]
    if not edges[0].any() or not edges[1].any():
        return float(edges[0].any() == edges[1].any())
    precision = float((edges[0] & near[1]).sum() / edges[0].sum())
    recall = float((edges[1] & near[0]).sum() / edges[1].sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _edge(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8, 1 at pixels of the mask that have a neighbour outside it; the picture's border is no contour."""
    import cv2

    filled = mask.astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return filled - np.asarray(cv2.erode(filled, cross, borderValue=1), np.uint8)
