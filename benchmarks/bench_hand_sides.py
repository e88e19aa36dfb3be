"""Whose hand is which, against labels: sides, second people, cuts, crossings and edges of the picture.

    python -m benchmarks.bench_hand_sides [WORDS OF A CLIP'S NAME]

Clips are those of `_hand_clips.py`, half of them held out. Of the rows that say left or right it counts those on the right side (`right`), on the
wrong side (`swapped`) and on another person's hand (`others`); then frames with two rows on one hand (`doubled`), rows of the wearer's hands that
are said to be another's (`given away`), and the share of the labelled hands of the wearer that have a row on their side (`coverage`). Both views
of the stereo pair must agree. Exits with 1 where a limit on the held-out half is missed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._hand_clips import KnownClip, Who, known_clips
from egoworld_ops import operators
from egoworld_ops.operators.base import ClipInput, Operator
from egoworld_ops.types import Clip
from egoworld_ops.video import intrinsics
from egoworld_ops.video.settings import CameraSettings
from egoworld_ops.video.sidecar import Sidecar

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PALM = (0, 5, 9, 13, 17)
MIN_RIGHT_SHARE = 0.95
_SIDES: Mapping[str, Who] = {"hand_left": "left", "hand_right": "right", "hand_other": "other"}


@dataclass
class Tally:
    """What was counted in one clip or several."""

    counts: Counter[str] = field(default_factory=Counter)

    def add(self, clip: KnownClip, table: pa.Table) -> Tally:
        """Count the rows of one clip."""
        frames: dict[int, list[tuple[Who, Who]]] = {}
        for row in table.to_pylist():
            if row["role"] in _SIDES:
                at = np.array(row["points_px"])[list(PALM)].mean(0)
                said = _SIDES[row["role"]], clip.who(row["frame_index"], at)
                frames.setdefault(row["frame_index"], []).append(said)
        for i in range(1 + max(frames, default=-1)):
            self._add_frame(clip.wearer(i), frames.get(i, []))
        return self

    def _add_frame(self, wearer: Sequence[Who], rows: Sequence[tuple[Who, Who]]) -> None:
        self.counts["frames"] += 1
        self.counts.update(_verdict(said, true) for said, true in rows)
        hands = Counter(true for _, true in rows)
        self.counts["doubled"] += any(n > 1 for hand, n in hands.items() if hand != "other")
        self.counts["labelled"] += len(wearer)
        self.counts["covered"] += sum((hand, hand) in rows for hand in wearer)

    @property
    def right_share(self) -> float:
        """Of the rows that say left or right."""
        said = sum(self.counts[name] for name in ("right", "swapped", "others"))
        return self.counts["right"] / said if said else float("nan")

    @property
    def coverage(self) -> float:
        """Of the labelled hands."""
        return self.counts["covered"] / self.counts["labelled"] if self.counts["labelled"] else float("nan")

    def __str__(self) -> str:
        names = ("right", "swapped", "others", "given away", "doubled")
        return ", ".join(f"{name} {self.counts[name]}" for name in names) + f", coverage {self.coverage:.1%}"

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.counts + other.counts)


def _verdict(said: Who, true: Who) -> str:
    if said == "other":
        return "told apart" if true == "other" else "given away"
    return "others" if true == "other" else "right" if said == true else "swapped"


def clip_input(clip: KnownClip, most: int | None = None) -> ClipInput:
    """The clip as an operator gets it, at most so many frames of it; they are made as they are read."""
    first = next(clip.frames()).rgb
    height, width = first.shape[:2]
    about = Clip("v-0123456789ab", "c", Path("made.mp4"), "0" * 64, 0, 10**6, 0, 10**6, 0.0, 10**6 / 30, Fraction(30), width, height)
    camera = intrinsics.resolve(width, height, Sidecar(), CameraSettings(), about.video_path)
    return ClipInput(about, {}, Sidecar(), camera, 1, lambda: islice(clip.frames(), most))


def detector() -> Operator:
    """The default backend, without objects."""
    backend = operators.load("detections", "mediapipe")
    return backend(operators.check_options(backend, "detections", "mediapipe", {"objects": False}), 2)


def main() -> int:
    if not DATA.exists():
        print(f"skipped: {DATA} is not there")
        return 0
    clips = [clip for clip in known_clips(DATA) if all(word in clip.name for word in sys.argv[1:])]
    backend = detector()
    halves: dict[str, Tally] = {}
    tables: dict[str, Any] = {}
    for clip in clips:
        tables[clip.name] = table = backend.run(clip_input(clip))
        tally = Tally().add(clip, table)
        print(f"{clip.half:5} {clip.name:36} {tally}", flush=True)
        halves[clip.half] = halves.get(clip.half, Tally()) + tally
    for half, tally in halves.items():
        print(f"FIGURE hands, {half} clips: {tally.right_share:.1%} of rows right (limit {MIN_RIGHT_SHARE:.0%} held); {tally}")
    held = halves.get("held", Tally())
    return int(held.right_share < MIN_RIGHT_SHARE)


if __name__ == "__main__":
    sys.exit(main())
