"""What is plotted of a clip: numbers over its processed frames, and stretches of frames with a word, from the tables that its layers are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from egoworld_ops.contract import quality
from egoworld_ops.report._layer_rows import name
from egoworld_ops.report.layer_values import Value
from egoworld_ops.report.layers import ClipLayers

Look = Literal["raw", "fused"]
DIGITS = 5


@dataclass(frozen=True, slots=True)
class _Drawn:
    """One column that a plot shows, a line for each hand or thing; of a list, a line for each of its numbers.

    Args:
        look: `raw` as it was found in each frame, `fused` after smoothing along time.
    """

    plot: str
    unit: str
    stage: str
    column: str
    look: Look = "raw"


DRAWN = (
    _Drawn("Speed of the wrist", "m/s", "fusion", "measured_speed_m_s"),
    _Drawn("Speed of the wrist", "m/s", "fusion", "speed_m_s", "fused"),
    _Drawn("Distance of the wrist", "m", "hand_pose", "z_m"),
    _Drawn("Distance of the wrist", "m", "fusion", "z_m", "fused"),
    _Drawn("Reprojection error", "px", "hand_pose", "reprojection_px"),
    _Drawn("Reprojection error", "px", "object_pose", "reprojection_px"),
    _Drawn("Speed of objects", "m/s", "movement", "speed_background_m_s"),
    _Drawn("Fingertip error of the robot", "m", "mapping", "residual_m"),
    _Drawn("Joints of the robot", "rad", "mapping", "qpos_rad"),
    _Drawn("Speed of the robot's joints", "rad/s", "mapping", "joint_speed_rad_s"),
    _Drawn("Confidence", "", "hand_pose", "score"),
    _Drawn("Confidence", "", "object_pose", "score"),
)
"""What is plotted, in order; columns of one plot stand in it together, raw beside fused."""


@dataclass(frozen=True)
class Series(Value):
    """One line of a plot.

    Args:
        name: of the hand or thing, and of the joint.
        stage, column: where the numbers come from.
        values: one for each processed frame; None where there is none.
    """

    name: str
    stage: str
    column: str
    look: Look
    values: list[float | None]


@dataclass(frozen=True)
class Plot(Value):
    """Lines of one unit over the frames."""

    title: str
    unit: str
    lines: tuple[Series, ...]


@dataclass(frozen=True)
class Band(Value):
    """A word that holds in frames `[first, last]`.

    Args:
        of: the hand or thing.
        stage: the table it comes from.
    """

    of: str
    stage: str
    word: str
    first: int
    last: int


def plots(layers: ClipLayers, frames: Sequence[int]) -> list[Plot]:
    """The plots of a clip, without those that have no number.

    Args:
        frames: the processed ones, in order.
    """
    found: dict[tuple[str, str], list[Series]] = {}
    for drawn in DRAWN:
        if drawn.stage in layers.tables:
            found.setdefault((drawn.plot, drawn.unit), []).extend(_lines(layers.tables[drawn.stage], drawn, frames))
    return [Plot(title, unit, tuple(lines)) for (title, unit), lines in found.items() if lines]


def bands(layers: ClipLayers) -> list[Band]:
    """Who holds what, what happens, and what cannot be right, as stretches of frames."""
    held = [Band(of, "movement", word, first, last) for of, word, first, last in _stretches(layers.tables["movement"])]
    happening = [Band(f"{e.hand} {e.name}", "events", e.phase, e.frame_index, e.last_frame_index) for e in layers.events]
    wrong = [Band("cannot be right", "agreement", "; ".join(words), frame, frame) for frame, words in layers.flagged.items()]
    return [*held, *happening, *wrong]


def _lines(table: pa.Table, drawn: _Drawn, frames: Sequence[int]) -> Iterator[Series]:
    """The lines of one column that have a number."""
    by_name: dict[str, dict[int, float]] = {}
    columns = [c for c in ("frame_index", drawn.column, "hand", "robot", "track_id", "label", "joint_names") if c in table.schema.names]
    for row in table.select(columns).to_pylist():
        for said, value in _numbers(row, drawn.column):
            by_name.setdefault(said, {})[row["frame_index"]] = float(f"{value:.{DIGITS}g}")
    for said, values in by_name.items():
        yield Series(said, drawn.stage, drawn.column, drawn.look, [values.get(frame) for frame in frames])


def _numbers(row: Mapping[str, Any], column: str) -> Iterator[tuple[str, float]]:
    of, value = row.get("hand") or name(row), row[column]
    if isinstance(value, list):
        yield from ((f"{of} {joint}", each) for joint, each in zip(row["joint_names"], value, strict=True))
    elif value is not None:
        yield of, value


def _stretches(movement: pa.Table) -> Iterator[tuple[str, str, int, int]]:
    """Name, word, first and last frame of each stretch in which a thing is held by the same hand."""
    rows = movement.select(["frame_index", "timestamp_s", "track_id", "label", "held_by"]).to_pylist()
    stretch: list[dict[str, Any]] = []
    for row in [*sorted(rows, key=lambda r: (r["track_id"], r["frame_index"])), None]:
        if stretch and (row is None or not _goes_on(stretch[-1], row)):
            yield name(stretch[0]), stretch[0]["held_by"], stretch[0]["frame_index"], stretch[-1]["frame_index"]
            stretch = []
        stretch += [row] if row is not None else []


def _goes_on(before: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    same = (before["track_id"], before["held_by"]) == (row["track_id"], row["held_by"])
    return same and row["timestamp_s"] - before["timestamp_s"] <= quality.HOLD_GAP_S
