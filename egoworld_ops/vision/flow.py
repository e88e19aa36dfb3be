"""Points followed from one grey picture to another by pyramidal Lucas-Kanade (Bouguet, "Pyramidal Implementation of the LK tracker", 2000)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, slots=True)
class Search:
    """How points are searched for: the side of the window, the pyramid's levels above the picture itself, and the maximum number of steps on each."""

    window_px: int
    levels: int
    steps: int = 30
    least_step_px: float = 0.01


def follow(before: np.ndarray, now: np.ndarray, points: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Where points (N, 2) float32 of one grey picture (H, W) uint8 are in the other, (N, 2) float32, and (N,) bool whether they were found."""
    start = points.reshape(-1, 1, 2)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, search.steps, search.least_step_px)
    window = (search.window_px, search.window_px)
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before, now, start, np.empty_like(start), winSize=window, maxLevel=search.levels, criteria=stop
    )
    return np.asarray(there, np.float32).reshape(-1, 2), np.asarray(found).ravel().astype(bool)


def follow_and_return(
    before: np.ndarray, now: np.ndarray, points: np.ndarray, search: Search, within_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """As `follow`, but a point counts as found only if, followed back, it comes within `within_px` of where it was, in x and in y."""
    there, found = follow(before, now, points, search)
    back, returned = follow(now, before, there, search)
    return there, found & returned & (np.abs(back - points.reshape(-1, 2)).max(1) < within_px)
