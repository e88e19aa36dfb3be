"""Whether automatic objects are things that hands hold or move: their masks against frames labelled by eye, and against rendered clutter.

    python -m benchmarks.bench_proposals [--scenes MP4 ...]

The labels are in `labels/held.json`; videos that are not at hand, or have changed, are named and left out. A mask is right if at least half of
it lies in what the frame's labels say is held or moved. `--scenes` are rendered with things that nobody touches, some minutes each:

    python -m egoworld_ops.synthetic --out FOLDER --size 320x240 --clutter 6 --seed 31 --count 2
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from egoworld_ops.operators.base import ClipInput
from egoworld_ops.operators.detections import mediapipe
from egoworld_ops.operators.masks import classical
from egoworld_ops.synthetic.truth import load_truth
from egoworld_ops.types import Camera, Clip
from egoworld_ops.video.decoding import decode
from egoworld_ops.video.sidecar import Sidecar
from egoworld_ops.vision import rle

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
LABELS = Path(__file__).parent / "labels" / "held.json"
BINS = (0.0, 0.6, 0.8, 1.01)
MIN_INSIDE = 0.5


@dataclass
class Tally:
    """Scores of right and wrong mask rows, and how many of the labelled frames with a held thing show a right one."""

    rows: list[tuple[float, bool]] = field(default_factory=list)
    shown: int = 0
    held: int = 0

    def add(self, rows: list[dict[str, Any]], truth: np.ndarray) -> None:
        """Judge the object masks of one frame by what is held or moved in it, (H, W) bool."""
        right = []
        for row in rows:
            mask = rle.decode(row["rle"])
            right.append(bool((mask & truth).sum() >= MIN_INSIDE * mask.sum()))
            self.rows.append((row["score"], right[-1]))
        self.held += bool(truth.any())
        self.shown += bool(truth.any() and any(right))

    def report(self, name: str) -> None:
        """Print the figures."""
        for low, high in pairwise(BINS):
            inside = [right for score, right in self.rows if low <= score < high]
            said = f"{100 * np.mean(inside):.0f} % right" if inside else "none"
            print(f"FIGURE {name}: object mask rows with score {low:.1f} to {min(high, 1):.1f}: {len(inside)}, {said}")
        print(f"FIGURE {name}: frames with a held or moved thing that show it: {self.shown} of {self.held}")


def object_masks(path: Path, start: int, end: int) -> dict[int, list[dict[str, Any]]]:
    """Masks of automatic objects by frame."""
    height, width = next(iter(decode(path, start, start + 1))).rgb.shape[:2]
    times = (start, end, start, end, start / 30, end / 30)
    clip = Clip("bench_000000000000", "c000", path, "0" * 64, *times, Fraction(30), width, height)
    camera = Camera(width, width, width / 2, height / 2, width, height, "assumed_fov")
    tables: dict[str, Any] = {}
    for stage, backend in (
        ("detections", mediapipe.Backend(mediapipe.Settings(), 2)),
        ("masks", classical.Backend(classical.ClassicalSettings(), 2)),
    ):
        tables[stage] = backend.run(ClipInput(clip, tables, Sidecar(), camera, 1, lambda: decode(path, start, end)))
    found = defaultdict(list)
    for row in tables["masks"].to_pylist():
        if row["role"] == "object":
            found[row["frame_index"]].append(row)
    return {index: found[index] for index in range(start, end)}


def real(tallies: dict[str, Tally]) -> None:
    """The labelled frames."""
    for clip in json.loads(LABELS.read_text("utf-8"))["clips"]:
        path = DATA / clip["video"]
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != clip["sha256"]:
            print(f"left out: {clip['video']} is not there, or not the labelled file")
            continue
        masks = object_masks(path, *clip["frames"])
        shape = next(iter(decode(path, clip["frames"][0], clip["frames"][0] + 1))).rgb.shape[:2]
        for index, boxes in clip["held"].items():
            truth = np.zeros(shape, bool)
            for x, y, w, h in boxes:
                truth[y : y + h, x : x + w] = True
            tallies[f"labelled, {clip['split']}"].add(masks[int(index)], truth)


def rendered(path: Path, tally: Tally) -> None:
    """A scene with its truth beside it; its object counts in all frames of a shot in which it is held or moved at some time: it is the same thing
    before it is picked up."""
    truth = load_truth(path.with_suffix(".truth"))
    seen = {r["frame_index"]: r for r in truth.masks.to_pylist() if r["role"] == "object"}
    moving = {r["frame_index"] for r in truth.objects.to_pylist() if r["moving"] or r["held_by"] != "none"}
    size = truth.scene["height"], truth.scene["width"]
    ends = (*truth.cuts, truth.scene["n_frames"])
    for start, end in zip((0, *truth.cuts), ends, strict=True):
        touched = not moving.isdisjoint(range(start, end))
        for index, rows in sorted(object_masks(path, start, end).items()):
            row = seen.get(index) if touched else None
            counts = None if row is None else {"size": list(size), "counts": row["rle_counts"]}
            tally.add(rows, np.zeros(size, bool) if counts is None else rle.decode(counts))


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, nargs="*", default=[], metavar="MP4")
    scenes = parser.parse_args().scenes
    tallies: dict[str, Tally] = defaultdict(Tally)
    real(tallies)
    for path in scenes:
        rendered(path, tallies["rendered clutter"])
    for name, tally in tallies.items():
        tally.report(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
