"""What an exporter gets: the rows of a run that count, each owned frame once, as a stream. Knows no format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from egoworld_ops.contract import schema, world
from egoworld_ops.contract.links import LINKS
from egoworld_ops.lake import chosen
from egoworld_ops.lake.assumed import has_assumed
from egoworld_ops.lake.lake import RELEASED_TABLES, Run
from egoworld_ops.release import cards
from egoworld_ops.release.cards import Cards
from egoworld_ops.release.plan import RunFiles
from egoworld_ops.release.rows import released_rows


@dataclass(frozen=True)
class Rows:
    """The rows of a run that count: results made of inputs that count, of the frames that each clip owns.

    Args:
        run: where they are from.
        videos: the videos they are of, sorted.
        assumed_metric: whether lengths that rest on an assumed focal length are among the values; else they are null, and `metric` says why.
        incomplete: by video and stage, how many clips have no table that counts, and why; None stands for a video without a manifest.
        verdicts: how clips were chosen by people's verdicts, as in `release.json`; None where all are taken.
    """

    run: Run
    videos: Sequence[str]
    incomplete: Mapping[str, Mapping[str, Mapping[str, int]] | None]
    _contents: RunFiles
    assumed_metric: bool = False
    verdicts: Mapping[str, Any] | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """All tables, each after those its rows stand on, and the views of the world made of them."""
        return (*RELEASED_TABLES, *world.VIEWS)

    def schema_of(self, table: str) -> pa.Schema:
        """The contract of a table: columns with their types, units, frames and meaning."""
        return schema.table(table).arrow_schema()

    def of(self, table: str) -> Iterator[pa.Table]:
        """The rows of a table or view, clip by clip, in the contract's order. May be empty; may be called again.

        Raises:
            ContractError, InputChanged: a file is damaged, or is not the one that was there when the rows were asked for.
        """
        if table in LINKS:
            yield from released_rows(self._contents.sources(self.videos, (table,))[table], self.assumed_metric)
            return
        for video_id in self.videos:
            if table in world.VIEWS:
                yield from self._in_the_world(world.VIEWS[table], video_id)
                continue
            yield from released_rows(self._contents.sources([video_id], (table,))[table], self.assumed_metric)

    def _in_the_world(self, view: world.WorldView, video_id: str) -> Iterator[pa.Table]:
        """The rows of a view, of the clips that have both tables it is made of, and a camera in any frame."""
        things, cameras = (self._contents.sources([video_id], view.reads)[name] for name in view.reads)
        camera_of = {source.key: source for source in cameras}
        for source in things:
            if source.key not in camera_of:
                continue
            [camera] = released_rows([camera_of[source.key]], self.assumed_metric)
            if camera.num_rows:
                [seen] = released_rows([source], self.assumed_metric)
                yield view.rows(dict(zip(view.reads, (seen, camera), strict=True)))

    def made_of(self) -> str:
        """SHA-256 over the digests of the files that the rows are from: another one means other rows."""
        return self._contents.made_of(self.videos)

    @cached_property
    def cards(self) -> Cards:
        """The truth cards of the videos: those that speak of the very rows.

        Raises:
            ContractError, InputChanged, StorageUnavailable: as `cards.of_run`.
        """
        return cards.of_run(self.run, self.videos, self._contents)

    def described(self) -> dict[str, Any]:
        """What an export should say of its origin, as JSON: run, schema and conventions, videos, what is incomplete, and by video the SHA-256 of
        its truth card, which lies in `truth_cards/`; how clips were chosen, as in `release.json`.
        """
        return {
            "run_id": self.run.run_id,
            "schema": schema.SCHEMA_VERSION,
            "conventions": dict(schema.CONVENTIONS),
            "videos": list(self.videos),
            "incomplete": dict(self.incomplete),
            "truth_cards": self.cards.hashes,
            "verdicts": self.verdicts,
            "assumed_metric": self.assumed_metric,
            "assumed_lengths": {table: list(columns) for table in self.tables if (columns := schema.table(table).assumed_lengths)},
            "videos_of_assumed_focal_length": self.not_metric(),
        }

    def not_metric(self) -> list[str]:
        """The videos with rows whose lengths rest on an assumed focal length.

        Raises:
            ContractError, StorageUnavailable: a file is damaged, or cannot be read now.
        """
        tables = [table for table in RELEASED_TABLES if schema.table(table).assumed_lengths]
        return [v for v in self.videos if any(has_assumed(s.path, t) for t in tables for s in self._contents.sources([v], (t,))[t])]


def rows_of(
    run: Run, videos: Sequence[str] = (), assumed_metric: bool = False, verdict: str | None = None, without: Sequence[str] = ()
) -> Rows:
    """The rows of a run, of these videos or of all.

    Args:
        assumed_metric: take lengths that rest on an assumed focal length too.
        verdict, without: only of clips that people's verdicts choose, see `lake/chosen.py`.

    Raises:
        BadSettings: a word is no verdict, or no clip is so.
        ContractError: a manifest, or the table of verdicts, cannot be read.
    """
    contents = RunFiles(run, chosen.choose(run, verdict, without))
    selection = contents.select("include")
    wanted = [video_id for video_id in selection.videos if not videos or video_id in videos]
    incomplete = {v: missing for v, missing in selection.incomplete.items() if not videos or v in videos}
    left_out = {v: clips for v, clips in selection.left_out.items() if not videos or v in videos}
    return Rows(run, wanted, incomplete, contents, assumed_metric, contents.chosen(replace(selection, left_out=left_out)))
