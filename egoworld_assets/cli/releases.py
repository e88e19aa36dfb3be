"""Commands about releases and the files of the lake: release, releases, verify, gc."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import click

from egoworld_assets.cli.group import Group
from egoworld_assets.cli.judging import left_out, of_verdict

_SAY_EVERY_S = 10.0


@click.command()
@click.argument("run_id", default="latest")
@click.option("--anew", is_flag=True, help="Put all videos into new parts: few large ones instead of many small ones.")
@of_verdict
@click.option("--all-clips", is_flag=True, help="All clips, also where the settings or the release before choose some by verdict.")
@click.pass_obj
def release(profile: str | None, run_id: str, anew: bool, verdict: str | None, without: Sequence[str], all_clips: bool) -> None:
    """Compact RUN_ID, or the latest run, into few large files that are quick to query. What is up to date is not written again.

    --verdict and --without stand in the place of `release.verdict` and `release.without` of the settings. Without any of these
    a release goes on with the choice of clips that it was made by.
    """
    from egoworld_ops.errors import BadSettings
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.query import catalog
    from egoworld_ops.release import place
    from egoworld_ops.release.cards import complaint
    from egoworld_ops.release.make import make_release
    from egoworld_ops.settings import load_settings

    if all_clips and (verdict or without):
        raise BadSettings("--all-clips", "chooses no clips by verdict, --verdict and --without do", "Name one of them")
    settings = load_settings(profile)
    run = runs.find(Lake(settings.lake), run_id)
    asked = settings.release
    if verdict or without:
        asked = asked.model_copy(update={"verdict": verdict, "without": tuple(without)})
    outcome = make_release(run, asked, anew, lambda line: click.echo(line, err=True), settings.policy, all_clips)
    database = catalog.write_catalog(run.lake)
    manifest = outcome.manifest
    for table, n in sorted(manifest.rows.items()):
        click.echo(f"{table:<12} {n:>12,} rows")
    if manifest.incomplete:
        click.echo(
            f"{len(manifest.incomplete)} video(s) are incomplete: {', '.join(list(manifest.incomplete)[:5])}; release.json has counts"
        )
    if manifest.verdicts:
        click.echo(f"{left_out(manifest.verdicts)}; {place.LEFT_OUT_NAME} says which and why; --all-clips takes them too")
    click.echo(
        f"{sum(len(part.videos) for part in manifest.parts)} videos in {len(manifest.parts)} part(s), {manifest.total_bytes / 1e6:,.1f} MB: "
        f"{outcome.written} files written, {outcome.kept} kept, {outcome.seconds:.1f} s"
    )
    if manifest.truth_cards:
        click.echo(f"{len(manifest.truth_cards)} truth card(s): `egoworld releases show {run.run_id}` prints them")
    for video_id in outcome.left_out:
        click.echo(complaint(video_id), err=True)
    for name, about in manifest.licences.items():
        click.echo(f"rests on weights under {name} (commercial use: {about['commercial']}): {', '.join(about['weights'])}")
    click.echo(f"{outcome.path}\nschema `release` in {database}")


@click.group("releases", cls=Group)
def releases_group() -> None:
    """The releases of the lake."""


@releases_group.command("list")
@click.pass_obj
def list_releases(profile: str | None) -> None:
    """Each release: its videos, parts, size and truth cards; which is the one that queries read as schema `release`."""
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.release import place
    from egoworld_ops.settings import load_settings

    store = Lake(load_settings(profile).lake)
    shown = place.shown(store).resolve()
    for run in store.runs():
        if (manifest := place.read(run)) is not None:
            videos = sum(len(part.videos) for part in manifest.parts)
            mark = "  schema `release`" if shown == place.folder(run).resolve() else ""
            click.echo(
                f"{run.run_id:<16} {videos} videos, {len(manifest.parts)} part(s), {manifest.total_bytes / 1e6:,.1f} MB, "
                f"{len(manifest.truth_cards)} truth card(s){f', {left_out(manifest.verdicts)}' if manifest.verdicts else ''}{mark}"
            )


@releases_group.command("show")
@click.argument("run_id", default="latest")
@click.pass_obj
def show_release(profile: str | None, run_id: str) -> None:
    """Print the page of the release of RUN_ID, or of the latest run: its tables, what is incomplete, and its truth cards."""
    from egoworld_ops.errors import SetupError
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.release import place
    from egoworld_ops.settings import load_settings

    run = runs.find(Lake(load_settings(profile).lake), run_id)
    path = place.folder(run) / place.PAGE_NAME
    if not path.is_file():
        raise SetupError(f"run {run.run_id}", f"has no release with a {place.PAGE_NAME}", f"Make it: egoworld release {run.run_id}")
    click.echo(path.read_text("utf-8"), nl=False)


@click.command()
@click.argument("run_id", default="latest")
@click.pass_obj
def verify(profile: str | None, run_id: str) -> None:
    """Read every file of RUN_ID, or of the latest run, and of its release; print a line for each that is damaged, with reason and cure."""
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings
    from egoworld_ops.upkeep.verify import verify as findings

    run = runs.find(Lake(load_settings(profile).lake), run_id)
    started, count = time.monotonic(), 0
    for finding in findings(run, _progress()):
        count += 1
        click.echo(str(finding))
    click.echo(f"run {run.run_id}: {count} finding(s), {time.monotonic() - started:.1f} s", err=True)
    sys.exit(1 if count else 0)


def _progress() -> Callable[[int, int], None]:
    said_at = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at > _SAY_EVERY_S:
            said_at = time.monotonic()
            click.echo(f"{done} of {total} videos and files of the release", err=True)

    return say


@click.command()
@click.option("--yes/--dry-run", default=False, help="Remove. Without it, only print what would be removed.")
@click.option("--keep", multiple=True, metavar="RUN", help="A run that stays; may be given again.")
@click.option(
    "--remove", multiple=True, metavar="RUN", help="A run that may be removed although it is the largest of the lake; may be given again."
)
@click.option("--older-h", default=24.0, show_default=True, help="Runs and temporary files that changed within so many hours stay.")
@click.pass_obj
def gc(profile: str | None, yes: bool, keep: Sequence[str], remove: Sequence[str], older_h: float) -> None:
    """Print which runs are not needed, and which orphans crashes left; with --yes, remove them. Files that other runs link to stay there.

    The latest run, the largest, and those released, in use or changed lately stay.
    """
    from egoworld_assets.chain.bookkeeping import ledger_of
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake, Run
    from egoworld_ops.settings import load_settings
    from egoworld_ops.upkeep.gc import changed, collect, largest, leased, plan

    settings = load_settings(profile)
    store, book = Lake(settings.lake), ledger_of(settings.lake, settings.ledger)
    named, may_go = ({runs.find(store, name).run_id for name in names} for names in (keep, remove))
    older_s = older_h * 3600
    most = largest(store)

    def stay(run_id: str) -> str:
        if run_id in named:
            return "named to be kept"
        if (age_s := time.time() - changed(Run(store, run_id))) < older_s:
            return f"changed {age_s / 3600:.1f} h ago, within {older_h:g} h (--older-h)"
        if most and most[0] == run_id and run_id not in may_go:
            return f"the largest of the lake, {most[1]} results; if it may go, say `--remove {run_id}`"
        return leased(book, run_id)

    done = collect(store, stay, older_s, book.forget) if yes else plan(store, stay, older_s)
    for run_id, reason in done.keep:
        click.echo(f"stays    run {run_id}: {reason}")
    for doomed in done.remove:
        click.echo(f"{'removed ' if yes else 'would go'} {doomed.path}: {doomed.reason}")
        if most and doomed.run_id == most[0]:
            click.echo(f"warning: run {most[0]} is the largest of the lake, {most[1]} results", err=True)
    if not done.remove:
        click.echo("nothing to remove")
        return
    freed = f"{done.freed_bytes / 1e6:,.1f} MB {'freed' if yes else 'would be freed'}"
    click.echo(f"{freed} on the disk, in whole blocks, by files of {done.named_bytes / 1e6:,.1f} MB; those that other runs link stay")
    if not yes:
        click.echo("nothing was removed; `egoworld gc --yes` does it")


COMMANDS = (release, releases_group, verify, gc)
