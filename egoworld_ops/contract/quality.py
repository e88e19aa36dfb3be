"""Metrics of the DATA, per video and stage, in SQL; and the verdict on them. Says nothing about speed or state."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from egoworld_ops.settings import Bounds


@dataclass(frozen=True, slots=True)
class Metric:
    """One number about the rows of a stage.

    Args:
        name: with its unit.
        sql: an aggregate over the rows of the stage; null where nothing can be said.
        minimum, maximum: outside of these the metric warns.
    """

    name: str
    sql: str
    doc: str
    minimum: float | None = None
    maximum: float | None = None

    def verdict(self, value: float | None) -> str | None:
        """What is wrong with the value, as a sentence; None where nothing is."""
        if value is None:
            return None
        if self.minimum is not None and value < self.minimum:
            return f"{self.name} is {value:.3g}, want at least {self.minimum:g}: {self.doc}"
        if self.maximum is not None and value > self.maximum:
            return f"{self.name} is {value:.3g}, want at most {self.maximum:g}: {self.doc}"
        return None


METRICS: Mapping[str, tuple[Metric, ...]] = {
    "manifest": (Metric("clip_s_median", "median(end_s - start_s)", "length of the clips", minimum=0.25),),
    "detections": (
        Metric("hand_score_mean", "avg(score) FILTER (role <> 'object')", "confidence of the hand network", minimum=0.7),
        Metric(
            "tracked_share",
            "avg((source = 'tracked')::INT) FILTER (role <> 'object')",
            "hands followed from the frame before; low where hands are lost all the time",
            minimum=0.5,
        ),
    ),
    "masks": (
        Metric("observed_share", "avg(observed::INT)", "masks seen rather than carried", minimum=0.5),
        Metric("score_mean", "avg(score)", "confidence of the masks", minimum=0.5),
    ),
    "hand_pose": (
        Metric("reprojection_px_median", "median(reprojection_px)", "distance of projected joints to their image points", maximum=8.0),
        Metric("solved_share", "avg((joints_m IS NOT NULL)::INT)", "hands with a pose", minimum=0.9),
        Metric("depth_m_median", "median(z_m)", "distance of the wrist from the camera; hands of one's own are within reach", 0.1, 1.2),
    ),
    "object_pose": (
        Metric("converged_share", "avg(converged::INT)", "objects whose solver converged", minimum=0.5),
        Metric("reprojection_px_median", "median(reprojection_px)", "error of the points that agree", maximum=4.0),
    ),
    "movement": (Metric("stated_share", "avg((state IS NOT NULL)::INT)", "objects said to move or be still", minimum=0.5),),
    "mapping": (
        Metric("converged_share", "avg(converged::INT)", "hands whose retargeting converged", minimum=0.9),
        Metric("residual_m_median", "median(residual_m)", "distance of the robot's fingertips to their targets", maximum=0.05),
    ),
}


def measure(connection: duckdb.DuckDBPyConnection, stage: str, files: Sequence[Path]) -> dict[str, float | None]:
    """The metrics of a stage over the rows of `files`, by name; all None where there are no rows."""
    metrics = METRICS.get(stage, ())
    if not files or not metrics:
        return {m.name: None for m in metrics}
    select = ", ".join(f"{m.sql} AS {m.name}" for m in metrics)
    query = f"SELECT {select} FROM read_parquet($files, hive_partitioning = false)"
    row = connection.execute(query, {"files": [glob.escape(str(f)) for f in files]}).fetchall()[0]
    return {m.name: None if value is None else float(value) for m, value in zip(metrics, row, strict=True)}


def verdicts(stage: str, measured: Mapping[str, float | None], bounds: Mapping[str, Bounds]) -> list[str]:
    """Everything that is wrong with the metrics of a stage, one sentence each.

    Args:
        bounds: of the settings, by metric; they win over the metric's own.
    """
    return [said for m in METRICS.get(stage, ()) if (said := _bounded(m, bounds.get(m.name)).verdict(measured[m.name]))]


def _bounded(metric: Metric, bounds: Bounds | None) -> Metric:
    given = {} if bounds is None else {name: value for name, value in bounds.model_dump().items() if value is not None}
    return replace(metric, **given)
