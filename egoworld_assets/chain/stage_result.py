"""What became of one clip, or one video, in one stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from egoworld_ops.errors import EgoworldError, StorageUnavailable

ResultState = Literal["computed", "linked", "done", "failed", "blocked"]


@dataclass(frozen=True, slots=True)
class StageResult:
    """What became of one clip in one stage; of one video where `clip_id` is None.

    Args:
        state: `computed` now, `linked` from an earlier run, `done` before, `failed`, or `blocked` by a failure upstream.
        tables: what has to be written, by table name.
        provenance: goes into each written file.
        error: of a failure.
        stale: the table of an earlier input or operator at this place must be removed: no result will replace it.
        digest: of the result, or of the work that failed.
        dead_letter: it is not tried again until a person redrives it.
        recalled: nothing has changed since its video was last found complete.
        beside: the failure that this result of a fallback backend stands in for; it stays on record.
        packet_index: content of the video's packet index, which goes with its manifest; None where it has none.
    """

    video_id: str
    clip_id: str | None
    state: ResultState
    rows: int = 0
    seconds: float = 0.0
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    error: EgoworldError | None = None
    stale: bool = False
    digest: str = ""
    dead_letter: bool = False
    recalled: bool = False
    beside: StageResult | None = None
    packet_index: bytes | None = field(default=None, repr=False)

    @property
    def unread(self) -> bool:
        """Whether a file exists that cannot be read now: nothing was decided, so nothing is stored or recorded."""
        return isinstance(self.error, StorageUnavailable) and not self.digest
