"""Commands about what happened and why, and about doing a part of it again: run, dead-letters, redrive, explain, runs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import click

_STAGE = "Name of a stage."


@click.command()
@click.option("--video", "video_id", required=True, help="The video, registered.")
@click.option("--clip", "clip_id", help="Only this clip.")
@click.option("--from", "first", help="The stage to begin with; what is above must be there.")
@click.option("--to", "last", help="The stage to end with.")
@click.option("--inline", is_flag=True, help="In this process, under a debugger if you like, not in the pool.")
@click.option("--anew", is_flag=True, help="Compute also what is there already.")
@click.option("--dry", is_flag=True, help="Compute anew and store nothing.")
@click.pass_obj
def run(
    profile: str | None, video_id: str, clip_id: str | None, first: str | None, last: str | None, inline: bool, anew: bool, dry: bool
) -> None:
    """Run a part of the chain over one video in the foreground, without Dagster; seconds, rows and digest of each clip are printed.

    Ends with 1 where not all of it could be done.
    """
    from egoworld_assets.chain import pipeline
    from egoworld_ops.settings import load_settings
    from gpu_workers.broker_pool import BrokerPool
    from gpu_workers.inline import InlinePool

    settings = load_settings(profile)
    pool = InlinePool(settings.pool.threads) if inline else BrokerPool(settings.pool, f"egoworld run {video_id}")
    part = pipeline.Part(first, last, clip_id, anew or dry, dry)
    failed = False
    started = time.monotonic()
    states: Counter[str] = Counter()
    clips: set[str] = set()
    chosen = pipeline.peek_run(settings, video_id) if dry else pipeline.open_run(settings)
    for stage, result in pipeline.process(chosen, [video_id], settings, pool, part):
        counted = f"{result.rows:>7} rows {result.seconds:>8.2f} s"
        click.echo(f"{stage:<12} {result.clip_id or '-':<18} {result.state:<9} {counted}  {result.digest[:12]}".rstrip())
        states[result.state] += 1
        clips |= {result.clip_id} if result.clip_id else set()
        if result.error is not None:
            failed = True
            click.echo(f"  {type(result.error).__name__}: {result.error}", err=True)
            for row in result.tables["failures"].to_pylist() if "failures" in result.tables else ():
                click.echo(row["traceback"], err=True)
    if not failed and not clips and part.stages() != [pipeline.MANIFEST]:
        failed = True
        click.echo(
            f"clip {clip_id} is not in video {video_id}" if clip_id else f"video {video_id} has no clips: its manifest says why", err=True
        )
    if states["blocked"]:
        failed = True
        click.echo("blocked: an input from further up is missing, or failed; begin further up with --from", err=True)
    click.echo(f"{', '.join(f'{n} {state}' for state, n in states.items() if n) or 'nothing'} in {time.monotonic() - started:.1f} s")
    sys.exit(1 if failed else 0)


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--run", "run_id", default="latest", show_default=True, help="The run to look at."),
        click.option("--video", "video_id", help="Only of this video."),
        click.option("--clip", "clip_id", help="Only this clip."),
        click.option("--stage", help="Only in this stage."),
        click.option("--class", "error_class", help="Only of this class of error."),
    ):
        command = option(command)
    return command


@click.command("dead-letters")
@_which
@click.option("--traceback", is_flag=True, help="Show where in the code it happened.")
@click.pass_obj
def dead_letters(
    profile: str | None,
    run_id: str,
    video_id: str | None,
    clip_id: str | None,
    stage: str | None,
    error_class: str | None,
    traceback: bool,
) -> None:
    """List the clips that are not tried again until somebody redrives them, each with the command that reproduces it alone."""
    from egoworld_ops.lake import failures, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    found = list(failures.find(runs.find(Lake(load_settings(profile).lake), run_id), failures.Which(video_id, clip_id, stage, error_class)))
    for letter in found:
        frame = "" if letter.frame_index is None else f", at frame {letter.frame_index}"
        click.echo(f"{letter.video_id} {letter.clip_id} {letter.stage} ({letter.backend}){frame}, {letter.attempts} attempt(s)")
        click.echo(f"  {letter.error_class}: {letter.reason}. {letter.cure}")
        click.echo(f"  {letter.command}")
        if traceback and letter.traceback:
            click.echo("".join(f"  | {line}\n" for line in letter.traceback.splitlines()), nl=False)
    click.echo(f"{len(found)} dead letter(s)")


@click.command()
@_which
@click.option("--all", "everything", is_flag=True, help="Redrive all of the run, where nothing else is chosen.")
@click.pass_obj
def redrive(
    profile: str | None,
    run_id: str,
    video_id: str | None,
    clip_id: str | None,
    stage: str | None,
    error_class: str | None,
    everything: bool,
) -> None:
    """Let the next materialization try dead letters again, by video, clip, stage or class of error."""
    from egoworld_assets.chain.recording import MANIFEST, ledger_of
    from egoworld_ops.lake import failures, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.ledger import Change, ClipKey, State
    from egoworld_ops.settings import load_settings

    if stage == MANIFEST:
        raise click.UsageError("a manifest is not redriven, it is made anew: `egoworld run --video VIDEO_ID --to manifest --anew`")
    which = failures.Which(video_id, clip_id, stage, error_class)
    if which == failures.Which() and not everything:
        raise click.UsageError("choose by --video, --clip, --stage or --class, or say --all")
    settings = load_settings(profile)
    chosen = runs.find(Lake(settings.lake), run_id)
    driven = failures.redrive(chosen, which)
    keys = [ClipKey(letter.run_id, letter.video_id, letter.clip_id, letter.stage) for letter in driven]
    ledger_of(settings).move("redrive", [Change(key, State.PENDING) for key in keys])
    for letter in driven:
        click.echo(f"{letter.video_id} {letter.clip_id} {letter.stage}: {letter.error_class}")
    click.echo(f"{len(driven)} to be tried again; materialize their assets")


@click.command()
@click.argument("video_id")
@click.argument("clip_id")
@click.argument("stage")
@click.pass_obj
def explain(profile: str | None, video_id: str, clip_id: str, stage: str) -> None:
    """Say whether the next materialization would compute a clip, and which part of its digest differs."""
    from egoworld_assets.chain.explaining import explain as explained
    from egoworld_ops.settings import load_settings

    said = explained(load_settings(profile), video_id, clip_id, stage)
    click.echo(said.verdict)
    if said.nearest:
        click.echo(f"nearest result: {said.nearest}")
    for difference in said.differences:
        click.echo(f"  {difference.name}: {difference.a!r} -> {difference.b!r}")


@click.group("runs")
def runs_group() -> None:
    """The runs of the lake: frozen configurations and what they produced."""


@runs_group.command("list")
@click.pass_obj
def list_runs(profile: str | None) -> None:
    """Each run: when it was opened, with what code, and clips done, failed and dead; which is the latest, and whether it is pinned."""
    from egoworld_ops.lake import latest, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    store = Lake(load_settings(profile).lake)
    meant = store.latest_run()
    mark = "  latest, pinned" if latest.is_pinned(store) else "  latest"
    for each in store.runs():
        said = runs.described(each)
        git = said.get("git") or {}
        code = f"{str(git.get('commit', ''))[:10]}{' (changed)' if git.get('dirty') else ''}"
        total: Counter[str] = sum(runs.counts(each).values(), Counter())
        counted = ", ".join(f"{total[state]} {state}" for state in ("done", "failed", "dead letters"))
        click.echo(f"{each.run_id:<16} {str(said.get('created_at', ''))[:19]}  {code:<20} {counted}{mark if each == meant else ''}")


@runs_group.command()
@click.argument("run_id", default="latest")
@click.pass_obj
def show(profile: str | None, run_id: str) -> None:
    """All that is known of a run."""
    import json

    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    found = runs.find(Lake(load_settings(profile).lake), run_id)
    click.echo(json.dumps(runs.described(found) | {"counts": runs.counts(found)}, indent=1, sort_keys=True))


@runs_group.command()
@click.argument("run_id", required=False)
@click.option("--release", "let_go", is_flag=True, help="Let the latest run change by itself again.")
@click.pass_obj
def use(profile: str | None, run_id: str | None, let_go: bool) -> None:
    """Pin RUN_ID as the latest run: queries, and commands that name no run, mean it until another is pinned, or `--release`."""
    from egoworld_ops.lake import latest, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.query import catalog
    from egoworld_ops.settings import load_settings

    if (run_id is None) != let_go:
        raise click.UsageError("name a run to pin, or say --release")
    store = Lake(load_settings(profile).lake)
    if run_id is None:
        click.echo(f"latest  {latest.follow(store).run_id}, until a later run holds as much")
    else:
        found = runs.find(store, run_id)
        latest.use(found)
        click.echo(f"latest  {found.run_id}, pinned; `egoworld runs use --release` lets it go")
    catalog.write_catalog(store)


@runs_group.command()
@click.argument("a")
@click.argument("b")
@click.pass_obj
def diff(profile: str | None, a: str, b: str) -> None:
    """In what two runs differ: configuration, code and packages, and the quality metrics of clips whose results differ."""
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    store = Lake(load_settings(profile).lake)
    left, right = runs.find(store, a), runs.find(store, b)
    for difference in runs.configuration(left, right):
        click.echo(f"{difference.name}: {difference.a!r} -> {difference.b!r}")
    clips = list(runs.results(left, right))
    for clip in clips:
        metrics = ", ".join(f"{m.name} {_number(m.a)} -> {_number(m.b)}" for m in clip.metrics) or "the same metrics"
        click.echo(f"{clip.stage:<12} {clip.video_id} {clip.clip_id}: {metrics}")
    click.echo(f"{len(clips)} result(s) differ")


@click.group("ledger")
def ledger_group() -> None:
    """The record of what happened to every clip in every stage."""


@ledger_group.command()
@click.pass_obj
def rebuild(profile: str | None) -> None:
    """Make the ledger again from the files, which are the truth."""
    from egoworld_assets.chain.recording import ledger_of
    from egoworld_ops import ledger
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    done = ledger.rebuild(ledger_of(settings), Lake(settings.lake))
    for path in done.unreadable:
        click.echo(f"cannot be read: {path}", err=True)
    found = ", ".join(f"{n} {state}" for state, n in done.found.items()) or "nothing"
    changed = f"{done.changed} rows changed, {done.reset} waiting again, {done.running} left to who runs them"
    click.echo(f"the files say: {found}; {changed}; {done.seconds:.1f} s")


@ledger_group.command()
@click.argument("run_id", default="latest")
@click.pass_obj
def counts(profile: str | None, run_id: str) -> None:
    """How many clips of a run are in which state, by stage."""
    from egoworld_assets.chain.recording import ledger_of
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    for stage, counted in ledger_of(settings).counts(runs.find(Lake(settings.lake), run_id).run_id).items():
        click.echo(f"{stage:<12} {', '.join(f'{n} {state}' for state, n in counted.items())}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


COMMANDS = (run, dead_letters, redrive, explain, runs_group, ledger_group)
