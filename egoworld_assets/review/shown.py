"""What all pages need: the lake, the indexes of its runs, and what every page says at its head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from egoworld_assets.review.asked import NotThere
from egoworld_assets.review.index import Index, Indexes
from egoworld_ops.errors import SetupError
from egoworld_ops.lake import runs
from egoworld_ops.lake.lake import Lake, Run


@dataclass(frozen=True, slots=True)
class Shown:
    """Of one server."""

    lake: Lake
    indexes: Indexes

    def run(self, request: Request) -> tuple[Run, Index]:
        """The run that the address names, one of those the lake has, and its index.

        Raises:
            NotThere: the lake has none of that name, or no longer.
        """
        try:
            run = runs.find(self.lake, request.path_params["run_id"])
        except SetupError as error:
            raise NotThere(error.culprit, error.reason, error.cure) from error
        return run, self.indexes.of(run)

    def common(self, request: Request, run: Run | None = None, index: Index | None = None) -> dict[str, Any]:
        """What the frame of every page shows."""
        return {"lake": self.lake.root, "run_shown": run, "index": index, "path": request.url.path}
