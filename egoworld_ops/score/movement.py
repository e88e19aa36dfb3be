"""Scores of `movement`: who holds what, and what moves, as precision, recall and F1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from egoworld_ops.score.card import Measured, Score, calibrations, share
from egoworld_ops.score.tracks import assigned, track_of
from egoworld_ops.score.truth import Truth
from egoworld_ops.types import HANDS

STAGE = "movement"

_HANDS_OF: Mapping[str | None, frozenset[str]] = {"left": frozenset({"left"}), "right": frozenset({"right"}), "both": frozenset(HANDS)}


def measure(rows: Mapping[str, Sequence[Mapping[str, Any]]], truth: Truth) -> Measured | None:
    """Scores and calibrations of holds and moves; an object without a row counts as neither held nor moving."""
    if truth.objects is None or "movement" not in rows:
        return None
    labels = assigned(rows, truth)
    said = {(row["frame_index"], labels[track_of(row)]): row for row in rows["movement"] if track_of(row) in labels}
    held: list[tuple[bool, bool]] = []
    moved: list[tuple[bool, bool]] = []
    judged: list[tuple[float | None, bool]] = []
    for thing in truth.objects:
        row = said.get((thing.frame_index, thing.label))
        if thing.held_by is not None:
            hands = _HANDS_OF.get(row["held_by"], frozenset()) if row else frozenset()
            held += [(hand in hands, hand in thing.held_by) for hand in HANDS]
            if row:
                judged.append((row["hold_score"], hands == thing.held_by))
        if thing.moving is not None:
            moved.append((row is not None and row["state"] == "moving", thing.moving))
    scores = [*_f1("holds", held), *_f1("moves", moved)]
    return Measured(tuple(scores), calibrations("movement.hold_score: the very hands", judged))


def _f1(name: str, pairs: Iterable[tuple[bool, bool]]) -> list[Score]:
    """Of pairs (said, true)."""
    listed = list(pairs)
    if not listed:
        return []
    both = sum(said and true for said, true in listed)
    n_said, n_true = sum(said for said, _ in listed), sum(true for _, true in listed)
    return [
        Score(f"{name}: precision", share(both, n_said), "share", n_said),
        Score(f"{name}: recall", share(both, n_true), "share", n_true),
        Score(f"{name}: F1", share(2 * both, n_said + n_true), "share", len(listed)),
    ]
