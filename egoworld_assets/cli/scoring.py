"""The command `score`: the rows of a video against what is known to be true."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


@click.command()
@click.argument("run_id", metavar="RUN", default="latest")
@click.option("--truth", "truth_path", required=True, type=click.Path(path_type=Path), help="A folder or file of truth: docs/scoring.md.")
@click.option("--video", "video_id", help="The video it is of; not needed where the run has one.")
@click.option("--stream", help="The camera, where the truth has several.")
@click.pass_obj
def score(profile: str | None, run_id: str, truth_path: Path, video_id: str | None, stream: str | None) -> None:
    """Print how far the rows of a video in RUN are from the truth, and keep the card in the run and in the UI."""
    import json

    import pyarrow as pa

    from egoworld_assets.cli import processing
    from egoworld_assets.scored import observations
    from egoworld_ops.contract import schema
    from egoworld_ops.exports.base import rows_of
    from egoworld_ops.files.whole import write_bytes
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.score import measuring, readers

    settings = processing.settings(profile)
    run = runs.find(Lake(settings.lake), run_id)
    truth = readers.read(truth_path, stream)
    wanted = _chosen(run.run_id, rows_of(run).videos, video_id)
    rows = rows_of(run, [wanted], assumed_metric=True)
    made = measuring.make_card({name: pa.concat_tables([schema.empty(name), *rows.of(name)]) for name in rows.tables}, truth)
    for line in made.lines():
        click.echo(line)
    path = run.truth_card(wanted)
    about = {"run_id": run.run_id, "video_id": wanted, "made_of": rows.made_of()}
    write_bytes(path, json.dumps(about | made.to_json(), indent=1).encode())
    with processing.instance() as dagster:
        for observation in observations(made, run.run_id, wanted):
            dagster.report_runless_asset_event(observation)
    click.echo(f"kept as {path}")


def _chosen(run_id: str, known: Sequence[str], video_id: str | None) -> str:
    from egoworld_ops.errors import UnknownVideo

    if video_id in known:
        return str(video_id)
    if video_id is None and len(known) == 1:
        return known[0]
    reason = f"is not in run {run_id}" if video_id else f"none is named, and run {run_id} has {len(known)}"
    raise UnknownVideo(f"video {video_id or ''}".strip(), reason, f"Name one with --video: {', '.join(known[:5]) or 'there is none'}")


COMMANDS = (score,)
