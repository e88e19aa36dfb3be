"""The command `run`: a part of the chain over one video in the foreground, without Dagster."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from egoworld_assets.cli import videos
from egoworld_ops.naming import did_you_mean

if TYPE_CHECKING:
    from egoworld_assets.chain.pipeline import Part
    from egoworld_assets.chain.stage_result import StageResult
    from egoworld_ops.lake.lake import Run
    from egoworld_ops.settings import Settings
    from gpu_workers.pool import Pool


@click.command()
@click.option("--video", "video_id", required=True, help="The video, registered.")
@click.option("--clip", "clip_id", help="Only this clip.")
@click.option("--from", "first", help="The stage to begin with; what is upstream must be there.")
@click.option("--to", "last", help="The stage to end with.")
@click.option("--inline", is_flag=True, help="In this process, under a debugger if you like, whatever pool.kind says.")
@click.option("--anew", is_flag=True, help="Compute also what is there already.")
@click.option("--dry", is_flag=True, help="Compute anew and keep nothing: each stage reads what the one before has just made.")
@click.pass_obj
def run(
    profile: str | None, video_id: str, clip_id: str | None, first: str | None, last: str | None, inline: bool, anew: bool, dry: bool
) -> None:
    """Run a part of the chain over one video in the foreground, without Dagster; seconds, rows and digest of each clip are printed.

    Ends with 1 where not all of it could be done.
    """
    from egoworld_assets.chain import pipeline
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    part = pipeline.Part(first, last, clip_id, anew or dry, dry)
    part.stages(settings)
    [video_id] = videos.chosen(settings, [video_id])
    with _place(settings, video_id, part) as chosen:
        sys.exit(0 if _run(chosen, video_id, settings, _pool(settings, video_id, inline), part) else 1)


def _run(chosen: Run, video_id: str, settings: Settings, pool: Pool, part: Part) -> bool:
    """Whether all that was asked for could be done."""
    from egoworld_assets.chain import pipeline

    started = time.monotonic()
    states: Counter[str] = Counter()
    clips: set[str] = set()
    for stage, result in pipeline.process(chosen, [video_id], settings, pool, part):
        counted = f"{result.rows:>7} rows {result.seconds:>8.2f} s"
        click.echo(f"{stage:<12} {result.clip_id or '-':<18} {result.state:<9} {counted}  {result.digest[:12]}".rstrip())
        states[result.state] += 1
        clips |= {result.clip_id} if result.clip_id else set()
        _say_error(result)
    ok = not states["failed"]
    if ok and not clips and part.stages(settings) != [pipeline.MANIFEST]:
        ok = False
        click.echo(_no_clips(chosen, video_id, part.clip_id), err=True)
    if states["blocked"]:
        ok = False
        click.echo("blocked: an upstream input is missing, or failed; begin upstream with --from", err=True)
    done = ", ".join(f"{n} {state}" for state, n in states.items() if n) or "nothing"
    click.echo(f"{done} in {time.monotonic() - started:.1f} s{'; nothing was kept' if part.dry else ''}")
    return ok


def _say_error(result: StageResult) -> None:
    if result.error is None:
        return
    if result.dead_letter and "failures" not in result.tables and result.clip_id is not None:
        click.echo(f"  a dead letter from before, not tried again: {result.error}", err=True)
        click.echo("  `egoworld redrive` lets it be tried again; --anew tries it now", err=True)
        return
    click.echo(f"  {type(result.error).__name__}: {result.error}", err=True)
    for row in result.tables["failures"].to_pylist() if "failures" in result.tables else ():
        if row["traceback"]:
            click.echo(row["traceback"], err=True)


def _no_clips(chosen: Run, video_id: str, clip_id: str | None) -> str:
    from egoworld_assets.chain.clips import clips_of

    if clip_id is None:
        return f"video {video_id} has no clips: its manifest says why"
    return f"clip {clip_id} is not in video {video_id}. {did_you_mean(clip_id, [clip.clip_id for clip in clips_of(chosen, video_id)])}"


def _pool(settings: Settings, video_id: str, inline: bool) -> Pool:
    from gpu_workers.pool import make

    chosen = settings.pool.model_copy(update={"kind": "inline"}) if inline else settings.pool
    return make(chosen, f"egoworld run {video_id}")


@contextmanager
def _place(settings: Settings, video_id: str, part: Part) -> Iterator[Run]:
    """The run that results are written to: that of these settings; for a dry run one in a temporary folder, with all upstream results."""
    from egoworld_assets.chain import configuration, pipeline
    from egoworld_ops.lake.lake import Lake

    if not part.dry:
        yield configuration.open_run(settings)
        return
    source = configuration.peek_run(settings, video_id)
    with tempfile.TemporaryDirectory(prefix="egoworld-dry-") as folder:
        scratch = Lake(Path(folder)).open_run(configuration.frozen_configuration(settings), source.run_id, dict)
        made = set(part.stages(settings))
        for path in source.video_folder(video_id).glob("**/*.parquet"):
            stage = pipeline.MANIFEST if path.stem in ("videos", "clips") else path.stem.partition(".")[0]
            if stage not in made:
                target = scratch.path / path.relative_to(source.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        if pipeline.MANIFEST not in made and source.packet_index(video_id).exists():
            shutil.copyfile(source.packet_index(video_id), scratch.packet_index(video_id))
        shutil.copytree(source.lake.root / "intake", scratch.lake.root / "intake")
        yield scratch


COMMANDS = (run,)
