"""Commands about releases and what is on the disk: release, verify, gc."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import click

_SAY_EVERY_S = 10.0


@click.command()
@click.argument("run_id", default="latest")
@click.option("--anew", is_flag=True, help="Put all videos into new parts: few large ones in the place of many small ones.")
@click.pass_obj
def release(profile: str | None, run_id: str, anew: bool) -> None:
    """Compact RUN_ID, or the newest run, into few large files that are quick to query; as far as that is not done already."""
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.query import catalog
    from egoworld_ops.release.make import release as make
    from egoworld_ops.settings import load_settings

    settings = load_settings(profile)
    run = runs.find(Lake(settings.lake), run_id)
    outcome = make(run, settings.release, anew, lambda line: click.echo(line, err=True))
    database = catalog.write_catalog(run.lake)
    manifest = outcome.manifest
    for table, n in sorted(manifest.rows.items()):
        click.echo(f"{table:<12} {n:>12,} rows")
    if manifest.incomplete:
        click.echo(
            f"{len(manifest.incomplete)} video(s) are incomplete: {', '.join(list(manifest.incomplete)[:5])}; release.json has counts"
        )
    click.echo(
        f"{sum(len(part.videos) for part in manifest.parts)} videos in {len(manifest.parts)} part(s), {manifest.total_bytes / 1e6:,.1f} MB: "
        f"{outcome.written} files written, {outcome.kept} kept, {outcome.seconds:.1f} s"
    )
    click.echo(f"{outcome.path}\nschema `release` in {database}")


@click.command()
@click.argument("run_id", default="latest")
@click.pass_obj
def verify(profile: str | None, run_id: str) -> None:
    """Read every file of RUN_ID, or of the newest run, and of its release; print a line for each that cannot be trusted, with reason and cure."""
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
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--keep", multiple=True, metavar="RUN", help="A run that stays; may be given again.")
@click.option("--older-h", default=24.0, show_default=True, help="Age of temporary files that crashes left, hours.")
@click.pass_obj
def gc(profile: str | None, dry_run: bool, keep: Sequence[str], older_h: float) -> None:
    """Remove runs that are neither released nor in use, and what crashes left behind. Files that other runs link stay theirs."""
    from egoworld_assets.chain.recording import ledger_of
    from egoworld_ops.lake import runs
    from egoworld_ops.lake.lake import Lake
    from egoworld_ops.settings import load_settings
    from egoworld_ops.upkeep.gc import collect, leased, plan

    settings = load_settings(profile)
    store, book = Lake(settings.lake), ledger_of(settings)
    named = {runs.find(store, name).run_id for name in keep}

    def stay(run_id: str) -> str:
        return "named to be kept" if run_id in named else leased(book, run_id)

    older_s = older_h * 3600
    done = plan(store, stay, older_s) if dry_run else collect(store, stay, older_s, book.forget)
    for run_id, reason in done.keep:
        click.echo(f"stays    run {run_id}: {reason}")
    for doomed in done.remove:
        click.echo(f"{'would go' if dry_run else 'removed '} {doomed.path}: {doomed.reason}")
    freed = f"{done.freed_bytes / 1e6:,.1f} MB {'would be' if dry_run else 'are'} free"
    click.echo(f"{freed}; {done.named_bytes / 1e6:,.1f} MB of files lose a name here, the difference is linked from elsewhere")


COMMANDS = (release, verify, gc)
