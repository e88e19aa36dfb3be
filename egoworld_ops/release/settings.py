"""Settings of releases."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from egoworld_ops.section import Section
from egoworld_ops.verdict_words import VerdictWord


class ReleaseSettings(Section):
    """How a run is compacted for those who query it. Not part of any clip's digest; recorded in every file of a release."""

    part_mb: Annotated[float, Field(gt=0)] = 1024.0
    """A part gets no further video once its clip files, all tables together, have this size."""
    row_group_mb: Annotated[float, Field(gt=0)] = 256.0
    """Size of the rows of a row group in memory, as Arrow has them; one clip more at most."""
    page_mb: Annotated[float, Field(gt=0)] = 8.0
    compression: Literal["zstd", "lz4", "snappy", "gzip", "none"] = "zstd"
    level: int | None = None
    """None takes the codec's default."""
    bloom_columns: tuple[Literal["video_id", "clip_id"], ...] = ("video_id",)
    """Columns with bloom filters: a query for one video skips row groups without it, also those whose minimum and maximum enclose its id."""
    writers: Annotated[int, Field(ge=1)] = Field(default_factory=lambda: min(4, os.cpu_count() or 1))
    """Parts that are written at once; each takes about three row groups of memory."""
    assumed_metric: bool = False
    """Release lengths and speeds that rest on an assumed focal length too; otherwise they are null in rows with `metric = false`."""
    incomplete: Literal["include", "leave_out", "refuse"] = "include"
    """What becomes of videos of which some clips have no table. Included, they are named in release.json with counts."""
    verdict: VerdictWord | None = None
    """Only clips of which people said this on the review page. Without it and `without`, a release goes on with the choice that it was made by."""
    without: tuple[VerdictWord, ...] = ()
    """Leave out clips of which people said one of these; those nobody judged stay. Not together with `verdict`."""

    @model_validator(mode="after")
    def _codec_has_the_level(self) -> ReleaseSettings:
        most = {"zstd": 22, "gzip": 9}.get(self.compression, 0)
        if self.level is not None and not 1 <= self.level <= most:
            raise ValueError(f"level {self.level}: {self.compression} has {f'levels 1 to {most}' if most else 'no levels'}")
        return self
