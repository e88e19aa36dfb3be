"""The main job on a laptop: register a video, run the chain, show the results and questions to ask next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from egoworld_assets.chain import configuration
from egoworld_assets.chain.tables import tables_of
from egoworld_assets.cli import processing
from egoworld_assets.cli.videos import described
from egoworld_assets.preview import FILE_NAME as PREVIEW
from egoworld_ops.errors import InputError
from egoworld_ops.lake import states
from egoworld_ops.lake.lake import Run
from egoworld_ops.query import catalog
from egoworld_ops.query.questions import QUERIES, answer
from egoworld_ops.raw import register
from egoworld_ops.report import ground_truth
from egoworld_ops.settings import Settings
from egoworld_ops.synthetic import load_truth

EXAMPLE = Path(__file__).parents[1] / "example" / "kitchen.mp4"
"""Shipped with its sidecar and its truth."""

Say = Callable[[str], None]


def run(profile: str | None, video: Path | None, say: Say) -> bool:
    """Run the chain over `video`, or over the synthetic example, and show the results; false where something failed.

    Raises:
        InputError: the file cannot be a video.
    """
    settings = processing.settings(profile)
    path = video or EXAMPLE
    say(f"Video     {path.absolute()}")
    video_id = _register(settings, path)
    ok = not processing.process(settings, [video_id], say, profile)
    done = configuration.find_run(settings)
    if done is None:
        return False
    folder = done.video_folder(video_id)
    say(f"\nResults   {folder}")
    if (state := states.video_state(done, video_id)) is not None:
        say(f"Status    {described(state)}")
    if (picture := folder / PREVIEW).is_file():
        say(f"Picture   {picture}")
    say(f"Watch it  egoworld render {video_id}")
    if not ok:
        say("\nNot everything could be done; what stopped it is said above. `egoworld dead-letters` lists clips that failed")
        return False
    database = catalog.write_catalog(done.lake)
    say(f"Database  {database}\n")
    if video is None:
        ok = _show_truth(done, video_id, path, say)
    _show_queries(database, say)
    return ok


def _register(settings: Settings, path: Path) -> str:
    if path.is_dir():
        raise InputError(path, "is a folder", "Name one video; `egoworld register FOLDER` takes all in a folder")
    found = register.register(settings.lake, [path])
    if not found.video_ids:
        row = next(iter(found.refused), {"reason": "is not a video file", "cure": "Name a video file"})
        if row.get("video_id"):
            return str(row["video_id"])
        raise InputError(path, row["reason"], row["cure"])
    processing.add_partitions(settings, found.video_ids)
    return found.video_ids[0]


def _show_truth(run: Run, video_id: str, path: Path, say: Say) -> bool:
    figures = ground_truth.compare(tables_of(run, video_id), load_truth(path.with_suffix(".truth")))
    say(ground_truth.HEADER)
    for figure in figures:
        say(f"{figure}{'' if figure.ok else '  MISSED'}")
    return all(figure.ok for figure in figures)


def _show_queries(database: Path, say: Say) -> None:
    first, *others = QUERIES.items()
    say(f"\n{first[0]}\n{first[1]}\n{answer(database, first[1])}")
    say("Try next, with `egoworld sql 'SELECT ...'` or in Python (`egoworld queries` runs them all):")
    for question, _ in others:
        say(f"  - {question}")
