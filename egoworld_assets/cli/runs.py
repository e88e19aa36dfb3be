"""The commands `explain`, `runs` and `ledger`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click

from egoworld_assets.cli.group import Group


@click.command()
@click.argument("video_id")
@click.argument("clip_id")
@click.argument("stage")
@click.pass_obj
def explain(profile: str | None, video_id: str, clip_id: str, stage: str) -> None:
    """Print whether the next materialization would compute a clip, and which part of its digest differs."""
    from egoworld_assets.chain import configuration
    from egoworld_assets.chain.clips import has_manifest
    from egoworld_assets.chain.explaining import explain as explained
    from egoworld_assets.cli import videos
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    if not has_manifest(configuration.peek_run(settings, video_id), video_id):
        [video_id] = videos.chosen(settings, [video_id])  # names the nearest video if this one is not registered
    said = explained(settings, video_id, clip_id, stage)
    click.echo(said.verdict)
    if said.nearest:
        click.echo(f"nearest result: {said.nearest}")
    for difference in said.differences:
        click.echo(f"  {difference.name}: {difference.a!r} -> {difference.b!r}")


@click.group("runs", cls=Group)
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
    found = store.runs()
    if not found:
        click.echo(f"no run yet; lake {store.root}")
    for each in found:
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
    """Print all that is known about a run, and a line for each quality metric that warns of videos, and of lengths with an assumed focal length."""
    import json

    from egoworld_ops.contract.schema import INTRINSICS_CURE
    from egoworld_ops.lake import judging, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    found = runs.find(Lake(settings.lake), run_id)
    judged = judging.of_run(found, settings.quality)
    said = runs.described(found) | {"counts": runs.counts(found), "videos_of_assumed_focal_length": judged.assumed}
    click.echo(json.dumps(said, indent=1, sort_keys=True))
    for warned in judged.warned:
        click.echo(f"warning: {warned.stage} of {_some(warned.videos)}: {warned.said}", err=True)
    if judged.assumed:
        click.echo(f"not metric: lengths of {_some(judged.assumed)} rest on an assumed focal length. {INTRINSICS_CURE}", err=True)


def _some(videos: Sequence[str]) -> str:
    """How many videos, and the names of the first five."""
    return f"{len(videos)} video(s) ({', '.join(videos[:5])}{', ...' if len(videos) > 5 else ''})"


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
@click.option("--clips", "each", is_flag=True, help="Print every clip whose result differs.")
@click.pass_obj
def diff(profile: str | None, a: str, b: str, each: bool) -> None:
    """Print how two runs differ: configuration, code, packages, and each quality metric, with the ten clips that are worst in B compared with A."""
    from egoworld_ops.lake import comparing, runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    store = Lake(load_settings(profile).lake)
    left, right = runs.find(store, a), runs.find(store, b)
    for difference in runs.configuration(left, right):
        click.echo(f"{difference.name}: {difference.a!r} -> {difference.b!r}")
    found = comparing.Comparison()
    for clip in runs.results(left, right):
        found.add(clip)
        if each:
            metrics = ", ".join(f"{m.name} {_number(m.a)} -> {_number(m.b)}" for m in clip.metrics) or "the same metrics"
            click.echo(f"{clip.stage:<12} {clip.video_id} {clip.clip_id}: {metrics}")
    for metric in found.metrics():
        click.echo(f"{metric.stage:<12} {metric.name}: median {_number(metric.a)} -> {_number(metric.b)} over {metric.clips} clip(s)")
        for worse in metric.worst:
            click.echo(f"{'':<12}   {worse.video_id} {worse.clip_id} {_number(worse.a)} -> {_number(worse.b)}")
    for stage, (in_a, in_b) in found.alone.items():
        click.echo(f"{stage:<12} {in_a} clip(s) only in {left.run_id}, {in_b} only in {right.run_id}")
    click.echo(f"{found.results} result(s) differ{'; --clips prints each' if found.results and not each else ''}")


@click.group("ledger", cls=Group)
def ledger_group() -> None:
    """The ledger: what happened to every clip in every stage."""


@ledger_group.command()
@click.pass_obj
def rebuild(profile: str | None) -> None:
    """Rebuild the ledger from the files of the lake, which are the truth."""
    from egoworld_assets.chain.bookkeeping import ledger_of
    from egoworld_ops import ledger
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    done = ledger.rebuild(ledger_of(settings.lake, settings.ledger), Lake(settings.lake))
    for path in done.unreadable:
        click.echo(f"cannot be read: {path}", err=True)
    found = ", ".join(f"{n} {state}" for state, n in done.found.items()) or "nothing"
    changed = f"{done.changed} rows changed, {done.reset} waiting again, {done.running} left to who runs them"
    click.echo(f"the files say: {found}; {changed}; {done.seconds:.1f} s")


@ledger_group.command()
@click.argument("run_id", default="latest")
@click.pass_obj
def counts(profile: str | None, run_id: str) -> None:
    """Print how many clips of a run are in which state, by stage."""
    from egoworld_assets.chain.bookkeeping import ledger_of
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    for stage, counted in ledger_of(settings.lake, settings.ledger).counts(runs.find(Lake(settings.lake), run_id).run_id).items():
        click.echo(f"{stage:<12} {', '.join(f'{n} {state}' for state, n in counted.items())}")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


COMMANDS = (explain, runs_group, ledger_group)
