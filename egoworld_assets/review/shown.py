"""What all pages need: the lake, the indexes of its runs, what is known of clips, and what every page says at its head."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from egoworld_assets.chain.raw_files import RawFiles
from egoworld_assets.chain.watching import clips_to_watch
from egoworld_assets.review.annotated import Annotated
from egoworld_assets.review.asked import NotThere
from egoworld_assets.review.index import Index, Indexes
from egoworld_assets.review.media import Copies
from egoworld_assets.review.queue import Queue
from egoworld_ops.contract import schema
from egoworld_ops.contract.quality import DriftSettings
from egoworld_ops.errors import SetupError, UnknownVideo
from egoworld_ops.lake import memo, runs
from egoworld_ops.lake.lake import Lake, Run
from egoworld_ops.report.layers import ClipLayers, read_layers
from egoworld_ops.types import Clip


class LayersInUse:
    """The layers of the clips asked for last, for as long as the states of their video are the same. One thread at a time uses them."""

    MOST = 6

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], ClipLayers] = {}
        self._alone = threading.Lock()

    @contextmanager
    def of(self, run: Run, video_id: str, clip_id: str) -> Iterator[ClipLayers]:
        """The layers of a clip.

        Raises:
            NotThere: the run was made under another version of the data contract, whose tables have other columns.
            ContractError, StorageUnavailable: as `read_layers`.
        """
        if (version := runs.contract_of(run)) != schema.SCHEMA_VERSION:
            reason = f"was made under version {version} of the data contract, and this program reads {schema.SCHEMA_VERSION}"
            raise NotThere(
                f"what is drawn of run {run.run_id}", reason, "Look at it with the code that made it, or process its videos again"
            )
        state = memo.file_state(run.video_table("states", video_id)) or ()
        key = (run.run_id, video_id, clip_id, *state)
        with self._alone:
            self._known[key] = layers = self._known.pop(key, None) or read_layers(run, video_id, clip_id)
            for old in list(self._known)[: -self.MOST]:
                del self._known[old]
            yield layers


@dataclass(frozen=True, slots=True)
class Shown:
    """Of one server; `annotated` is the video that may be annotated, if there is one."""

    lake: Lake
    indexes: Indexes
    copies: Copies
    drift: DriftSettings
    annotated: Annotated | None = None
    layers: LayersInUse = field(default_factory=LayersInUse)
    raw_files: RawFiles = field(default_factory=lambda: RawFiles(None))
    queue: Queue = field(default_factory=Queue)
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def run(self, request: Request) -> tuple[Run, Index]:
        """The run that the address names, one of those the lake has, and its index.

        Raises:
            NotThere: the lake has none of that name, or no longer.
        """
        try:
            run = runs.find(self.lake, request.path_params["run_id"])
        except SetupError as error:
            raise NotThere(error.culprit, error.reason, error.cure) from error
        return run, self.index(request, run)

    def index(self, request: Request, run: Run) -> Index:
        """The index of a run for a page. One that has not gone through the run yet is noted now, before anything is asked of it: what the page does
        not show must not be taken for all there is.
        """
        index = self.indexes.of(run)
        if not index.whole.is_set():
            request.state.reading = [*getattr(request.state, "reading", ()), index]
        return index

    def clip(self, request: Request) -> tuple[Run, Clip]:
        """The run and the clip that the address names, one of those in the manifest of the video.

        Raises:
            NotThere: there is none of that name.
            ContractError, StorageUnavailable: the manifest cannot be read.
        """
        run, _ = self.run(request)
        try:
            [clip] = clips_to_watch(run, request.path_params["video_id"], request.path_params["clip_id"])
        except UnknownVideo as error:
            raise NotThere(error.culprit, error.reason, error.cure) from error
        return run, clip

    def common(self, request: Request, run: Run | None = None, index: Index | None = None) -> dict[str, Any]:
        """What the frame of every page shows."""
        reading = getattr(request.state, "reading", ())
        about_run = {"run_shown": run, "index": index, "reading": reading}
        return {"lake": self.lake.root, "path": request.url.path, "annotated": self.annotated, **about_run}
