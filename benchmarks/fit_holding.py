"""Fit the logistic regressions of `movement/_verdict.py`, and print their constants.

    python -m benchmarks.fit_holding

On the rendered scenes of `bench_holding.py`, seeds FITTED, with true masks and with errors of poses and joints; and on the larger ones of
`bench_holding_whole.py`, seeds FOUND, with what is found in their pictures: the masks that are found are smaller than the true ones, or larger, so
each is also tried in place of the true ones alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from scipy.optimize import minimize

from benchmarks.bench_holding import FITTED, said, scenes
from benchmarks.bench_holding_whole import LARGE
from egoworld_ops.contract import schema
from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.movement import _verdict, classical
from egoworld_ops.operators.movement._holding import held
from egoworld_ops.operators.movement._verdict import Evidence, Verdict, judge
from tests.held_scenes import Errors, Shot, clip_input, found_tables, prompted_input, scaled_shot

FOUND = (31, 32, 33, 34)
HANDS = ("hand_left", "hand_right")
GRIP_PRIOR, MASKS_PRIOR, MOVING_PRIOR = 0.02, 0.02, 0.05
"""What large weights cost."""


class Watch:
    """Stands in for `judge`, and keeps what the regressions see with its truth."""

    def __init__(self) -> None:
        self.still: list[tuple[np.ndarray, bool]] = []
        self.moving: list[tuple[float, bool]] = []
        self.shot: Shot

    def __call__(self, hands: Mapping[Any, Evidence], *rest: Any) -> list[Verdict]:
        """As `judge`."""
        _, moves, times_s, _, max_slip_m_s = rest
        holders = [self.shot.truth[round(t * self.shot.config.fps)].held_by for t in times_s]
        touches, slips = {h: e.touches for h, e in hands.items()}, {h: e.slips_m_s for h, e in hands.items()}
        confidence = held(touches, slips, *rest)
        for hand, e in hands.items():
            self.moving.extend((c, t == hand) for c, t in zip(confidence[hand], holders, strict=True) if c > 0)
            for start, end in _verdict.rests(e, confidence[hand] > 0, moves, times_s, max_slip_m_s):
                self.still.append((_verdict.features_at_rest(e, slice(start, end)), holders[(start + end) // 2] == hand))
        return judge(hands, *rest)


def found_and_true(shot: Shot) -> Iterator[ClipInput]:
    """A shot for `movement` with the masks that were found, with true ones of the object, of hands, and of both."""
    item = prompted_input(shot, LARGE[1], posed=False)
    tables = found_tables(item, posed=False)
    pictures, camera = scaled_shot(shot, LARGE[1])
    true = clip_input(pictures, Errors(), 0, camera).tables["masks"].to_pylist()
    for roles in ((), ("object",), HANDS, ("object", *HANDS)):
        masks = [m for m in tables["masks"].to_pylist() if m["role"] not in roles] + [m for m in true if m["role"] in roles]
        ordered: pa.Table = schema.from_rows("masks", sorted(masks, key=lambda m: (m["frame_index"], m["track_id"])))
        yield replace(item, tables={**tables, "masks": ordered})


def main() -> int:
    watch = Watch()
    with patch.object(classical, "judge", watch):
        for seed in FITTED:
            for _, watch.shot in scenes(seed):
                for errors in (Errors(), Errors(poses=False)):
                    for again in range(2):
                        said(watch.shot, errors, 100 * seed + again)
        for seed in FOUND:
            for _, watch.shot in scenes(seed, LARGE):
                for item in found_and_true(watch.shot):
                    classical.Backend(classical.Backend.Settings(), 1).run(item)
    X, y = (np.array(c) for c in zip(*watch.still, strict=True))
    c, z = (np.array(v) for v in zip(*watch.moving, strict=True))
    fit("by grip", X, y, GRIP_PRIOR)
    fit("by masks", X[:, : _verdict.N_BY_MASKS], y, MASKS_PRIOR)
    fit("moving", c[:, None], z, MOVING_PRIOR)
    return 0


def fit(name: str, X: np.ndarray, y: np.ndarray, prior: float) -> None:
    """Print intercept, means and weights of samples (N, K) and their truth (N,) bool."""
    mean, deviation = np.nanmean(X, 0), np.nanstd(X, 0)
    Z = np.nan_to_num((X - mean) / deviation)

    def loss(w: np.ndarray) -> float:
        logits = w[0] + Z @ w[1:]
        return float(np.logaddexp(0, np.where(y, -logits, logits)).mean() + prior * (w[1:] ** 2).sum())

    w = minimize(loss, np.zeros(X.shape[1] + 1)).x
    print(name, len(y), "intercept", round(w[0], 2), "mean", np.round(mean, 3).tolist(), "weights", np.round(w[1:] / deviation, 2).tolist())
    print("  right in the fit", np.mean((w[0] + Z @ w[1:] > 0) == y))


if __name__ == "__main__":
    sys.exit(main())
