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
    there, found, _ = _searched(before, now, points, search, np.zeros(2))
    return there, found


def follow_and_return(
    before: np.ndarray, now: np.ndarray, points: np.ndarray, search: Search, within_px: float, shift_px: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `follow`, but a point counts as found only if, followed back, it comes within `within_px` of where it was, in x and in y.

    What moves by more than the search reaches is lost, or mistaken for what is where it was. Where (2,) `shift_px` says by how much it may have
    moved, each point is also searched for from there; of the two places that with the smaller difference in grey levels counts.
    """
    best, good, least = _and_back(before, now, points, search, within_px, np.zeros(2))
    if shift_px is not None:
        there, found, off = _and_back(before, now, points, search, within_px, shift_px)
        better = found & (~good | (off < least))
        best[better], good = there[better], good | found
    return best, good


def _and_back(
    before: np.ndarray, now: np.ndarray, points: np.ndarray, search: Search, within_px: float, shift_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    there, found, off = _searched(before, now, points, search, shift_px)
    back, returned, _ = _searched(now, before, there, search, -shift_px)
    return there, found & returned & (np.abs(back - points.reshape(-1, 2)).max(1) < within_px), off


def _searched(
    before: np.ndarray, now: np.ndarray, points: np.ndarray, search: Search, shift_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places (N, 2) and whether found (N,), searched for from a shift away on; and (N,) float32 how far the grey levels around them differ."""
    start = points.reshape(-1, 1, 2)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, search.steps, search.least_step_px)
    there, found, off = cv2.calcOpticalFlowPyrLK(
        before,
        now,
        start,
        start + shift_px.astype(np.float32),
        winSize=(search.window_px, search.window_px),
        maxLevel=search.levels,
        criteria=stop,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(there, np.float32).reshape(-1, 2), np.asarray(found).ravel().astype(bool), np.asarray(off).ravel()
